"""psql and psycopg connected to the sidecar itself: the answers of the real index, and the same errors as in SQL."""

import shutil
import subprocess

import numpy as np
import psycopg
import pytest
from fix_sidecar import running_sidecar
from psycopg.rows import dict_row
from table_kit import VectorTable, bit_texts, gaussian, refused, text_of

DIMS, ROWS = 6, 80
ITEMS = VectorTable("items", dims=DIMS, metric="cosine")
HOSTILE = VectorTable("a\"b'c %s $1 ü", table="hostile", dims=DIMS, metric="ip")
KEYED = VectorTable("keyed", columns="a int, b text, PRIMARY KEY (a, b)", dims=DIMS,
                    key_sql="json_build_array(t.a, t.b)::text")  # fmt: skip
BITS = VectorTable("bits", dims=20, element="bit", metric="hamming")
GOODS = VectorTable("goods", columns="id bigint PRIMARY KEY, category int, name text, price numeric", dims=DIMS,
                    options={"columns": ["category", "name", "price"]})  # fmt: skip
QUERY = gaussian(1, DIMS, seed=71)[0]
COLUMNS = "SELECT id, distance, score, tier, is_exact FROM "


@pytest.fixture(scope="module")
def database(shared_database, shared_sidecar):
    with shared_database.connect() as connection:
        for table in (ITEMS, HOSTILE, BITS, KEYED):
            table.create(connection)
            if table is KEYED:
                connection.execute("INSERT INTO keyed SELECT n, 'it''s \"' || n, ARRAY[n,1,2,3,4,5]::vector FROM"
                                   " generate_series(1, 20) n")  # fmt: skip
            else:
                rows = bit_texts(ROWS, 20, seed=72) if table is BITS else gaussian(ROWS, DIMS, seed=72)
                table.insert(connection, rows)
            table.attach(connection)
        GOODS.create(connection)
        names = [None if n % 9 == 0 else f"it's {n % 4}" for n in range(ROWS)]
        columns = {"category": [n % 5 for n in range(ROWS)], "name": names, "price": list(range(ROWS))}
        GOODS.insert(connection, gaussian(ROWS, DIMS, seed=73), **columns)
        GOODS.attach(connection)
        shared_sidecar.wait_live(*(table.name for table in (ITEMS, HOSTILE, BITS, KEYED, GOODS)))
    return shared_database


@pytest.fixture
def inside(database):
    with database.connect() as connection:
        yield connection


@pytest.fixture
def direct(database, shared_sidecar):
    with psycopg.connect(shared_sidecar.dsn(), autocommit=True) as connection:
        yield connection


@pytest.fixture(scope="module")
def psql(postgres):
    """The psql of the embedded server, else the one of the PATH."""
    if postgres.embedded is not None and (found := postgres.embedded.programs / "psql").exists():
        return str(found)
    return shutil.which("psql") or pytest.skip("there is no psql")


@pytest.mark.parametrize(
    "options",
    [
        """filter => '{"category": [1, 2], "$not": {"name": "it''s 1"}}'""", """filter => '{"name": null}'""",
        """filter => '{"category": 77}'""", "filter => '{}'", "keys => '{5,7,NULL,9999,7}'", "max_distance => 2.0",
        """filter => '{"category": {"$gte": 3}}', keys => '{1,2,3,4,5,6,7,8,9}', max_distance => 2.5""",
        "keys => '{}'", "filter => NULL, keys => NULL, max_distance => NULL",
    ],
)  # fmt: skip
def test_filters_keys_and_distances_past_the_database(inside, direct, options):
    statement = f"{COLUMNS} ruvector_search('goods', '{text_of(QUERY)}', 30, {options})"
    expected = inside.execute(statement).fetchall()
    found = direct.execute(statement).fetchall()
    assert [(row[0], *row[3:]) for row in found] == [(row[0], *row[3:]) for row in expected]
    assert [row[1] for row in found] == pytest.approx([row[1] for row in expected], rel=1e-6)
    assert len(expected) > 0 or "77" in options or "{}" in options


def run_psql(psql, dsn, *statements):
    command = [psql, "-X", "-w", "-A", "-t", "-d", dsn]
    for statement in statements:
        command += ["-c", statement]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


