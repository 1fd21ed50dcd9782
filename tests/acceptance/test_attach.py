"""Attach and detach: what is refused, several columns, partitions, dumps, other schemas; the table stays whole."""

import shutil
import subprocess

import pytest
from fix_sidecar import running_sidecar
from psycopg import sql
from table_kit import SEARCH, VectorTable, gaussian, notices_of, refused, text_of

from ruvector.alembic.install import install, uninstall

DIMS = 4
QUERY = gaussian(1, DIMS, seed=41)[0]
CALL = "SELECT ruvector_register_collection"

SETUP = """
CREATE TABLE plain (id bigint PRIMARY KEY, embedding vector(4), half halfvec(4), bits bit(8), untyped vector,
  sparse sparsevec(4), numbers real[], note text);
CREATE TABLE keyless (embedding vector(4), id bigint);
CREATE TABLE deferrable_key (id bigint PRIMARY KEY DEFERRABLE, embedding vector(4));
CREATE TABLE nullable_key (id bigint UNIQUE, embedding vector(4));
CREATE TABLE partial_key (id bigint NOT NULL, embedding vector(4));
CREATE UNIQUE INDEX ON partial_key (id) WHERE id > 0;
CREATE UNIQUE INDEX ON partial_key ((id + 1));
CREATE TABLE odd_key (id bytea PRIMARY KEY, embedding vector(4));
CREATE DOMAIN code AS text;
CREATE TABLE domain_key (id code PRIMARY KEY, embedding vector(4));
CREATE UNLOGGED TABLE unlogged (id bigint PRIMARY KEY, embedding vector(4));
CREATE VIEW a_view AS SELECT * FROM plain;
CREATE MATERIALIZED VIEW materialized AS SELECT * FROM plain;
CREATE TABLE parent (id bigint PRIMARY KEY, embedding vector(4));
CREATE TABLE child () INHERITS (parent);
CREATE SCHEMA impostor;
CREATE TYPE impostor.vector AS (x real);
CREATE TABLE with_impostor (id bigint PRIMARY KEY, embedding impostor.vector);
"""

