"""What each role may do: applications search and nothing else, tables keep their own rules, writes never need us."""

import psycopg
import pytest
from fix_sidecar import running_sidecar, wait_until
from psycopg import sql
from table_kit import SEARCH, VectorTable, gaussian, notices_of, refused, text_of

from ruvector import systems
from ruvector.alembic.install import install
from ruvector.surface import registry

systems.load()
DIMS = 4
QUERY = gaussian(1, DIMS, seed=61)[0]
ITEMS = VectorTable("items", dims=DIMS, columns="id bigint PRIMARY KEY, c int", options={"columns": ["c"]})
SECURED = VectorTable(
    "secured", dims=DIMS, columns="id bigint PRIMARY KEY, tenant text", options={"columns": ["tenant"]}
)
PARTLY = VectorTable("partly", dims=DIMS, columns="id bigint PRIMARY KEY, secret text")

# role: rights it is granted; every role can log in
ROLES = {
    "rv_app": ["ruvector_user", "SELECT ON items, secured", "SELECT (id, embedding) ON partly"],
    "rv_reader": ["SELECT ON items"],
    "rv_stranger": ["ruvector_user"],
    "rv_writer": ["INSERT, UPDATE, DELETE, SELECT, TRUNCATE ON items"],
    "rv_admin": ["ruvector_user", "SELECT ON secured"],
}


@pytest.fixture(scope="module")
def admin(shared_sidecar, shared_database):
    with shared_database.connect() as connection:
        for role in ROLES:
            connection.execute(f"DROP ROLE IF EXISTS {role}")
            connection.execute(f"CREATE ROLE {role} LOGIN PASSWORD 'x'")
        connection.execute("ALTER ROLE rv_admin BYPASSRLS")
        for table in (ITEMS, SECURED, PARTLY):
            table.create(connection)
            rows = gaussian(60, DIMS, seed=62)
            if table is ITEMS:
                table.insert(connection, rows, c=[number % 2 for number in range(60)])
            elif table is SECURED:
                table.insert(connection, rows, tenant=["rv_app" if number % 4 else "other" for number in range(60)])
            else:
                table.insert(connection, rows)
            table.attach(connection)
        connection.execute("ALTER TABLE secured ENABLE ROW LEVEL SECURITY")
        connection.execute("CREATE POLICY own ON secured USING (tenant = current_user)")
        for role, rights in ROLES.items():
            for right in rights:
                connection.execute(f"GRANT {right} TO {role}")
        shared_sidecar.wait_live("items", "secured", "partly")
        yield connection
        for role in ROLES:
            connection.execute(f"DROP OWNED BY {role}")
            connection.execute(f"DROP ROLE {role}")


@pytest.fixture
def login(admin, shared_database):
    """Return a function that opens a connection as one of ROLES."""
    opened = []

    def connect(role):
        opened.append(shared_database.connect(user=role, password="x"))
        return opened[-1]

    yield connect
    for connection in opened:
        connection.close()


# ---- an application role -------------------------------------------------------------------------------------------

MAY_CALL = [
    "SELECT * FROM ruvector_search('items', '[1,2,3,4]', 3, filter => '{\"c\": 1}')",
    "SELECT * FROM ruvector_search_batch('items', ARRAY['[1,2,3,4]']::vector[], 3)",
    "SELECT * FROM ruvector_explain('items', '[1,2,3,4]')",
    "SELECT * FROM ruvector_list_collections()",
    "SELECT * FROM ruvector_consistency_status()",
    "SELECT ruvector_index_stats('items')",
    "SELECT ruvector_wait_applied('items', 5000)",
    "SELECT ruvector_memory_stats()",
    "SELECT ruvector_simd_info()",
    "SELECT ruvector_version()",
]
MAY_NOT = [
    "SELECT ruvector_register_collection('x', 'public', 'items', 'embedding')",
    "SELECT ruvector_unregister_collection('items')",
    "SELECT ruvector_verify('items')",
    "SELECT ruvector.ask('SELECT 1')",
    "SELECT ruvector.signed('CALL', '{}')",
    "SELECT ruvector.call_as('admin', 'ruvector_verify', '{}', 1000)",
    "SELECT ruvector.call_admin('ruvector_verify', '{}')",
    "SELECT ruvector.call('ruvector_verify', '{\"collection\": \"items\"}')",
    "SELECT ruvector.drop_mirror(1)",
    "SELECT ruvector.create_search(1)",
    "SELECT ruvector.create_capture(1)",
    "SELECT ruvector.register('x', 'public', 'items', 'embedding', 4, 'l2', '{}')",
    "SELECT ruvector.consistency(NULL)",
    "SELECT * FROM ruvector.secret",
    "SELECT * FROM ruvector.gate",
    "SELECT * FROM ruvector.live",
    "SELECT * FROM ruvector.consumer",
    "SELECT * FROM ruvector.trimmed",
    "SELECT * FROM ruvector.changelog_1",
    "INSERT INTO ruvector.changelog_1 (key_1) VALUES (1)",
    "DELETE FROM ruvector.changelog_1",
    "UPDATE ruvector.collection SET name = 'x'",
    "DELETE FROM ruvector.collection",
    "UPDATE ruvector.mirror_status SET state = 'live'",
    "INSERT INTO ruvector.live VALUES (1, 'x')",
    "CREATE TABLE ruvector.mine (x int)",
    "DROP TABLE ruvector.changelog_1",
    "ALTER TABLE items DISABLE TRIGGER ALL",
]


