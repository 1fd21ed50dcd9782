"""Measure what mirroring costs those who write, and how fast the mirror follows.

Everything runs on an embedded PostgreSQL with durable commits. Each figure compares the same statement on the same
table without triggers and with them, in turns, in several rounds; of statements the round with the least processor time
counts, of commits the median of the ratios. Processor time is that of the backends alone. Steps:

statements   INSERT, COPY, UPDATE of the vector, UPDATE of another column, DELETE, by 1 and by 8 clients
commits      one row per transaction, with pgbench, by 1 and by 8 clients; beside pgvector's HNSW index
apply        rows a second that a sidecar applies, and how far it is behind at half of the rate of the writers
"""

from __future__ import annotations

import argparse
import os
import random
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import psycopg

from ruvector.alembic.install import install
from ruvector.clock import SystemClock
from ruvector.demo.process import SidecarProcess
from ruvector.embedded import EmbeddedPostgres
from ruvector.snapshot import Snapshot

TICKS = os.sysconf("SC_CLK_TCK")
ATTACH = (
    "SELECT ruvector_register_collection('{0}', 'public', '{0}', 'embedding', NULL, 'l2',"
    ' \'{{"index_kind": "{1}"}}\')'
)
STATEMENTS = {
    "INSERT": "INSERT INTO {table} SELECT id, note, embedding FROM source WHERE id BETWEEN {low} AND {high}",
    "COPY": "COPY {table} FROM '{file}' (FORMAT binary)",
    "UPDATE vector": "UPDATE {table} t SET embedding = s.embedding FROM source s WHERE s.id = {high} + {low} - t.id"
    " AND t.id BETWEEN {low} AND {high}",
    "UPDATE note": "UPDATE {table} SET note = note + 1 WHERE id BETWEEN {low} AND {high}",
    "DELETE": "DELETE FROM {table} WHERE id BETWEEN {low} AND {high}",
}
PGBENCH = """
\\set source random(1, {rows})
INSERT INTO {table} SELECT nextval('numbers'), 1, s.embedding FROM source s WHERE s.id = :source;
"""
BEFORE = {  # what a statement needs to find
    "INSERT": "DELETE FROM {table}",
    "COPY": "DELETE FROM {table}",
    "UPDATE vector": STATEMENTS["INSERT"],
    "UPDATE note": STATEMENTS["INSERT"],
    "DELETE": STATEMENTS["INSERT"],
}


@dataclass(frozen=True)
class Cost:
    """What one statement took, all clients together."""

    seconds: float
    processor: float
    wal_bytes: float
    temp_bytes: float
    log_rows: int


