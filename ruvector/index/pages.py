"""Searching on: the nearest rows of one query, then those after them, for as long as somebody asks."""

from __future__ import annotations

from contextlib import AbstractContextManager
from types import TracebackType

import numpy as np
import numpy.typing as npt

from ruvector import limits
from ruvector.errors import Cancelled, InvalidParameter
from ruvector.index.keys import KeyBook
from ruvector.index.protocol import Bytes, Engine, Keys, Rows, Sieve, Trail, TrailEngine

Numbers = npt.NDArray[np.int64]
Distances = npt.NDArray[np.float32]

_NOTHING = (np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.float32))
_TRAIL_TRIES = 2  # of a walk before what is left is searched from the beginning


class Pages:
    """Answers one query in pages; no row comes twice. Not for two threads at once; close it, or use it with ``with``.

    A graph goes on from where its walk stood (hnsw/trail.hpp). Where there is no graph, where comparing all rows is
    cheaper, or when rows were replaced meanwhile, a page is cut from a search for four times as many rows: all pages
    together then cost at most a third more than one search for all rows that were given.

    Within a page rows come nearest first. A row may come later than a farther one of an earlier page, as often as a
    search with the same ef misses a row. Rows that were deleted meanwhile are left out, those that were added may be.
    """

    def __init__(
        self,
        engine: Engine,
        keys: KeyBook,
        query: Rows,
        passing: AbstractContextManager[Sieve | None],
        *,
        walker: TrailEngine | None,
        ef: int,
        scan_factor: int,
    ) -> None:
        """Begin before the first row.

        ``passing`` gives what may be in a page, and is held until ``close``. ``walker`` is the engine if it has trails.
        """
        self._engine, self._keys, self._query, self._passing = engine, keys, query, passing
        self._ef, self._scan_factor = ef, scan_factor
        self._sieve = passing.__enter__()
        self._given: set[int] = set()
        self._trail: Trail | None = None
        self._walker = walker
        self._tries = 0 if walker is None else _TRAIL_TRIES
        self._ready: tuple[Numbers, Distances] = _NOTHING  # found and not given yet, nearest first
        self._is_whole = False  # nothing but what is ready is left
        self._is_open = True

    def next(self, count: int, *, cancel: Bytes | None = None) -> tuple[Keys, Distances]:
        """Return keys and distances of the next ``count`` rows, fewer when there are no more.

        Raises:
            Cancelled: ``cancel`` was set; the next call goes on.
            StoreDamaged: a page of an index opened unread is damaged.
        """
        return self._named(*self._next(count, cancel))

    def within(self, k: int, max_distance: float, *, cancel: Bytes | None = None) -> tuple[Keys, Distances]:
        """Return at most ``k`` of the rows that follow, those no farther than ``max_distance``, nearest first.

        Pages are turned until one ends farther away: how many rows lie within a distance nobody knows before.
        """
        parts = [_NOTHING]
        size, left = limits.PAGE_ROWS, k
        while left > 0:
            wanted = min(size, left)
            numbers, distances = self._next(wanted, cancel)
            near = distances <= max_distance
            parts.append((numbers[near], distances[near]))
            if len(distances) < wanted or not near[-1]:
                break
            left -= wanted
            size *= 2
        numbers, distances = (np.concatenate(each) for each in zip(*parts, strict=True))
        order = np.argsort(distances, kind="stable")
        return self._named(numbers[order], distances[order])

    def _next(self, count: int, cancel: Bytes | None) -> tuple[Numbers, Distances]:
        if count < 1:
            raise InvalidParameter(f"a page has at least one row, not {count}")
        if not self._is_open:
            raise InvalidParameter("these pages were closed")
        while len(self._ready[0]) < count and not self._is_whole:
            wanted = count - len(self._ready[0])
            found = self._walk(wanted, cancel)
            if found is None and cancel is not None and cancel[0]:
                raise Cancelled("the search was cancelled")
            self._take(*(self._search(wanted, cancel) if found is None else found))
        numbers, distances = self._ready
        self._ready = numbers[count:], distances[count:]
        self._given.update(numbers[:count].tolist())
        return numbers[:count], distances[:count]

    def _walk(self, wanted: int, cancel: Bytes | None) -> tuple[Numbers, Distances] | None:
        """Return what a walk finds next; None when there is no walk, or it ended before all rows were found."""
        while self._walker is not None and self._tries > 0:
            more = min(wanted, limits.PAGE_ROWS_MAX)  # of a longer page the next turn brings the rest
            trail, is_new = self._trail, self._trail is None
            if trail is None:
                trail = self._trail = self._walker.trail(self._query[0], sieve=self._sieve)
                more += len(self._given)  # the first of them were given already
            found = trail.next(more, ef=self._ef, scan_rows=self._scan_factor * self._ef, cancel=cancel)
            if found is not None and len(found[0]):
                return found
            self._trail = None
            if cancel is not None and cancel[0]:
                return None  # in the middle of a page: the next begins anew and leaves out what was given
            self._tries -= 1
            if found is not None or is_new:
                # Deletions may have cut the graph: only a search knows whether that was all. Or walking does not pay.
                self._tries = 0
        return None

    def _search(self, wanted: int, cancel: Bytes | None) -> tuple[Numbers, Distances]:
        known = len(self._given) + len(self._ready[0])
        k = min(max(4 * known, known + wanted), len(self._engine) + limits.BATCH_QUERIES_MAX)
        beam = max(self._ef, k)
        answers = self._engine.search(
            self._query, k=k, ef=beam, scan_rows=self._scan_factor * beam, threads=1, cancel=cancel, sieve=self._sieve
        )
        if answers is None:
            raise Cancelled("the search was cancelled")
        numbers, distances, counts = answers
        self._is_whole = bool(counts[0] < k)
        return numbers[0, : counts[0]], distances[0, : counts[0]]

    def _take(self, numbers: Numbers, distances: Distances) -> None:
        """Keep what was not known before."""
        known = self._given | set(self._ready[0].tolist()) if len(self._ready[0]) else self._given
        found = numbers.tolist()
        if not known.isdisjoint(found):
            fresh = [at for at, number in enumerate(found) if number not in known]
            numbers, distances = numbers[fresh], distances[fresh]
        if len(self._ready[0]):
            numbers = np.concatenate((self._ready[0], numbers))
            distances = np.concatenate((self._ready[1], distances))
            order = np.argsort(distances, kind="stable")
            numbers, distances = numbers[order], distances[order]
        self._ready = numbers, distances

    def _named(self, numbers: Numbers, distances: Distances) -> tuple[Keys, Distances]:
        names = self._keys.names(numbers)
        while names is None:  # a text was forgotten, as its row was deleted
            there = self._engine.contains(numbers)
            numbers, distances = numbers[there], distances[there]
            names = self._keys.names(numbers)
        return names, distances

    def close(self) -> None:
        """Give back what is held between pages."""
        if self._is_open:
            self._is_open, self._trail = False, None
            self._passing.__exit__(None, None, None)

    def __enter__(self) -> Pages:
        """Return this."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close."""
        self.close()

    def __del__(self) -> None:
        """Close; pages that are held keep tags of deleted rows from being used again."""
        if getattr(self, "_is_open", False):
            self.close()
