"""Columns of filters: a change of one is a change, and they may come, go and change under a running mirror."""

import contextlib

import numpy as np
import psycopg
import pytest
from fix_sidecar import wait_until
from table_kit import SEARCH, VectorTable, gaussian, refused, text_of

from ruvector.alembic.install import install
from ruvector.values import AttributeRows, AttributeValues

DIMS, ROWS, K = 4, 400, 10
QUERY = gaussian(1, DIMS, seed=301)[0]
TABLE = VectorTable(
    "goods",
    dims=DIMS,
    columns="id bigint PRIMARY KEY, note text, category int, price numeric, labels text[]",
    options={"columns": ["category", "price"]},
)
PRICE = {"price": {"$lt": 10}}


@pytest.fixture
def goods(database, sidecar):
    with database.connect() as connection:
        TABLE.create(connection)
        TABLE.insert(
            connection, gaussian(ROWS, DIMS, seed=302), category=[n % 40 for n in range(ROWS)], price=list(range(ROWS))
        )
        TABLE.attach(connection)
        sidecar.wait_live(TABLE.name)
        yield connection


@contextlib.contextmanager
def written(connection):
    """Say how many rows of the changelog a transaction writes, and undo it."""
    counted = []
    with connection.transaction(force_rollback=True):
        yield counted
        counted.append(
            connection.execute("SELECT count(*) FROM ruvector.changelog_1 WHERE xid = pg_current_xact_id()").fetchone()[
                0
            ]
        )


@pytest.mark.parametrize(
    ("change", "rows"),
    [
        ("category = category + 1", 10), ("price = NULL", 10), ("note = 'x'", 0), ("category = category", 0),
        ("labels = '{a}'", 0), ("embedding = '[1,1,1,1]'", 10), ("id = -id", 20), ("id = -id, price = 1", 20),
        ("price = price + 0.0", 10),
    ],
)  # fmt: skip
def test_update_is_captured_when_key_vector_or_a_filter_column_changes(goods, change, rows):
    with written(goods) as counted:
        goods.execute(f"UPDATE goods SET {change} WHERE id <= 10")
    assert counted == [rows]


def test_update_of_an_attribute_is_seen_at_once_and_after_it_was_applied(goods, sidecar):
    for category in (1000, 1001, None, 7):
        goods.execute("UPDATE goods SET category = %s WHERE id BETWEEN 20 AND 32", (category,))
        condition = {"category": category}
        where = f"t.category IS NOT DISTINCT FROM {'NULL' if category is None else category}"
        TABLE.check(goods, QUERY, k=50, filter_=condition, where=where)
        TABLE.check(goods, QUERY, k=50, filter_={"$not": condition}, where=f"NOT {where}")
        sidecar.wait_applied(TABLE.name)
        TABLE.check(goods, QUERY, k=50, filter_=condition, where=where)
        TABLE.check(goods, QUERY, k=50, filter_={"$not": condition}, where=f"NOT {where}")


def test_update_of_an_attribute_is_seen_by_its_own_transaction_and_by_no_old_snapshot(goods, database, sidecar):
    with database.connect(autocommit=False) as old:
        old.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        TABLE.check(old, QUERY, filter_={"category": 3}, where="t.category = 3")
        with goods.transaction():
            goods.execute("UPDATE goods SET category = CASE category WHEN 3 THEN 4 ELSE 3 END WHERE category IN (3, 4)")
            assert len(TABLE.check(goods, QUERY, filter_={"category": 3}, where="t.category = 3")) == K
        sidecar.wait_applied(TABLE.name)
        TABLE.check(old, QUERY, filter_={"category": 3}, where="t.category = 3")
        old.rollback()
    TABLE.check(goods, QUERY, filter_={"category": 3}, where="t.category = 3")


