"""Bad input gets a clear error with its code and a hint, or the documented behaviour; never a wrong answer."""

import socket

import psycopg
import pytest
from fix_sidecar import running_sidecar, wait_until
from table_kit import PULSE, SEARCH, VectorTable, gaussian, notices_of, refused, text_of

from ruvector.alembic.install import install
from ruvector.errors import NotInstalled, PermissionDenied

DIMS = 4
L2 = VectorTable("bad_l2", dims=DIMS)
COSINE = VectorTable("bad_cosine", dims=DIMS, metric="cosine")
UNTYPED = VectorTable("bad_untyped", dims=DIMS, dims_given=DIMS, typed=False, metric="cosine")
HALF = VectorTable("bad_half", dims=DIMS, element="halfvec", metric="cosine")
TABLES = (L2, COSINE, UNTYPED, HALF)


@pytest.fixture(scope="module")
def attached(shared_sidecar, shared_database):
    with shared_database.connect() as connection:
        for table in TABLES:
            table.create(connection)
            table.insert(connection, gaussian(50, DIMS, seed=20))
            table.attach(connection)
        shared_sidecar.wait_live(*(table.name for table in TABLES))
        yield connection


VECTOR_HINT = "Give a vector with 4 dimensions."
K_HINT = "Ask for fewer rows; read a whole table without an index."
ZERO = "the query vector is all zeros, which has no direction under the cosine metric"
ZERO_HINT = "Give a vector with at least one element that is not zero."

# arguments of ruvector_search, SQLSTATE, message, hint
BAD_SEARCHES = [
    ("'bad_l2', '[1,2,3]'", "22023", "the query has 3 dimensions, collection bad_l2 has 4", VECTOR_HINT),
    ("'bad_l2', '[1,2,3,4,5]'", "22023", "the query has 5 dimensions, collection bad_l2 has 4", VECTOR_HINT),
    ("'bad_untyped', '[1]'", "22023", "the query has 1 dimensions, collection bad_untyped has 4", VECTOR_HINT),
    ("'bad_l2', '[1,2,NaN,4]'", "22000", "NaN not allowed in vector", ""),
    ("'bad_l2', '[1,2,Infinity,4]'", "22000", "infinite value not allowed in vector", ""),
    ("'bad_l2', '[1,2,-inf,4]'", "22000", "infinite value not allowed in vector", ""),
    ("'bad_l2', ARRAY[1, 2, 'NaN', 4]::real[]::vector", "22000", "NaN not allowed in vector", ""),
    ("'bad_l2', '[1,2,x,4]'", "22P02", 'invalid input syntax for type vector: "[1,2,x,4]"', ""),
    ("'bad_l2', '[]'", "22000", "vector must have at least 1 dimension", ""),
    ("'bad_l2', NULL", "22004", "the query vector is null", VECTOR_HINT),
    ("'bad_cosine', '[0,0,0,0]'", "22023", ZERO, ZERO_HINT),
    ("'bad_untyped', '[0,-0,0,0]'", "22023", ZERO, ZERO_HINT),
    ("'bad_half', '[1e-30,0,0,0]'", "22023", ZERO, ZERO_HINT),
    ("'bad_half', '[1e30,0,0,0]'", "22003", '"1e+30" is out of range for type halfvec', ""),
    ("'bad_l2', '[1,2,3,4]', 0", "22023", "k must be between 1 and 10000, not 0", K_HINT),
    ("'bad_l2', '[1,2,3,4]', -1", "22023", "k must be between 1 and 10000, not -1", K_HINT),
    ("'bad_l2', '[1,2,3,4]', 10000000", "22023", "k must be between 1 and 10000, not 10000000", K_HINT),
    ("'bad_l2', '[1,2,3,4]', 10001", "22023", "k must be between 1 and 10000, not 10001", K_HINT),
    ("'bad_l2', '[1,2,3,4]', NULL", "22023", "k must be between 1 and 10000, not null", K_HINT),
    ("'bad_l2', '[1,2,3,4]', ef_search => 0", "22023", "ef_search must be between 1 and 20000, not 0",
     "Leave it out to use the collection's own value."),
    ("'bad_l2', '[1,2,3,4]', ef_search => 20001", "22023", "ef_search must be between 1 and 20000, not 20001",
     "Leave it out to use the collection's own value."),
    ("'bad_l2', '[1,2,3,4]', exactness => 'sloppy'", "22023", "unknown exactness 'sloppy'",
     "Values are fast, balanced and exact."),
    ("'bad_l2', '[1,2,3,4]', use_gnn => true", "0A000", "use_gnn is not available in this version",
     "Leave it out: the answer is the plain nearest neighbours."),
    ("'nothing', '[1,2,3,4]'", "42704", 'collection "nothing" does not exist',
     "List them with SELECT * FROM ruvector_list_collections()."),
    ("'BAD_L2', '[1,2,3,4]'", "42704", 'collection "BAD_L2" does not exist',
     "List them with SELECT * FROM ruvector_list_collections()."),
    ("'', '[1,2,3,4]'", "42704", 'collection "" does not exist',
     "List them with SELECT * FROM ruvector_list_collections()."),
    ("NULL, '[1,2,3,4]'", "22004", "the collection name is null",
     "List the names with SELECT * FROM ruvector_list_collections()."),
    ("'%s %I'', $$', '[1,2,3,4]'", "42704", 'collection "%s %I\', $$" does not exist',
     "List them with SELECT * FROM ruvector_list_collections()."),
    ("'bad_l2', '[1,2,3,4]', filter => '{\"x\": 1}'", "42703", 'column x is not a filter column of collection "bad_l2"',
     "Attach it with the column: ruvector attach ... --columns x"),
]  # fmt: skip