# arguments, SQLSTATE, message, part of the hint
REFUSALS = [
    ("'n', 'public', 'keyless', 'embedding'", "55000", "table public.keyless has no primary key",
     "ALTER TABLE public.keyless ADD COLUMN id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY; or a unique index"),
    ("'n', 'public', 'deferrable_key', 'embedding'", "55000", "table public.deferrable_key has no primary key",
     "Add one"),
    ("'n', 'public', 'nullable_key', 'embedding'", "55000", "table public.nullable_key has no primary key", "NOT NULL"),
    ("'n', 'public', 'partial_key', 'embedding'", "55000", "table public.partial_key has no primary key", "Add one"),
    ("'n', 'public', 'odd_key', 'embedding'", "0A000",
     "key column id of public.odd_key has type bytea, which cannot be a row key", "Integer, uuid, text"),
    ("'n', 'public', 'domain_key', 'embedding'", "0A000",
     "key column id of public.domain_key has type public.code, which cannot be a row key", "Integer, uuid, text"),
    ("'n', 'public', 'unlogged', 'embedding'", "55000", "public.unlogged is an unlogged or temporary table",
     "ALTER TABLE public.unlogged SET LOGGED;"),
    ("'n', 'public', 'a_view', 'embedding'", "42809", "public.a_view is not an ordinary or partitioned table",
     "behind"),
    ("'n', 'public', 'materialized', 'embedding'", "42809",
     "public.materialized is not an ordinary or partitioned table",
     "behind"),
    ("'n', 'public', 'parent', 'embedding'", "0A000",
     "table public.parent has inheritance children, whose writes its triggers do not see", "partitioned"),
    ("'n', 'public', 'child', 'embedding'", "55000", "table public.child has no primary key", "Add one"),
    ("'n', 'public', 'nothing', 'embedding'", "42P01", "table public.nothing does not exist", "case-sensitive"),
    ("'n', 'Public', 'plain', 'embedding'", "42P01", 'table "Public".plain does not exist', "case-sensitive"),
    ("'n', NULL, 'plain', 'embedding'", "42P01", "table <NULL>.plain does not exist", "case-sensitive"),
    ("'n', 'public', 'plain', 'Embedding'", "42703", 'table public.plain has no column "Embedding"', "case-sensitive"),
    ("'n', 'public', 'plain', 'ctid'", "42703", "table public.plain has no column ctid", "case-sensitive"),
    ("'n', 'public', 'plain', 'note'", "42804", "column note has type text, not vector, halfvec, sparsevec or bit",
     "right column"),
    ("'n', 'public', 'plain', 'numbers'", "42804",
     "column numbers has type real[], not vector, halfvec, sparsevec or bit",
     "ALTER TABLE public.plain ALTER COLUMN numbers TYPE vector(<dims>)"),
    ("'n', 'public', 'plain', 'sparse', NULL, 'jaccard'", "22023", "metric jaccard does not work on a sparsevec column",
     "all others l2, ip, cosine or l1"),
    ("'n', 'public', 'plain', 'sparse', options => '{\"index_kind\": \"flat\"}'", "22023",
     "index kind flat does not work on a sparsevec column", "inverted lists"),
    ("'n', 'public', 'plain', 'embedding', options => '{\"index_kind\": \"inverted\"}'", "22023",
     "index kind inverted does not work on a vector column", "leave it out"),
    ("'n', 'public', 'with_impostor', 'embedding'", "42804",
     "column embedding has type impostor.vector, not vector, halfvec, sparsevec or bit", "right column"),
    ("'n', 'public', 'plain', 'embedding', 5", "22023", "column embedding has 4 dimensions, not 5",
     "Leave the dimensions"),
    ("'n', 'public', 'plain', 'untyped'", "22023", "column untyped does not declare its dimensions",
     "dimensions => 768"),
    ("'n', 'public', 'plain', 'untyped', 0", "22023", "a vector collection cannot have 0 dimensions", "1 to 16000"),
    ("'n', 'public', 'plain', 'untyped', 16001", "22023", "a vector collection cannot have 16001 dimensions", "16000"),
    ("'n', 'public', 'plain', 'embedding', NULL, 'euclid'", "22023", "unknown distance metric euclid", "Metrics are"),
    ("'n', 'public', 'plain', 'embedding', NULL, NULL", "22023", "unknown distance metric null", "Metrics are"),
    ("'n', 'public', 'plain', 'embedding', NULL, 'hamming'", "22023", "metric hamming does not work on a vector column",
     "bit columns take hamming or jaccard"),
    ("'n', 'public', 'plain', 'bits', NULL, 'l2'", "22023", "metric l2 does not work on a bit column", "hamming"),
    ("'', 'public', 'plain', 'embedding'", "22023", "a collection name must have 1 to 63 bytes, not 0", "shorter"),
    ("NULL, 'public', 'plain', 'embedding'", "22023", "a collection name must have 1 to 63 bytes, not 0", "shorter"),
    ("'n', 'public', 'plain', 'embedding', options => '[1]'", "22023", "options must be a jsonb object, not [1]",
     '"m"'),
    ("'n', 'public', 'plain', 'embedding', options => '{\"lists\": 5}'", "22023", "unknown option: lists",
     "Options are"),
    ("'n', 'public', 'plain', 'embedding', options => '{\"m\": 1}'", "22023",
     "option m must be a whole number from 2 to 128, not 1", "the default, 16"),
    ("'n', 'public', 'plain', 'embedding', options => '{\"m\": \"many\"}'", "22023",
     'option m must be a whole number from 2 to 128, not "many"', "the default, 16"),
    ("'n', 'public', 'plain', 'embedding', options => '{\"ef_search\": 1e99}'", "22023", "option ef_search must be",
     "100"),
    ("'n', 'public', 'plain', 'embedding', options => '{\"ef_construction\": 10.5}'", "22023",
     "option ef_construction must be a whole number from 4 to 2000, not 10.5", "200"),
    ("'n', 'public', 'plain', 'embedding', options => '{\"index_kind\": \"tree\"}'", "22023",
     'unknown index kind "tree"', "hnsw, ivf and flat"),
    ("'n', 'public', 'plain', 'embedding', options => '{\"columns\": \"note\"}'", "22023",
     'option columns must be a list of column names, not "note"', '"columns"'),
    ("'n', 'public', 'plain', 'embedding', options => '{\"columns\": [1]}'", "22023",
     "option columns must be a list of column names, not [1]", '"columns"'),
    ("'n', 'public', 'plain', 'embedding', options => '{\"columns\": [\"note\", \"x\", \"numbers\"]}'", "42703",
     "column numbers, x of public.plain does not exist or cannot be filtered", "text[] or int[]"),
]  # fmt: skip


