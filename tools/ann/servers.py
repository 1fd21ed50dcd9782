"""Engines that live in a PostgreSQL server: their rows are a table, their searches are queries of one connection."""

from __future__ import annotations

import os
import shutil
import struct
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import psycopg
from psycopg import pq
from psycopg.adapt import Dumper

from ann.arrays import Floats, Ids, K, as_ids
from ann.engines import Built, Plan, Stopwatch
from ruvector.alembic.install import install
from ruvector.client import connect
from ruvector.clock import SystemClock
from ruvector.demo.process import SidecarProcess
from ruvector.embedded import EmbeddedPostgres
from ruvector.values import Metric

MEBIBYTE = 1 << 20
LIVE_SECONDS_MAX = 6 * 3_600  # as long as any build may take
COPY_ROWS = 4_096  # 12 MB at 768 dims
OPERATORS = {
    Metric.L2: ("<->", "vector_l2_ops"),
    Metric.COSINE: ("<=>", "vector_cosine_ops"),
    Metric.IP: ("<#>", "vector_ip_ops"),
}
COPY_START = b"PGCOPY\n\xff\r\n\0" + bytes(8)
COPY_END = b"\xff\xff"


class _Vector:
    """A query in pgvector's binary form: number of dimensions, a zero, big-endian floats."""

    __slots__ = ("data",)

    def __init__(self, query: Floats) -> None:
        self.data = struct.pack(">hh", len(query), 0) + query.astype(">f4").tobytes()


class _VectorDumper(Dumper):
    """Sends a _Vector as it is, as a parameter of the type whose oid the connection registers."""

    format = pq.Format.BINARY

    def dump(self, obj: Any) -> bytes:
        """Return the binary form."""
        data: bytes = obj.data
        return data


class Stand:
    """A server with the rows in a table, on its own or with a sidecar beside it. Close it."""

    def __init__(self, rows: Floats, plan: Plan) -> None:
        """Start the server and load the rows."""
        # The server's own account must pass through the folder, and mkdtemp opens it to its owner only.
        self._home = Path(tempfile.mkdtemp(prefix="bench-ann-"))
        self._home.chmod(0o755)
        self._server = EmbeddedPostgres(self._home / "server", settings=_settings(rows, plan))
        self._sidecar: SidecarProcess | None = None
        try:
            self._server.start()
            self.dsn = self._server.dsn()
            self.connection = psycopg.connect(self.dsn, autocommit=True)
            _load_rows(self.connection, rows)
        except BaseException:
            self.close()
            raise

    def connect(self) -> psycopg.Connection[Any]:
        """Return another connection."""
        return connect_to(self.dsn)

    def create_index(self, plan: Plan) -> None:
        """Create pgvector's index."""
        operator_class = OPERATORS[plan.metric][1]
        self.connection.execute(
            f"CREATE INDEX rows_v ON rows USING hnsw (v {operator_class}) "
            f"WITH (m = {plan.m}, ef_construction = {plan.ef_construction})"
        )

    def start_sidecar(self, plan: Plan) -> None:
        """Install the product and start its sidecar."""
        self.connection.execute("ALTER TABLE rows ADD PRIMARY KEY (id)")
        install(self.dsn)
        os.environ["RUVECTOR_THREADS"] = str(plan.threads)
        self._sidecar = SidecarProcess(self.dsn, self._home, SystemClock())
        self._sidecar.start()

    def attach(self, plan: Plan, *, columns: Sequence[str] = ()) -> None:
        """Attach the column, with columns for filters, and wait until the sidecar's index answers."""
        with connect(self.dsn) as client:
            client.attach(
                "public.rows.v",
                name="rows",
                metric=str(plan.metric),
                columns=columns,
                m=plan.m,
                ef_construction=plan.ef_construction,
            )
        until = time.monotonic() + LIVE_SECONDS_MAX
        asked = "SELECT engine, reason FROM ruvector_explain('rows', (SELECT v FROM rows LIMIT 1))"
        while (answer := self.connection.execute(asked).fetchone() or ("", None))[0] != "ruvector":
            if time.monotonic() > until:
                raise TimeoutError(f"the index does not answer after {LIVE_SECONDS_MAX} s: {answer[1]}")
            time.sleep(0.05)

    def cpu_clock(self) -> float | None:
        """Return the processor time of this process, the server and the sidecar."""
        served = _server_s(self._server)
        beside = 0.0 if self._sidecar is None else _process_s(self._sidecar.pid)
        return None if served is None or beside is None else time.process_time() + served + beside

    def close(self) -> None:
        """End sidecar and server, remove their files."""
        if self._sidecar is not None:
            self._sidecar.stop()
        self._server.remove()
        shutil.rmtree(self._home, ignore_errors=True)