# ---- psql ----------------------------------------------------------------------------------------------------------


def test_psql_answers_the_statement_of_the_issue(psql, database, inside, shared_sidecar):
    done = run_psql(psql, shared_sidecar.dsn(), f"SELECT * FROM ruvector_search('items', '{text_of(QUERY)}', 5);")
    assert (done.returncode, done.stderr) == (0, "")
    lines = [line.split("|") for line in done.stdout.splitlines()]
    expected = ITEMS.search(inside, QUERY, k=5)
    assert [line[0] for line in lines] == [row[0] for row in expected]
    assert [float(line[1]) for line in lines] == pytest.approx([row[1] for row in expected], abs=1e-6)
    assert {(line[3], line[4]) for line in lines} == {("hot", "t")}


def test_psql_same_statement_at_both_doors(psql, database, shared_sidecar):
    statements = ["SELECT id FROM ruvector_search('keyed', '[7,1,2,3,4,5]', 3)",
                  "SELECT id FROM ruvector_search_bits('bits', B'01010101010101010101', 3)",
                  "SELECT query_idx, id FROM ruvector_search_batch('items', ARRAY['[1,2,3,4,5,6]']::vector[], 3)",
                  "SELECT ruvector_version()"]  # fmt: skip
    answers = [run_psql(psql, dsn, *statements) for dsn in (shared_sidecar.dsn(), database.dsn)]
    assert [done.returncode for done in answers] == [0, 0]
    assert answers[0].stdout.splitlines()[0] == '[7, "it\'s \\"7"]'
    direct, inside = (done.stdout.splitlines() for done in answers)
    assert direct[:3] + direct[6:] == inside[:3] + inside[6:]  # ties of bits may come in any order


def test_psql_shows_code_and_hint(psql, shared_sidecar, database):
    done = run_psql(psql, shared_sidecar.dsn(), "\\set VERBOSITY verbose", "SELECT * FROM ruvector_search('x', '[1]')")
    assert done.returncode == 1
    assert 'ERROR:  42704: collection "x" does not exist' in done.stderr
    assert "HINT:  List them with" in done.stderr


def test_wrong_password_is_refused(shared_sidecar, database):
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        psycopg.connect(shared_sidecar.dsn(password="wrong"))
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        psycopg.connect(shared_sidecar.dsn(user="nobody"))


def test_password_file_is_for_its_owner_alone(shared_sidecar, database):
    assert (shared_sidecar.data_dir / "client-password").stat().st_mode & 0o777 == 0o600


# ---- psycopg -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("binary", [False, True], ids=["text", "binary"])
@pytest.mark.parametrize("prepare", [False, True], ids=["unprepared", "prepared"])
@pytest.mark.parametrize("table", [ITEMS, HOSTILE], ids=["plain", "hostile"])
def test_answers_of_the_index_equal_sql(direct, inside, table, binary, prepare):
    cursor = direct.cursor(binary=binary)
    for k in (1, 7, ROWS, ROWS + 50):
        cursor.execute("SELECT * FROM ruvector_search(%s, %s, %s)", (table.name, text_of(QUERY), k), prepare=prepare)
        found = cursor.fetchall()
        expected = table.search(inside, QUERY, k=k)
        assert [row[0] for row in found] == [row[0] for row in expected]
        assert np.allclose([row[1:3] for row in found], [row[1:3] for row in expected], atol=1e-6)
        assert {row[3:] for row in found} == {("hot", True)}


def test_distances_of_bits_equal_sql(direct, inside):
    query = bit_texts(1, 20, seed=73)[0]
    found = direct.execute("SELECT * FROM ruvector_search_bits('bits', %s, 9)", (query,)).fetchall()
    assert [row[1] for row in found] == [row[1] for row in BITS.search(inside, query, k=9)]


def test_committed_changes_show_after_a_wait(direct, inside, shared_sidecar):
    inside.execute("INSERT INTO items VALUES (500, %s)", (text_of(QUERY),))
    shared_sidecar.wait_applied("items")
    nearest = "SELECT id FROM ruvector_search('items', %s, 1)"
    assert direct.execute(nearest, (text_of(QUERY),)).fetchone() == ("500",)
    inside.execute("DELETE FROM items WHERE id = 500")
    shared_sidecar.wait_applied("items")
    assert direct.execute(nearest, (text_of(QUERY),)).fetchone() != ("500",)