@pytest.fixture(scope="module")
def plain(shared_database):
    with shared_database.connect() as connection:
        connection.execute(SETUP)
        yield connection


@pytest.mark.parametrize(("arguments", "code", "message", "hint"), REFUSALS, ids=[case[0] for case in REFUSALS])
def test_attach_is_refused_with_what_to_do(plain, arguments, code, message, hint):
    problem = refused(plain, f"{CALL}({arguments})")
    assert problem.code == code
    assert problem.message.startswith(message)
    assert hint in problem.hint
    assert traces(plain) == []


def test_attach_twice_is_refused(plain):
    with plain.transaction(force_rollback=True):
        plain.execute(f"{CALL}('first', 'public', 'plain', 'embedding')")
        problem = refused(plain, f"{CALL}('second', 'public', 'plain', 'embedding')")
        assert (problem.code, problem.message) == ("42710", "column public.plain.embedding is attached already")
        assert problem.detail == 'It is collection "first".'
        assert problem.hint == "Detach it first to attach it with other options."
        problem = refused(plain, f"{CALL}('first', 'public', 'plain', 'half')")
        assert (problem.code, problem.message) == ("42710", 'collection "first" exists already')
        assert problem.hint == "Choose another name, or detach it first: ruvector detach first"


def test_attach_waits_two_seconds_at_most_for_a_lock(plain, shared_database):
    with shared_database.connect() as blocker, blocker.transaction(force_rollback=True):
        blocker.execute("LOCK TABLE plain IN ACCESS EXCLUSIVE MODE")
        problem = refused(plain, f"{CALL}('n', 'public', 'plain', 'embedding')")
    assert problem.code == "55P03"
    assert traces(plain) == []


def test_temporary_table_is_refused(plain):
    plain.execute("CREATE TEMPORARY TABLE fleeting (id int PRIMARY KEY, embedding vector(4))")
    schema = plain.execute("SELECT nspname::text FROM pg_namespace WHERE oid = pg_my_temp_schema()").fetchone()[0]
    problem = refused(plain, f"{CALL}('n', '{schema}', 'fleeting', 'embedding')")
    assert (problem.code, problem.message) == ("55000", f"{schema}.fleeting is an unlogged or temporary table")


def traces(connection):
    """Return what an attached column leaves in the database."""
    return connection.execute(
        "SELECT t.tgname::text FROM pg_trigger t WHERE t.tgname ~ 'ruvector' UNION ALL"
        " SELECT p.proname FROM pg_proc p WHERE p.pronamespace = 'ruvector'::regnamespace AND p.proname ~ '_[0-9]+$'"
        " UNION ALL SELECT c.relname FROM pg_class c WHERE c.relname ~ '^changelog_' UNION ALL"
        " SELECT 'privilege' FROM information_schema.role_table_grants WHERE grantee = 'ruvector_sidecar'"
        " AND table_schema <> 'ruvector'"
        " UNION ALL SELECT 'usage' FROM pg_namespace n WHERE n.nspname <> 'ruvector'"
        " AND EXISTS (SELECT FROM aclexplode(n.nspacl) a WHERE a.grantee = 'ruvector_sidecar'::regrole)"
        " UNION ALL SELECT 'row' FROM ruvector.collection UNION ALL SELECT 'token' FROM ruvector.live"
        " UNION ALL SELECT 'mark' FROM ruvector.copying"
        " UNION ALL SELECT 'status' FROM ruvector.mirror_status UNION ALL SELECT 'trim' FROM ruvector.trimmed"
        " UNION ALL SELECT 'consumer' FROM ruvector.consumer"
    ).fetchall()


