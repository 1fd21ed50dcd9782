"""Columns of filters that came to a mirror with rows: read again while the table is written and the sidecar dies."""

import json
import random
import threading

import psycopg
import pytest
from fix_sidecar import running_sidecar, wait_until
from table_kit import VectorTable, assert_nearest, gaussian

from ruvector import limits
from ruvector.sidecar import Sidecar, SidecarSettings

DIMS, ROWS = 4, 3000
QUERY = gaussian(1, DIMS, seed=311)[0]
TABLE = VectorTable("goods", dims=DIMS, columns="id bigint PRIMARY KEY, category int, name text")
FILTERS = {
    '{"category": 3}': "t.category = 3",
    '{"category": {"$gt": 30}, "$not": {"name": "n1"}}': "t.category > 30 AND NOT t.name = 'n1'",
    '{"name": null}': "t.name IS NULL",
}


@pytest.fixture
def goods(database):
    with database.connect() as connection:
        TABLE.create(connection)
        TABLE.insert(
            connection,
            gaussian(ROWS, DIMS, seed=312),
            category=[n % 40 for n in range(ROWS)],
            name=[None if n % 7 == 0 else f"n{n % 5}" for n in range(ROWS)],
        )
        TABLE.attach(connection)
        yield connection


def set_columns(connection, *names):
    connection.execute("SELECT ruvector.set_filter_columns('goods', %s)", (list(names),))


def check(connection):
    for filter_, where in FILTERS.items():
        TABLE.check(connection, QUERY, k=30, filter_=json.loads(filter_), where=where)


def is_filled(sidecar):
    index = sidecar.mirror(TABLE.name).index
    return index.is_filled and len(index.attributes) > 0


def assert_equal(sidecar, connection):
    report = sidecar.worker(TABLE.name).verify(sample=1, full=True, repair=False)
    assert (report["differences"], report["checked"]) == (
        0,
        connection.execute("SELECT count(embedding) FROM goods").fetchone()[0],
    )


def writes(database, stop):
    """Change, add and remove rows until ``stop``; what it meets ends the thread and the test waits for it."""
    choose = random.Random(313)
    with database.connect() as connection:
        while not stop.is_set():
            first = choose.randrange(1, ROWS)
            last = first + 20
            connection.execute(
                choose.choice(
                    [
                        "UPDATE goods SET category = category + 1 WHERE id BETWEEN %s AND %s",
                        "UPDATE goods SET name = NULL WHERE id BETWEEN %s AND %s",
                        "UPDATE goods SET name = 'n1', category = 3 WHERE id BETWEEN %s AND %s",
                        "DELETE FROM goods WHERE id BETWEEN %s AND %s AND id %% 10 = 0",
                        "UPDATE goods SET id = -id WHERE id BETWEEN %s AND %s AND id %% 10 = 1",
                        "INSERT INTO goods SELECT n + 100000, 3, 'n1', '[1,2,3,4]'"
                        " FROM generate_series(%s::int, %s::int) n"
                        " ON CONFLICT (id) DO UPDATE SET category = goods.category + 1",
                    ]
                ),
                (first, last),
            )


def test_backfill_under_writers_and_restarts_reads_no_older_value(goods, database, tmp_path, monkeypatch):
    monkeypatch.setattr(limits, "VERIFY_SLICE_ROWS", 50)
    with running_sidecar(database, tmp_path) as sidecar:
        sidecar.wait_live(TABLE.name)
        stop = threading.Event()
        thread = threading.Thread(target=writes, args=(database, stop))
        thread.start()
        try:
            wait_until(lambda: _columns_were_set(goods), "the columns to be set between two writes")
            for _ in range(3):
                sidecar.wait_live(TABLE.name)
                wait_until(lambda: sidecar.mirror(TABLE.name).index.attributes, "the sidecar to know the columns")
                wait_until(lambda: check_in_snapshot(goods) == {"hot"}, "the sidecar to answer")
                sidecar.restart()
        finally:
            stop.set()
            thread.join()
        sidecar.wait_live(TABLE.name).wait_applied(TABLE.name)
        check(goods)
        wait_until(lambda: is_filled(sidecar), "the columns to be filled")
        assert_equal(sidecar, goods)
        check(goods)
        sidecar.restart()
        sidecar.wait_live(TABLE.name)
        assert is_filled(sidecar)  # by what the files say
        assert_equal(sidecar, goods)
        check(goods)


def _columns_were_set(connection):
    try:
        set_columns(connection, "category", "name")
    except psycopg.errors.LockNotAvailable:
        return False
    return True


def check_in_snapshot(connection):
    """Compare every filter with exact SQL while others write; return who answered."""
    with connection.transaction():
        connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        tiers = set()
        for filter_, where in FILTERS.items():
            found = TABLE.search(connection, QUERY, k=30, filter_=json.loads(filter_))
            assert_nearest(found, TABLE.distances(connection, QUERY, where=where), 30)
            tiers |= {row[3] for row in found}
        return tiers


def test_backfill_waits_for_transactions_that_are_older_and_answers_are_right_meanwhile(
    goods, database, tmp_path, monkeypatch
):
    monkeypatch.setattr(limits, "VERIFY_SLICE_ROWS", 500)
    with running_sidecar(database, tmp_path) as sidecar, database.connect(autocommit=False) as old:
        sidecar.wait_live(TABLE.name)
        old.execute("CREATE TABLE elsewhere ()")  # it has a transaction id, and no lock on the table
        set_columns(goods, "category", "name")
        wait_until(lambda: sidecar.mirror(TABLE.name).index.attributes, "the sidecar to know the columns")
        sidecar.wait_live(TABLE.name).wait_applied(TABLE.name)
        for _ in range(3):
            goods.execute("UPDATE goods SET category = 3 WHERE id BETWEEN 100 AND 120")
            check(goods)
            sidecar.wait_applied(TABLE.name)
            check(goods)
        assert not is_filled(sidecar)
        old.execute("UPDATE goods SET category = 3 WHERE id BETWEEN 200 AND 220")
        old.commit()
        wait_until(lambda: is_filled(sidecar), "the columns to be filled")
        assert_equal(sidecar, goods)
        check(goods)


def test_run_once_fills_the_columns_before_it_ends(goods, database, tmp_path):
    with running_sidecar(database, tmp_path) as sidecar:
        sidecar.wait_live(TABLE.name)
    set_columns(goods, "category")
    (mirror,) = Sidecar(SidecarSettings(dsn=database.dsn, data_dir=tmp_path)).run_once()
    assert (mirror.progress.rows_copied, len(mirror.index)) == (0, ROWS)
    with running_sidecar(database, tmp_path) as sidecar:
        sidecar.wait_live(TABLE.name)
        assert is_filled(sidecar)
        assert_equal(sidecar, goods)
