"""Drivers that are not libpq, what tools ask the catalogs, and cursors."""

import asyncio
import shutil
import subprocess

import asyncpg
import pg8000.native
import psycopg
import pytest
from fix_bridge import PASSWORD, tcp_dsn

SEARCH = "SELECT id FROM ruvector_search('c', '[1,2,3]', 5)"
IDS = ["0", "1", "2", "3", "4"]


@pytest.fixture
def options(bridge_server):
    address = next(each for each in bridge_server.addresses if not each.is_unix)
    return {"host": address.host, "port": address.port, "user": "user", "password": PASSWORD, "database": "ruvector"}


@pytest.fixture
def connection(bridge_server):
    with psycopg.connect(tcp_dsn(bridge_server)) as connected:
        yield connected


# Drivers -------------------------------------------------------------------------------------------------------------


def test_asyncpg_searches_and_fetches_in_portions(options):
    async def session():
        connection = await asyncpg.connect(**options, ssl=False)
        found = await connection.fetch("SELECT id, distance FROM ruvector_search($1, $2, $3)", "c", "[1,2,3]", 5)
        async with connection.transaction():
            numbers = [
                row["n"] async for row in connection.cursor("SELECT * FROM ruvector_count_to($1)", 7, prefetch=2)
            ]
        await connection.close()
        return [row["id"] for row in found], numbers

    assert asyncio.run(session()) == (IDS, [1, 2, 3, 4, 5, 6, 7])


def test_asyncpg_pool_gives_connections_back(options):
    async def session():
        async with asyncpg.create_pool(**options, ssl=False, min_size=1, max_size=1) as pool:
            return [[row["id"] for row in await pool.fetch(SEARCH)] for _ in range(3)]

    assert asyncio.run(session()) == [IDS] * 3


def test_pg8000_searches(options):
    connection = pg8000.native.Connection(**options)
    found = connection.run("SELECT id, distance FROM ruvector_search('c', :query, 5)", query="[1,2,3]")
    connection.close()
    assert [row[0] for row in found] == IDS


@pytest.mark.parametrize(
    "command", ["\\d", "\\dt", "\\d items", "\\df ruvector*", "\\dn", "\\l", "\\du", "\\dx", "\\dT"]
)
def test_psql_looks_around_and_finds_nothing(bridge_server, command):
    psql = shutil.which("psql") or pytest.skip("there is no psql")
    done = subprocess.run(
        [psql, "-X", "-w", tcp_dsn(bridge_server), "-c", command, "-c", "SELECT 1"],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert "ERROR" not in done.stderr
    assert "(1 row)" in done.stdout


# Catalogs ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("query", "columns"),
    [
        ("SELECT oid, typname AS name FROM pg_type", ["oid", "name"]),
        ("select b.oid, b.typarray from pg_catalog.pg_type a left join pg_catalog.pg_type b on b.oid = a.typelem "
         "where a.typcategory = 'A' group by b.oid, b.typarray", ["oid", "typarray"]),
        ("SELECT n.nspname as \"Schema\", c.relname, CASE c.relkind WHEN 'r' THEN 'table' END as \"Type\", "
         "pg_get_userbyid(c.relowner) FROM pg_catalog.pg_class c, pg_catalog.pg_namespace n "
         "WHERE c.relname OPERATOR(pg_catalog.~) '^(a)$' COLLATE pg_catalog.default ORDER BY 1, 2",
         ["Schema", "relname", "Type", "pg_get_userbyid"]),
        ("WITH RECURSIVE tree (oid) AS (SELECT oid FROM pg_type UNION ALL SELECT t.oid FROM tree t) "
         "SELECT oid, oid::regtype::text AS label FROM tree", ["oid", "label"]),
        ("SELECT table_name FROM information_schema.tables WHERE table_schema = 'public'", ["table_name"]),
        ("SELECT DISTINCT a.attname FROM pg_attribute a WHERE a.attrelid IN (SELECT max(oid) FROM pg_class)",
         ["attname"]),
    ],
)  # fmt: skip
def test_catalogs_are_empty(connection, query, columns):
    cursor = connection.execute(query)
    assert cursor.fetchall() == []
    assert [column.name for column in cursor.description] == columns
    assert connection.execute(SEARCH).fetchall()[0] == ("0",)


def test_catalog_query_takes_parameters(connection):
    cursor = connection.execute("SELECT oid FROM pg_type WHERE typname = %s AND oid > %s", ["vector", 5])
    assert cursor.fetchall() == []


@pytest.mark.parametrize(
    "query",
    [
        "SELECT count(*) FROM pg_class",
        "SELECT * FROM pg_class",
        "SELECT a FROM items",
        "SELECT a FROM pg_class JOIN items ON true",
        "SELECT a FROM app.pg_class",
        "WITH x AS (SELECT 1) SELECT * FROM x",
        "SELECT relname FROM pg_class WHERE oid IN (SELECT 1 FROM ruvector_version())",
    ],
)
def test_what_is_no_plain_catalog_query_is_refused(connection, query):
    with pytest.raises(psycopg.errors.FeatureNotSupported):
        connection.execute(query)


