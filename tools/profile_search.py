"""Count what a search does and how far it is from the speed of memory.

Builds the index over one real data set (tools/ann/datasets.py knows where they are), asks all queries at several ef and
prints, per query: recall@10, nodes compared by their codes, rows read to rank again, bytes touched, microseconds of
processor time and the bytes a second that makes. Beside it stands what this machine reaches with the same bytes: rows
of a code's size taken in random order, and a plain copy.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from ann import datasets
from ruvector import kernels
from ruvector.index import KeyedIndex
from ruvector.values import IndexOptions

K = 10
GIGABYTE = 1e9


def rate(work: Callable[[], object], size: int, rounds: int = 5) -> float:
    """Return the best bytes per second of processor time of some rounds."""
    best = float("inf")
    for _ in range(rounds):
        start = time.process_time()
        work()
        best = min(best, time.process_time() - start)
    return size / best


def memory_rates(code_bytes: int, nodes: int) -> tuple[float, float]:
    """Return bytes per second of taking codes in random order, and of copying 256 MiB."""
    table = np.ones((nodes, code_bytes), dtype=np.uint8)
    order = np.random.default_rng(1).integers(0, nodes, size=200_000)
    out = np.empty((len(order), code_bytes), dtype=np.uint8)
    random_rate = rate(lambda: np.take(table, order, axis=0, out=out, mode="clip"), out.nbytes)
    source = np.ones(256 << 20, dtype=np.uint8)
    target = np.empty_like(source)
    return random_rate, rate(lambda: np.copyto(target, source), 2 * source.nbytes)


def main() -> int:
    """Print the table of one data set."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    beside = Path(__file__).resolve().parents[2] / "shared" / "data"
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("RUVECTOR_SHARED_DATA", beside)))
    parser.add_argument("--set", choices=datasets.NAMES, default="fashion-mnist-784")
    parser.add_argument("--rows", type=int, help="use only the first rows")
    parser.add_argument("--ef", type=int, nargs="+", default=[10, 20, 40, 80, 160])
    parser.add_argument("--m", type=int, default=16)
    given = parser.parse_args()
    if not datasets.is_there(given.set, given.data):
        print(f"skipped: {given.set} is not in {given.data} (give --data DIR)")
        return 0
    choice = datasets.Choice(folder=given.data, rows_max=given.rows, queries_max=1000, seed=42, latent=24)
    with tempfile.TemporaryDirectory() as scratch:
        report(datasets.load(given.set, choice, scratch=Path(scratch)), given)
    return 0


def report(data: datasets.DataSet, given: argparse.Namespace) -> None:
    """Build, ask and print."""
    rows, dims = data.base.shape
    index = KeyedIndex(IndexOptions(dims=dims, metric=data.metric, m=given.m), threads=1, scan_factor=0)
    started = time.process_time()
    index.upsert(np.arange(rows), np.asarray(data.base))
    built = time.process_time() - started
    stats = index.stats()
    code_bytes = stats["code_bytes"] // stats["slots"]
    resident = (stats["bytes"] - stats["row_bytes"]) / (rows * dims * 4)
    print(f"{data.name}: {rows} x {dims}, {data.metric}, m {given.m}; kernels: {kernels.simd_info()}")
    print(f"build {built:.1f} s of processor time on one thread ({rows / built:.0f} rows/s)")
    print(f"{code_bytes} bytes of code a node; all but the rows: {resident:.3f} of the raw vectors")
    random_rate, copy_rate = memory_rates(code_bytes, rows)
    print(f"random codes {random_rate / GIGABYTE:.1f} GB/s, copy {copy_rate / GIGABYTE:.1f} GB/s\n")
    print(f"{'ef':>5} {'recall':>8} {'compared':>9} {'rows read':>10} {'KiB':>7} {'us':>7} {'GB/s':>6}")
    for ef in given.ef:
        before = index.stats()
        start = time.process_time()
        _, distances = index.search_table(np.asarray(data.queries), K, ef=ef)
        seconds = (time.process_time() - start) / len(data.queries)
        after = index.stats()
        compared, reranked = ((after[name] - before[name]) / len(data.queries) for name in ("compared", "reranked"))
        touched = compared * code_bytes + reranked * dims * 4
        recall = float((distances <= data.reach * (1 + 1e-5) + 1e-6).mean())
        print(
            f"{ef:>5} {recall:>8.4f} {compared:>9.0f} {reranked:>10.1f} {touched / 1024:>7.1f} {seconds * 1e6:>7.1f}"
            f" {touched / seconds / GIGABYTE:>6.2f}"
        )


if __name__ == "__main__":
    sys.exit(main())
