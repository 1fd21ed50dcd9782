"""Measure what it costs to prove that a mirror equals its table.

An embedded PostgreSQL gets a table of random vectors, a sidecar in this process mirrors it, and `verify --full` runs
over both: first equal, then with some rows of the index damaged in each way. Processor time is that of the backend
which hashes the table and of this process. The index is flat: what a verification reads is the same in every kind.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import psycopg

from ruvector.alembic.install import install
from ruvector.embedded import EmbeddedPostgres
from ruvector.mirror.state import MirrorState
from ruvector.mirror.worker import MirrorWorker
from ruvector.sidecar import Sidecar, SidecarSettings

TICKS = os.sysconf("SC_CLK_TCK")
SETUP = """
CREATE TABLE items (id {key} PRIMARY KEY, embedding {element}({dims}));
INSERT INTO items SELECT n, (SELECT array_agg(random()::real) FROM generate_series(1, {dims}) WHERE n = n)::vector
  FROM generate_series(1, {rows}) n;
ANALYZE items;
"""


def processor_seconds(connection: psycopg.Connection) -> float:
    """Return the processor time of the backends that read for the mirror."""
    rows = connection.execute("SELECT pid FROM pg_stat_activity WHERE application_name = 'ruvector items'").fetchall()
    stats = [Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split() for (pid,) in rows]
    return sum(int(fields[11]) + int(fields[12]) for fields in stats) / TICKS


def damage(worker: MirrorWorker, count: int) -> None:
    """Take rows out of the index, change others, and put in some that the table does not have."""
    index = worker.mirror.index
    keys = index.keys()[: 2 * count]
    index.delete(keys[:count])
    vectors = index.vectors_of(keys[count:])[0]
    index.upsert(keys[count:], np.asarray(vectors)[::-1].copy())
    strange = np.arange(10**9, 10**9 + count)
    index.upsert(strange if isinstance(keys, np.ndarray) else [str(key) for key in strange], vectors)


def measure(worker: MirrorWorker, connection: psycopg.Connection, *, title: str, repair: bool = False) -> None:
    """Verify once and print what it took."""
    own, backend, started = time.process_time(), processor_seconds(connection), time.perf_counter()
    report = worker.verify(sample=1, full=True, repair=repair)
    seconds = time.perf_counter() - started
    own, backend = time.process_time() - own, processor_seconds(connection) - backend
    rows = int(str(report["checked"]))
    print(
        f"{title:<26} {seconds:7.2f} s {rows / seconds:9.0f} rows/s   database {backend / rows * 1e6:6.2f} us a row,"
        f" sidecar {own / rows * 1e6:6.2f}   {report['differences']} differ, {report['repaired']} repaired",
        flush=True,
    )


def main() -> int:
    """Fill, mirror, verify and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--dims", type=int, default=128)
    parser.add_argument("--element", choices=("vector", "halfvec"), default="vector")
    parser.add_argument("--key", choices=("bigint", "text"), default="bigint")
    parser.add_argument("--damaged", type=int, default=100, help="rows damaged in each of three ways")
    parser.add_argument("--runs", type=int, default=3)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="rv-", dir="/tmp") as folder:
        Path(folder).chmod(0o755)
        settings = {"shared_buffers": "1GB", "max_wal_size": "16GB", "jit": "off", "fsync": "off"}
        server = EmbeddedPostgres(Path(folder) / "pg", settings=settings)
        server.start()
        sidecar = None
        try:
            with psycopg.connect(server.dsn(), autocommit=True) as connection:
                connection.execute("CREATE EXTENSION vector")
                install(server.dsn())
                connection.execute(SETUP.format(key=given.key, element=given.element, dims=given.dims, rows=given.rows))
                connection.execute(
                    "SELECT ruvector_register_collection('items', 'public', 'items', 'embedding', NULL, 'l2',"
                    ' \'{"index_kind": "flat"}\')'
                )
                options = SidecarSettings(server.dsn(), Path(folder) / "data", ("127.0.0.1:0",), scrub_seconds=1e9)
                sidecar = Sidecar(options)
                sidecar.start()
                worker = sidecar.workers.by_name("items")
                while worker.mirror.state is not MirrorState.LIVE:
                    time.sleep(0.1)
                print(f"{given.rows} rows, {given.element}({given.dims}), {given.key} key")
                for _ in range(given.runs):
                    measure(worker, connection, title="equal")
                damage(worker, given.damaged)
                measure(worker, connection, title="damaged", repair=True)
                measure(worker, connection, title="repaired")
        finally:
            if sidecar is not None:
                sidecar.stop()
            server.remove()
    return 0


if __name__ == "__main__":
    sys.exit(main())
