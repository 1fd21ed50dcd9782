"""The engines that are asked in this process, each as one or more contenders: an engine in one of its settings."""

from __future__ import annotations

import importlib
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ann.arrays import Floats, K, unit
from ann.engines import Plan
from filtering.attributes import DICE, Attributed
from filtering.filters import Filter
from ruvector.limits import FILTER_CACHE_MAX
from ruvector.values import Metric

Effort = int | None  # an ef, or None for the engine's default
PLANS = ("scan", "hop", "walk")
PLAN_FIGURES = {"sieve_scans": "scan", "sieve_hops": "hop", "sieve_walks": "walk"}


def _nothing() -> None:
    pass


def _untold(_queries: Floats, _filters: tuple[Filter, ...]) -> str:
    return ""


@dataclass(frozen=True, slots=True)
class Contender:
    """An engine in one setting. Only ``ask`` is timed: ``prepare`` makes what it takes, ``rows`` reads its answer.

    ``forget`` has it forget the filters that it has seen.
    """

    engine: str
    setting: str
    efs: tuple[Effort, ...]
    set_ef: Callable[[Effort], None]
    prepare: Callable[[Floats, Filter], Any]
    ask: Callable[[Any], Any]
    rows: Callable[[Any], list[int]]
    plan: Callable[[Floats, tuple[Filter, ...]], str] = _untold  # how some queries are answered, in a few words
    forget: Callable[[], None] = _nothing

    @property
    def label(self) -> str:
        """The engine and its setting."""
        return f"{self.engine} {self.setting}".rstrip()


@dataclass(frozen=True, slots=True)
class Built:
    """What stands ready to be asked. Close it."""

    contenders: list[Contender]
    about: str = ""
    close: Callable[[], None] = field(default=_nothing)


@dataclass(frozen=True, slots=True)
class Engine:
    """One of the engines by its name in ann.engines, which knows what it needs: how it is built here."""

    build: Callable[[Attributed, Plan, tuple[int, ...]], Built]
    setup: str


@dataclass(slots=True)
class _Ef:
    """The ef of the next searches, for engines that take it with every call."""

    ef: Effort = None

    def set(self, ef: Effort) -> None:
        self.ef = ef


def tally(plans: Counter[str]) -> str:
    """Return how often each plan was taken, the most frequent first; a single one without a number."""
    if len(plans) == 1:
        return next(iter(plans))
    return ", ".join(f"{name} {count}" for name, count in plans.most_common())


def _build_ruvector(attributed: Attributed, plan: Plan, efs: tuple[int, ...]) -> Built:
    ruvector: Any = importlib.import_module("ruvector")
    rows = np.asarray(attributed.data.base)
    index = ruvector.Index(
        dims=rows.shape[1], metric=plan.metric, m=plan.m, ef_construction=plan.ef_construction, threads=plan.threads
    )
    index.add(np.arange(len(rows)), rows, attributes=attributed.columns)
    return Built([_ruvector(index, "auto", (None, *efs)), *(_ruvector(index, forced, (None,)) for forced in PLANS)])


def _ruvector(index: Any, setting: str, efs: tuple[Effort, ...]) -> Contender:
    effort = _Ef()

    def ask(question: tuple[Floats, dict[str, Any]]) -> Any:
        return index.search(question[0], K, ef=effort.ef, filter=question[1], plan=setting)

    def taken(queries: Floats, filters: tuple[Filter, ...]) -> str:
        before = index.stats()
        for query, each in zip(queries, filters, strict=True):
            ask((query, each.mapping()))
        after = index.stats()
        counts = {name: after.get(figure, 0) - before.get(figure, 0) for figure, name in PLAN_FIGURES.items()}
        return tally(Counter({name: count for name, count in counts.items() if count}))

    def forget() -> None:
        for number in range(1, FILTER_CACHE_MAX + 1):
            index.search(np.ones(index.options.dims, dtype=np.float32), 1, filter={DICE: -number})

    return Contender(
        "ruvector",
        setting,
        efs,
        set_ef=effort.set,
        prepare=lambda query, each: (query, each.mapping()),
        ask=ask,
        rows=lambda answer: [row for row in answer[0].tolist() if row >= 0],
        plan=taken if setting == "auto" else _untold,
        forget=forget,
    )


def _build_hnswlib(attributed: Attributed, plan: Plan, efs: tuple[int, ...]) -> Built:
    hnswlib: Any = importlib.import_module("hnswlib")
    rows = np.asarray(attributed.data.base)
    index = hnswlib.Index(str(plan.metric), rows.shape[1])
    index.init_index(len(rows), M=plan.m, ef_construction=plan.ef_construction, random_seed=42)
    index.add_items(rows, num_threads=plan.threads)

    def prepare(query: Floats, each: Filter) -> tuple[Floats, Callable[[int], int]]:
        # The cheapest function of Python there is: a byte of the mask.
        return query, each.mask(attributed.columns).tobytes().__getitem__

    def ask(question: tuple[Floats, Callable[[int], int]]) -> Any:
        try:
            return index.knn_query(question[0], k=K, num_threads=1, filter=question[1])[0]
        except RuntimeError:
            return np.empty((1, 0))  # it finds fewer than k and says so by an error

    contender = Contender(
        "hnswlib",
        "",
        efs,
        set_ef=index.set_ef,
        prepare=prepare,
        ask=ask,
        rows=lambda answer: [int(row) for row in answer[0]],
    )
    return Built([contender])


def _build_faiss(attributed: Attributed, plan: Plan, efs: tuple[int, ...]) -> Built:
    faiss: Any = importlib.import_module("faiss")
    rows = np.asarray(attributed.data.base)
    rows = unit(rows) if plan.metric is Metric.COSINE else rows
    metric = faiss.METRIC_L2 if plan.metric is Metric.L2 else faiss.METRIC_INNER_PRODUCT
    faiss.omp_set_num_threads(plan.threads)
    index = faiss.IndexHNSWFlat(rows.shape[1], plan.m, metric)
    index.hnsw.efConstruction = plan.ef_construction
    index.add(rows)
    faiss.omp_set_num_threads(1)
    effort = _Ef()

    def prepare(query: Floats, each: Filter) -> tuple[Floats, Any]:
        bits = np.packbits(each.mask(attributed.columns), bitorder="little")
        asked = unit(query[None]) if plan.metric is Metric.COSINE else query[None]
        return asked, faiss.SearchParametersHNSW(sel=faiss.IDSelectorBitmap(bits), efSearch=effort.ef)

    contender = Contender(
        "faiss-hnsw",
        "",
        efs,
        set_ef=effort.set,
        prepare=prepare,
        ask=lambda question: index.search(question[0], K, params=question[1])[1],
        rows=lambda answer: [row for row in answer[0].tolist() if row >= 0],
    )
    return Built([contender])


IN_PROCESS = {
    "ruvector": Engine(_build_ruvector, "ruvector.Index in this process, filter as a mapping, every plan"),
    "hnswlib": Engine(_build_hnswlib, "filter function of knn_query: a look into a mask made before"),
    "faiss-hnsw": Engine(_build_faiss, "IndexHNSWFlat with an IDSelectorBitmap made before"),
}