@pytest.mark.parametrize(("arguments", "code", "message", "hint"), BAD_SEARCHES, ids=[case[0] for case in BAD_SEARCHES])
def test_bad_search_is_refused(attached, arguments, code, message, hint):
    problem = refused(attached, f"SELECT * FROM ruvector_search({arguments})")
    assert (problem.code, problem.message, problem.hint) == (code, message, hint)


@pytest.mark.parametrize(("arguments", "code", "message", "hint"), BAD_SEARCHES, ids=[case[0] for case in BAD_SEARCHES])
def test_bad_input_stays_an_error_when_the_answer_is_exact_sql(attached, arguments, code, message, hint):
    with attached.transaction(force_rollback=True):
        attached.execute("SET LOCAL ruvector.exactness = 'exact'")
        problem = refused(attached, f"SELECT * FROM ruvector_search({arguments})")
    assert (problem.code, problem.message) == (code, message)


OTHER_CALLS = [
    ("SELECT * FROM ruvector_search_batch('nothing', ARRAY['[1,2,3,4]']::vector[])", "42704", "does not exist"),
    ("SELECT * FROM ruvector_search_batch('bad_l2', ARRAY['[1,2,3,4]','[1]']::vector[])", "22023", "has 1 dimensions"),
    ("SELECT * FROM ruvector_search_batch('bad_l2', ARRAY['[1,2,3,4]',NULL]::vector[])", "22004", "vector is null"),
    ("SELECT * FROM ruvector_search_batch('bad_l2', ARRAY['[1,2,3,4]']::vector[], 0)", "22023", "k must be between"),
    ("SELECT * FROM ruvector_search_batch('bad_l2', (SELECT array_agg('[1,2,3,4]'::vector)"
     " FROM generate_series(1, 1001)))", "54000", "a batch may hold 1000 queries, not 1001"),
    ("SELECT * FROM ruvector_search_bits('nothing', B'1')", "42704", "does not exist"),
    ("SELECT * FROM ruvector_explain('nothing', '[1]')", "42704", "does not exist"),
    ("SELECT * FROM ruvector_explain('bad_l2', '[1]')", "22023", "has 1 dimensions"),
    ("SELECT * FROM ruvector_explain('bad_l2', '[1,2,3,4]', k => -5)", "22023", "k must be between"),
    ("SELECT ruvector_index_stats('nothing')", "42704", "does not exist"),
    ("SELECT * FROM ruvector_consistency_status('nothing')", "42704", "does not exist"),
    ("SELECT ruvector_wait_applied('nothing')", "42704", "does not exist"),
    ("SELECT ruvector_wait_applied('bad_l2', -1)", "22023", "timeout_ms is -1"),
    ("SELECT ruvector_verify('nothing')", "42704", "does not exist"),
    ("SELECT ruvector_verify('bad_l2', sample => 0)", "22023", "sample is 0"),
    ("SELECT ruvector_unregister_collection('nothing')", "42704", "does not exist"),
]  # fmt: skip


@pytest.mark.parametrize(("statement", "code", "message"), OTHER_CALLS, ids=[case[0][:70] for case in OTHER_CALLS])
def test_bad_call_is_refused(attached, statement, code, message):
    problem = refused(attached, statement)
    assert problem.code == code
    assert message in problem.message
    assert problem.hint