@pytest.mark.parametrize("statement", MAY_CALL)
def test_application_role_may_search_and_look(login, statement):
    assert login("rv_app").execute(statement).fetchall()


@pytest.mark.parametrize("statement", MAY_NOT)
def test_application_role_may_do_nothing_else(login, statement):
    assert refused(login("rv_app"), statement).code == "42501"


def test_search_of_an_application_role_uses_the_index(login):
    connection = login("rv_app")
    ITEMS.check(connection, QUERY)
    ITEMS.check(connection, QUERY, filter_={"c": 1}, where="t.c = 1")
    # rights on the needed columns are enough
    PARTLY.check(connection, QUERY)


def test_rights_in_the_schema_are_a_closed_list(admin):
    tables = admin.execute(
        "SELECT c.relname::text, p.privilege FROM pg_class c,"
        " unnest(ARRAY['select', 'insert', 'update', 'delete', 'truncate', 'trigger', 'references']) p (privilege)"
        " WHERE c.relnamespace = 'ruvector'::regnamespace AND c.relkind IN ('r', 'p', 'v', 'm')"
        " AND has_table_privilege('ruvector_user', c.oid, p.privilege) ORDER BY 1"
    ).fetchall()
    readable = ["collection", "cutover_step", "dropped_index", "instance", "mirror_status", "shadow_pair"]
    assert tables == [(name, "select") for name in readable]
    functions = admin.execute(
        "SELECT DISTINCT regexp_replace(p.proname, '_[0-9]+$', '_N') FROM pg_proc p"
        " WHERE p.pronamespace = 'ruvector'::regnamespace AND has_function_privilege('ruvector_user', p.oid, 'execute')"
        " AND p.prosrc !~ 'ruvector api function' ORDER BY 1"
    ).fetchall()
    computing = {function.name for function in registry.functions() if function.home == "ruvector"}
    assert [row[0] for row in functions if row[0] not in computing] == [
        "call", "candidates_N", "checked_guard", "collection_of", "cutover_since", "deadline_ms", "filter_condition",
        "filter_node", "filter_parts", "filter_pinned_texts", "filter_sql", "filter_texts", "filter_value",
        "filter_values", "guard_breaches", "mean_interval", "quantile_interval", "sample", "score", "search_N",
        "setting", "setting_int", "shadow_statistics", "share_interval", "table_problem",
    ]  # fmt: skip
    public = admin.execute(
        "SELECT p.proname::text FROM pg_proc p WHERE (p.pronamespace = 'ruvector'::regnamespace"
        " OR p.prosrc ~ 'ruvector api function') AND EXISTS"
        " (SELECT FROM aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) a WHERE a.grantee = 0)"
    ).fetchall()
    assert public == []


def test_every_function_pins_its_search_path(admin):
    loose = admin.execute(
        "SELECT p.oid::regprocedure::text FROM pg_proc p WHERE (p.pronamespace = 'ruvector'::regnamespace"
        " OR p.prosrc ~ 'ruvector api function')"
        " AND NOT coalesce('search_path=pg_catalog, pg_temp' = ANY (p.proconfig), false)"
    ).fetchall()
    assert loose == []


def test_role_without_the_grant_is_told_so(login):
    connection = login("rv_reader")
    problem = refused(connection, SEARCH, ("items", text_of(QUERY), 5, None, None))
    assert (problem.code, problem.message) == ("42501", "permission denied for function ruvector_search")


