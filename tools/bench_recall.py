"""Compare the graph index with hnswlib at equal M, ef_construction and ef: recall@10, queries per second, build time.

Both are built and asked on one thread in the same run; times are processor time, so a busy machine changes the ratio
little. Needs the folders debian-25k-384, fashion-mnist-784 or glove-100k-100 (--data, RUVECTOR_SHARED_DATA or
../shared/data) and hnswlib (pip install ruvector[bench]). Exit code 3 when a recall is more than 0.01 below hnswlib's.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ruvector import kernels
from ruvector.index import KeyedIndex
from ruvector.values import IndexOptions, Metric

Floats = npt.NDArray[np.float32]
K = 10
EFS = (10, 20, 40, 80, 160, 320)
ALLOWED_LOSS = 0.01


@dataclass(frozen=True, slots=True)
class DataSet:
    """Rows, queries and the true distance of the 10th neighbour of each query [q, 1]."""

    name: str
    metric: Metric
    base: Floats
    queries: Floats
    reach: Floats


@dataclass(frozen=True, slots=True)
class Engine:
    """A built index: seconds it took, and a search that returns distances [q, 10] as SQL shows them."""

    build_s: float
    search: Callable[[Floats, int], Floats]


def load(folder: Path) -> DataSet:
    """Read one data set."""
    if folder.name == "fashion-mnist-784":
        base = np.load(folder / "base.npz")["base"].astype(np.float32)
        asked = np.load(folder / "queries.npz")
        return DataSet(folder.name, Metric.L2, base, asked["queries"].astype(np.float32), asked["dist"][:, K - 1 : K])
    base = np.load(folder / "base.f16.npy").astype(np.float32)
    if folder.name == "glove-100k-100":
        asked = np.load(folder / "queries.npz")
        return DataSet(
            folder.name, Metric.COSINE, base, asked["queries"].astype(np.float32), asked["dist"][:, K - 1 : K]
        )
    queries = np.load(folder / "queries.f16.npy").astype(np.float32)
    return DataSet(folder.name, Metric.COSINE, base, queries, np.load(folder / "truth.npz")["dist"][:, K - 1 : K])


def build_own(data: DataSet, *, m: int, ef_construction: int) -> Engine:
    """Build our index; it always walks the graph, as hnswlib does."""
    options = IndexOptions(dims=data.base.shape[1], metric=data.metric, m=m, ef_construction=ef_construction)
    index = KeyedIndex(options, threads=1, scan_factor=0)
    start = time.process_time()
    index.upsert(np.arange(len(data.base)), data.base)
    build_s = time.process_time() - start

    def search(queries: Floats, ef: int) -> Floats:
        return np.array([distances for _, distances in index.search_many(queries, K, ef=ef)])

    return Engine(build_s, search)


def build_peer(hnswlib: Any, data: DataSet, *, m: int, ef_construction: int) -> Engine:
    """Build hnswlib's index."""
    peer = hnswlib.Index("l2" if data.metric is Metric.L2 else "cosine", data.base.shape[1])
    peer.init_index(len(data.base), ef_construction=ef_construction, M=m, random_seed=42)
    start = time.process_time()
    peer.add_items(data.base, num_threads=1)
    build_s = time.process_time() - start

    def search(queries: Floats, ef: int) -> Floats:
        peer.set_ef(ef)
        distances: Floats = peer.knn_query(queries, k=K, num_threads=1)[1]
        return np.sqrt(distances) if data.metric is Metric.L2 else distances

    return Engine(build_s, search)


def ask(engine: Engine, data: DataSet, ef: int) -> tuple[float, float]:
    """Return recall@10 (by distance, so ties count) and queries per second of processor time."""
    start = time.process_time()
    distances = engine.search(data.queries, ef)
    seconds = time.process_time() - start
    reached = distances <= data.reach * (1 + 1e-5) + 1e-6
    return float(reached.mean()), len(data.queries) / seconds


def compare(hnswlib: Any, data: DataSet, *, m: int, ef_construction: int) -> float:
    """Print the table of one data set; returns the largest loss of recall against hnswlib."""
    own = build_own(data, m=m, ef_construction=ef_construction)
    peer = build_peer(hnswlib, data, m=m, ef_construction=ef_construction)
    rows, dims = data.base.shape
    print(f"\n{data.name}: {rows} x {dims}, {data.metric}, M={m}, ef_construction={ef_construction}")
    print(f"build: ruvector {own.build_s:.1f} s, hnswlib {peer.build_s:.1f} s, ratio {own.build_s / peer.build_s:.2f}")
    print(f"{'ef':>5} {'recall':>9} {'hnswlib':>9} {'differs':>9} {'QPS':>9} {'hnswlib':>9} {'ratio':>7}")
    worst = 0.0
    for ef in EFS:
        (mine, speed), (theirs, peer_speed) = ask(own, data, ef), ask(peer, data, ef)
        worst = max(worst, theirs - mine)
        print(
            f"{ef:>5} {mine:>9.4f} {theirs:>9.4f} {mine - theirs:>+9.4f}"
            f" {speed:>9.0f} {peer_speed:>9.0f} {speed / peer_speed:>7.2f}"
        )
    return worst


def main() -> int:
    """Run the comparison on the data sets that are there."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    beside = Path(__file__).resolve().parents[2] / "shared" / "data"
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("RUVECTOR_SHARED_DATA", beside)))
    parser.add_argument("--sets", nargs="+", default=["debian-25k-384", "fashion-mnist-784"])
    parser.add_argument("--m", type=int, default=16)
    parser.add_argument("--ef-construction", type=int, default=200)
    given = parser.parse_args()
    try:
        import hnswlib
    except ImportError:
        print("skipped: hnswlib is not installed (pip install ruvector[bench])")
        return 0
    print(f"kernels: {kernels.simd_info()}")
    worst = 0.0
    for name in given.sets:
        if not (given.data / name).is_dir():
            print(f"skipped: {name} is not in {given.data} (give --data DIR)")
            continue
        worst = max(worst, compare(hnswlib, load(given.data / name), m=given.m, ef_construction=given.ef_construction))
    print(f"\nlargest loss of recall against hnswlib: {worst:.4f} (allowed {ALLOWED_LOSS})")
    return 3 if worst > ALLOWED_LOSS else 0


if __name__ == "__main__":
    sys.exit(main())
