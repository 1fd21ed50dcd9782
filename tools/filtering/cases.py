"""The filters that are measured, a filter for each query, with the exact truth under each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ann.arrays import Doubles, Floats, Ids, K
from ann.truth import CANDIDATES, TIE_ABSOLUTE, TIE_RELATIVE, distances_of
from filtering.attributes import CELL, DICE, Attributed, scores_of
from filtering.filters import Among, Between, Filter

TRUTH_QUERIES = 16  # their scores of a million rows take 64 MB
LABEL_ROWS_MIN = K  # a rarer value is no filter worth to be measured
STORED_TOLERANCE = 1e-5  # stored truths come from the same rows, rounded differently


@dataclass(frozen=True, slots=True)
class Case:
    """A kind of filter: one for each query, how many rows pass [q], the distance of the last true neighbour [q, 1]."""

    name: str
    filters: tuple[Filter, ...]
    matching: npt.NDArray[np.int64]
    reach: Doubles


@dataclass(frozen=True, slots=True)
class Score:
    """What one answer is worth: rows, how many of them are true neighbours, and how many there could have been."""

    rows: int
    hits: int
    possible: int


def cases_of(attributed: Attributed, shares: Sequence[float], folder: Path, *, seed: int) -> list[Case]:
    """Return all cases of a set: each share at random, near and far, then by the columns of the set itself."""
    filters: dict[str, list[Filter]] = {}
    for share in shares:
        told = f"{share * 100:g} %"
        filters[f"{told} random"] = _random(attributed, share, seed=seed)
        filters[f"{told} near"] = _by_cells(attributed, share, seed=seed, is_near=True)
        filters[f"{told} far"] = _by_cells(attributed, share, seed=seed, is_near=False)
    if attributed.label is not None:
        filters[f"own {attributed.label}"] = [Filter((Among(attributed.label, (own,)),)) for own in attributed.labels]
        filters[f"far {attributed.label}"] = _far_labels(attributed, attributed.label)
    stored = _stored(attributed, folder)
    filters |= {name: [each] * len(attributed.data.queries) for name, (each, _) in stored.items() if each is not None}
    cases = _with_truth(attributed, filters)
    _compare(attributed, cases, {name: ids for name, (_, ids) in stored.items()})
    return cases


def score(case: Case, number: int, answer: Sequence[int], attributed: Attributed) -> Score:
    """Return what the answer to one query is worth; a row that does not pass is no hit."""
    data = attributed.data
    possible = min(K, int(case.matching[number]))
    ids = np.asarray(answer[:K], dtype=np.int64)
    ids = ids[(ids >= 0) & (ids < len(data.base))]
    if not len(ids):
        return Score(0, 0, possible)
    passing = case.filters[number].mask({name: values[ids] for name, values in attributed.columns.items()})
    distances = distances_of(data.base, data.queries[number : number + 1], ids[None], data.metric)[0]
    reach = float(case.reach[number, 0])
    hits = passing & (distances <= reach + abs(reach) * TIE_RELATIVE + TIE_ABSOLUTE)
    return Score(len(ids), min(possible, int(hits.sum())), possible)


def _random(attributed: Attributed, share: float, *, seed: int) -> list[Filter]:
    rows, queries = len(attributed.data.base), len(attributed.data.queries)
    wanted = max(1, round(rows * share))
    starts = np.random.default_rng([seed, 4]).integers(0, rows - wanted + 1, size=queries).tolist()
    return [Filter((Between(DICE, start, start + wanted),)) for start in starts]


def _by_cells(attributed: Attributed, share: float, *, seed: int, is_near: bool) -> list[Filter]:
    """Return filters that pass the cells nearest to (or farthest from) each query, and of them a share by dice."""
    data = attributed.data
    rows = len(data.base)
    wanted = max(1, round(rows * share))
    distances = scores_of(attributed.centres, data.queries, data.metric)
    sizes = np.bincount(attributed.columns[CELL], minlength=len(attributed.centres))
    starts = np.random.default_rng([seed, 5]).random(len(data.queries))
    filters = []
    for order, start in zip(np.argsort(distances if is_near else -distances, axis=1), starts, strict=True):
        held = np.cumsum(sizes[order])
        count = int(np.searchsorted(held, wanted)) + 1
        conditions: list[Between | Among] = [Among(CELL, tuple(sorted(order[:count].tolist())))]
        if held[count - 1] > 1.5 * wanted:
            # A single cell holds more rows than are wanted.
            kept = max(1, round(rows * wanted / held[count - 1]))
            low = int(start * (rows - kept))
            conditions.append(Between(DICE, low, low + kept))
        filters.append(Filter(tuple(conditions)))
    return filters


def _far_labels(attributed: Attributed, column: str) -> list[Filter]:
    """Return filters that pass the label whose rows are, in their mean, farthest from each query."""
    data, values = attributed.data, attributed.columns[column]
    labels, sizes = np.unique(values, return_counts=True)
    labels = labels[sizes >= min(LABEL_ROWS_MIN, sizes.max())]
    means = np.stack([np.asarray(data.base[values == label]).mean(axis=0) for label in labels])
    farthest = np.argmax(scores_of(means, data.queries, data.metric), axis=1)
    return [Filter((Among(column, (labels[at].item(),)),)) for at in farthest]


def _stored(attributed: Attributed, folder: Path) -> dict[str, tuple[Filter | None, Ids | None]]:
    """Return what the Debian set brings: filters by name and their true neighbours, for the whole set only."""
    data = attributed.data
    if data.name != "debian-25k-384":
        return {}
    with np.load(folder / data.name / "truth.npz") as truth:
        found: dict[str, tuple[Filter | None, Ids | None]] = {
            f"installed_kb, top {share} %": (
                Filter((Between("installed_kb", int(truth[f"kb_top{share}pct_threshold"])),)),
                truth[f"kb_top{share}pct_ids"],
            )
            for share in (1, 10)
        }
        found["own section"] = (None, truth["same_section_ids"])
        is_whole = len(data.base) == int(np.load(folder / data.name / "base.f16.npy", mmap_mode="r").shape[0])
    return found if is_whole else {name: (each, None) for name, (each, _) in found.items()}


def _with_truth(attributed: Attributed, filters: dict[str, list[Filter]]) -> list[Case]:
    data = attributed.data
    queries = len(data.queries)
    cases = [
        Case(name, tuple(each), np.zeros(queries, dtype=np.int64), np.full((queries, 1), -np.inf))
        for name, each in filters.items()
    ]
    for start in range(0, queries, TRUTH_QUERIES):
        scores = scores_of(data.base, data.queries[start : start + TRUTH_QUERIES], data.metric)
        for case in cases:
            for number, line in enumerate(scores, start):
                rows = np.flatnonzero(case.filters[number].mask(attributed.columns))
                case.matching[number] = len(rows)
                if len(rows):
                    case.reach[number] = _last(attributed, number, rows, line)
    return cases


def _last(attributed: Attributed, number: int, rows: Ids, scores: Floats) -> float:
    """Return the distance of a query's last true neighbour among some rows; float32 chooses, float64 decides."""
    data = attributed.data
    kept = min(CANDIDATES, len(rows))
    nearest = rows[np.argpartition(scores[rows], kept - 1)[:kept]]
    distances = distances_of(data.base, data.queries[number : number + 1], nearest[None], data.metric)[0]
    return float(np.sort(distances)[min(K, kept) - 1])


def _compare(attributed: Attributed, cases: Sequence[Case], stored: dict[str, Ids | None]) -> None:
    """Compare with the truths that the set brings.

    Raises:
        ValueError: they differ, so one of the two is wrong.
    """
    data = attributed.data
    for case in cases:
        ids = stored.get(case.name)
        if ids is None:
            continue
        distances = distances_of(data.base, data.queries, ids[: len(data.queries), :K].astype(np.int64), data.metric)
        last = np.max(distances, axis=1, initial=-np.inf, where=np.isfinite(distances))
        if not np.allclose(last, case.reach[:, 0], rtol=0, atol=STORED_TOLERANCE):
            raise ValueError(f"{case.name}: the truth stored with {data.name} differs from a scan")