SETTINGS = [
    ("ef_search", "abc", "ruvector.ef_search must be between 1 and 20000, not 'abc'"),
    ("ef_search", "0", "ruvector.ef_search must be between 1 and 20000, not '0'"),
    ("ef_search", "99999999999999", "ruvector.ef_search must be between 1 and 20000, not '99999999999999'"),
    ("exactness", "very", "unknown exactness 'very'"),
    ("fallback", "never", "unknown ruvector.fallback 'never'"),
    ("timeout_ms", "-1", "ruvector.timeout_ms must be between 1 and 600000, not '-1'"),
]


@pytest.mark.parametrize(("setting", "value", "message"), SETTINGS)
def test_bad_setting_is_refused(attached, setting, value, message):
    with attached.transaction(force_rollback=True):
        attached.execute("SELECT set_config(%s, %s, true)", (f"ruvector.{setting}", value))
        problem = refused(attached, "SELECT * FROM ruvector_search('bad_l2', '[1,2,3,4]')")
    assert (problem.code, problem.message) == ("22023", message)
    assert problem.hint


def test_largest_k_and_beam_are_allowed(attached):
    query = gaussian(1, DIMS, seed=21)[0]
    assert len(L2.check(attached, query, k=10_000)) == 50
    assert len(L2.search(attached, query, k=1, ef=20_000)) == 1


def test_rows_that_cannot_be_indexed_are_skipped_and_counted(attached, shared_sidecar):
    """NULL, zero under cosine, other dimensions: left out, counted by reason, back when they are repaired."""
    odd = ["[0,0,0,0]", None, None, "[1,2]", "[1,2,3,4,5,6]", "[1,2,3]"]
    UNTYPED.insert(attached, odd, first=100)
    COSINE.insert(attached, [None, "[0,0,0,0]"], first=100)
    L2.insert(attached, [None, "[0,0,0,0]"], first=100)
    expected = {"bad_untyped": {"zero": 1, "null": 2, "wrong_dims": 3}, "bad_cosine": {"zero": 1, "null": 1},
                "bad_l2": {"null": 1}}  # fmt: skip

    def unindexed(name):
        return attached.execute("SELECT unindexed FROM ruvector_consistency_status(%s)", (name,)).fetchone()[0]

    query = gaussian(1, DIMS, seed=22)[0]
    for table in (UNTYPED, COSINE, L2):
        where = "vector_dims(t.embedding) = 4" if table is UNTYPED else "true"
        found = table.check(attached, query, k=100, where="t.id < 100" if table is UNTYPED else where)
        assert len(found) == (51 if table is L2 else 50)
        shared_sidecar.wait_applied(table.name)
        assert len(table.search(attached, query, k=100)) == len(found)
        wait_until(lambda name=table.name: unindexed(name) == expected[name], f"{expected[table.name]} in the status")
        assert attached.execute("SELECT ruvector_index_stats(%s)->'unindexed'", (table.name,)).fetchone() == (
            expected[table.name],
        )
    attached.execute("UPDATE bad_untyped SET embedding = '[1,2,3,4]' WHERE id >= 100")
    attached.execute("DELETE FROM bad_cosine WHERE id >= 100")
    attached.execute("UPDATE bad_l2 SET embedding = NULL WHERE id = 101")
    assert len(UNTYPED.check(attached, query, k=100)) == 56
    for name, counts in (("bad_untyped", {}), ("bad_cosine", {}), ("bad_l2", {"null": 2})):
        wait_until(lambda name=name, counts=counts: unindexed(name) == counts, f"{counts} in the status of {name}")


def test_unindexed_rows_in_the_table_before_the_attach_are_counted(attached, shared_sidecar):
    table = VectorTable("bad_before", dims=DIMS, metric="cosine")
    table.create(attached)
    table.insert(attached, [None, "[0,0,0,0]", "[1,2,3,4]", None])
    table.attach(attached)
    shared_sidecar.wait_live(table.name)
    assert [row[0] for row in table.check(attached, [1, 0, 0, 0])] == ["3"]
    status = attached.execute("SELECT unindexed FROM ruvector_consistency_status(%s)", (table.name,)).fetchone()
    assert status == ({"null": 2, "zero": 1},)