def test_filter_columns_change_while_the_mirror_runs(goods, sidecar):
    def set_columns(*names):
        goods.execute("SELECT ruvector.set_filter_columns('goods', %s)", (list(names),))

    goods.execute("UPDATE goods SET labels = ARRAY['l' || id % 4] WHERE id % 3 = 0")
    sidecar.wait_applied(TABLE.name)
    with written(goods) as before:
        goods.execute("UPDATE goods SET labels = '{}' WHERE id = 5")
    set_columns("price", "labels")
    with written(goods) as after:
        goods.execute("UPDATE goods SET labels = '{}' WHERE id = 5")
        goods.execute("UPDATE goods SET category = 0 WHERE id = 5")
    assert (before, after) == ([0], [1])
    condition, where = {"labels": "l2"}, "'l2' = ANY (t.labels)"
    assert TABLE.search(goods, QUERY, filter_=condition)[0][0] in TABLE.distances(goods, QUERY, where=where)
    goods.execute("UPDATE goods SET labels = '{l2}' WHERE id = 5")
    sidecar.wait_live(TABLE.name).wait_applied(TABLE.name)
    TABLE.check(goods, QUERY, k=100, filter_=condition, where=where)
    TABLE.check(goods, QUERY, k=100, filter_=condition | PRICE, where=f"{where} AND t.price < 10")
    problem = refused(goods, SEARCH, (TABLE.name, text_of(QUERY), K, None, '{"category": 1}'))
    assert (problem.code, problem.message) == (
        "42703", 'column category is not a filter column of collection "goods"'
    )  # fmt: skip
    # none at all: the trigger decides by itself again
    set_columns()
    definition = "SELECT pg_get_triggerdef(oid) FROM pg_trigger WHERE tgname = '00_ruvector_update_1'"
    assert "true OR" not in goods.execute(definition).fetchone()[0]
    with written(goods) as counted:
        goods.execute("UPDATE goods SET labels = '{}', price = 1, category = 1")
        goods.execute("UPDATE goods SET embedding = '[1,1,1,1]' WHERE id = 5")
    assert counted == [1]
    sidecar.wait_live(TABLE.name)
    TABLE.check(goods, QUERY)


def test_column_that_came_back_or_changed_is_another_one(goods, sidecar):
    def versions():
        statement = "SELECT f.versions FROM ruvector.collection c, ruvector.filter_parts(c, '{}') f"
        return goods.execute(statement).fetchone()[0]

    first = versions()
    assert first == {each.name: each.version for each in sidecar.mirror(TABLE.name).collection.attributes}
    goods.execute("SELECT ruvector.set_filter_columns('goods', '{category,price,labels}')")
    assert {name: versions()[name] for name in ("category", "price")} == first
    goods.execute("SELECT ruvector.set_filter_columns('goods', '{category}')")
    goods.execute("SELECT ruvector.set_filter_columns('goods', '{category,price}')")
    assert versions().keys() == first.keys()
    assert versions()["category"] == first["category"]
    assert versions()["price"] != first["price"]
    before = versions()
    goods.execute("ALTER TABLE goods ALTER price TYPE numeric USING price * 2")
    assert (versions()["category"], versions()["price"] != before["price"]) == (before["category"], True)
    # whatever the sidecar knows by now
    for _ in range(3):
        TABLE.check(goods, QUERY, k=20, filter_={"price": {"$lt": 30}}, where="t.price < 30")
        sidecar.wait_live(TABLE.name)
    wait_until(
        lambda: versions() == {each.name: each.version for each in sidecar.mirror(TABLE.name).collection.attributes},
        "the sidecar to know the columns",
    )
    sidecar.wait_live(TABLE.name)
    TABLE.check(goods, QUERY, k=20, filter_={"price": {"$lt": 30}}, where="t.price < 30")


@pytest.mark.parametrize("names", [["price"], [], ["labels"], ["category", "price", "labels"]])
def test_rows_equal_the_table_after_columns_came_or_went(goods, sidecar, names):
    goods.execute("SELECT ruvector.set_filter_columns('goods', %s)", (names,))
    goods.execute("UPDATE goods SET category = 5, price = NULL, labels = '{a,b}' WHERE id <= 20")
    wait_until(
        lambda: sorted(each.name for each in sidecar.mirror(TABLE.name).index.attributes) == sorted(names),
        "the sidecar to have the columns",
    )
    sidecar.wait_live(TABLE.name).wait_applied(TABLE.name)
    wait_until(lambda: sidecar.mirror(TABLE.name).index.is_filled, "the columns to be filled")
    for _ in range(2):
        report = sidecar.worker(TABLE.name).verify(sample=1, full=True, repair=False)
        assert (report["differences"], report["checked"]) == (0, ROWS)
    assert sidecar.mirror(TABLE.name).progress.rows_copied == 0  # by the worker that took over