def test_status_functions(direct, inside):
    cursor = direct.cursor(row_factory=dict_row)
    listed = cursor.execute("SELECT * FROM ruvector_list_collections()").fetchall()
    assert sorted(row["name"] for row in listed) == sorted(["items", "bits", "keyed", "goods", HOSTILE.name])
    items = next(row for row in listed if row["name"] == "items")
    assert (items["dimensions"], items["distance_metric"], items["vector_count"]) == (DIMS, "cosine", ROWS)
    status = cursor.execute("SELECT * FROM ruvector_consistency_status('items')").fetchone()
    assert (status["state"], status["reason"], status["unindexed"]) == ("live", None, {})
    stats = cursor.execute("SELECT ruvector_index_stats('items') AS s").fetchone()["s"]
    assert (stats["rows"], stats["state"]) == (ROWS, "live")
    memory = cursor.execute("SELECT ruvector_memory_stats() AS m").fetchone()["m"]
    assert set(memory["indexes"]) == {"items", "bits", "keyed", "goods", HOSTILE.name}
    report = cursor.execute("SELECT ruvector_verify('items', \"full\" => true) AS r").fetchone()["r"]
    assert (report["differences"], report["checked"]) == (0, ROWS)
    assert (
        cursor.execute("SELECT ruvector_simd_info() AS s").fetchone()["s"]
        == (inside.execute("SELECT ruvector_simd_info()").fetchone()[0])
    )


VECTOR = text_of(QUERY)
# statement, SQLSTATE, part of the message
BAD = [
    ("SELECT * FROM ruvector_search('nothing', '[1]')", "42704", 'collection "nothing" does not exist'),
    ("SELECT * FROM ruvector_search('items', '[1,2]')", "22023", "the vector has 2 dimensions, the collection has 6"),
    ("SELECT * FROM ruvector_search('items', '[1,2,3,4,5,NaN]')", "22023", ""),
    ("SELECT * FROM ruvector_search('items', '[1,2,3,4,5,Infinity]')", "22023", ""),
    ("SELECT * FROM ruvector_search('items', '[0,0,0,0,0,0]')", "22023", "zero"),
    ("SELECT * FROM ruvector_search('items', '[1,2,x]')", "22023", ""),
    ("SELECT * FROM ruvector_search('items', NULL)", "22023", "query"),
    (f"SELECT * FROM ruvector_search('items', '{VECTOR}', 0)", "22023", "k is 0"),
    (f"SELECT * FROM ruvector_search('items', '{VECTOR}', -1)", "22023", "k is -1"),
    (f"SELECT * FROM ruvector_search('items', '{VECTOR}', 10000000)", "22023", "k is 10000000"),
    (f"SELECT * FROM ruvector_search('items', '{VECTOR}', ef_search => 20001)", "22023", "ef_search is 20001"),
    (f"SELECT * FROM ruvector_search('items', '{VECTOR}', filter => '{{\"a\": 1}}')", "22023", "no attributes"),
    (f"SELECT * FROM ruvector_search('items', '{VECTOR}', filter => '[]')", "22023", "must be a JSON object"),
    (f"SELECT * FROM ruvector_search('items', '{VECTOR}', keys => '{{x}}')", "22023", "no whole number"),
    (f"SELECT * FROM ruvector_search('items', '{VECTOR}', max_distance => 'NaN')", "22023", "max_distance"),
    (f"SELECT * FROM ruvector_search('goods', '{VECTOR}', filter => '{{\"weight\": 1}}')", "22023",
     "column 'weight' is not a filter column"),
    (f"SELECT * FROM ruvector_search('goods', '{VECTOR}', filter => '{{\"price\": {{\"$lt\": 3}}}}')", "0A000",
     "cannot tell for every row"),
    (f"SELECT * FROM ruvector_search('goods', '{VECTOR}', filter => '{{\"category\": \"four\"}}')", "0A000",
     "cannot tell for every row"),
    (f"SELECT * FROM ruvector_search('goods', '{VECTOR}', filter => '{{\"category\": {{\"$like\": 4}}}}')", "22023",
     "unknown operator"),
    (f"SELECT * FROM ruvector_search('items', '{VECTOR}', exactness => 'exact')", "0A000", "exact"),
    ("SELECT * FROM ruvector_search('bits', '[1]')", "22023", 'collection "bits" holds bit vectors'),
    ("SELECT * FROM ruvector_search_bits('items', B'1')", "22023", 'collection "items" holds vectors, not bits'),
    ("SELECT * FROM ruvector_search_bits('bits', B'1')", "22023", "the vector has 1 dimensions, the collection has 20"),
    ("SELECT * FROM ruvector_search_bits('bits', '012')", "22023", ""),
    ("SELECT ruvector_register_collection('a', 'b', 'c', 'd')", "0A000", ""),
    (f"SELECT * FROM ruvector_explain('items', '{VECTOR}')", "0A000", ""),
    ("SELECT ruvector_wait_applied('items')", "22023", "cannot know"),
    ("SELECT * FROM items", "0A000", ""),
    ("DROP TABLE items", "0A000", ""),
    ("SELECT ruvector_nothing()", "42883", ""),
    ("SELECT * FROM ruvector_search('items')", "42883", ""),
    ("SELEC", "0A000", ""),
]  # fmt: skip