def test_empty_table_answers_nothing(attached, shared_sidecar):
    table = VectorTable("bad_empty", dims=DIMS)
    table.create(attached)
    table.attach(attached)
    shared_sidecar.wait_live(table.name)
    assert table.check(attached, [1, 2, 3, 4]) == []
    assert table.explain(attached, [1, 2, 3, 4])["candidates"] == 0


# ---- the sidecar is down -------------------------------------------------------------------------------------------


def test_sidecar_down_is_said_and_answered_by_the_database(database, tmp_path):
    table = VectorTable(
        "down", dims=DIMS, columns="id bigint PRIMARY KEY, category int", options={"columns": ["category"]}
    )
    query = gaussian(1, DIMS, seed=23)[0]
    with database.connect() as connection:
        notices = notices_of(connection)
        table.create(connection)
        table.insert(connection, gaussian(40, DIMS, seed=24), category=[number % 2 for number in range(40)])
        # never started
        table.attach(connection)
        table.check(connection, query, tier="pgvector")
        assert notices.pop() == (
            "ruvector: collection down was searched by the database itself: "
            "the mirror is new: attached; the sidecar has not started to copy it"
        )
        with running_sidecar(database, tmp_path / "data") as sidecar:
            sidecar.wait_live(table.name)
            table.check(connection, query)
            assert notices == []
        # stopped in order
        table.check(connection, query, tier="pgvector")
        assert notices.pop() == (
            "ruvector: collection down was searched by the database itself: "
            "the mirror is stopped: the sidecar was stopped"
        )
        table.check(connection, query, filter_={"category": 1}, where="t.category = 1", tier="exact")
        notices.clear()
        status = connection.execute("SELECT state, reason FROM ruvector_consistency_status()").fetchone()
        assert status == ("stopped", "the sidecar was stopped")
        # killed: the token is still there, the link is dead
        connection.execute("INSERT INTO ruvector.live VALUES (1, 'left behind')")
        table.check(connection, query, tier="pgvector")
        assert "was searched by the database itself: sidecar unreachable: " in notices.pop()
        explained = table.explain(connection, query)
        assert (explained["engine"], explained["plan"]) == ("pgvector", "pgvector order by")
        assert explained["reason"].startswith("sidecar unreachable: ")
        assert notices == []
        connection.execute("SET ruvector.fallback = 'error'")
        problem = refused(connection, SEARCH, (table.name, text_of(query), 5, None, None))
        assert problem.code == "08001"
        assert problem.message.startswith("the index of collection down cannot answer: sidecar unreachable: ")
        assert "SET ruvector.fallback = 'pgvector'" in problem.hint
        # asked for exact, there is nothing to fall back from
        connection.execute("SET ruvector.exactness = 'exact'")
        table.check(connection, query, tier="exact")


def test_search_of_a_silent_sidecar_falls_back_at_once(database):
    """Something listens and says nothing, for dblink to wait for: a process without a pulse is not asked."""
    table = VectorTable("silent", dims=DIMS)
    with socket.create_server(("127.0.0.1", 0)) as silent, database.connect() as connection:
        notices = notices_of(connection)
        table.create(connection)
        table.insert(connection, gaussian(10, DIMS, seed=25))
        table.attach(connection)
        connection.execute("INSERT INTO ruvector.live VALUES (1, 'left behind')")
        connection.execute("UPDATE ruvector.gate SET host = '127.0.0.1', port = %s", (silent.getsockname()[1],))
        connection.execute(PULSE, [5])
        table.check(connection, [1, 2, 3, 4], tier="pgvector")
        assert "the sidecar has been silent for 5 s" in notices.pop()


@pytest.mark.parametrize(
    "statement",
    ["SELECT ruvector_simd_info()", "SELECT ruvector_memory_stats()", "SELECT ruvector_verify('down')",
     "SELECT ruvector_wait_applied('down')"],
)  # fmt: skip
def test_functions_of_the_sidecar_say_that_it_is_down(database, statement):
    with database.connect() as connection:
        table = VectorTable("down", dims=DIMS)
        table.create(connection)
        table.attach(connection)
        problem = refused(connection, statement)
        assert (problem.code, problem.message) == ("08001", "no sidecar is running")
        assert problem.hint == "Start it with: ruvector run"
        connection.execute("UPDATE ruvector.gate SET host = '127.0.0.1', port = 1")
        connection.execute(PULSE, [0])
        problem = refused(connection, statement)
        assert (problem.code, problem.message) == ("08001", "the sidecar does not answer at 127.0.0.1:1")
        assert problem.hint == "Start it with: ruvector run"


