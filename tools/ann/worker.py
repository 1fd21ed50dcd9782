"""The process of one engine: builds it, then answers the parent's questions one by one until told to stop."""

from __future__ import annotations

import ctypes
import ctypes.util
import gc
import importlib
import signal
import sys
import time
import traceback
from multiprocessing.connection import Connection
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np

from ann.arrays import Floats
from ann.curves import percentile
from ann.engines import ENGINES, Built, Stopwatch
from ann.messages import Answer, BuildReport, Failure, Order

WARM_UP_QUERIES = 50  # other engines ran in between: their rows are in the caches
BATCH_SECONDS_MIN = 0.2  # the batch is repeated until the clock has something to measure


def serve(channel: Connection) -> None:
    """Take an Order, report the build, then answer every ef that is sent; None or a closed channel ends it."""
    order: Order = channel.recv()
    engine = ENGINES[order.engine]
    # Imported before memory is measured: the growth is to be the index, not the library.
    importlib.import_module(engine.module)
    before = resident_bytes()
    watch = Stopwatch()
    built = _build(order, watch)
    try:
        _give_memory_back()
        after = resident_bytes()
        grown = after - before if before is not None and after is not None and built.rss_counts else None
        channel.send(BuildReport(watch.cpu_s, watch.wall_s, grown, built.size_bytes, built.about))
        queries = np.ascontiguousarray(built.prepare(np.load(order.queries_file)))
        while (ef := channel.recv()) is not None:
            channel.send(ask(built, queries, ef))
    finally:
        built.close()


def _build(order: Order, watch: Stopwatch) -> Built:
    # Pages of the file are shared by all workers until one writes. When this returns they are no longer mapped.
    rows = np.asarray(np.load(order.base_file, mmap_mode="c"))
    return ENGINES[order.engine].build(rows, order.plan, watch)


def ask(built: Built, queries: Floats, ef: int) -> Answer:
    """Measure one ef: throughput of the whole batch, then the latency of single calls."""
    built.set_ef(ef)
    built.search(queries[:WARM_UP_QUERIES])
    asked = 0
    wall, cpu = time.perf_counter(), built.cpu_clock()
    while (wall_s := time.perf_counter() - wall) < BATCH_SECONDS_MIN or not asked:
        ids = built.search(queries)
        asked += len(queries)
    now = built.cpu_clock()
    cpu_s = None if cpu is None or now is None else now - cpu
    latencies_ms = _latencies_ms(built, queries)
    return Answer(
        ids=ids,
        qps_cpu=asked / cpu_s if cpu_s else None,
        qps_wall=asked / wall_s,
        p50_ms=percentile(latencies_ms, 0.50),
        p99_ms=percentile(latencies_ms, 0.99),
    )


def _latencies_ms(built: Built, queries: Floats) -> list[float]:
    latencies_ms = []
    for query in queries:
        start = time.perf_counter()
        built.search_one(query)
        latencies_ms.append((time.perf_counter() - start) * 1_000)
    return latencies_ms


def resident_bytes() -> int | None:
    """Return the memory of this process that is in use, or None where the system does not say."""
    try:
        status = Path("/proc/self/status").read_text(encoding="utf-8")
    except OSError:
        return None
    return next((int(line.split()[1]) * 1_024 for line in status.splitlines() if line.startswith("VmRSS:")), None)


def _give_memory_back() -> None:
    """Return freed memory to the system, so that what only the build needed is not counted."""
    gc.collect()
    trim: Any = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc only
    if trim is not None:
        trim(0)


def _leave(_number: int, _frame: FrameType | None) -> None:
    sys.exit(1)  # unwinds, so that an engine with a server of its own stops it


def main() -> None:
    """Serve the channel whose file descriptor is the only argument."""
    signal.signal(signal.SIGTERM, _leave)
    with Connection(int(sys.argv[1])) as channel:
        try:
            serve(channel)
        except EOFError:
            return  # the parent is gone
        except Exception as error:  # noqa: BLE001 - whatever a library raises is reported, the comparison goes on
            traceback.print_exc()
            channel.send(Failure(f"{type(error).__name__}: {error}"))


if __name__ == "__main__":
    main()
