"""Exact neighbours by blocked products, and recall by distance: what is as near as the tenth neighbour counts."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from ann.arrays import Doubles, Floats, Ids, K, unit
from ruvector.values import Metric

BLOCK_ROWS = 32_768  # the scores of 1,000 queries with a block take 131 MB in float32
CANDIDATES = 64  # kept of each query for the check in float64; more than K so that rounding cannot push one out
GATHER_QUERIES = 32  # their candidates at 768 dims in float64 take 13 MB
TIE_RELATIVE = 1e-6  # rows of equal distance differ by rounding only; engines' own distances are not used
TIE_ABSOLUTE = 1e-9
ROUNDING_FACTOR = 4.0  # times sqrt(dims) and the float's epsilon: beyond what a product of that length is off by


def distances_of(base: Floats, queries: Floats, ids: Ids, metric: Metric) -> Doubles:
    """Return the distances [q, n] of the rows ``ids`` [q, n] in float64; infinite where an id is none or repeated."""
    distances = np.empty(ids.shape, dtype=np.float64)
    inside = (ids >= 0) & (ids < len(base))
    for start in range(0, len(queries), GATHER_QUERIES):
        part = slice(start, start + GATHER_QUERIES)
        rows = base[np.where(inside[part], ids[part], 0)].astype(np.float64)
        asked = queries[part].astype(np.float64)[:, None, :]
        if metric is Metric.L2:
            distances[part] = np.linalg.norm(rows - asked, axis=-1)
        elif metric is Metric.COSINE:
            distances[part] = 1 - (unit(rows) * unit(asked)).sum(axis=-1)
        else:
            distances[part] = -(rows * asked).sum(axis=-1)
    distances[~inside | _repeated(ids)] = np.inf
    return distances


def nearest(base: Floats, queries: Floats, metric: Metric, *, k: int = K) -> tuple[Ids, Doubles]:
    """Return ids and distances [q, k] of the exact nearest rows, by distance and then row number.

    Candidates come from float32 products. Where those could have lost a neighbour to rounding, as among many rows
    that are almost equal, the query is asked again in float64.
    """
    found, is_certain = _candidates(base, queries, metric, k=k, dtype=np.float32)
    unsure = np.flatnonzero(~is_certain)
    if len(unsure):
        found[unsure] = _candidates(base, queries[unsure], metric, k=k, dtype=np.float64)[0]
    found.sort(axis=1)
    distances = distances_of(base, queries, found, metric)
    order = np.argsort(distances, axis=1, kind="stable")[:, :k]
    return np.take_along_axis(found, order, axis=1), np.take_along_axis(distances, order, axis=1)


def reach_of(base: Floats, queries: Floats, metric: Metric) -> Doubles:
    """Return the distance [q, 1] of each query's last true neighbour."""
    return nearest(base, queries, metric)[1][:, -1:]


def recall(distances: Doubles, reach: Doubles) -> float:
    """Return the share of answers [q, 10] that are not farther than the last true neighbour [q, 1]."""
    return float((distances <= reach + np.abs(reach) * TIE_RELATIVE + TIE_ABSOLUTE).mean())


def _candidates(
    base: Floats, queries: Floats, metric: Metric, *, k: int, dtype: type[np.floating[Any]]
) -> tuple[Ids, npt.NDArray[np.bool_]]:
    """Return the CANDIDATES nearest by products in ``dtype``, and of which queries all k must be among them."""
    asked = queries.astype(dtype)
    asked = unit(asked) if metric is Metric.COSINE else asked
    best: npt.NDArray[Any] = np.empty((len(queries), 0), dtype=dtype)
    ids: Ids = np.empty((len(queries), 0), dtype=np.int64)
    longest = 0.0
    for start in range(0, len(base), BLOCK_ROWS):
        block = base[start : start + BLOCK_ROWS].astype(dtype)
        block = unit(block) if metric is Metric.COSINE else block
        squares = np.einsum("rd,rd->r", block, block)
        longest = max(longest, float(squares.max()))
        scores = -(asked @ block.T)
        if metric is Metric.L2:
            scores = scores * 2 + squares
        numbers = np.broadcast_to(np.arange(start, start + len(block)), scores.shape)
        best, ids = _smallest(np.hstack([best, scores]), np.hstack([ids, numbers]))
    if len(base) <= CANDIDATES:
        return ids, np.ones(len(queries), dtype=np.bool_)
    # Scores off by at most ``slack`` each: a row left out is farther than the k-th when this much lies between.
    lengths = np.einsum("qd,qd->q", asked, asked)
    slack = ROUNDING_FACTOR * np.sqrt(base.shape[1]) * np.finfo(dtype).eps * (lengths + longest)
    kth = np.partition(best, k - 1, axis=1)[:, k - 1]
    return ids, np.asarray(best.max(axis=1) - kth > 2 * slack, dtype=np.bool_)


def _smallest(scores: npt.NDArray[Any], ids: Ids) -> tuple[npt.NDArray[Any], Ids]:
    """Keep the CANDIDATES smallest scores of each line and their ids."""
    kept = min(CANDIDATES, scores.shape[1])
    at = np.argpartition(scores, kept - 1, axis=1)[:, :kept]
    return np.take_along_axis(scores, at, axis=1), np.take_along_axis(ids, at, axis=1)


def _repeated(ids: Ids) -> npt.NDArray[np.bool_]:
    """Mark every id that stands earlier on its line too: an answer that repeats a row found it once."""
    order = np.argsort(ids, axis=1, kind="stable")
    ascending = np.take_along_axis(ids, order, axis=1)
    again = np.zeros(ids.shape, dtype=np.bool_)
    again[:, 1:] = ascending[:, 1:] == ascending[:, :-1]
    marks = np.zeros(ids.shape, dtype=np.bool_)
    np.put_along_axis(marks, order, again, axis=1)
    return marks