def connect_to(dsn: str) -> psycopg.Connection[Any]:
    """Return a connection to which a _Vector can be given."""
    connection = psycopg.connect(dsn, autocommit=True)
    oid = (connection.execute("SELECT 'vector'::regtype::oid").fetchone() or (0,))[0]
    connection.adapters.register_dumper(_Vector, type("VectorDumper", (_VectorDumper,), {"oid": oid}))
    return connection


def build_pgvector(rows: Floats, plan: Plan, watch: Stopwatch) -> Built:
    """Start a server, load the rows, create the index; only the last counts as building."""
    stand = Stand(rows, plan)
    try:
        with watch.running(stand.cpu_clock):
            stand.create_index(plan)
        connection = stand.connect()
        # A small table would be scanned instead: the comparison is about the index.
        connection.execute("SET enable_seqscan = off")
        searcher = Searcher(connection, pgvector_query(plan.metric))
        size = connection.execute("SELECT pg_relation_size('rows_v')").fetchone() or (None,)

        def set_ef(ef: int) -> None:
            connection.execute(f"SET hnsw.ef_search = {ef}")

        return _built(stand, searcher, set_ef=set_ef, size_bytes=size[0])
    except BaseException:
        stand.close()
        raise


def build_ruvector_sql(rows: Floats, plan: Plan, watch: Stopwatch) -> Built:
    """Start server and sidecar, load the rows, attach the column: from there to the first answer counts as building."""
    stand = Stand(rows, plan)
    try:
        stand.start_sidecar(plan)
        with watch.running(stand.cpu_clock):
            stand.attach(plan)
        searcher = Searcher(stand.connect(), "")

        def set_ef(ef: int) -> None:
            searcher.query = ruvector_query(ef)

        return _built(stand, searcher, set_ef=set_ef, size_bytes=None)
    except BaseException:
        stand.close()
        raise


def pgvector_query(metric: Metric) -> str:
    """Return the search of an unchanged application."""
    return f"SELECT id FROM rows ORDER BY v {OPERATORS[metric][0]} %b LIMIT {K}"


def ruvector_query(ef: int) -> str:
    """Return the same search through the product's function."""
    return f"SELECT id FROM ruvector_search('rows', %b, {K}, ef_search => {ef})"