def test_killed_sidecar_is_reported_after_its_silence(database):
    with database.connect() as connection:
        table = VectorTable("silent", dims=DIMS)
        table.create(connection)
        table.attach(connection)
        connection.execute("INSERT INTO ruvector.live VALUES (1, 'left behind')")
        connection.execute(
            "UPDATE ruvector.mirror_status SET state = 'live', reason = '',"
            " updated_at = clock_timestamp() - interval '2 min'"
        )
        state, reason = connection.execute("SELECT state, reason FROM ruvector_consistency_status('silent')").fetchone()
        assert state == "unreachable"
        assert reason == "the sidecar has not reported for 120 s"


# ---- install -------------------------------------------------------------------------------------------------------


@pytest.fixture
def plain_role(postgres):
    """A login that may do nothing."""
    name = "rv_plain_login"
    with postgres.connect() as connection:
        connection.execute(f"DROP ROLE IF EXISTS {name}")
        connection.execute(f"CREATE ROLE {name} LOGIN PASSWORD 'x'")
        yield name
        connection.execute(f"DROP ROLE {name}")


def as_role(database, role):
    return psycopg.conninfo.make_conninfo(database.dsn, user=role, password="x")


def test_install_without_privileges_says_what_is_missing(new_database, plain_role):
    database = new_database("extensions")
    dsn = as_role(database, plain_role)
    with database.connect() as admin:
        with pytest.raises(PermissionDenied) as caught:
            install(dsn)
        assert caught.value.sqlstate == "42501"
        assert caught.value.message == f'role "{plain_role}" may not create a schema in database "{database.name}"'
        assert caught.value.hint == f'As its owner: GRANT CREATE ON DATABASE "{database.name}" TO "{plain_role}";'
        admin.execute(f'GRANT CREATE ON DATABASE "{database.name}" TO {plain_role}')
        admin.execute("REVOKE CREATE ON SCHEMA public FROM public")
        with pytest.raises(PermissionDenied, match='may not create functions in schema "public"'):
            install(dsn)
        assert admin.execute("SELECT to_regnamespace('ruvector')").fetchone() == (None,)
    database.server.drop_database(database.name)


def test_install_without_the_right_to_create_extensions_names_them(new_database, plain_role):
    database = new_database("empty")
    with database.connect() as admin:
        admin.execute(f'GRANT CREATE ON DATABASE "{database.name}" TO {plain_role}')
        admin.execute(f"GRANT CREATE ON SCHEMA public TO {plain_role}")
        admin.execute("CREATE EXTENSION vector")
        with pytest.raises(PermissionDenied) as caught:
            install(as_role(database, plain_role))
        assert 'may not create extension "dblink"' in caught.value.message
        assert caught.value.hint == "As an administrator, in this database: CREATE EXTENSION dblink;"
        assert admin.execute("SELECT to_regnamespace('ruvector')").fetchone() == (None,)
    database.server.drop_database(database.name)


@pytest.mark.parametrize(
    ("present", "missing", "package"),
    [("", "vector", "pgvector for vector"), ("vector", "dblink", "postgresql-contrib for dblink")],
)
def test_install_on_a_server_without_the_extension_names_the_package(new_database, postgres, present, missing, package):
    if postgres.version < 180000:
        pytest.skip("extensions can be hidden from PostgreSQL 18 on only")
    database = new_database("empty")
    with database.connect() as admin:
        if present:
            admin.execute(f"CREATE EXTENSION {present}")
        admin.execute(f"ALTER DATABASE \"{database.name}\" SET extension_control_path = '/nowhere'")
    with pytest.raises(NotInstalled) as caught:
        install(database.dsn)
    assert caught.value.message.startswith(f'extension "{missing}" (')
    assert caught.value.message.endswith(") is not available on this server")
    assert package in caught.value.hint
    with database.connect() as admin:
        assert admin.execute("SELECT to_regnamespace('ruvector')").fetchone() == (None,)
    database.server.drop_database(database.name)


def test_sidecar_refuses_a_database_without_ruvector(bare_database, tmp_path):
    with pytest.raises(NotInstalled) as caught, running_sidecar(bare_database, tmp_path / "data"):
        pass
    assert caught.value.hint == "Run: ruvector install"


def test_attach_without_install_is_an_unknown_function(bare_database):
    with bare_database.connect() as connection:
        problem = refused(connection, "SELECT ruvector_register_collection('a', 'public', 'b', 'c')")
    assert problem.code == "42883"
