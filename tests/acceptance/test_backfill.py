"""ruvector backfill: a new vector column is filled while others write, in batches, and taken up where it ended."""

import threading

import pytest
from table_kit import VectorTable

from ruvector.client import connect
from ruvector.errors import DatabaseError, InvalidParameter

ROWS = 1000


@pytest.fixture
def notes(database):
    with database.connect() as connection:
        connection.execute(
            """
            CREATE TABLE notes (id bigint, part text, body text, old real[], v vector(3), PRIMARY KEY (part, id));
            INSERT INTO notes SELECT n, 'p' || n % 3, CASE WHEN n % 100 = 0 THEN NULL ELSE 'note 100%' END,
              ARRAY[n, 1, 2]::real[] FROM generate_series(1, 1000) n;
            """
        )
        yield connection


def counts(connection):
    return connection.execute(
        "SELECT count(*), count(v), count(*) FILTER (WHERE v = old::vector) FROM notes"
    ).fetchone()


def test_every_row_is_filled_once_in_batches(database, notes):
    seen = []
    with connect(database.dsn) as client:
        done = client.backfill("public.notes.v", using="old::vector", batch=70,
                               on_progress=lambda what, now, total: seen.append((what, now, total)))  # fmt: skip
    assert (done.filled, done.remaining) == (ROWS, 0)
    assert counts(notes) == (ROWS, ROWS, ROWS)
    assert [now for _, now, _ in seen] == [*range(70, ROWS, 70), ROWS]
    assert {(what, total) for what, _, total in seen} == {("notes.v", ROWS)}
    # Each batch a transaction of its own.
    assert notes.execute("SELECT count(DISTINCT xmin::text) FROM notes").fetchone() == (15,)


def test_it_goes_on_where_it_ended_and_tells_what_has_no_vector(cli, database, notes):
    notes.execute("UPDATE notes SET v = '[9,9,9]' WHERE id <= 500")
    using = "CASE WHEN body LIKE '%100%' THEN old::vector END"
    done = cli.json("backfill", "public.notes.v", "--using", using, "--batch", "64", dsn=database.dsn)
    assert (done["filled"], done["remaining"]) == (495, 5)
    assert notes.execute("SELECT count(*) FROM notes WHERE v = '[9,9,9]'").fetchone() == (500,)
    again = cli("backfill", "public.notes.v", "--using", "'[0,0,0]'", dsn=database.dsn)
    assert again.out == "public.notes.v: 5 rows filled, 0 are NULL\n"


def test_rows_that_others_hold_are_left_for_later(database, notes):
    with database.connect() as other:
        other.execute("BEGIN")
        other.execute("SELECT FROM notes WHERE id BETWEEN 10 AND 19 FOR UPDATE")
        with connect(database.dsn) as client:
            done = client.backfill("public.notes.v", using="old::vector", batch=100)
        assert (done.filled, done.remaining) == (ROWS - 10, 10)
        other.execute("ROLLBACK")
    with connect(database.dsn) as client:
        assert client.backfill("public.notes.v", using="old::vector").filled == 10


def test_the_index_follows_while_others_write(database, sidecar, notes):
    table = VectorTable("notes_v", table="notes", column="v", dims=3, key_sql="json_build_array(t.part, t.id)::text")
    table.attach(notes)
    sidecar.wait_live("notes_v")
    is_over = threading.Event()

    def write():
        with database.connect() as connection:
            number = 5000
            while not is_over.is_set():
                number += 1
                connection.execute("INSERT INTO notes VALUES (%s, 'w', 'x', %s)", (number, [number, 0, 0]))
                connection.execute("UPDATE notes SET body = 'changed' WHERE id = %s", (number % ROWS,))

    writer = threading.Thread(target=write)
    writer.start()
    try:
        with connect(database.dsn) as client:
            assert client.backfill("public.notes.v", using="old::vector", batch=50, pause_ms=5).filled >= ROWS
    finally:
        is_over.set()
        writer.join()
    with connect(database.dsn) as client:
        client.backfill("public.notes.v", using="old::vector")
    sidecar.wait_applied("notes_v")
    table.check(notes, [3.0, 1.0, 2.0])


def test_a_dry_run_changes_nothing_and_wrong_calls_are_refused(cli, database, notes):
    tried = cli("backfill", "public.notes.v", "--using", "old::vector", "--dry-run", dsn=database.dsn)
    assert tried.out == f"public.notes.v: {ROWS} rows would be filled, 0 are NULL\n"
    assert counts(notes) == (ROWS, 0, 0)
    with connect(database.dsn) as client:
        for using, code in (("nothing", "42703"), ("'[1,2]'::vector", "22000"), ("old +", "42601")):
            with pytest.raises(DatabaseError) as caught:
                client.backfill("public.notes.v", using=using)
            assert caught.value.sqlstate == code
        with pytest.raises(DatabaseError):
            client.backfill("public.notes.no_such", using="old::vector")
        with pytest.raises(InvalidParameter):
            client.backfill("public.notes.v", using="old::vector", batch=0)
    assert counts(notes) == (ROWS, 0, 0)