# ---- tables keep their own rules -----------------------------------------------------------------------------------

CANDIDATES = "SELECT keys, dirty, reach, returned, refusal FROM ruvector.candidates_{}('[1,2,3,4]', 10, NULL)"


def test_role_without_rights_on_the_table_learns_nothing(login, admin):
    connection = login("rv_stranger")
    problem = refused(connection, SEARCH, ("items", text_of(QUERY), 5, None, None))
    assert (problem.code, problem.message) == ("42501", "permission denied for table items")
    for number, table in ((1, "items"), (2, "secured"), (3, "partly")):
        row = connection.execute(CANDIDATES.format(number)).fetchone()
        assert row == (None, [], None, None, f"role rv_stranger may not read public.{table} itself")
    assert len(admin.execute(CANDIDATES.format(1)).fetchone()[0]) == 10


def test_row_security_is_obeyed_and_said(login, admin):
    connection = login("rv_app")
    notices = notices_of(connection)
    where = "t.tenant = 'rv_app'"
    found = SECURED.check(connection, QUERY, k=100, where=where, tier="exact")
    assert len(found) == 45
    assert notices.pop() == (
        "ruvector: collection secured was searched by the database itself: row-level security is active for this role"
    )
    SECURED.check(connection, QUERY, k=5, filter_={"tenant": "other"}, where="false", tier="exact")
    row = connection.execute(CANDIDATES.format(2)).fetchone()
    assert row == (None, [], None, None, "row-level security of public.secured is active for role rv_app")
    explained = SECURED.explain(connection, QUERY)
    assert (explained["engine"], explained["candidates"]) == ("exact", None)
    # roles that see everything use the index
    SECURED.check(admin, QUERY)
    SECURED.check(login("rv_admin"), QUERY)


def test_row_security_of_the_owner_counts_when_it_is_forced(login, admin):
    admin.execute("GRANT ruvector_user TO rv_writer")
    admin.execute("ALTER TABLE secured OWNER TO rv_writer")
    try:
        owner = login("rv_writer")
        SECURED.check(owner, QUERY)
        admin.execute("ALTER TABLE secured FORCE ROW LEVEL SECURITY")
        SECURED.check(owner, QUERY, where="false", tier="exact")
        assert owner.execute(CANDIDATES.format(2)).fetchone()[4].startswith("row-level security of")
    finally:
        admin.execute("ALTER TABLE secured NO FORCE ROW LEVEL SECURITY")
        admin.execute("ALTER TABLE secured OWNER TO current_user")
        admin.execute("REVOKE ruvector_user FROM rv_writer")


def test_switching_row_security_on_does_not_stop_the_mirror(admin, login, shared_sidecar):
    token = shared_sidecar.mirror("items").token
    admin.execute("ALTER TABLE items ENABLE ROW LEVEL SECURITY")
    try:
        assert ITEMS.check(login("rv_app"), QUERY, where="false", tier="exact") == []
        ITEMS.check(admin, QUERY)
    finally:
        admin.execute("ALTER TABLE items DISABLE ROW LEVEL SECURITY")
    ITEMS.check(login("rv_app"), QUERY)
    assert shared_sidecar.mirror("items").token == token


def test_set_role_counts_not_the_login(admin):
    with admin.transaction(force_rollback=True):
        admin.execute("SET LOCAL ROLE rv_app")
        SECURED.check(admin, QUERY, k=100, where="t.tenant = 'rv_app'", tier="exact")
        ITEMS.check(admin, QUERY)
        assert admin.execute(CANDIDATES.format(2)).fetchone()[0] is None


def test_definer_function_of_the_application_answers_right(admin, login):
    """The bridge cannot see the inner role and errs on the safe side: right rows, from the database, with a notice."""
    admin.execute(
        "CREATE FUNCTION nearest_item() RETURNS TABLE (id text, tier text) LANGUAGE sql STABLE SECURITY DEFINER"
        f" AS $$ SELECT id, tier FROM public.ruvector_search('items', '{text_of(QUERY)}', 1) $$"
    )
    try:
        nearest = ITEMS.search(admin, QUERY, k=1)[0][0]
        assert login("rv_app").execute("SELECT * FROM nearest_item()").fetchall() == [(nearest, "hot")]
        connection = login("rv_stranger")
        notices = notices_of(connection)
        assert connection.execute("SELECT * FROM nearest_item()").fetchall() == [(nearest, "pgvector")]
        assert notices[0].endswith("role rv_stranger may not read public.items itself")
    finally:
        admin.execute("DROP FUNCTION nearest_item()")


