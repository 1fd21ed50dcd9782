"""The memory of changes applied lately: what a searcher with an older snapshot must not take from the index."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from ruvector import limits
from ruvector.snapshot import Snapshot


@dataclass(frozen=True, slots=True)
class _Batch:
    changes: tuple[tuple[int, str], ...]
    xid_max: int
    older_max: int  # largest xid in this and every older batch: lets a search stop early


class RecentChanges:
    """Applied (xid, key) pairs, newest last, bounded in number.

    ``horizon`` is the highest xid that may have been forgotten: a snapshot that does not see every transaction up to
    it cannot be answered. The caller serialises access.
    """

    def __init__(self, *, horizon: int, changes_max: int | None = None) -> None:
        """Start empty; at most ``changes_max`` pairs are kept (RECENT_CHANGES_MAX)."""
        self.horizon = horizon
        self._batches: deque[_Batch] = deque()
        self._changes_max = changes_max if changes_max is not None else limits.RECENT_CHANGES_MAX
        self._held = 0

    def __len__(self) -> int:
        return self._held

    def extend(self, changes: Sequence[tuple[int, str]]) -> None:
        """Remember a batch; call this before the batch is applied to the index."""
        if not changes:
            return
        xid_max = max(xid for xid, _ in changes)
        older = self._batches[-1].older_max if self._batches else 0
        self._batches.append(_Batch(tuple(changes), xid_max, max(older, xid_max)))
        self._held += len(changes)
        while self._held > self._changes_max and self._batches:
            dropped = self._batches.popleft()
            self._held -= len(dropped.changes)
            self.horizon = max(self.horizon, dropped.xid_max)

    def knows(self, snapshot: Snapshot) -> bool:
        """Tell whether everything that this snapshot does not see is still remembered."""
        return self.horizon < snapshot.xmin

    def not_visible_in(self, snapshot: Snapshot) -> set[str]:
        """Return the keys with a change applied here and not visible there (the touched keys)."""
        touched: set[str] = set()
        for batch in reversed(self._batches):
            if batch.older_max < snapshot.xmin:
                break
            if batch.xid_max >= snapshot.xmin:
                touched.update(key for xid, key in batch.changes if not snapshot.sees(xid))
        return touched