class Searcher:
    """Asks one connection one query after the other: prepared statements, binary both ways."""

    def __init__(self, connection: psycopg.Connection[Any], query: str) -> None:
        self.query = query
        self._cursor = connection.cursor(binary=True)

    def ask(self, query: Floats, *, before: Sequence[Any] = (), after: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """Return the rows of one answer; a statement without a place for the query is asked without it.

        ``before`` and ``after`` are values with places before and after that of the query.
        """
        values = (*before, _Vector(query), *after) if "%b" in self.query else None
        return self._cursor.execute(self.query, values, prepare=True).fetchall()

    def one(self, query: Floats) -> list[int]:
        """Return the row numbers of one answer."""
        return [int(number) for (number,) in self.ask(query)]

    def many(self, queries: Floats) -> Ids:
        """Return the row numbers of each answer."""
        return np.vstack([as_ids(self.one(query)) for query in queries])


def _built(stand: Stand, searcher: Searcher, *, set_ef: Callable[[int], None], size_bytes: int | None) -> Built:
    version, server = stand.connection.execute(
        "SELECT extversion, current_setting('server_version') FROM pg_extension WHERE extname = 'vector'"
    ).fetchone() or ("", "")
    return Built(
        set_ef=set_ef,
        search=searcher.many,
        search_one=searcher.one,
        size_bytes=size_bytes,
        about=f"PostgreSQL {server}, pgvector {version}",
        cpu_clock=stand.cpu_clock,
        rss_counts=False,
        close=stand.close,
    )


def _settings(rows: Floats, plan: Plan) -> dict[str, str | int | float]:
    """Return settings with room for table and index in memory; durability is off, nothing here measures it."""
    raw = rows.nbytes // MEBIBYTE
    return {
        "shared_buffers": f"{256 + 3 * raw}MB",
        "maintenance_work_mem": f"{256 + 2 * raw}MB",
        "work_mem": "64MB",
        "max_parallel_maintenance_workers": plan.threads - 1,
        "min_parallel_table_scan_size": 0,
        "max_parallel_workers_per_gather": 0,
        # The shared memory of a parallel build is as large as maintenance_work_mem; /dev/shm often is not.
        "dynamic_shared_memory_type": "mmap",
        "autovacuum": "off",
        "fsync": "off",
        "synchronous_commit": "off",
        "wal_level": "minimal",
        "max_wal_senders": 0,
        "max_wal_size": "16GB",
        "jit": "off",
    }


def _load_rows(connection: psycopg.Connection[Any], rows: Floats) -> None:
    """Create the table and copy the rows in binary form; vectors stay in the row, uncompressed."""
    connection.execute("CREATE EXTENSION vector")
    connection.execute(f"CREATE TABLE rows (id int4, v vector({rows.shape[1]}))")
    connection.execute("ALTER TABLE rows ALTER v SET STORAGE plain")
    record = np.dtype(
        [("fields", ">i2"), ("id_bytes", ">i4"), ("id", ">i4"), ("v_bytes", ">i4"), ("dims", ">i2"), ("zero", ">i2"),
         ("v", ">f4", (rows.shape[1],))]
    )  # fmt: skip
    with connection.cursor() as cursor, cursor.copy("COPY rows (id, v) FROM STDIN (FORMAT binary)") as copy:
        copy.write(COPY_START)
        for start in range(0, len(rows), COPY_ROWS):
            part = rows[start : start + COPY_ROWS]
            records = np.zeros(len(part), dtype=record)
            records["fields"], records["id_bytes"] = 2, 4
            records["id"] = np.arange(start, start + len(part))
            records["v_bytes"], records["dims"], records["v"] = 4 + 4 * rows.shape[1], rows.shape[1], part
            copy.write(records.tobytes())
        copy.write(COPY_END)
    connection.execute("VACUUM ANALYZE rows")


def _server_s(server: EmbeddedPostgres) -> float | None:
    """Return the processor time of all server processes, ended ones included; None where the system does not say."""
    pid_file = server.cluster / "postmaster.pid"
    postmaster = int(pid_file.read_text(encoding="utf-8").split()[0])
    living = [_running_s(pid) for pid in (postmaster, *_children(postmaster))]
    ended = _ended_children_s(postmaster)
    return None if None in (*living, ended) else sum(filter(None, [*living, ended]))


def _process_s(pid: int) -> float | None:
    """Return the processor time of a process, ended threads included; None where the system has no such clock."""
    if not Path("/proc/self/schedstat").exists():
        return None
    return time.clock_gettime((~pid << 3) | 2)  # the identifier that clock_getcpuclockid gives on Linux


def _running_s(pid: int) -> float | None:
    """Return the time a process has run, to the nanosecond; 0 when it has ended, None where the system does not say."""
    if not Path("/proc/self/schedstat").exists():
        return None
    try:
        return int(Path(f"/proc/{pid}/schedstat").read_text(encoding="ascii").split()[0]) / 1e9
    except OSError:
        return 0.0


def _ended_children_s(pid: int) -> float | None:
    """Return the user and system time of the children whose end a process has seen, in ticks of the clock."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    # After the name come the state (field 3) and so on: cutime and cstime are fields 16 and 17.
    after_name = text.rpartition(")")[2].split()
    return (int(after_name[13]) + int(after_name[14])) / os.sysconf("SC_CLK_TCK")


def _children(pid: int) -> list[int]:
    try:
        return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii").split()]
    except OSError:
        return []