# ---- attacks -------------------------------------------------------------------------------------------------------


def test_own_functions_and_operators_on_the_path_change_nothing(admin, login):
    admin.execute("CREATE SCHEMA trap AUTHORIZATION rv_app")
    connection = login("rv_app")
    body = "LANGUAGE plpgsql AS 'BEGIN RAISE ''trapped''; END'"
    for statement in (
        f"CREATE FUNCTION trap.bad(text, text) RETURNS boolean {body}",
        "CREATE OPERATOR trap.= (LEFTARG = text, RIGHTARG = text, FUNCTION = trap.bad)",
        f"CREATE FUNCTION trap.format(text, VARIADIC text[]) RETURNS text {body}",
        f"CREATE FUNCTION trap.vector_dims(public.vector) RETURNS int {body}",
        "CREATE TABLE trap.items (id bigint, embedding public.vector(4))",
        "CREATE TEMPORARY TABLE collection (x int)",
        "CREATE TEMPORARY TABLE pg_class (x int)",
        "SET search_path = trap, pg_temp, pg_catalog, public",
    ):
        connection.execute(statement)
    rows = connection.execute(
        "SELECT id, tier FROM public.ruvector_search('items', %s, 5)", (text_of(QUERY),)
    ).fetchall()
    assert rows == [(row[0], "hot") for row in ITEMS.search(admin, QUERY, k=5)]
    admin.execute("DROP SCHEMA trap CASCADE")


@pytest.mark.parametrize(
    "request_text",
    ["SELECT * FROM ruvector_search(''items'', ''[1,2,3,4]'', 3)", "SELECT ruvector_memory_stats()",
     "SEARCH " + "0" * 64 + '{"c": 1}', "CALL " + "0" * 64 + '{"function": "ruvector_verify"}', "SEARCH", "CALL x"],
)  # fmt: skip
def test_open_link_of_the_session_takes_no_forged_request(login, request_text):
    """dblink is for everybody here: the login of the bridge may do nothing that the database has not signed."""
    connection = login("rv_app")
    ITEMS.check(connection, QUERY)
    problem = refused(
        connection,
        f"SELECT * FROM dblink('ruvector_link', '{request_text}') AS a (kind text, key text, distance float8)",
    )
    assert problem.code in ("42501", "0A000")
    ITEMS.check(connection, QUERY)


# ---- writes --------------------------------------------------------------------------------------------------------


def test_writes_need_no_rights_of_ours(login, admin, shared_sidecar):
    """The role may not even look into schema ruvector; every kind of write is captured all the same."""
    writer = login("rv_writer")
    assert refused(writer, "SELECT * FROM ruvector.changelog_1").code == "42501"
    vector = text_of(QUERY)
    steps = [
        f"INSERT INTO items VALUES (1000, 1, '{vector}')",
        f"INSERT INTO items VALUES (1000, 2, '{vector}') ON CONFLICT (id) DO UPDATE SET embedding = '[5,5,5,5]'",
        f"INSERT INTO items VALUES (1000, 2, '{vector}') ON CONFLICT DO NOTHING",
        f"MERGE INTO items i USING (VALUES (1000), (1001)) v (id) ON i.id = v.id"
        f" WHEN MATCHED THEN DELETE WHEN NOT MATCHED THEN INSERT VALUES (v.id, 1, '{vector}')",
        "UPDATE items SET id = 1002 WHERE id = 1001",
        "WITH gone AS (DELETE FROM items WHERE id = 1002 RETURNING *)"
        " INSERT INTO items SELECT 1003, c, embedding FROM gone",
        "UPDATE items SET c = c + 1",
        "DELETE FROM items WHERE id IN (1, 2, 1003)",
    ]
    if admin.info.server_version < 150000:
        steps.pop(3)
    for step in steps:
        writer.execute(step)
        ITEMS.check(admin, QUERY, k=100)
    with writer.cursor().copy("COPY items FROM STDIN") as copy:
        for number in range(2000, 2050):
            copy.write_row((number, 1, vector))
    assert len(ITEMS.check(admin, QUERY, k=50)) == 50
    with admin.transaction():  # what logical replication does
        admin.execute("SET LOCAL session_replication_role = replica")
        admin.execute("DELETE FROM items WHERE id BETWEEN 2000 AND 2049")
    ITEMS.check(admin, QUERY, k=100)
    shared_sidecar.wait_applied("items")
    ITEMS.check(admin, QUERY, k=100)
    assert admin.execute("SELECT ruvector_verify('items', \"full\" => true)").fetchone()[0]["differences"] == 0