class Bench:
    """A server with the tables of the measurement."""

    def __init__(self, server: EmbeddedPostgres, folder: Path, *, rows: int, dims: int) -> None:
        self.server, self.folder, self.rows, self.dims = server, folder, rows, dims
        self.admin = psycopg.connect(server.dsn(), autocommit=True)

    def prepare(self) -> None:
        """Create the bare and the captured table, and rows to write into them."""
        self.admin.execute("CREATE EXTENSION vector")
        install(self.server.dsn())
        self.admin.execute(
            f"CREATE TABLE source AS SELECT n::bigint AS id, n AS note, (SELECT array_agg(random()::real)"
            f" FROM generate_series(1, {self.dims}) WHERE n = n)::vector({self.dims}) AS embedding"
            f" FROM generate_series(1, {self.rows}) n"
        )
        self.admin.execute("ALTER TABLE source ADD PRIMARY KEY (id)")
        for table in ("bare", "captured", "graphed"):
            self.admin.execute(
                f"CREATE TABLE {table} (id bigint PRIMARY KEY, note int, embedding vector({self.dims}))"
                " WITH (autovacuum_enabled = off)"
            )
        self.admin.execute(ATTACH.format("captured", "flat"))
        self.admin.execute("CREATE INDEX ON graphed USING hnsw (embedding vector_l2_ops)")
        self.admin.execute("CHECKPOINT")

    def slices(self, clients: int) -> list[dict[str, object]]:
        """Return the rows of each client, and a file with them."""
        per_client = self.rows // clients
        parts: list[dict[str, object]] = []
        for client in range(clients):
            low, high = client * per_client + 1, (client + 1) * per_client
            file = self.folder / f"rows-{clients}-{client}.copy"
            if not file.exists():
                # By the server: its account owns the folder.
                self.admin.execute(
                    f"COPY (SELECT id, note, embedding FROM source WHERE id BETWEEN {low} AND {high})"
                    f" TO '{file}' (FORMAT binary)"
                )
            parts.append({"low": low, "high": high, "file": file})
        return parts

    def run(self, kind: str, table: str, *, clients: int) -> Cost:
        """Run one statement by all clients at once, from the state it needs."""
        parts = self.slices(clients)
        self.admin.execute(f"TRUNCATE {table}, ruvector.changelog_1")
        if BEFORE[kind] == STATEMENTS["INSERT"]:
            self.admin.execute(BEFORE[kind].format(table=table, low=1, high=self.rows))
        self.admin.execute(f"VACUUM (ANALYZE) {table}")
        self.admin.execute("TRUNCATE ruvector.changelog_1")
        self.admin.execute("CHECKPOINT")
        connections = [psycopg.connect(self.server.dsn(), autocommit=True) for _ in parts]
        try:
            for connection in connections:
                connection.execute("SELECT 1 FROM source LIMIT 1")
            wal, temp = self._wal(), self._temp()
            processor = sum(map(processor_seconds, connections))
            started = time.perf_counter()
            texts = [STATEMENTS[kind].format(table=table, **part) for part in parts]
            in_threads([partial(c.execute, text) for c, text in zip(connections, texts, strict=True)])
            seconds = time.perf_counter() - started
            processor = sum(map(processor_seconds, connections)) - processor
            return Cost(seconds, processor, self._wal() - wal, self._temp() - temp, self._logged())
        finally:
            for connection in connections:
                connection.close()

    def _wal(self) -> float:
        return float(self._one("SELECT pg_current_wal_insert_lsn() - '0/0'::pg_lsn"))

    def _temp(self) -> float:
        return float(self._one("SELECT temp_bytes FROM pg_stat_database WHERE datname = current_database()"))

    def _logged(self) -> int:
        return int(self._one("SELECT count(*) FROM ruvector.changelog_1"))

    def _one(self, statement: str) -> float:
        row = self.admin.execute(statement).fetchone()
        return float(row[0]) if row else 0.0


def processor_seconds(connection: psycopg.Connection) -> float:
    """Return the processor time of a backend so far."""
    return seconds_of(connection.info.backend_pid)


