"""Everything at once on real processes: kills, stops, cuts, full disks, damaged files, while clients write and search.

Every search is compared with exact order in the same statement; every writer looks for the row it has just committed.
The short form meets each fault once. `make test-faults SECONDS=600` goes on for so long and prints its figures.
"""

import contextlib
import os
import random
import resource
import signal
import threading
import time

import numpy as np
import psycopg
import pytest
from fix_postgres import Database, describe
from fix_process import SidecarProcess, wait_for_state
from fix_proxy import Proxy
from fix_sidecar import wait_until
from psycopg.conninfo import make_conninfo

from ruvector.alembic.install import install

pytestmark = pytest.mark.fault

SECONDS = float(os.environ.get("RUVECTOR_TORTURE_SECONDS", "0"))
WRITERS, SEARCHERS, ROWS, DIMS = 3, 2, 300, 4
SETUP = f"""
CREATE TABLE items (id bigint PRIMARY KEY, embedding vector({DIMS}));
INSERT INTO items SELECT n, ARRAY[n, n % 7, n % 5, 1]::real[]::vector FROM generate_series(1, {ROWS}) n;
SELECT ruvector_register_collection('items', 'public', 'items', 'embedding', NULL, 'l2', '{{"index_kind": "flat"}}');
"""
COMPARE = """
WITH answer AS MATERIALIZED (SELECT * FROM ruvector_search('items', %(query)s, %(k)s))
SELECT (SELECT array_agg(s.distance ORDER BY s.distance) FROM answer s),
       (SELECT array_agg(e.d ORDER BY e.d) FROM (
          SELECT (i.embedding <-> %(query)s::vector) + 0 AS d FROM items i ORDER BY 1 LIMIT %(k)s) e),
       (SELECT min(s.tier) FROM answer s)
"""
SETTINGS = {"RUVECTOR_CHECKPOINT_SECONDS": "0.3", "RUVECTOR_COPY_SAVE_SECONDS": "0.2"}


class Client(threading.Thread):
    """Does one thing after the other on a connection of its own, and connects again when the server is gone."""

    def __init__(self, dsn, seed):
        super().__init__(daemon=True)
        self.dsn, self.random, self.ended = dsn, random.Random(seed), threading.Event()
        self.error, self.wrong, self.steps, self.answered = None, [], 0, 0

    def run(self):
        while not self.ended.is_set():
            try:
                with psycopg.connect(self.dsn, autocommit=True) as connection:
                    connection.execute("SET ruvector.timeout_ms = 500")
                    self.prepare(connection)
                    while not self.ended.is_set():
                        self.step(connection)
                        self.steps += 1
            except (psycopg.OperationalError, psycopg.InterfaceError, psycopg.Rollback):
                # Killed or restarting; Rollback escapes its block when the connection is lost while it rolls back.
                time.sleep(0.02)
            except Exception as error:  # noqa: BLE001 - shown by the test
                self.error = error
                return

    def prepare(self, connection):
        pass

    def end(self):
        self.ended.set()
        self.join(60)
        assert not self.is_alive()
        assert self.error is None, self.error


class Searcher(Client):
    def step(self, connection):
        parameters = {"query": str([self.random.gauss(100, 90), 3, 2, 1]), "k": self.random.choice((1, 5, 20))}
        got, wanted, tier = connection.execute(COMPARE, parameters).fetchone()
        self.answered += tier == "hot"
        if not np.allclose(got or [], wanted or [], rtol=1e-5, atol=1e-4):
            self.wrong.append((parameters, tier, got, wanted))


class Writer(Client):
    """Writes keys that belong to it alone; what it has committed must be found at once."""

    def __init__(self, dsn, number, seed):
        super().__init__(dsn, seed)
        self._number = number

    def prepare(self, connection):
        connection.execute(f"SET synchronous_commit = {'off' if self._number else 'on'}")

    def step(self, connection):
        key = self._number * 10_000 + self.random.randrange(200)
        vector = str([self._number * 1e4 + self.steps % 5_000, 1, self.random.random(), 0])
        with connection.transaction():
            connection.execute(
                "INSERT INTO items VALUES (%s, %s) ON CONFLICT (id) DO UPDATE SET embedding = excluded.embedding",
                (key, vector),
            )
            if self.random.random() < 0.3:
                connection.execute("DELETE FROM items WHERE id = %s", (self._number * 10_000 + 200 + key % 200,))
            if self.random.random() < 0.1:
                raise psycopg.Rollback
        if self.random.random() < 0.2:
            row = connection.execute("SELECT embedding FROM items WHERE id = %s", (key,)).fetchone()
            if row is None:
                return
            nearest = connection.execute(
                "SELECT distance, tier FROM ruvector_search('items', %s, 1)", (row[0],)
            ).fetchone()
            if nearest is None or nearest[0] > 1e-4:
                self.wrong.append((key, row, nearest))