def test_writes_do_not_notice_a_stopped_sidecar_or_a_full_memory_of_settings(login, admin, shared_sidecar):
    writer = login("rv_writer")
    shared_sidecar.stop()
    try:
        writer.execute("SET search_path = ''; SET statement_timeout = '2s'; SET lock_timeout = '1s'")
        writer.execute(f"INSERT INTO public.items VALUES (3000, 1, '{text_of(QUERY)}')")
        writer.execute("DELETE FROM public.items WHERE id = 3000")
    finally:
        shared_sidecar.start()
        shared_sidecar.wait_live("items")
    ITEMS.check(admin, QUERY)


# ---- an owner who is no superuser ----------------------------------------------------------------------------------


@pytest.fixture
def owner(new_database):
    """A database whose owner may create roles and is otherwise nobody; extensions were made by an administrator."""
    database = new_database("extensions")
    with database.connect() as connection:
        for role in ("rv_owner", "rv_sidecar_login", "rv_client"):
            connection.execute(f"DROP ROLE IF EXISTS {role}")
            connection.execute(f"CREATE ROLE {role} LOGIN PASSWORD 'x'")
        connection.execute(sql.SQL("ALTER DATABASE {} OWNER TO rv_owner").format(sql.Identifier(database.name)))
        connection.execute("ALTER SCHEMA public OWNER TO rv_owner")
        yield database
        for role in ("rv_client", "rv_sidecar_login", "rv_owner"):
            connection.execute(f"REASSIGN OWNED BY {role} TO current_user")
            connection.execute(f"DROP OWNED BY {role}")
        connection.execute(sql.SQL("ALTER DATABASE {} OWNER TO current_user").format(sql.Identifier(database.name)))
        for role in ("rv_client", "rv_sidecar_login", "rv_owner"):
            connection.execute(f"DROP ROLE {role}")
    database.server.drop_database(database.name)


def as_role(database, role):
    return psycopg.conninfo.make_conninfo(database.dsn, user=role, password="x")


def test_everything_works_without_a_superuser(owner, tmp_path):
    """Owner, sidecar and application are three plain roles; dblink then insists on a password, and gets SCRAM."""
    install(as_role(owner, "rv_owner"))
    with owner.connect() as superuser:
        superuser.execute("GRANT ruvector_sidecar TO rv_sidecar_login")
        superuser.execute("GRANT ruvector_user TO rv_client")
    table = VectorTable("items", dims=DIMS)
    with owner.connect(user="rv_owner", password="x") as connection:
        table.create(connection)
        table.insert(connection, gaussian(40, DIMS, seed=63))
        table.attach(connection)
        connection.execute("GRANT SELECT, INSERT ON items TO rv_client")
        dsn = as_role(owner, "rv_sidecar_login")
        with (
            running_sidecar(owner, tmp_path / "data", dsn=dsn) as sidecar,
            owner.connect(user="rv_client", password="x") as client,
        ):
            sidecar.wait_live(table.name)
            notices = notices_of(client)
            table.check(client, QUERY)
            client.execute("INSERT INTO items VALUES (1000, %s)", (text_of(QUERY),))
            assert table.check(client, QUERY)[0][0] == "1000"
            assert client.execute("SELECT ruvector_wait_applied('items', 10000)").fetchone() == (True,)
            table.check(client, QUERY)
            assert notices == []
            report = connection.execute("SELECT ruvector_verify('items', \"full\" => true)").fetchone()[0]
            assert (report["differences"], report["checked"]) == (0, 41)
            # a table under row-level security is not readable for a sidecar without BYPASSRLS: it says so
            connection.execute("ALTER TABLE items ENABLE ROW LEVEL SECURITY")
            connection.execute("INSERT INTO items VALUES (1001, %s)", (text_of(QUERY),))
            wait_until(lambda: sidecar.mirror("items").state == "unreachable", "the mirror to stop")
            assert "row-level security" in sidecar.mirror("items").reason
            assert table.check(connection, QUERY, tier="pgvector")[0][1] == 0.0
            connection.execute("ALTER TABLE items DISABLE ROW LEVEL SECURITY")
            sidecar.wait_live("items")
            table.check(client, QUERY)
        assert connection.execute("SELECT ruvector_unregister_collection('items')").fetchone() == (True,)
