"""How two answers to one search compare. Ties are settled by distance: which of equally near rows came is no matter."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Answer:
    """The rows that one side found, nearest first; distances as the database computed them from its rows."""

    ids: Sequence[str]
    distances: Sequence[float]
    milliseconds: float


def pair_of(index: Answer, pgvector: Answer, exact: Answer | None) -> dict[str, object]:
    """Return the measures of a pair, by the names of the columns of ruvector.shadow_pair.

    Without an exact answer the truth is pooled: the nearest rows of both answers together. It cannot know a row that
    both missed, so that recall against it is an upper bound.
    """
    size = max(len(index.ids), len(pgvector.ids))
    shared = set(index.ids) & set(pgvector.ids)
    truth = pooled(index, pgvector)[:size] if exact is None else exact.distances
    return {
        "pgvector_ms": pgvector.milliseconds,
        "index_ms": index.milliseconds,
        "overlap": len(shared) / size if size else 1.0,
        "rank_correlation": rank_correlation(index.ids, pgvector.ids),
        "distance_error": distance_error(index.distances, pgvector.distances),
        "truth": "pooled" if exact is None else "exact",
        "pgvector_recall": recall(pgvector.distances, truth),
        "index_recall": recall(index.distances, truth),
    }


def pooled(*answers: Answer) -> list[float]:
    """Return the distances of the rows in any of the answers, nearest first."""
    return sorted({key: far for each in answers for key, far in zip(each.ids, each.distances, strict=True)}.values())


def recall(distances: Sequence[float], truth: Sequence[float]) -> float:
    """Return the share of the true neighbours that were found: rows as near as the farthest of them count."""
    if not truth:
        return 1.0
    return min(1.0, sum(distance <= truth[-1] for distance in distances) / len(truth))


def rank_correlation(first: Sequence[str], second: Sequence[str]) -> float | None:
    """Return Spearman's rank correlation over the rows that both have; None when they share fewer than two."""
    places = {key: place for place, key in enumerate(second)}
    order = [places[key] for key in first if key in places]
    n = len(order)
    if n < 2:
        return None
    ranks = {place: rank for rank, place in enumerate(sorted(order))}
    return 1 - 6 * sum((rank - ranks[place]) ** 2 for rank, place in enumerate(order)) / (n * (n * n - 1))


def distance_error(found: Sequence[float], expected: Sequence[float]) -> float | None:
    """Return by which share the rows found are farther, on average and place by place; negative when nearer."""
    n = min(len(found), len(expected))
    scale = sum(abs(distance) for distance in expected[:n])
    return (sum(found[:n]) - sum(expected[:n])) / scale if scale else None