# Cursors -------------------------------------------------------------------------------------------------------------


def test_cursor_gives_rows_until_there_are_no_more(connection):
    connection.execute("DECLARE c NO SCROLL CURSOR FOR SELECT * FROM ruvector_count_to(10)")
    steps = [
        ("FETCH c", [1]),
        ("FETCH NEXT FROM c", [2]),
        ("FETCH 2 FROM c", [3, 4]),
        ("FETCH FORWARD 2 IN c", [5, 6]),
        ("FETCH FORWARD FROM c", [7]),
        ("FETCH 0 FROM c", []),
        ("FETCH ALL FROM c", [8, 9, 10]),
        ("FETCH ALL c", []),
    ]
    for statement, expected in steps:
        cursor = connection.execute(statement)
        assert ([row[0] for row in cursor], cursor.statusmessage) == (expected, f"FETCH {len(expected)}"), statement


def test_cursor_moves(connection):
    connection.execute("DECLARE c CURSOR FOR SELECT * FROM ruvector_count_to(10)")
    assert connection.execute("MOVE 4 FROM c").statusmessage == "MOVE 4"
    assert connection.execute("FETCH c").fetchall() == [(5,)]
    assert connection.execute("MOVE FORWARD ALL FROM c").statusmessage == "MOVE 5"


@pytest.mark.parametrize("binary", [False, True])
def test_server_cursor_of_psycopg_streams(connection, binary):
    with connection.cursor("numbers", binary=binary) as cursor:
        cursor.itersize = 3
        cursor.execute("SELECT * FROM ruvector_count_to(%s)", [8])
        assert [n for (n,) in cursor] == list(range(1, 9))
    with connection.cursor("numbers") as cursor:  # the name is free again
        assert cursor.execute(SEARCH).fetchmany(2) == [("0",), ("1",)]


def test_held_cursor_outlives_its_transaction(bridge_server):
    with psycopg.connect(tcp_dsn(bridge_server), autocommit=True) as connection:
        connection.execute("DECLARE c CURSOR WITH HOLD FOR SELECT * FROM ruvector_count_to(3)")
        assert connection.execute("FETCH 2 FROM c").fetchall() == [(1,), (2,)]
        with pytest.raises(psycopg.Error):
            connection.execute("SELECT * FROM nothing()")
        assert connection.execute("FETCH ALL FROM c").fetchall() == [(3,)]
        assert connection.execute("CLOSE c").statusmessage == "CLOSE"
        with pytest.raises(psycopg.errors.InvalidCursorName):
            connection.execute("FETCH c")


def test_cursor_ends_with_its_transaction(connection):
    connection.execute("DECLARE c CURSOR FOR SELECT * FROM ruvector_count_to(3)")
    connection.commit()
    with pytest.raises(psycopg.errors.InvalidCursorName):
        connection.execute("FETCH c")


@pytest.mark.parametrize(
    ("statements", "sqlstate"),
    [
        (["DECLARE c CURSOR FOR SELECT * FROM nothing()"], "42883"),
        (["DECLARE c SCROLL CURSOR FOR SELECT 1"], "0A000"),
        (["DECLARE c CURSOR FOR UPDATE items SET a = 1"], "0A000"),
        (["DECLARE c CURSOR FOR SELECT 1", "DECLARE c CURSOR FOR SELECT 1"], "42P03"),
        (["DECLARE c CURSOR FOR SELECT 1", "FETCH BACKWARD 2 FROM c"], "0A000"),
        (["DECLARE c CURSOR FOR SELECT 1", "FETCH PRIOR FROM c"], "0A000"),
        (["DECLARE c CURSOR FOR SELECT 1", "FETCH -1 FROM c"], "0A000"),
        (["DECLARE c CURSOR FOR SELECT 1", "FETCH 1.5 FROM c"], "42601"),
        (["FETCH c"], "34000"),
        (["CLOSE c"], "34000"),
    ],
)
def test_cursor_that_cannot_be_used_is_refused(connection, statements, sqlstate):
    *before, last = statements
    for statement in before:
        connection.execute(statement)
    with pytest.raises(psycopg.Error) as caught:
        connection.execute(last)
    assert caught.value.sqlstate == sqlstate


def test_cursor_needs_a_transaction(bridge_server):
    with (
        psycopg.connect(tcp_dsn(bridge_server), autocommit=True) as connection,
        pytest.raises(psycopg.errors.NoActiveSqlTransaction),
    ):
        connection.execute("DECLARE c CURSOR FOR SELECT 1")


def test_close_all_and_the_reset_of_pools(connection):
    connection.execute("DECLARE c CURSOR FOR SELECT 1")
    assert connection.execute("CLOSE ALL").statusmessage == "CLOSE ALL"
    connection.execute("SELECT pg_advisory_unlock_all(); CLOSE ALL; UNLISTEN *; RESET ALL")
    with pytest.raises(psycopg.errors.InvalidCursorName):
        connection.execute("FETCH c")