def test_detach_leaves_the_table_as_it_was(sidecar, database):
    table = VectorTable("leaving", dims=DIMS, schema="Some.Schema")
    with database.connect() as connection:
        connection.execute('CREATE SCHEMA "Some.Schema"')
        table.create(connection)
        table.insert(connection, gaussian(20, DIMS, seed=42))
        before = connection.execute(
            sql.SQL("SELECT t::text, t.ctid::text FROM {} t").format(table.identifier)
        ).fetchall()
        number = table.attach(connection)
        sidecar.wait_live(table.name)
        table.check(connection, QUERY)
        folder = sidecar.data_dir / f"collection-{number}"
        assert folder.exists()
        assert connection.execute("SELECT ruvector_unregister_collection('leaving')").fetchone() == (True,)
        assert traces(connection) == []
        after = connection.execute(
            sql.SQL("SELECT t::text, t.ctid::text FROM {} t").format(table.identifier)
        ).fetchall()
        assert after == before
        table.insert(connection, gaussian(1, DIMS, seed=43), first=100)
        connection.execute(sql.SQL("UPDATE {} SET embedding = NULL").format(table.identifier))
        connection.execute(sql.SQL("DELETE FROM {} WHERE id > 1").format(table.identifier))
        connection.execute(sql.SQL("TRUNCATE {}").format(table.identifier))
        problem = refused(connection, SEARCH, (table.name, text_of(QUERY), 5, None, None))
        assert problem.code == "42704"
        # attached again it gets a new number, and is complete
        table.insert(connection, gaussian(20, DIMS, seed=42))
        assert table.attach(connection) > number
        sidecar.wait_live(table.name)
        table.check(connection, QUERY)
        assert not folder.exists()


def test_detach_works_after_the_table_was_dropped(sidecar, database):
    table = VectorTable("gone", dims=DIMS)
    with database.connect() as connection:
        table.create(connection)
        table.attach(connection)
        sidecar.wait_live(table.name)
        connection.execute("DROP TABLE gone")
        problem = refused(connection, SEARCH, (table.name, text_of(QUERY), 5, None, None))
        assert problem.code == "42P01"
        assert connection.execute("SELECT ruvector_unregister_collection('gone')").fetchone() == (True,)
        assert traces(connection) == []


def test_attach_that_is_rolled_back_leaves_nothing(sidecar, database):
    with database.connect() as connection:
        table = VectorTable("undone", dims=DIMS).create(connection)
        with connection.transaction(force_rollback=True):
            table.attach(connection)
            table.insert(connection, gaussian(2, DIMS, seed=44))
            # usable at once: the database answers until the sidecar has copied
            assert len(table.search(connection, QUERY)) == 2
        assert traces(connection) == []


