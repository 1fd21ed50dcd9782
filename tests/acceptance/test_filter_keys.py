"""keys => ...: only these rows may be in the answer, whatever the type of the key, with and without a filter."""

import psycopg
import pytest
from table_kit import SEARCH, VectorTable, bit_texts, gaussian, refused, sparse_texts, text_of

from ruvector import limits

DIMS, ROWS, K = 4, 600, 10
QUERY = gaussian(1, DIMS, seed=201)[0]
COLUMNS = "id {} PRIMARY KEY, category int"
ITEMS = VectorTable("items", dims=DIMS, columns=COLUMNS.format("bigint"), options={"columns": ["category"]})
FOLDED = "CREATE COLLATION folded (provider = icu, locale = 'und-u-ks-level2', deterministic = false)"
WITH_KEYS = SEARCH.replace(")", ", keys => %s)")

# name: columns of the table, the row's number as its key, the text of a key, what asks for rows 7 and 8 beside others
KEYED = {
    "int2": ("id smallint PRIMARY KEY", "n", "t.id::text", ["7", " 8", "+9999"]),
    "text": ("id text PRIMARY KEY", "'k \"' || n || '\",{}''ü'", "t.id", ["k \"7\",{}'ü", "k \"8\",{}'ü", "k", ""]),
    "bpchar": ("id char(6) PRIMARY KEY", "'k' || n", "t.id::text", ["k7", "k8   ", "k"]),
    "case": ("id text COLLATE folded PRIMARY KEY", "'K' || n", "t.id", ["k7", "K8", "x"]),
    "uuid": ("id uuid PRIMARY KEY", "lpad(n::text, 32, '0')::uuid", "t.id::text",
             ["00000000000000000000000000000007", "{00000000-0000-0000-0000-000000000008}",
              "00000000-0000-0000-0000-00000000000A"]),
    "numeric": ("id numeric(9,2) PRIMARY KEY", "n", "t.id::text", ["7", "8.000", "1e-7"]),
    "timestamptz": ("id timestamptz PRIMARY KEY", "'2024-01-01Z'::timestamptz + n * interval '1 day'", "t.id::text",
                    ["2024-01-08", "2024-01-09 02:00+02", "2030-01-01"]),
    "date": ("id date PRIMARY KEY", "date '2024-01-01' + n", "t.id::text",
             ["2024-01-08", "January 9, 2024", "infinity"]),
    "two columns": ("id int, part text, PRIMARY KEY (id, part)", "n, 'p ' || n", "json_build_array(t.id, t.part)::text",
                    ['[7,"p 7"]', '[ "8" , "p 8" ]', '[7, "p 8"]', "[7]", "[]"]),
}  # fmt: skip


@pytest.fixture(scope="module")
def items(shared_sidecar, shared_database):
    with shared_database.connect() as connection:
        ITEMS.create(connection)
        ITEMS.insert(connection, gaussian(ROWS, DIMS, seed=202), category=[n % 5 for n in range(1, ROWS + 1)])
        ITEMS.attach(connection)
        shared_sidecar.wait_live(ITEMS.name)
        yield connection


@pytest.mark.parametrize(
    ("keys", "where"),
    [
        ([], "false"),
        (["7"], "t.id = 7"),
        ([str(n) for n in range(1, 40)], "t.id < 40"),
        ([str(n) for n in range(1, ROWS + 1)], "true"),
        ([str(n) for n in range(300, 3000)], "t.id >= 300"),
        (["7", "7", "07", None, "-1", "9223372036854775807"], "t.id = 7"),
        ([None], "false"),
        ([["7", "8"], ["9", None]], "t.id IN (7, 8, 9)"),
    ],
    ids=lambda value: str(value)[:30],
)
@pytest.mark.parametrize(("filter_", "also"), [(None, "true"), ({"category": [1, 2]}, "t.category IN (1, 2)")])
def test_only_rows_with_these_keys_are_found(items, keys, where, filter_, also):
    found = ITEMS.check(items, QUERY, k=K, keys=keys, filter_=filter_, where=f"({where}) AND {also}")
    matching = items.execute(f"SELECT count(*) FROM items t WHERE ({where}) AND {also}").fetchone()[0]
    assert len(found) == min(K, matching)


def test_keys_may_come_from_a_subquery(items):
    found = items.execute(
        "SELECT id FROM ruvector_search('items', %s, keys => ARRAY(SELECT id::text FROM items WHERE id %% 50 = 0))",
        (text_of(QUERY),),
    ).fetchall()
    assert len(found) == K
    assert all(int(row[0]) % 50 == 0 for row in found)