def seconds_of(pid: int) -> float:
    """Return the processor time of a process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def in_threads(actions: list[Callable[[], object]]) -> None:
    """Do all at once and wait for the end."""
    threads = [threading.Thread(target=action) for action in actions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def statements(bench: Bench, *, rounds: int) -> None:
    """Print the cost of every kind of statement."""
    print(f"{bench.rows} rows of {bench.dims} dimensions; microseconds of processor time and bytes for each row")
    head = f"{'statement':<14} {'clients':>7} {'bare us':>8} {'with us':>8} {'more us':>8} {'bare s':>7} {'with s':>7}"
    print(f"{head} {'WAL bare':>9} {'WAL with':>9} {'log rows':>9} {'temp':>9}")
    for clients in (1, 8):
        for kind in STATEMENTS:
            runs: dict[str, list[Cost]] = {"bare": [], "captured": []}
            for _ in range(rounds):
                for table, costs in runs.items():
                    costs.append(bench.run(kind, table, clients=clients))
            # The least of the rounds: whatever else runs on the machine only ever adds.
            bare, with_triggers = (min(costs, key=lambda cost: cost.processor) for costs in runs.values())
            per_row = 1e6 / bench.rows
            print(
                f"{kind:<14} {clients:>7} {bare.processor * per_row:8.2f} {with_triggers.processor * per_row:8.2f}"
                f" {(with_triggers.processor - bare.processor) * per_row:8.2f}"
                f" {bare.seconds:7.2f} {with_triggers.seconds:7.2f}"
                f" {bare.wal_bytes / bench.rows:9.0f} {with_triggers.wal_bytes / bench.rows:9.0f}"
                f" {with_triggers.log_rows / bench.rows:9.2f} {with_triggers.temp_bytes - bare.temp_bytes:9.0f}",
                flush=True,
            )
    size = bench.admin.execute(
        "SELECT pg_relation_size('ruvector.changelog_1'), pg_indexes_size('ruvector.changelog_1'), count(*)"
        " FROM ruvector.changelog_1"
    ).fetchone()
    if size and size[2]:
        print(f"changelog: {size[0] / size[2]:.0f} bytes a row, its index {size[1] / size[2]:.0f}")


def commits(bench: Bench, *, rounds: int, seconds: int) -> None:
    """Print single-row commits a second by pgbench, in turns."""
    script = bench.folder / "insert.sql"
    print(f"single-row commits of INSERT, {rounds} rounds of {seconds} s each, median of the ratios of a round")
    bench.admin.execute("CREATE SEQUENCE IF NOT EXISTS numbers CACHE 1000")
    for clients in (1, 8):
        rates: dict[str, list[float]] = {"bare": [], "captured": [], "graphed": []}
        bench.admin.execute("TRUNCATE bare, captured, graphed, ruvector.changelog_1")
        for _ in range(rounds):
            for table, found in rates.items():
                script.write_text(PGBENCH.format(table=table, rows=bench.rows))
                done = subprocess.run(
                    [str(bench.server.programs / "pgbench"), "-n", "-M", "prepared", "-c", str(clients), "-j",
                     str(clients), "-T", str(seconds), "-f", str(script), bench.server.dsn()],
                    capture_output=True, text=True, check=True,
                )  # fmt: skip
                found.append(next(float(line.split()[2]) for line in done.stdout.splitlines() if "tps" in line))
        ratio = statistics.median(w / b for w, b in zip(rates["captured"], rates["bare"], strict=True))
        times = statistics.median(w / g for w, g in zip(rates["captured"], rates["graphed"], strict=True))
        medians = {table: statistics.median(found) for table, found in rates.items()}
        print(
            f"{clients} clients: bare {medians['bare']:.0f}/s, captured {medians['captured']:.0f}/s = {ratio:.1%},"
            f" pgvector HNSW {medians['graphed']:.0f}/s: captured is {times:.1f} times as fast",
            flush=True,
        )


def bulk_beside_pgvector(bench: Bench, *, rows: int) -> None:
    """Print one INSERT of many rows beside pgvector's HNSW index."""
    seconds = {}
    for table in ("captured", "graphed"):
        bench.admin.execute("TRUNCATE bare, captured, graphed, ruvector.changelog_1")
        started = time.perf_counter()
        bench.admin.execute(STATEMENTS["INSERT"].format(table=table, low=1, high=rows))
        seconds[table] = time.perf_counter() - started
    rates = {table: rows / taken for table, taken in seconds.items()}
    print(
        f"one INSERT of {rows} rows: captured {rates['captured']:.0f} rows/s, pgvector HNSW {rates['graphed']:.0f}:"
        f" {rates['captured'] / rates['graphed']:.0f} times as fast",
        flush=True,
    )