def test_install_over_a_live_mirror_and_uninstall(sidecar, database):
    table = VectorTable("kept", dims=DIMS)
    second = VectorTable("kept_too", table="kept", column="half", element="halfvec", dims=DIMS)
    with database.connect() as connection:
        table.create(connection)
        connection.execute("ALTER TABLE kept ADD COLUMN half halfvec(4)")
        table.insert(connection, gaussian(20, DIMS, seed=51))
        table.attach(connection)
        second.attach(connection)
        sidecar.wait_live(table.name, second.name)
        tokens = [sidecar.mirror(each.name).token for each in (table, second)]
        install(database.dsn)
        table.insert(connection, [QUERY], first=100)
        assert table.check(connection, QUERY)[0][0] == "100"
        sidecar.wait_applied(table.name)
        assert [sidecar.mirror(each.name).token for each in (table, second)] == tokens
        sidecar.stop()
        assert uninstall(database.dsn) == 2
        assert connection.execute("SELECT to_regnamespace('ruvector')").fetchone() == (None,)
        left = connection.execute("SELECT count(*) FROM pg_proc WHERE proname ~ '^ruvector_'").fetchone()
        triggers = connection.execute("SELECT count(*) FROM pg_trigger WHERE tgrelid = 'kept'::regclass").fetchone()
        assert (left, triggers) == ((0,), (0,))
        table.insert(connection, [QUERY], first=101)
        assert connection.execute("SELECT count(*) FROM kept").fetchone() == (22,)


# ---- several columns, partitions -----------------------------------------------------------------------------------


def test_several_columns_of_one_table_are_independent(sidecar, database):
    first = VectorTable("t_l2", dims=DIMS, table="several", columns="id bigint PRIMARY KEY, half halfvec(3)")
    second = VectorTable("t_half", dims=3, table="several", column="half", element="halfvec", metric="cosine")
    other_query = [1.0, 2.0, -3.0]
    with database.connect() as connection:
        first.create(connection)
        first.insert(connection, gaussian(60, DIMS, seed=45), half=[text_of(row) for row in gaussian(60, 3, seed=46)])
        first.attach(connection)
        sidecar.wait_live(first.name)
        first.check(connection, QUERY)
        # The second attach adds triggers to the table: to the first mirror that is no drift.
        second.attach(connection)
        sidecar.wait_live(first.name, second.name)
        token = sidecar.mirror(first.name).token
        connection.execute("UPDATE several SET half = '[1,2,-3]' WHERE id = 5")
        connection.execute("UPDATE several SET embedding = '[9,9,9,9]', half = NULL WHERE id = 6")
        connection.execute("DELETE FROM several WHERE id = 7")
        for _ in range(2):
            first.check(connection, QUERY)
            assert second.check(connection, other_query)[0][0] == "5"
            sidecar.wait_applied(first.name)
            sidecar.wait_applied(second.name)
        only_half = connection.execute("SELECT count(*) FROM ruvector.changelog_1 WHERE key_1 = 5").fetchone()
        assert only_half == (0,)
        connection.execute("SELECT ruvector_unregister_collection('t_half')")
        first.insert(connection, [QUERY], first=1000, half=[None])
        sidecar.wait_applied(first.name)
        assert first.check(connection, QUERY)[0][0] == "1000"
        assert sidecar.mirror(first.name).token == token, "the first mirror was restarted"


def test_partitioned_table(sidecar, database):
    table = VectorTable(
        "parted", dims=DIMS, columns="id bigint, region text, PRIMARY KEY (region, id)",
        key_sql="json_build_array(t.region, t.id)::text", options={"columns": ["region"]},
    )  # fmt: skip
    with database.connect() as connection:
        table.create(connection, partition_by="PARTITION BY LIST (region)")
        connection.execute("CREATE TABLE parted_a PARTITION OF parted FOR VALUES IN ('a')")
        connection.execute("CREATE TABLE parted_b PARTITION OF parted FOR VALUES IN ('b') PARTITION BY RANGE (id)")
        connection.execute("CREATE TABLE parted_b1 PARTITION OF parted_b FOR VALUES FROM (0) TO (50)")
        connection.execute("CREATE TABLE parted_b2 PARTITION OF parted_b DEFAULT")
        table.insert(connection, gaussian(80, DIMS, seed=47), region=["ab"[number % 2] for number in range(80)])
        table.attach(connection)
        sidecar.wait_live(table.name)
        table.check(connection, QUERY)
        table.check(connection, QUERY, filter_={"region": "b"}, where="t.region = 'b'")
        steps = [
            "INSERT INTO parted VALUES (200, 'a', '[1,1,1,1]')",
            "INSERT INTO parted_b2 VALUES (201, 'b', '[1,1,1,1]')",  # straight into a partition
            "UPDATE parted SET region = 'b' WHERE id = 200",  # moves to another partition
            "UPDATE parted_b1 SET embedding = '[0,0,0,1]' WHERE id = 10",
            "DELETE FROM parted_a WHERE id = 1",
            "TRUNCATE parted_b1",  # no trigger sees it; its rows are dropped when the answer is joined
        ]
        for step in steps:
            connection.execute(step)
            table.check(connection, QUERY, k=100)
            sidecar.wait_applied(table.name)
            table.check(connection, QUERY, k=100)


