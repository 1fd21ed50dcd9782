"""One mirror as searches see it: index, position, recent changes, and whether it may answer."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from ruvector.errors import InvalidParameter, NotLive, StoreDamaged, UnsupportedStatement
from ruvector.index import Plan, Sieve, VectorIndex, Vectors
from ruvector.mirror.recent import RecentChanges
from ruvector.snapshot import Snapshot
from ruvector.values import ANY_ROW, Collection, KeyKind, Restriction


class MirrorState(StrEnum):
    """Where a mirror is in its life; only LIVE answers."""

    NEW = "new"
    COPYING = "copying"
    CATCHING_UP = "catching_up"
    STANDBY = "standby"
    LIVE = "live"
    RECONCILING = "reconciling"
    UNREACHABLE = "unreachable"
    STALE = "stale"
    STOPPED = "stopped"


@dataclass(frozen=True, slots=True)
class CopyProgress:
    """How far the first copy is; rates in rows a second, times in seconds."""

    rows_copied: int = 0
    rows_total: int = 0
    rows_per_second: float | None = None
    eta_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class Candidates:
    """What the index knows about a query, and up to which position."""

    position: str
    keys: NDArray[np.int64] | list[str]
    distances: NDArray[np.float32]
    touched: frozenset[str]
    ef: int
    is_filtered: bool = True  # false when there was a filter that the index does not know: then all rows passed it
    is_certain: bool = True  # false when rows may be among them that do not pass


@dataclass(slots=True)
class Unindexed:
    """Rows that cannot be in the index, with the reason: null, wrong_dims or zero."""

    reasons: dict[str, str] = field(default_factory=dict)

    def put(self, keys: Iterable[str], reason: str) -> None:
        """Remember rows."""
        for key in keys:
            self.reasons[key] = reason

    def forget(self, keys: Iterable[str]) -> None:
        """Forget rows that are indexed now, or gone."""
        if self.reasons:
            for key in keys:
                self.reasons.pop(key, None)

    def counts(self) -> dict[str, int]:
        """Return rows by reason."""
        return dict(Counter(self.reasons.values()))


class Mirror:
    """The shared state of one collection: one thread writes, any number search."""

    def __init__(self, collection: Collection, index: VectorIndex) -> None:
        self.collection = collection
        self.index = index
        self.state = MirrorState.NEW
        self.reason = ""
        self.token: str | None = None
        self.position: Snapshot | None = None
        self.position_lsn = ""
        self.recent = RecentChanges(horizon=0)
        self.unindexed = Unindexed()
        self.progress = CopyProgress()
        self.changes_applied = 0
        self.verified: dict[str, object] = {}  # what the verification that always runs says of itself
        self.database = ("", 0)  # when the server was started, and the OID: see Identity
        self.followed_at = 0.0  # clock seconds of the last complete read of the changelog
        self._lock = threading.Lock()
        self._moved = threading.Condition(self._lock)

    def put_off(self, state: MirrorState, reason: str) -> None:
        """Stop answering, and say why."""
        with self._lock:
            self.token = None
            self.state, self.reason = state, reason
            self._moved.notify_all()

    def go_live(self, token: str) -> None:
        """Answer from now on; the token stands in the database already."""
        with self._lock:
            self.token = token
            self.state, self.reason = MirrorState.LIVE, ""
            self._moved.notify_all()

    def replace(self, index: VectorIndex, recent: RecentChanges, position: Snapshot) -> None:
        """Take other contents; only while the mirror does not answer."""
        with self._lock:
            self.index, self.recent, self.position = index, recent, position

    def remember(self, changes: list[tuple[int, str]]) -> None:
        """Extend the recent changes; before they are applied (invariant I3)."""
        with self._lock:
            self.recent.extend(changes)

    def move_to(self, position: Snapshot, lsn: str, *, applied: int) -> None:
        """Claim a new position; after its changes were applied (invariant I4)."""
        with self._lock:
            self.position, self.position_lsn = position, lsn
            self.changes_applied += applied
            self._moved.notify_all()

    def candidates(
        self,
        query: Vectors,
        wanted: int,
        *,
        ef: int | None,
        snapshot: Snapshot,
        token: str,
        cancel: NDArray[np.uint8] | None = None,
        filter_: Mapping[str, object] | None = None,
        members: list[str] | None = None,
        plan: Plan = Plan.AUTO,
        max_distance: float | None = None,
    ) -> Candidates:
        """Search for a reader with this snapshot; raises NotLive with the reason when it cannot be answered.

        Only rows that pass the filter and whose keys are ``members`` are given, but for rows whose attributes are not
        known here: those pass. A filter that the index does not know lets every row pass. With ``max_distance`` only
        rows that are no farther are given, or hardly so.

        The position is read before the search and the recent changes after it, so that whatever is applied meanwhile
        makes its key touched.
        """
        index = self.index
        position = self._position_for(token)
        known = None if members is None else _distinct(members, index.options.key_kind)
        with ExitStack() as held:
            is_filtered, is_certain = True, True
            try:
                sieve = held.enter_context(index.passing(filter_, known, plan))
            except InvalidParameter:
                if filter_ is None:
                    raise
                # A column that the database got just now and this mirror does not know yet: the database decides.
                sieve, is_filtered = held.enter_context(index.passing(None, known, plan)), False
            except StoreDamaged as error:
                raise NotLive(f"the index is being replaced: {error.message}") from error
            if sieve is not None:
                is_certain = sieve.is_exact
            keys, distances = self._search(
                index, query, wanted, ef=ef, cancel=cancel, sieve=sieve, max_distance=max_distance
            )
        with self._lock:
            if self.index is not index or self.token != token:
                raise NotLive("the index was replaced during the search")
            if not self.recent.knows(snapshot):
                raise NotLive("the snapshot is older than the memory of recent changes")
            touched = frozenset(self.recent.not_visible_in(snapshot))
        beam = max(wanted, ef or self.collection.options.ef_search)
        return Candidates(str(position), keys, distances, touched, beam, is_filtered, is_certain)

    def plain_search(
        self,
        query: Vectors,
        k: int,
        *,
        ef: int | None,
        among: Restriction = ANY_ROW,
        cancel: NDArray[np.uint8] | None = None,
    ) -> tuple[NDArray[np.int64] | list[str], NDArray[np.float32]]:
        """Search for somebody outside the database: as of the mirror's position, without the overlay.

        Raises UnsupportedStatement when only the database can tell which rows pass the filter.
        """
        if self.state is not MirrorState.LIVE:
            raise NotLive(f'collection "{self.collection.name}" is {self.state}: {self.reason or "wait for it"}')
        index = self.index
        known = None if among.keys is None else _distinct(among.keys, index.options.key_kind)
        with index.passing(among.filter, known, Plan.AUTO) as sieve:
            if sieve is not None and not sieve.is_exact:
                raise UnsupportedStatement(
                    "the sidecar alone cannot tell for every row whether it passes the filter",
                    detail="Numeric columns, values written otherwise than PostgreSQL prints them, columns just added.",
                    hint="Send the same statement to the database.",
                )
            return self._search(index, query, k, ef=ef, cancel=cancel, sieve=sieve, max_distance=among.max_distance)

    def _search(
        self,
        index: VectorIndex,
        query: Vectors,
        k: int,
        *,
        ef: int | None,
        cancel: NDArray[np.uint8] | None,
        sieve: Sieve | None = None,
        max_distance: float | None = None,
    ) -> tuple[NDArray[np.int64] | list[str], NDArray[np.float32]]:
        """Search; an index whose files turn out damaged does not answer, and its worker will replace it."""
        try:
            if max_distance is None:
                return index.search(query, k, ef=ef, cancel=cancel, sieve=sieve)
            with index.pages(query, ef=ef, sieve=sieve) as pages:
                # The database measures again, in float64: what lies at the border is its to decide.
                return pages.within(k, max_distance + abs(max_distance) * 1e-5 + 1e-7, cancel=cancel)
        except StoreDamaged as error:
            raise NotLive(f"the index is being replaced: {error.message}") from error

    def wait_until_covers(self, snapshot: Snapshot, *, seconds: float) -> bool:
        """Wait until everything visible in the snapshot is applied; tell whether it is."""
        with self._moved:
            return self._moved.wait_for(lambda: self.position is not None and self.position.covers(snapshot), seconds)

    def _position_for(self, token: str) -> Snapshot:
        with self._lock:
            if self.state is not MirrorState.LIVE or self.position is None:
                raise NotLive(f"the mirror is {self.state}" + (f": {self.reason}" if self.reason else ""))
            if self.token is None or self.token != token:
                raise NotLive("the token of the request is not the one in force")
            return self.position


def _distinct(keys: Sequence[str], kind: KeyKind) -> NDArray[np.int64] | list[str]:
    """Return each key once, as the index holds them."""
    if kind is KeyKind.TEXT:
        return list(dict.fromkeys(keys))
    try:
        return np.unique(np.array([int(key) for key in keys], dtype=np.int64))
    except (ValueError, OverflowError):
        raise InvalidParameter(
            "a key among those asked for is no whole number of 8 bytes", hint="Give keys as searches return them."
        ) from None