class Torture:
    """The processes, and one method per fault."""

    def __init__(self, server, database, process, proxy, chance):
        self._server, self._database, self._process = server, database, process
        self._proxy, self._random = proxy, chance

    def faults(self):
        return [getattr(self, name) for name in dir(self) if name.startswith("fault_")]

    def start(self):
        self._process.start(env=SETTINGS)

    def settle(self):
        """Wait until the mirror answers again."""
        self._proxy.mode = "open"
        if not self._process.is_running:
            self.start()
        until = time.monotonic() + 60
        while True:
            try:
                wait_for_state(self._database, "items", "live", process=self._process)
            except psycopg.OperationalError:  # the server is recovering
                assert time.monotonic() < until
                time.sleep(0.05)
            else:
                return

    def verified(self):
        """Compare every row, as soon as the mirror has noticed the end of the last fault."""
        until = time.monotonic() + 60
        while True:
            try:
                with self._database.connect() as connection:
                    assert connection.execute("SELECT ruvector_wait_applied('items', 30000)").fetchone()[0]
                    return connection.execute("SELECT ruvector_verify('items', \"full\" => true)").fetchone()[0]
            except (psycopg.OperationalError, psycopg.errors.ObjectNotInPrerequisiteState):
                assert time.monotonic() < until
                time.sleep(0.1)

    def fault_kill_sidecar(self):
        self._process.kill()

    def fault_stop_sidecar(self):
        self._process.freeze()
        time.sleep(self._random.uniform(0.5, 1.5))
        self._process.thaw()

    def fault_kill_server(self):
        self._server.kill()
        self._server.start()

    def fault_kill_one_backend(self):
        self._signal_backend(signal.SIGKILL)

    def fault_stop_reader(self):
        pid = self._signal_backend(signal.SIGSTOP)
        time.sleep(self._random.uniform(0.3, 1.0))
        if pid is not None:
            os.kill(pid, signal.SIGCONT)

    def fault_cut_connections(self):
        self._proxy.cut()

    def fault_black_hole(self):
        self._proxy.mode = "silent"
        time.sleep(self._random.uniform(0.5, 1.5))
        self._proxy.cut()

    def fault_slow_network(self):
        self._proxy.mode = "slow"
        time.sleep(1.0)

    def fault_full_disk(self):
        """Writes really fail: no file of the sidecar may grow beyond four KiB."""
        pid = self._process.pid
        limits = resource.prlimit(pid, resource.RLIMIT_FSIZE, (4096, resource.RLIM_INFINITY))
        time.sleep(self._random.uniform(0.8, 1.2))
        resource.prlimit(pid, resource.RLIMIT_FSIZE, limits)

    def fault_damaged_file(self):
        """Flip or cut the newest generation while no process has it open."""
        self._process.kill()
        generations = sorted(self._process.data_dir.glob("collection-*/gen-*"))
        files = sorted(generations[-1].iterdir()) if generations else []
        if files:
            path = self._random.choice(files)
            size = path.stat().st_size
            if self._random.random() < 0.5 or not size:
                os.truncate(path, size // 2)
            else:
                with path.open("r+b") as file:
                    file.seek(self._random.randrange(size))
                    byte = file.read(1)[0]
                    file.seek(-1, os.SEEK_CUR)
                    file.write(bytes([byte ^ 0x10]))

    def _signal_backend(self, number):
        with psycopg.connect(self._database.dsn, autocommit=True) as connection:
            row = connection.execute(
                "SELECT pid FROM pg_stat_activity WHERE application_name = 'ruvector items' LIMIT 1"
            ).fetchone()
        if row is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(row[0], number)
        return row[0] if row else None


@pytest.fixture
def tortured(private_postgres, tmp_path):
    server = private_postgres
    server.start()
    database = Database(describe(server.dsn(), source="private", embedded=server), "postgres")
    with database.connect() as connection:
        connection.execute("CREATE EXTENSION vector")
    install(database.dsn)
    with database.connect() as connection:
        connection.execute(SETUP)
    proxy = Proxy(server.port)
    through = make_conninfo(server.dsn(tcp=True), port=proxy.port)
    process = SidecarProcess(through, tmp_path / "data")
    yield server, database, process, proxy
    process.close()
    proxy.close()


def answered_by(clients):
    return sum(client.answered for client in clients)


@pytest.mark.timeout(SECONDS + 280)
def test_torture_changes_no_answer(tortured):
    server, database, process, proxy = tortured
    seed = random.randrange(1_000_000)
    chance = random.Random(seed)
    torture = Torture(server, database, process, proxy, chance)
    torture.start()
    torture.settle()
    clients = [Writer(database.dsn, number, seed + number) for number in range(WRITERS)]
    clients += [Searcher(database.dsn, seed + 100 + number) for number in range(SEARCHERS)]
    for client in clients:
        client.start()
    until, played = time.monotonic() + SECONDS, 0
    while played == 0 or time.monotonic() < until:
        for fault in chance.sample(torture.faults(), len(torture.faults())):
            fault()
            torture.settle()
            before = answered_by(clients)
            wait_until(lambda before=before: answered_by(clients) >= before + 25, f"answers after {fault.__name__}")
            played += 1
    for client in clients:
        client.end()
    torture.settle()
    report = torture.verified()
    searches, answered = (sum(getattr(each, name) for each in clients[WRITERS:]) for name in ("steps", "answered"))
    print(  # noqa: T201
        f"seed {seed}: {played} faults, {sum(each.steps for each in clients[:WRITERS])} transactions, {searches}"
        f" searches compared, {answered} ({answered / max(searches, 1):.0%}) answered by the index, verify {report}"
    )
    wrong = [each for client in clients for each in client.wrong]
    assert not wrong, wrong[:3]
    assert report["differences"] == 0, report
    assert searches > 50
    assert answered > 20