@pytest.mark.parametrize("exactness", ["fast", "balanced", "exact"])
def test_keys_and_filter_restrict_every_way_to_answer(items, exactness):
    items.execute("SELECT set_config('ruvector.exactness', %s, false)", (exactness,))
    try:
        found = ITEMS.search(items, QUERY, keys=[str(n) for n in range(20)], filter_={"category": 3})
    finally:
        items.execute("RESET ruvector.exactness")
    assert sorted(int(row[0]) for row in found) == [3, 8, 13, 18]
    assert {row[3] for row in found} == {"exact" if exactness == "exact" else "hot"}


def test_keys_see_what_this_transaction_wrote(items):
    with items.transaction(force_rollback=True):
        items.execute("UPDATE items SET id = 7000 WHERE id = 7")
        items.execute("DELETE FROM items WHERE id = 8")
        items.execute("INSERT INTO items VALUES (9000, 1, %s), (9001, 1, %s)", (text_of(QUERY), text_of(QUERY)))
        found = ITEMS.check(items, QUERY, keys=["7", "8", "9", "7000", "9000"], where="t.id IN (9, 7000, 9000)")
        assert len(found) == 3


@pytest.mark.parametrize("kind", KEYED)
def test_keys_of_every_type_are_the_values_not_their_texts(database, sidecar, kind):
    columns, value, key_sql, keys = KEYED[kind]
    table = VectorTable("keyed", dims=DIMS, columns=columns, key_sql=key_sql)
    with database.connect() as connection:
        if "folded" in columns:
            try:
                connection.execute(FOLDED)
            except psycopg.errors.FeatureNotSupported:
                pytest.skip("this server has no ICU")
        connection.execute("SET timezone = 'UTC'")
        table.create(connection)
        connection.execute(
            f"INSERT INTO keyed SELECT {value}, ARRAY[n, n * n, 1, 2]::real[]::vector FROM generate_series(1, 60) n"
        )
        table.attach(connection)
        sidecar.wait_live("keyed")
        where = "t.embedding::real[] IN ('{7,49,1,2}', '{8,64,1,2}')"
        for zone in ("UTC", "Asia/Kolkata"):
            connection.execute("SELECT set_config('timezone', 'UTC', false)")
            expected = table.distances(connection, [1, 2, 3, 4], where=where)
            connection.execute("SELECT set_config('timezone', %s, false)", (zone,))
            found = table.search(connection, [1, 2, 3, 4], keys=keys)
            assert {row[0]: row[1] for row in found} == expected
            assert len(found) == 2


def test_bits_and_sparse_vectors_take_keys_too(database, sidecar):
    bits = VectorTable("bits", dims=16, element="bit", metric="hamming")
    sparse = VectorTable("words", dims=100, element="sparsevec", metric="ip")
    with database.connect() as connection:
        for table, vectors in ((bits, bit_texts(50, 16, seed=1)), (sparse, sparse_texts(50, 100, seed=2))):
            table.create(connection)
            table.insert(connection, vectors)
            table.attach(connection)
            sidecar.wait_live(table.name)
            found = table.check(connection, vectors[3], keys=["4", "5", "6", "1000"], where="t.id IN (4, 5, 6)")
            assert len(found) == 3


def test_a_million_keys_are_allowed_and_no_more(items):
    count = limits.FILTER_KEYS_MAX
    statement = (
        "SELECT count(*), min(s.id::bigint), bool_and(s.tier = 'hot') FROM ruvector_search('items', %s, k => %s,"
        " keys => ARRAY(SELECT n::text FROM generate_series(101, 100 + %s) n)) s"
    )
    assert items.execute(statement, (text_of(QUERY), ROWS, count)).fetchone() == (ROWS - 100, 101, True)
    problem = refused(items, statement, (text_of(QUERY), K, count + 1))
    assert (problem.code, problem.message) == ("54000", "1000001 keys were given, at most 1000000 are allowed")


@pytest.mark.parametrize(
    ("keys", "reason"),
    [
        (["1", "x"], 'invalid input syntax for type bigint: "x"'),
        ([""], 'invalid input syntax for type bigint: ""'),
        (["1.5"], 'invalid input syntax for type bigint: "1.5"'),
        (["9223372036854775808"], 'value "9223372036854775808" is out of range for type bigint'),
        (["1); DROP TABLE items; --"], 'invalid input syntax for type bigint: "1); DROP TABLE items; --"'),
    ],
)
def test_text_that_is_no_key_is_refused(items, keys, reason):
    problem = refused(items, WITH_KEYS, (ITEMS.name, text_of(QUERY), K, None, None, keys))
    assert (problem.code, problem.message) == ("22023", f"a text in keys is not a key of collection items: {reason}")
    assert "keys => ARRAY(SELECT key::text FROM ...)" in problem.hint
