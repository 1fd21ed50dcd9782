"""The twin of candidates_N and search_N of sql/040_search.sql: what the database makes of an answer of the sidecar.

A test runs both over generated answers and changelogs and compares them.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache

from ruvector import limits
from ruvector.snapshot import Snapshot

Logged = Callable[[Snapshot], Sequence[tuple[int, "str | None"]]]


@dataclass(frozen=True, slots=True)
class Pool:
    """What candidates_N returns: keys of the index, keys to look at in the table, and how far the index looked."""

    keys: tuple[str, ...] = ()
    dirty: frozenset[str] = frozenset()
    overlaid: int = 0
    reach: float | None = None
    returned: int = 0
    watermark: str | None = None
    refusal: str | None = None


def combine(answer: Sequence[object], logged: Logged) -> Pool:
    """Join the row that a sidecar answered with the changelog rows that the caller sees and its position does not."""
    refusal, watermark, found, reach, touched, _ = answer
    if refusal is not None:
        return Pool(refusal=str(refusal))
    keys = elements(str(found))
    changes = beyond(_parsed(str(watermark)), logged)
    changed = {key for _, key in changes if key is not None}
    dirty = [*elements(str(touched)), *changed]
    # Rows, not only keys: the bound may have cut off the changes of further keys.
    if max(len(changes), len(dirty)) > limits.DIRTY_KEYS_MAX:
        return Pool(refusal="too many recent changes")
    if any(key is None for _, key in changes):
        keys = ()  # everything older is gone, everything newer is dirty
    near = None if reach is None else float(str(reach))
    return Pool(keys, frozenset(dirty), len(changed), near, len(keys), str(watermark))


def beyond(position: Snapshot, logged: Logged) -> Sequence[tuple[int, str | None]]:
    """Return what the changelog says about the time after the position, one row more than may be dirty."""
    return logged(position)[: limits.DIRTY_KEYS_MAX + 1]


def search(
    k: int, candidates: Callable[[int], Pool], distances_of: Callable[[Iterable[str]], list[float]], *, slack: int = 8
) -> list[float] | str:
    """Return the distances of the k nearest rows that the caller sees, or why the index cannot answer.

    ``distances_of`` gives the distances of those keys that have a visible row.
    """
    wanted = min(limits.WANTED_MAX, k + slack)
    while True:
        pool = candidates(wanted)
        if pool.refusal is not None:
            return pool.refusal
        nearest = sorted(distances_of({*pool.keys, *pool.dirty}))[:k]
        if pool.returned < wanted:
            return nearest
        reach = pool.reach if pool.reach is not None else 0.0
        if len(nearest) >= k and nearest[-1] <= reach + abs(reach) * 1e-5 + 1e-7:
            return nearest
        if wanted >= limits.WANTED_MAX:
            return f"{len(nearest)} of {wanted} candidates passed filter and visibility"
        wanted = min(limits.WANTED_MAX, max(4 * wanted, round(2.0 * k * wanted / max(len(nearest), 1))))


def elements(literal: str) -> tuple[str, ...]:
    """Return the elements of a text[] literal as the sidecar writes it."""
    return () if literal == "{}" else tuple(map(str, _DECODER.decode(f"[{literal[1:-1]}]")))


_parsed = lru_cache(maxsize=1000)(Snapshot.parse)
_DECODER = json.JSONDecoder(strict=False)