# ---- other schemas -------------------------------------------------------------------------------------------------

SCHEMAS = [
    ("api", "extensions"),
    ("Api \"quoted\" 'x' %s {id}", 'ext\'ension "%s" {id} \\ $body$'),
]


@pytest.mark.parametrize(("api", "extensions"), SCHEMAS, ids=["plain", "hostile"])
def test_functions_and_extensions_in_schemas_of_their_own(new_database, tmp_path, api, extensions):
    database = new_database("empty")
    table = VectorTable("elsewhere", dims=DIMS, columns="id bigint PRIMARY KEY, c int", options={"columns": ["c"]},
                        metric="cosine")  # fmt: skip
    half = VectorTable("half", dims=DIMS, columns="id bigint PRIMARY KEY", element="halfvec")
    bits = VectorTable("bits", dims=5, columns="id bigint PRIMARY KEY", element="bit", metric="hamming")
    with database.connect() as connection:
        for name in (api, extensions):
            connection.execute(sql.SQL("CREATE SCHEMA {}").format(sql.Identifier(name)))
        for extension in ("vector", "dblink"):
            connection.execute(
                sql.SQL("CREATE EXTENSION {} SCHEMA {}").format(sql.SQL(extension), sql.Identifier(extensions))
            )
        install(database.dsn, api_schema=api)
        install(database.dsn, api_schema=api)  # twice equals once
        names = [row[0] for row in connection.execute(
            "SELECT DISTINCT n.nspname::text FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace"
            " WHERE p.proname LIKE 'ruvector\\_%'")]  # fmt: skip
        assert names == [api]
        path = sql.SQL("SET search_path = {}, {}, public").format(sql.Identifier(api), sql.Identifier(extensions))
        connection.execute(path)
        with running_sidecar(database, tmp_path / "data") as sidecar:
            for each in (table, half, bits):
                each.create(connection)
                each.attach(connection)
            table.insert(connection, gaussian(30, DIMS, seed=49), c=[number % 2 for number in range(30)])
            half.insert(connection, gaussian(30, DIMS, seed=49))
            bits.insert(connection, ["01010", "11111", "00000"])
            sidecar.wait_live(table.name, half.name, bits.name)
            table.check(connection, QUERY)
            table.check(connection, QUERY, filter_={"c": 1}, where="t.c = 1")
            half.check(connection, QUERY)
            bits.check(connection, "01110")
            queries = [text_of(QUERY)] * 2
            rows = connection.execute("SELECT * FROM ruvector_search_batch('elsewhere', %s::vector[], 1)", (queries,))
            assert len(rows.fetchall()) == 2
            assert table.explain(connection, QUERY)["engine"] == "ruvector"
            assert connection.execute("SELECT ruvector_wait_applied('elsewhere', 5000)").fetchone() == (True,)
            # the function is found without any search_path
            connection.execute("SET search_path = ''")
            rows = connection.execute(
                sql.SQL("SELECT * FROM {}.ruvector_search('elsewhere', {}, 3)").format(
                    sql.Identifier(api), sql.Literal(text_of(QUERY))
                )
            ).fetchall()
            assert [row[3] for row in rows] == ["hot"] * 3
        connection.execute(path)
        table.check(connection, QUERY, tier="pgvector")
        connection.execute("SET ruvector.exactness = 'exact'")
        table.check(connection, QUERY, tier="exact")
    database.server.drop_database(database.name)


