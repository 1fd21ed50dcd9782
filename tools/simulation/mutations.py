"""The protocol with one part taken out: with any of these the simulator must find a wrong answer."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any

from ruvector import limits
from ruvector.clock import random_uuid
from ruvector.errors import NotLive
from ruvector.mirror import apply, verify, worker
from ruvector.mirror.recent import RecentChanges
from ruvector.mirror.state import Candidates, Mirror
from ruvector.mirror.worker import MirrorWorker
from ruvector.snapshot import Snapshot
from simulation import overlay
from simulation.model import Settings
from simulation.ports import SimulatedConnection
from simulation.schedule import attributes

Mutation = Callable[[Settings], AbstractContextManager[None]]
MUTATIONS: dict[str, Mutation] = {}
# So rarely wrong that a test cannot wait for it: no seed below 400 notices them.
RARE = ("position_is_the_smallest_running", "old_index_under_the_new_checkpoint")


def mutation(change: Callable[[Settings], Iterator[None]]) -> Mutation:
    """Register a way to take one part out."""
    made = contextmanager(change)
    MUTATIONS[change.__name__] = made
    return made


@mutation
def no_overlay(_: Settings) -> Iterator[None]:
    """The changelog beyond the position is not read."""
    with attributes(overlay, beyond=lambda position, logged: []):
        yield


@mutation
def bound_on_keys(_: Settings) -> Iterator[None]:
    """The changelog is read up to a bound, and only the number of keys found is compared with it."""
    original = overlay.beyond

    def bounded(position: Snapshot, logged: overlay.Logged) -> Sequence[tuple[int, str | None]]:
        changes = original(position, logged)
        kept = dict.fromkeys(key for _, key in changes)
        return [(0, key) for key in list(kept)[: limits.DIRTY_KEYS_MAX]]

    with attributes(overlay, beyond=bounded):
        yield


@mutation
def no_touched_keys(_: Settings) -> Iterator[None]:
    """Keys changed in the index and not yet in the snapshot are taken from the index."""
    original = Mirror.candidates

    def candidates(mirror: Mirror, *given: Any, **named: Any) -> Candidates:
        return dataclasses.replace(original(mirror, *given, **named), touched=frozenset())

    with attributes(Mirror, candidates=candidates):
        yield


@mutation
def no_horizon(_: Settings) -> Iterator[None]:
    """A snapshot older than the memory of recent changes is answered all the same."""
    with attributes(RecentChanges, knows=lambda recent, snapshot: True):
        yield


@mutation
def position_claimed_after_search(_: Settings) -> Iterator[None]:
    """The position of an answer is read when the search is over."""

    def candidates(
        mirror: Mirror,
        query: Any,
        wanted: int,
        *,
        ef: int | None,
        snapshot: Snapshot,
        token: str,
        cancel: Any = None,
        **_: Any,
    ) -> Candidates:
        index = mirror.index
        mirror._position_for(token)
        keys, distances = index.search(query, wanted, ef=ef, cancel=cancel)
        position = mirror._position_for(token)
        if mirror.index is not index or not mirror.recent.knows(snapshot):
            raise NotLive("replaced, or too old")
        touched = frozenset(mirror.recent.not_visible_in(snapshot))
        return Candidates(str(position), keys, distances, touched, wanted)

    with attributes(Mirror, candidates=candidates):
        yield


@mutation
def recent_extended_after_applying(_: Settings) -> Iterator[None]:
    """The memory of recent changes learns of a batch when it is in the index."""
    original = apply.apply_batch

    def apply_batch(mirror: Mirror, reader: Any, batch: Any, *, also: Any = ()) -> None:
        mirror.remember = lambda changes: None  # type: ignore[method-assign]
        try:
            original(mirror, reader, batch, also=also)
        finally:
            del mirror.remember
        mirror.remember(batch.keyed())

    with attributes(apply, apply_batch=apply_batch), attributes(verify, apply_batch=apply_batch):
        yield


@mutation
def position_is_the_largest_number(_: Settings) -> Iterator[None]:
    """The position is one number, the largest seen: transactions that ran meanwhile count as applied."""
    original = Mirror.move_to

    def move_to(mirror: Mirror, position: Snapshot, lsn: str, *, applied: int) -> None:
        original(mirror, Snapshot(position.xmax, position.xmax, frozenset()), lsn, applied=applied)

    with attributes(Mirror, move_to=move_to):
        yield


@mutation
def position_is_the_smallest_running(_: Settings) -> Iterator[None]:
    """The position is one number, the oldest transaction that runs: what it covers already is applied again."""
    original = Mirror.move_to

    def move_to(mirror: Mirror, position: Snapshot, lsn: str, *, applied: int) -> None:
        original(mirror, Snapshot(position.xmin, position.xmin, frozenset()), lsn, applied=applied)

    with attributes(Mirror, move_to=move_to):
        yield


@mutation
def no_going_back(_: Settings) -> Iterator[None]:
    """After a lost connection the mirror goes on where it was."""
    with attributes(MirrorWorker, _go_back=lambda worker, also: worker.mirror.position is not None):
        yield


@mutation
def old_index_under_the_new_checkpoint(_: Settings) -> Iterator[None]:
    """A copy names its checkpoint in the database before it says that the old index is not the one of it."""

    def begin(self: MirrorWorker, index: Any) -> None:
        reader, ledger = self._parts()
        self._checkpoint_id = random_uuid()
        with reader.at_snapshot() as (start, _):
            pass
        ledger.begin_copy(start, self._checkpoint_id)
        self.mirror.replace(index, RecentChanges(horizon=start.xmax - 1), start)
        self._checkpoint_changes = -1

    with attributes(MirrorWorker, _begin=begin):
        yield


_COPY = MirrorWorker._copy


@mutation
def no_token(settings: Settings) -> Iterator[None]:
    """The token is always the same and a crash of the server leaves it in place."""
    settings.live_survives_crash = True
    with attributes(worker, random_token=lambda: "always"):
        yield


@mutation
def trim_by_current_checkpoint(_: Settings) -> Iterator[None]:
    """The changelog is emptied up to the last checkpoint, not up to the one before it."""

    def limit_of(connection: SimulatedConnection, current: list[str], previous: list[str | None]) -> int | None:
        return min((Snapshot.parse(text).xmin for text in current), default=None)

    with attributes(SimulatedConnection, _limit_of=limit_of):
        yield


@mutation
def start_read_after_first_chunk(_: Settings) -> Iterator[None]:
    """The copy takes the position that it ends at for the one that it began at."""

    def copy(self: MirrorWorker, *, resume: Any) -> None:
        _COPY(self, resume=resume)
        with self._parts()[0].at_snapshot() as (now, _):
            pass
        self.mirror.replace(self.mirror.index, RecentChanges(horizon=now.xmax - 1), now)

    with attributes(MirrorWorker, _copy=copy):
        yield