def test_verify_finds_and_repairs_an_attribute(goods, sidecar):
    index = sidecar.mirror(TABLE.name).index
    right = index.attribute_hashes([5, 6])
    rows = AttributeRows(
        {
            "category": AttributeValues(np.array([39, 39], dtype=np.int64), np.ones(2, dtype=bool)),
            "price": AttributeValues(np.array([1e6, 1e6]), np.ones(2, dtype=bool)),
        },
        right + 1,
    )
    index.fill_attributes([5, 6], rows)
    assert TABLE.search(goods, QUERY, k=K, filter_=PRICE)
    worker = sidecar.worker(TABLE.name)
    for repair in (False, True):
        report = worker.verify(sample=1, full=True, repair=repair)
        assert (report["keys"]["stale"], report["repaired"]) == (["5", "6"], 2 * repair)
    assert worker.verify(sample=1, full=True, repair=False)["differences"] == 0
    assert index.attribute_hashes([5, 6]).tolist() == right.tolist()
    TABLE.check(goods, QUERY, k=K, filter_=PRICE, where="t.price < 10")


def test_setting_the_same_columns_again_changes_nothing(goods):
    state = "SELECT fingerprint, xmin::text FROM ruvector.collection"
    triggers = "SELECT oid, xmin::text FROM pg_trigger WHERE tgname ~ '^00_ruvector' ORDER BY 1"
    fingerprint, _ = goods.execute(state).fetchone()
    before = goods.execute(triggers).fetchall()
    goods.execute("SELECT ruvector.set_filter_columns('goods', '{price,category,price}')")
    assert goods.execute(triggers).fetchall() == before
    assert goods.execute(state).fetchone()[0] == fingerprint
    assert goods.execute("SELECT ruvector.is_current(c) FROM ruvector.collection c").fetchone() == (True,)


def test_columns_are_not_changed_under_a_writer(goods, database):
    with database.connect(autocommit=False) as writer:
        writer.execute("UPDATE goods SET labels = '{x}' WHERE id = 1")
        problem = refused(goods, "SELECT ruvector.set_filter_columns('goods', '{labels}')")
        assert problem.code == "55P03"
        writer.rollback()
    assert goods.execute("SELECT filter_columns FROM ruvector.collection").fetchone() == (["category", "price"],)
    goods.execute("SELECT ruvector.set_filter_columns('goods', '{labels}')")


# what the application does to a column of a filter, and what a filter on it then says
CHANGES = {
    "dropped": ("ALTER TABLE goods DROP COLUMN price", "filter column price was dropped from the table"),
    "renamed": ("ALTER TABLE goods RENAME price TO cost", "filter column price was dropped from the table"),
    "another type": ("ALTER TABLE goods ALTER price TYPE int", None),
    "a type of no filter": ("ALTER TABLE goods ALTER price TYPE json USING to_json(price)",
                            "filters do not know the type json"),
    "dropped and made anew": ("ALTER TABLE goods DROP COLUMN price, ADD COLUMN price real DEFAULT 5", None),
}  # fmt: skip


@pytest.mark.parametrize("change", CHANGES)
def test_filter_column_can_be_changed_and_writes_go_on(goods, database, sidecar, change):
    statement, message = CHANGES[change]
    with database.connect() as other:
        for connection in (goods, other):  # both have the plans of the triggers
            for _ in range(8):
                connection.execute("UPDATE goods SET price = price + 1, note = 'a' WHERE id <= 5")
        goods.execute(statement)
        for connection in (goods, other):
            with written(connection) as counted:
                connection.execute("UPDATE goods SET category = category + 1 WHERE id = 7")
            assert counted == [1]
            connection.execute("UPDATE goods SET note = 'b', category = category + 1 WHERE id BETWEEN 10 AND 20")
            connection.execute("INSERT INTO goods (id, category, embedding) VALUES (1000, 7, %s)", (text_of(QUERY),))
            connection.execute("DELETE FROM goods WHERE id = 1000")
    sidecar.wait_live(TABLE.name).wait_applied(TABLE.name)
    # A worker that only now meets the change of the columns starts again; searches go to the table meanwhile.
    wait_until(lambda: TABLE.search(goods, QUERY, k=1)[0][3] == "hot", "the sidecar to answer again")
    TABLE.check(goods, QUERY, k=100, filter_={"category": 7}, where="t.category = 7")
    if message is None:
        goods.execute("UPDATE goods SET price = 3 WHERE id BETWEEN 100 AND 120")
        TABLE.check(goods, QUERY, k=100, filter_=PRICE, where="t.price < 10")
        sidecar.wait_applied(TABLE.name)
        TABLE.check(goods, QUERY, k=100, filter_=PRICE, where="t.price < 10")
    else:
        problem = refused(goods, SEARCH, (TABLE.name, text_of(QUERY), K, None, '{"price": 1}'))
        assert problem.message == message
        assert "ruvector.set_filter_columns" in problem.hint
        goods.execute("SELECT ruvector.set_filter_columns('goods', '{category}')")
    with written(goods) as counted:
        goods.execute("UPDATE goods SET note = 'c'")
    if message is not None:
        assert counted == [0]