# ---- dump and restore ----------------------------------------------------------------------------------------------


def run_program(server, name, *arguments):
    """Run a client program that is not older than the server; skip when there is none."""
    if server.embedded is not None:
        path = str(server.embedded.programs / name)
    else:
        path = shutil.which(name)
        if path is None:
            pytest.skip(f"{name} is not on PATH")
        version = subprocess.run([path, "--version"], capture_output=True, text=True, check=True).stdout
        if int(version.split()[2].split(".")[0]) < server.version // 10000:
            pytest.skip(f"{version.strip()} is older than the server")
    done = subprocess.run([path, *arguments], capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_dump_can_be_restored_and_mirrored_again(database, new_database, tmp_path):
    table = VectorTable("kept", dims=DIMS, columns="id bigint PRIMARY KEY, c int", options={"columns": ["c"]})
    dump = tmp_path / "dump.sql"
    with running_sidecar(database, tmp_path / "original") as original:
        with database.connect() as connection:
            table.create(connection)
            table.insert(connection, gaussian(30, DIMS, seed=50), c=[number % 2 for number in range(30)])
            table.attach(connection)
            original.wait_live(table.name)
        run_program(database.server, "pg_dump", "-f", str(dump), "-d", database.dsn)
        restored = new_database("empty")
        # Tables made first, so that no OID is what it was.
        with restored.connect() as connection:
            connection.execute("CREATE TABLE earlier (id int PRIMARY KEY, t text)")
        run_program(restored.server, "psql", "-X", "-q", "-v", "ON_ERROR_STOP=1", "-f", str(dump), "-d", restored.dsn)
        with restored.connect() as connection:
            connection.execute("RESET search_path")
            notices = notices_of(connection)
            # The sidecar that the dump speaks of answers for another database: it must refuse.
            connection.execute("INSERT INTO kept VALUES (100, 1, %s)", (text_of(QUERY),))
            assert table.check(connection, QUERY, tier="pgvector")[0][0] == "100"
            assert "another database" in notices.pop()
            table.check(connection, QUERY, filter_={"c": 1}, where="t.c = 1", tier="exact")
        with running_sidecar(restored, tmp_path / "copy") as copy, restored.connect() as connection:
            copy.wait_live(table.name)
            assert table.check(connection, QUERY)[0][0] == "100"
            connection.execute("DELETE FROM kept WHERE id = 100")
            copy.wait_applied(table.name)
            table.check(connection, QUERY, filter_={"c": 1}, where="t.c = 1")
            # and the original goes on
            with database.connect() as source:
                table.check(source, QUERY)
            assert connection.execute("SELECT ruvector_unregister_collection('kept')").fetchone() == (True,)
            assert traces(connection) == []
            table.insert(connection, [QUERY], first=500, c=[1])
    restored.server.drop_database(restored.name)


def test_restored_dump_can_be_detached_without_a_sidecar(database, new_database, tmp_path):
    table = VectorTable("kept", dims=DIMS)
    dump = tmp_path / "dump.sql"
    with database.connect() as connection:
        table.create(connection)
        table.attach(connection)
    run_program(database.server, "pg_dump", "-f", str(dump), "-d", database.dsn)
    restored = new_database("empty")
    with restored.connect() as connection:
        connection.execute("CREATE TABLE earlier (id int PRIMARY KEY, t text)")
    run_program(restored.server, "psql", "-X", "-q", "-v", "ON_ERROR_STOP=1", "-f", str(dump), "-d", restored.dsn)
    with restored.connect() as connection:
        table.insert(connection, [QUERY])
        assert len(table.search(connection, QUERY)) == 1
        connection.execute("SELECT ruvector_unregister_collection('kept')")
        assert traces(connection) == []
        table.insert(connection, [QUERY], first=2)
    restored.server.drop_database(restored.name)