class Follower:
    """A sidecar process beside the server, watched through its own endpoint."""

    def __init__(self, bench: Bench, kind: str) -> None:
        self.bench = bench
        bench.admin.execute("TRUNCATE bare, captured, graphed")
        bench.admin.execute("SELECT ruvector_unregister_collection('captured')")
        bench.admin.execute(STATEMENTS["INSERT"].format(table="captured", low=1, high=bench.rows // 2))
        bench.admin.execute(ATTACH.format("captured", kind))
        (bench.folder / kind).mkdir(exist_ok=True)
        self.process = SidecarProcess(bench.server.dsn(), bench.folder / kind, SystemClock())
        self.process.start()
        self.direct = psycopg.connect(self.process.direct_dsn(), autocommit=True)
        while self._state()[0] != "live":
            time.sleep(0.1)

    def close(self) -> None:
        """Stop the sidecar."""
        self.direct.close()
        self.process.stop()

    def seconds_until_covered(self, snapshot: Snapshot) -> float:
        """Wait until the mirror has everything that a snapshot sees."""
        started = time.perf_counter()
        while True:
            watermark = self._state()[1]
            if watermark and Snapshot.parse(watermark).covers(snapshot):
                return time.perf_counter() - started
            time.sleep(0.002)

    def _state(self) -> tuple[str, str | None]:
        row = self.direct.execute("SELECT * FROM ruvector_consistency_status('captured')").fetchone()
        return (row[1], row[8]) if row else ("", None)


def snapshot_of(connection: psycopg.Connection) -> Snapshot:
    """Return what is committed now."""
    row = connection.execute("SELECT pg_current_snapshot()::text").fetchone()
    return Snapshot.parse(str(row[0])) if row else Snapshot(0, 0, frozenset())


def applying(bench: Bench, *, kind: str, rows: int, seconds: float) -> None:
    """Print how fast one kind of index follows."""
    follower = Follower(bench, kind)
    try:
        pid = follower.process._process.pid  # type: ignore[union-attr]
        processor, started = seconds_of(pid), time.perf_counter()
        bench.admin.execute(STATEMENTS["UPDATE vector"].format(table="captured", low=1, high=rows))
        written = time.perf_counter() - started
        applied = written + follower.seconds_until_covered(snapshot_of(bench.admin))
        print(
            f"{kind}: one UPDATE of {rows} vectors took {written:.2f} s ({rows / written:.0f} rows/s), and was applied"
            f" {applied:.2f} s after its begin ({rows / (applied - written):.0f} rows/s once committed);"
            f" {(seconds_of(pid) - processor) / rows * 1e6:.0f} us of processor time of the sidecar a row",
            flush=True,
        )
        full = write_for(bench, seconds=seconds, pause=0.0)
        follower.seconds_until_covered(snapshot_of(bench.admin))
        lags: list[float] = []
        half = write_for(bench, seconds=seconds, pause=8 / (full / 2), follower=follower, lags=lags)
        lags.sort()
        print(
            f"{kind}: 8 clients commit {full:.0f} single-row updates/s at full speed; at {half:.0f}/s the lag is"
            f" p50 {lags[len(lags) // 2] * 1e3:.0f} ms, p99 {lags[len(lags) * 99 // 100] * 1e3:.0f} ms,"
            f" of {len(lags)} commits looked at",
            flush=True,
        )
    finally:
        follower.close()


def write_for(
    bench: Bench, *, seconds: float, pause: float, follower: Follower | None = None, lags: list[float] | None = None
) -> float:
    """Let 8 clients update single vectors, each ``pause`` seconds after its last; return the rate of all."""
    end = time.perf_counter() + seconds
    counts = [0] * 8

    def write(client: int) -> None:
        draw = random.Random()
        with psycopg.connect(bench.server.dsn(), autocommit=True) as connection:
            due = time.perf_counter() + pause * client / 8
            while (now := time.perf_counter()) < end:
                if now < due:
                    time.sleep(due - now)
                due += pause
                counts[client] += 1
                low = (counts[client] * 8 + client) * 7919 % (bench.rows // 2) + 1
                connection.execute(
                    "UPDATE captured t SET embedding = s.embedding FROM source s WHERE t.id = %s AND s.id = %s",
                    (low, draw.randrange(bench.rows) + 1),
                )

    def look() -> None:
        with psycopg.connect(bench.server.dsn(), autocommit=True) as connection:
            while follower is not None and lags is not None and time.perf_counter() < end:
                lags.append(follower.seconds_until_covered(snapshot_of(connection)))
                time.sleep(0.01)

    in_threads([*(partial(write, client) for client in range(8)), look])
    return sum(counts) / seconds


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--dims", type=int, default=384)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=5, help="of one round of commits")
    parser.add_argument("--steps", default="statements,commits,apply", help="which of them")
    given = parser.parse_args()
    steps = given.steps.split(",")
    with tempfile.TemporaryDirectory(prefix="rv-", dir="/tmp") as name:
        folder = Path(name)
        folder.chmod(0o777)
        settings = {"shared_buffers": "1GB", "max_wal_size": "16GB", "checkpoint_timeout": "1h", "jit": "off"}
        server = EmbeddedPostgres(folder / "pg", settings=settings)
        server.start()
        try:
            bench = Bench(server, folder, rows=given.rows, dims=given.dims)
            bench.prepare()
            if "statements" in steps:
                statements(bench, rounds=given.rounds)
            if "commits" in steps:
                commits(bench, rounds=given.rounds, seconds=given.seconds)
                bulk_beside_pgvector(bench, rows=min(5_000, given.rows))
            if "apply" in steps:
                for kind in ("flat", "hnsw"):
                    applying(bench, kind=kind, rows=min(10_000, given.rows // 2), seconds=given.seconds * 2)
        finally:
            server.remove()
    return 0


if __name__ == "__main__":
    sys.exit(main())
