"""Measure how fast an index takes rows that can be found at once, and what writing costs those who search.

Three measurements on one data set (tools/ann/datasets.py knows where the real ones are): rows a second accepted and
searchable with ``defer`` and without it, in calls of --batch rows; p50 and p99 of single searches while nothing is
written, and while another thread inserts --rate rows a second. The two kinds of searches take turns, in rounds.
A sample of the rows that were written is searched for after each step.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ann import datasets
from ruvector import kernels
from ruvector.index import KeyedIndex
from ruvector.values import IndexOptions

K = 10
Floats = npt.NDArray[np.float32]


class Inserter(threading.Thread):
    """Inserts the given rows, ``rate`` a second in small calls, until it is stopped or has no more."""

    def __init__(self, index: KeyedIndex, rows: Floats, *, first: int, rate: int, calls: int) -> None:
        super().__init__(daemon=True)
        self._index, self._rows, self._first = index, rows, first
        self._batch, self._pause = max(1, rate // calls), 1.0 / calls
        self._stopped = threading.Event()
        self.inserted = 0

    def run(self) -> None:
        """Insert."""
        due = time.monotonic()
        while self.inserted < len(self._rows) and not self._stopped.wait(max(0.0, due - time.monotonic())):
            part = self._rows[self.inserted : self.inserted + self._batch]
            first = self._first + self.inserted
            self._index.upsert(np.arange(first, first + len(part)), part)
            self.inserted += len(part)
            due += self._pause

    def stop(self) -> int:
        """Stop, and return how many rows were inserted."""
        self._stopped.set()
        self.join()
        return self.inserted


def fill(index: KeyedIndex, rows: Floats, *, batch: int, defer: bool) -> tuple[float, float]:
    """Insert all rows; returns rows per second of elapsed time and of processor time."""
    started, worked = time.perf_counter(), time.process_time()
    for first in range(0, len(rows), batch):
        part = rows[first : first + batch]
        index.upsert(np.arange(first, first + len(part)), part, defer=defer)
    return len(rows) / (time.perf_counter() - started), len(rows) / (time.process_time() - worked)


def latencies(index: KeyedIndex, queries: Floats, *, ef: int, seconds: float) -> list[float]:
    """Return milliseconds of single searches, one after the other, for some seconds."""
    found: list[float] = []
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        query = queries[len(found) % len(queries)]
        start = time.perf_counter()
        index.search(query, K, ef=ef)
        found.append((time.perf_counter() - start) * 1000)
    return found


def check(index: KeyedIndex, rows: Floats) -> None:
    """Print how many of a sample of rows are found by their own vectors."""
    sample = np.linspace(0, len(rows) - 1, min(200, len(rows))).astype(np.int64)
    keys, _ = index.search_table(rows[sample], 1, ef=200)
    print(f"found by their own vectors: {np.mean(keys[:, 0] == sample):.1%}")


def report_latencies(index: KeyedIndex, spare: Floats, queries: Floats, given: argparse.Namespace) -> None:
    """Print p50 and p99 of searches alone and beside an inserter, in turns."""
    alone: list[float] = []
    beside: list[float] = []
    written, first = 0, len(index)
    for _ in range(given.rounds):
        alone += latencies(index, queries, ef=given.ef, seconds=given.seconds)
        inserter = Inserter(index, spare[written:], first=first + written, rate=given.rate, calls=given.calls)
        inserter.start()
        beside += latencies(index, queries, ef=given.ef, seconds=given.seconds)
        written += inserter.stop()
    rate = written / (given.rounds * given.seconds)
    for name, found in (("idle", alone), (f"beside {rate:.0f} rows/s", beside)):
        middle, high, top = np.percentile(found, [50, 99, 99.9])
        print(f"search {name}: p50 {middle:.3f} ms, p99 {high:.3f} ms, p99.9 {top:.3f} ms ({len(found)} searches)")
    print(f"p99 beside writing / idle: {np.percentile(beside, 99) / np.percentile(alone, 99):.2f}")


def main() -> int:
    """Print the measurements of one data set."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    folder = Path(__file__).resolve().parents[2] / "shared" / "data"
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("RUVECTOR_SHARED_DATA", folder)))
    parser.add_argument("--set", choices=datasets.NAMES, default="synthetic-1m-128")
    parser.add_argument("--rows", type=int, default=200_000, help="use only the first rows")
    parser.add_argument("--batch", type=int, default=4096, help="rows of one call while the index is filled")
    parser.add_argument("--rate", type=int, default=1000, help="rows a second beside the searches")
    parser.add_argument("--calls", type=int, default=10, help="calls a second in which they come")
    parser.add_argument("--ef", type=int, default=40)
    parser.add_argument("--seconds", type=float, default=5.0, help="of each kind of search in a round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=0, help="that build; 0: all cores")
    given = parser.parse_args()
    if not datasets.is_there(given.set, given.data):
        print(f"skipped: {given.set} is not in {given.data} (give --data DIR)")
        return 0
    choice = datasets.Choice(folder=given.data, rows_max=given.rows, queries_max=1000, seed=42, latent=24)
    with tempfile.TemporaryDirectory() as scratch:
        data = datasets.load(given.set, choice, scratch=Path(scratch))
        measure(data, given)
    return 0


def measure(data: datasets.DataSet, given: argparse.Namespace) -> None:
    """Fill an index in both ways, link it and search it."""
    rows, queries = np.array(data.base), np.asarray(data.queries)
    spare_count = min(len(rows) // 5, int(given.rate * given.seconds * given.rounds * 1.1))
    kept, spare = rows[: len(rows) - spare_count], rows[len(rows) - spare_count :]
    options = IndexOptions(dims=rows.shape[1], metric=data.metric)
    print(f"{data.name}: {len(kept)} x {rows.shape[1]}, {data.metric}; kernels: {kernels.simd_info()}")
    part = kept[: min(len(kept), 40 * given.batch)]
    plain = KeyedIndex(options, threads=given.threads)
    wall, worked = fill(plain, part, batch=given.batch, defer=False)
    print(f"accepted and linked, {len(part)} rows: {wall:.0f} rows/s ({worked:.0f} a second of processor time)")
    check(plain, part)
    index = KeyedIndex(options, threads=given.threads)
    wall, worked = fill(index, kept, batch=given.batch, defer=True)
    print(f"accepted and searchable, deferred: {wall:.0f} rows/s ({worked:.0f} a second of processor time)")
    check(index, kept)
    unlinked = latencies(index, queries, ef=given.ef, seconds=1.0)
    print(f"search while all are deferred: p50 {np.percentile(unlinked, 50):.3f} ms")
    started = time.perf_counter()
    index.build()
    print(f"linked in {time.perf_counter() - started:.1f} s")
    report_latencies(index, spare, queries, given)
    check(index, kept)


if __name__ == "__main__":
    sys.exit(main())