@pytest.mark.parametrize(("statement", "code", "message"), BAD, ids=[case[0][:75] for case in BAD])
def test_bad_statement_is_refused_with_a_hint(direct, statement, code, message):
    problem = refused(direct, statement)
    assert problem.code == code
    assert message in problem.message
    assert problem.hint
    assert direct.execute("SELECT 1").fetchone() == (1,)


def test_login_of_the_bridge_may_not_search_directly(inside, shared_sidecar):
    login, password = inside.execute("SELECT login, password FROM ruvector.gate").fetchone()
    with psycopg.connect(shared_sidecar.dsn(user=login, password=password), autocommit=True) as connection:
        problem = refused(connection, f"SELECT * FROM ruvector_search('items', '{VECTOR}', 1)")
        assert problem.code == "42501"


def test_unix_socket_serves_its_own_user_without_a_password(new_database, short_path, tmp_path):
    fresh = new_database("installed")
    table = VectorTable("items", dims=DIMS)
    with fresh.connect() as connection:
        table.create(connection)
        table.insert(connection, gaussian(5, DIMS, seed=74))
        table.attach(connection)
    listen = (f"unix:{short_path}/s", "127.0.0.1:0")
    with running_sidecar(fresh, tmp_path / "data", listen=listen) as sidecar:
        unix = next(address for address in sidecar.sidecar.addresses if address.is_unix)
        assert (short_path / "s").stat().st_mode & 0o777 == 0o700
        sidecar.wait_live(table.name)
        with psycopg.connect(host=str(unix.host), port=unix.port, user="ruvector", dbname="ruvector") as connection:
            rows = connection.execute("SELECT id FROM ruvector_search('items', %s, 3)", (VECTOR,)).fetchall()
            assert len(rows) == 3
    fresh.server.drop_database(fresh.name)


def test_collection_that_is_not_live_says_so(new_database, tmp_path):
    fresh = new_database("installed")
    with fresh.connect() as connection, running_sidecar(fresh, tmp_path / "data") as sidecar:
        table = VectorTable("drifting", dims=DIMS)
        table.create(connection)
        table.attach(connection)
        sidecar.wait_live(table.name)
        connection.execute('ALTER TABLE drifting DISABLE TRIGGER "00_ruvector_rows_1"')
        sidecar.wait_state(table.name, "stale")
        with psycopg.connect(sidecar.dsn(), autocommit=True) as direct:
            problem = refused(direct, f"SELECT * FROM ruvector_search('drifting', '{VECTOR}', 1)")
            assert problem.code == "55000"
            assert 'is stale: trigger "00_ruvector_rows_1" is disabled' in problem.message
            assert problem.hint == "See SELECT * FROM ruvector_consistency_status()."
    fresh.server.drop_database(fresh.name)
