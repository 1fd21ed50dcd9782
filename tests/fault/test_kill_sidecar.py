"""kill -9 of the real sidecar process, at random moments, under write load: nothing is lost, doubled or missed."""

import random
import threading
import time

import pytest
from fix_process import wait_for_state
from fix_sidecar import wait_until

pytestmark = pytest.mark.fault

DIMS = 48
ROWS = 60_000
COPIED_ROWS = 300_000  # a first copy of fewer is over before it can be killed twice on a fast machine
MAKE_ROWS = """
INSERT INTO items
SELECT n, (SELECT array_agg(sin(n * (g + 3)) + cos(n + g * g)) FROM generate_series(1, {dims}) g)::vector
FROM generate_series(1, {rows}) n
"""
ATTACH = "SELECT ruvector_register_collection('items', 'public', 'items', 'embedding', NULL, 'l2')"
# Often enough that a test of seconds sees many of both.
SETTINGS = {"RUVECTOR_CHECKPOINT_SECONDS": "0.2", "RUVECTOR_COPY_SAVE_SECONDS": "0.2"}


def make_items(database, rows):
    with database.connect() as connection:
        connection.execute(f"CREATE TABLE items (id bigint PRIMARY KEY, embedding vector({DIMS}))")
        connection.execute(MAKE_ROWS.format(dims=DIMS, rows=rows))
        connection.execute(ATTACH)


def check_equal(database, process):
    """Wait until everything is applied; then table and mirror must be equal, row by row."""
    wait_for_state(database, "items", "live", process=process)
    with database.connect() as connection:
        assert connection.execute("SELECT ruvector_wait_applied('items', 30000)").fetchone()[0]
        report = connection.execute("SELECT ruvector_verify('items', \"full\" => true)").fetchone()[0]
        rows, indexed = connection.execute(
            "SELECT count(*), (SELECT (ruvector_memory_stats() #>> '{indexes,items,rows}')::bigint) FROM items"
        ).fetchone()
    assert report["differences"] == 0, report
    assert (report["checked"], indexed) == (rows, rows)


class Writer(threading.Thread):
    """Writes without a pause, one small transaction after the other; a third of them roll back."""

    def __init__(self, database, seed):
        super().__init__(daemon=True)
        self._database, self._random, self._ended = database, random.Random(seed), threading.Event()
        self.error = None
        self.transactions = 0

    def run(self):
        try:
            with self._database.connect(autocommit=False) as connection:
                while not self._ended.is_set():
                    for _ in range(self._random.randint(1, 4)):
                        self._write(connection)
                    (connection.rollback if self._random.random() < 0.3 else connection.commit)()
                    self.transactions += 1
                    time.sleep(0.002)
        except Exception as error:  # noqa: BLE001 - shown by the test
            self.error = error

    def _write(self, connection):
        key = self._random.randint(1, 6_000)
        vector = str([self._random.gauss(0, 1) for _ in range(DIMS)])
        kind = self._random.random()
        if kind < 0.5:
            connection.execute(
                "INSERT INTO items VALUES (%s, %s) ON CONFLICT (id) DO UPDATE SET embedding = excluded.embedding",
                (key, vector),
            )
        elif kind < 0.7:
            connection.execute("DELETE FROM items WHERE id = %s", (key,))
        else:
            connection.execute("UPDATE items SET embedding = %s WHERE id = %s", (vector, key))

    def end(self):
        self._ended.set()
        self.join(30)
        assert self.error is None, self.error


def wait_for_copied(database, *, beyond):
    """Wait until the first copy has saved more rows than before; None when it is complete."""
    end = time.monotonic() + 60
    with database.connect() as connection:
        while time.monotonic() < end:
            state, rows = connection.execute("SELECT state, rows_copied FROM ruvector.mirror_status").fetchone()
            if state == "live":
                return None
            if state == "copying" and rows > beyond:
                return rows
            time.sleep(0.002)
    raise AssertionError("the first copy does not go on")


def test_kill_during_the_first_copy_goes_on_where_it_was(database, sidecar_process):
    make_items(database, COPIED_ROWS)
    kills, copied = 0, 0
    for _ in range(4):
        sidecar_process.start(env=SETTINGS)
        reached = wait_for_copied(database, beyond=copied)
        if reached is None:
            break
        copied, kills = reached, kills + 1
        sidecar_process.kill()
    sidecar_process.close()
    sidecar_process.start(env=SETTINGS)
    check_equal(database, sidecar_process)
    resumed = sidecar_process.output().count("goes on after")
    print(f"{kills} kills, resumed {resumed} times")  # noqa: T201
    assert kills >= 2
    assert resumed >= 1, sidecar_process.output()


def test_kill_under_load_loses_nothing(database, sidecar_process):
    make_items(database, 4_000)
    seed = random.randrange(1_000_000)
    moment = random.Random(seed)
    writer = Writer(database, seed)
    writer.start()
    for _ in range(8):
        sidecar_process.start(env=SETTINGS)
        time.sleep(0.6 + moment.random() * 1.2)
        sidecar_process.kill()
    sidecar_process.start(env=SETTINGS)
    wait_for_state(database, "items", "live", process=sidecar_process)
    writer.end()
    print(f"seed {seed}: {writer.transactions} transactions, 8 kills")  # noqa: T201
    check_equal(database, sidecar_process)


def test_orderly_stop_and_search_without_sidecar(database, sidecar_process):
    make_items(database, 500)
    sidecar_process.start(env=SETTINGS)
    wait_for_state(database, "items", "live", process=sidecar_process)
    search = "SELECT id, tier FROM ruvector_search('items', (SELECT embedding FROM items WHERE id = 7), 1)"
    with database.connect() as connection:
        assert connection.execute(search).fetchone() == ("7", "hot")
        assert sidecar_process.terminate() == 0
        notices = []
        connection.add_notice_handler(lambda notice: notices.append(notice.message_primary))
        assert connection.execute(search).fetchone() == ("7", "pgvector")
        assert "searched by the database itself" in notices[0]
        assert connection.execute("SELECT state FROM ruvector_consistency_status('items')").fetchone() == ("stopped",)
        sidecar_process.start(env=SETTINGS)
        wait_for_state(database, "items", "live", process=sidecar_process)
        # The session's own connection to the old sidecar is dead: it must be replaced without an error.
        assert connection.execute(search).fetchone() == ("7", "hot")


def test_a_frozen_sidecar_does_not_hold_up_searches(database, sidecar_process):
    """SIGSTOP: the process is there, takes connections and never answers; dblink could not be cancelled."""
    make_items(database, 500)
    sidecar_process.start(env=SETTINGS)
    wait_for_state(database, "items", "live", process=sidecar_process)
    search = "SELECT id, tier FROM ruvector_search('items', (SELECT embedding FROM items WHERE id = 7), 1)"
    with database.connect() as connection:
        assert connection.execute(search).fetchone() == ("7", "hot")
        sidecar_process.freeze()
        wait_until(
            lambda: connection.execute(
                "SELECT clock_timestamp() - max(beat_at) > '4 s' FROM ruvector.pulse"
            ).fetchone()[0],
            "four seconds of silence",
        )
        notices = []
        connection.add_notice_handler(lambda notice: notices.append(notice.message_primary))
        assert connection.execute(search).fetchone() == ("7", "pgvector")
        assert "has been silent for" in notices[0]
        _, reason = wait_for_state(database, "items", "unreachable")
        assert "silent" in reason
        sidecar_process.thaw()
        wait_for_state(database, "items", "live", process=sidecar_process)
        assert connection.execute(search).fetchone() == ("7", "hot")