@pytest.mark.parametrize("column", ["embedding", "id"])
def test_key_and_vector_keep_their_types_beside_filter_columns(goods, column):
    kind = "vector(3)" if column == "embedding" else "int"
    problem = refused(goods, f"ALTER TABLE goods ALTER {column} TYPE {kind}")
    assert problem.code == "0A000"
    assert refused(goods, f"ALTER TABLE goods DROP COLUMN {column}").code == "2BP01"


def test_attributes_of_partitions_are_captured(database, sidecar):
    parted = VectorTable(
        "parted", dims=2, columns="id int PRIMARY KEY, category int", options={"columns": ["category"]}
    )
    with database.connect() as connection:
        parted.create(connection, partition_by="PARTITION BY RANGE (id)")
        # columns in another order, with one that is gone
        connection.execute("CREATE TABLE low (gone int, embedding vector(2), category int, id int NOT NULL)")
        connection.execute("ALTER TABLE low DROP COLUMN gone")
        connection.execute("ALTER TABLE parted ATTACH PARTITION low FOR VALUES FROM (0) TO (100)")
        connection.execute("CREATE TABLE high PARTITION OF parted FOR VALUES FROM (100) TO (200)")
        connection.execute(
            "INSERT INTO parted SELECT n, n % 10, ARRAY[n, 1]::real[]::vector FROM generate_series(0, 199) n"
        )
        parted.attach(connection)
        sidecar.wait_live("parted")
        connection.execute("UPDATE parted SET category = 77 WHERE id IN (5, 105)")
        connection.execute("UPDATE parted SET id = id + 100, category = 77 WHERE id = 8 AND false")
        parted.check(connection, [1, 2], filter_={"category": 77}, where="t.category = 77")
        sidecar.wait_applied("parted")
        parted.check(connection, [1, 2], filter_={"category": 77}, where="t.category = 77")


def test_upgrade_of_an_older_installation_captures_attributes(goods, database):
    """What it left: the trigger names key and vector, the function asks nothing."""
    goods.execute("UPDATE ruvector.collection SET filter_columns = '{}'")
    goods.execute("SELECT ruvector.renew_triggers(1)")
    goods.execute("UPDATE ruvector.collection SET filter_columns = '{category,price}', captured = '{}'")
    assert goods.execute("SELECT ruvector.trigger_problem(1)").fetchone()[0] == (
        'trigger "00_ruvector_update_1" does not look at filter columns'
    )
    with written(goods) as before:
        goods.execute("UPDATE goods SET category = 0 WHERE id = 5")
    install(database.dsn)
    with written(goods) as after:
        goods.execute("UPDATE goods SET category = 0 WHERE id = 5")
    assert (before, after) == ([0], [1])
    assert goods.execute("SELECT ruvector.trigger_problem(1)").fetchone() == (None,)
    triggers = "SELECT oid, xmin::text FROM pg_trigger WHERE tgname ~ '^00_ruvector' ORDER BY 1"
    before = goods.execute(triggers).fetchall()
    install(database.dsn)
    assert goods.execute(triggers).fetchall() == before


def test_role_without_rights_on_a_filter_column_learns_nothing_from_it(goods):
    with goods.transaction(force_rollback=True):
        goods.execute("CREATE ROLE rv_partly")
        goods.execute("GRANT ruvector_user TO rv_partly")
        goods.execute("GRANT SELECT (id, embedding, category) ON goods TO rv_partly")
        goods.execute("SET LOCAL ROLE rv_partly")
        statement = "SELECT keys, refusal, report FROM ruvector.candidates_1(%s, 20, null, true, %s)"
        sieve = '{"plan": "auto", "filter": {"price": {"$lt": "3"}}, "members": null}'
        keys, refusal, report = goods.execute(statement, (text_of(QUERY), sieve)).fetchone()
        assert (len(keys), refusal) == (20, None)
        assert report["filter"] == "not pushed"  # so that SQL asks the condition itself
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            TABLE.search(goods, QUERY, filter_=PRICE)
