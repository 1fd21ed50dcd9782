"""Compare table and index, in slices that each see one snapshot; repair what differs.

Both sides hash their rows and sum the hashes up in buckets. Only of buckets whose sums differ the hashes of single rows
are compared, and only of rows whose hashes differ the vectors: what a comparison costs is bounded by hashing, and what
it reports is exact.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from ruvector import limits
from ruvector.capture.reader import BucketSum, TableReader
from ruvector.errors import RuvectorError
from ruvector.index import rows_differ, usable_rows
from ruvector.mirror.apply import apply_batch, index_keys, key_texts, select, write_rows
from ruvector.mirror.hashes import Hashes, text_hashes, vector_hashes
from ruvector.mirror.state import Mirror
from ruvector.snapshot import Snapshot
from ruvector.values import KeyKind

if TYPE_CHECKING:
    from ruvector.values import RowKeys


@dataclass(slots=True)
class Findings:
    """Keys that differ: in the table and not in the index, with another vector, in the index and not in the table."""

    checked: int = 0
    missing: list[str] = field(default_factory=list)
    stale: list[str] = field(default_factory=list)
    orphan: list[str] = field(default_factory=list)
    repaired: int = 0

    @property
    def differences(self) -> int:
        """Return how many rows differ."""
        return len(self.missing) + len(self.stale) + len(self.orphan)

    def report(self) -> dict[str, object]:
        """Return counts, and the first keys of each kind."""
        shown = limits.VERIFY_DIFFERENCES_SHOWN
        return {
            "checked": self.checked,
            "missing": len(self.missing),
            "stale": len(self.stale),
            "orphan": len(self.orphan),
            "repaired": self.repaired,
            "differences": self.differences,
            "keys": {"missing": self.missing[:shown], "stale": self.stale[:shown], "orphan": self.orphan[:shown]},
        }


class Verification:
    """A comparison that goes on slice by slice, between two batches of the mirror's own thread.

    Everything committed before the snapshot of a slice is applied first, so that a difference is a real one. Without
    ``sample`` the slices cover the table and the index, or what of both lies beyond the key ``after``; with it that
    many rows of each.
    """

    def __init__(self, *, repair: bool, sample: int | None = None, after: str | None = None) -> None:
        self.findings = Findings()
        self.is_done = False
        self._repair = repair
        self._sample = sample
        self._after, self._is_whole = after, after is None
        self._met: list[Hashes] | None = None  # keys that slices met, where only the database knows their order
        self._left: list[Sequence[str]] | None = None  # of a sample

    def step(self, mirror: Mirror, reader: TableReader) -> None:
        """Compare the next slice."""
        if self._sample is not None:
            self._step_sample(mirror, reader, self._sample)
            return
        if self._met is None and mirror.collection.options.key_kind is KeyKind.TEXT:
            self._met = []
        with reader.at_snapshot() as (snapshot, lsn):
            apply_batch(mirror, reader, reader.changes_since(mirror.position or snapshot, snapshot, lsn))
            buckets = reader.bucket_sums(self._after, with_attributes=has_attributes(mirror))
            is_last = sum(bucket.rows for bucket in buckets) < reader.slice_rows
            suspects = self._suspects(mirror, reader, buckets, is_last=is_last)
            self.findings.checked += sum(bucket.usable for bucket in buckets)
            for part in _parts(suspects):
                self._check_keys(mirror, reader, part, (snapshot, lsn))
        if not is_last:
            self._after = buckets[-1].keys[-1]
            return
        if self._met is not None and self._is_whole:
            self._check_unmet(mirror, reader, np.concatenate(self._met))
        self.is_done = True

    def _suspects(
        self, mirror: Mirror, reader: TableReader, buckets: Sequence[BucketSum], *, is_last: bool
    ) -> list[str]:
        """Return the keys of this slice whose hashes differ between table and index."""
        if self._met is None:
            keys, edges = self._held_numbers(mirror, buckets, is_last=is_last)
        else:
            keys, edges = self._held_texts(mirror, buckets)
        hashes = hashes_of(mirror, keys)
        suspects: list[str] = []
        after, start = self._after, 0
        for number, end in enumerate(edges):
            bucket = buckets[number] if buckets else BucketSum([], 0, 0, 0)
            part = hashes[start:end]
            upto = None if is_last and number + 1 == len(edges) else bucket.keys[-1]
            if (len(part), int(np.bitwise_xor.reduce(part).astype(np.int64))) != (bucket.usable, bucket.combined):
                here = dict(zip(key_texts(keys[start:end]), part.astype(np.int64).tolist(), strict=True))
                hashed = reader.row_hashes(after, upto, with_attributes=has_attributes(mirror))
                there = {key: value for key, value in hashed.items() if value is not None}
                suspects += [key for key in here.keys() | there.keys() if here.get(key) != there.get(key)]
            after, start = upto, end
        return suspects

    def _held_numbers(
        self, mirror: Mirror, buckets: Sequence[BucketSum], *, is_last: bool
    ) -> tuple[RowKeys, list[int]]:
        """Return the keys of the index in the range of this slice, and where each bucket ends; the last one is open."""
        keys = np.asarray(mirror.index.keys(), dtype=np.int64)
        if self._after is not None:
            keys = keys[keys > int(self._after)]
        if not is_last:
            keys = keys[keys <= int(buckets[-1].keys[-1])]
        keys = np.sort(keys)
        last_keys = [int(bucket.keys[-1]) for bucket in buckets[:-1]]
        return keys, [*np.searchsorted(keys, last_keys, side="right").tolist(), len(keys)]

    def _held_texts(self, mirror: Mirror, buckets: Sequence[BucketSum]) -> tuple[RowKeys, list[int]]:
        """Return those keys of the buckets that the index holds, and where each bucket ends among them."""
        keys = [key for bucket in buckets for key in bucket.keys]
        if self._met is not None:
            self._met.append(text_hashes(keys))
        held = mirror.index.vectors_of(keys)[1]
        ends = np.cumsum([len(bucket.keys) for bucket in buckets], dtype=np.int64)
        counts = np.concatenate((np.zeros(1, dtype=np.int64), np.cumsum(held)))
        return select(keys, held), counts[ends].tolist()

    def _check_unmet(self, mirror: Mirror, reader: TableReader, met: Hashes) -> None:
        """Ask the table again for text keys of the index that no slice met: orphans, or rows that came meanwhile."""
        keys = key_texts(mirror.index.keys())
        for part in _parts(key_texts(select(keys, ~np.isin(text_hashes(keys), met)))):
            self._check_later(mirror, reader, part)

    def _step_sample(self, mirror: Mirror, reader: TableReader, sample: int) -> None:
        if self._left is None:
            percent = min(100.0, 200.0 * sample / max(len(mirror.index), 1))
            with reader.at_snapshot():
                keys = reader.sample_keys(percent=max(percent, 0.0001), rows=sample)
            held = key_texts(mirror.index.keys())
            step = max(1, len(held) // sample)
            self._left = list(_parts(list(dict.fromkeys([*keys, *held[::step][:sample]]))))
        if self._left:
            self.findings.checked += self._check_later(mirror, reader, self._left.pop())
        self.is_done = not self._left

    def _check_later(self, mirror: Mirror, reader: TableReader, keys: Sequence[str]) -> int:
        """Compare rows in a snapshot of their own."""
        with reader.at_snapshot() as (snapshot, lsn):
            apply_batch(mirror, reader, reader.changes_since(mirror.position or snapshot, snapshot, lsn))
            return self._check_keys(mirror, reader, keys, (snapshot, lsn))

    def _check_keys(self, mirror: Mirror, reader: TableReader, keys: Sequence[str], at: tuple[Snapshot, str]) -> int:
        """Compare the rows of some keys with the index, number by number; return how many the table has."""
        rows = reader.rows_of(keys)
        usable = usable_rows(rows.vectors, metric=mirror.collection.options.metric)
        present, vectors = select(rows.keys, usable), rows.vectors[usable]
        stored, held = mirror.index.vectors_of(present)
        differs = ~held | rows_differ(stored, vectors)
        if rows.attributes is not None and has_attributes(mirror):
            differs |= mirror.index.attribute_hashes(present) != rows.attributes.hashes[usable]
        texts = key_texts(present)
        wanted = set(texts)
        others = [key for key in keys if key not in wanted]
        is_held = mirror.index.vectors_of(index_keys(others, mirror.collection.options.key_kind))[1]
        orphans = [key for key, held_too in zip(others, is_held.tolist(), strict=True) if held_too]
        findings = self.findings
        findings.missing += [key for key, found in zip(texts, held.tolist(), strict=True) if not found]
        findings.stale += [
            key for key, found, wrong in zip(texts, held.tolist(), differs.tolist(), strict=True) if found and wrong
        ]
        findings.orphan += orphans
        found = int(differs.sum()) + len(orphans)
        if self._repair and found:
            repaired = [*key_texts(select(present, differs)), *orphans]
            write_rows(mirror, reader.rows_of(repaired), expected=repaired)
            findings.repaired += found
            mirror.move_to(*at, applied=found)  # so that the next checkpoint holds it
        return len(texts)


class Errand:
    """One verification that somebody waits for and the mirror's own thread does, slice by slice."""

    def __init__(self, *, sample: int | None, repair: bool) -> None:
        self._work = Verification(repair=repair, sample=sample)
        self._done = threading.Event()
        self._error: RuvectorError | None = None

    @property
    def is_done(self) -> bool:
        """Tell whether nobody waits for it any more."""
        return self._done.is_set()

    def step(self, mirror: Mirror, reader: TableReader) -> None:
        """Do a slice; an error goes to whoever waits, and on to the mirror."""
        try:
            self._work.step(mirror, reader)
        except RuvectorError as error:
            self.fail(error)
            raise
        if self._work.is_done:
            self._done.set()

    def fail(self, error: RuvectorError) -> None:
        """Tell whoever waits that it will not be done."""
        self._error = error
        self._done.set()

    def result(self, check: Callable[[], None] | None) -> dict[str, object]:
        """Wait for the report; ``check`` raises when nobody wants it any more."""
        while not self._done.wait(limits.WATCH_SECONDS):
            try:
                if check is not None:
                    check()
            except RuvectorError as error:
                self.fail(error)
        if self._error is not None:
            raise self._error
        return self._work.findings.report()


def hashes_of(mirror: Mirror, keys: RowKeys) -> Hashes:
    """Return the hashes of rows that the index holds, as the database computes them."""
    options = mirror.collection.options
    seeds = text_hashes(keys) if isinstance(keys, list) else keys.view(np.uint64)
    vectors = mirror.index.vectors_of(keys)[0]
    hashes = vector_hashes(vectors, seeds, element=options.element, dims=options.dims)
    if has_attributes(mirror):
        hashes ^= mirror.index.attribute_hashes(keys).view(np.uint64)
    return hashes


def has_attributes(mirror: Mirror) -> bool:
    """Tell whether the index knows the attributes of all its rows, so that they can be compared."""
    return bool(mirror.index.attributes) and mirror.index.is_filled


def _parts(keys: Sequence[str]) -> Iterator[Sequence[str]]:
    for start in range(0, len(keys), limits.CHANGE_BATCH_ROWS_MAX):
        yield keys[start : start + limits.CHANGE_BATCH_ROWS_MAX]
