"""Engines that live in a PostgreSQL server: their rows are a table, their searches are queries of one connection."""

from __future__ import annotations

import os
import shutil
import struct
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import psycopg
from psycopg import pq
from psycopg.adapt import Dumper

from ann.arrays import Floats, Ids, K, as_ids
from ann.engines import Built, Plan, Stopwatch
from ruvector.embedded import EmbeddedPostgres
from ruvector.values import Metric

MEBIBYTE = 1 << 20
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


def build_pgvector(rows: Floats, plan: Plan, watch: Stopwatch) -> Built:
    """Start a server, load the rows, create the index; only the last counts as building."""
    # The server's own account must pass through the folder, and mkdtemp opens it to its owner only.
    home = Path(tempfile.mkdtemp(prefix="bench-ann-"))
    home.chmod(0o755)
    server = EmbeddedPostgres(home / "server", settings=_settings(rows, plan))

    def close() -> None:
        server.remove()
        shutil.rmtree(home, ignore_errors=True)

    try:
        server.start()
        connection = psycopg.connect(server.dsn(), autocommit=True)
        cpu_clock = _server_clock(server)
        _load_rows(connection, rows)
        operator, operator_class = OPERATORS[plan.metric]
        with watch.running(cpu_clock):
            connection.execute(
                f"CREATE INDEX rows_v ON rows USING hnsw (v {operator_class}) "
                f"WITH (m = {plan.m}, ef_construction = {plan.ef_construction})"
            )
        return _built(connection, operator, cpu_clock, close)
    except BaseException:
        close()
        raise


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


def _built(
    connection: psycopg.Connection[Any], operator: str, cpu_clock: Callable[[], float | None], close: Callable[[], None]
) -> Built:
    oid, size, version, server = connection.execute(
        "SELECT 'vector'::regtype::oid, pg_relation_size('rows_v'), extversion, current_setting('server_version') "
        "FROM pg_extension WHERE extname = 'vector'"
    ).fetchone() or (0, None, "", "")
    connection.adapters.register_dumper(_Vector, type("VectorDumper", (_VectorDumper,), {"oid": oid}))
    # A small table would be scanned instead: the comparison is about the index.
    connection.execute("SET enable_seqscan = off")
    query_text = f"SELECT id FROM rows ORDER BY v {operator} %b LIMIT {K}"
    cursor = connection.cursor(binary=True)

    def search_one(query: Floats) -> list[int]:
        found = cursor.execute(query_text, (_Vector(query),), prepare=True).fetchall()
        return [number for (number,) in found]

    def search(queries: Floats) -> Ids:
        return np.vstack([as_ids(search_one(query)) for query in queries])

    def set_ef(ef: int) -> None:
        connection.execute(f"SET hnsw.ef_search = {ef}")

    return Built(
        set_ef=set_ef,
        search=search,
        search_one=search_one,
        size_bytes=size,
        about=f"PostgreSQL {server}, pgvector {version}",
        cpu_clock=cpu_clock,
        rss_counts=False,
        close=close,
    )


def _server_clock(server: EmbeddedPostgres) -> Callable[[], float | None]:
    """Return a clock of the processor time of all server processes, ended ones included, and of this one."""
    pid_file = server.cluster / "postmaster.pid"
    postmaster = int(pid_file.read_text(encoding="utf-8").split()[0])

    def clock() -> float | None:
        living = [_running_s(pid) for pid in (postmaster, *_children(postmaster))]
        ended = _ended_children_s(postmaster)
        return None if None in (*living, ended) else sum(filter(None, [*living, ended]), time.process_time())

    return clock


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
