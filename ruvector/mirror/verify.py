"""Compare table and index row by row, in slices that each see one snapshot; repair what differs."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from ruvector import limits
from ruvector.capture.reader import TableReader
from ruvector.errors import Cancelled, RuvectorError
from ruvector.index import rows_differ
from ruvector.mirror.apply import apply_batch, index_keys, key_texts, select, write_rows
from ruvector.mirror.state import Mirror
from ruvector.values import DecodedRows

if TYPE_CHECKING:
    pass


@dataclass(slots=True)
class Findings:
    """Keys that differ: in the table and not in the index, with another vector, in the index and not in the table."""

    checked: int = 0
    missing: list[str] = field(default_factory=list)
    stale: list[str] = field(default_factory=list)
    orphan: list[str] = field(default_factory=list)
    repaired: int = 0

    def report(self) -> dict[str, object]:
        """Return counts, and the first keys of each kind."""
        shown = limits.VERIFY_DIFFERENCES_SHOWN
        return {
            "checked": self.checked,
            "missing": len(self.missing),
            "stale": len(self.stale),
            "orphan": len(self.orphan),
            "repaired": self.repaired,
            "differences": len(self.missing) + len(self.stale) + len(self.orphan),
            "keys": {"missing": self.missing[:shown], "stale": self.stale[:shown], "orphan": self.orphan[:shown]},
        }


class Errand:
    """One verification that somebody waits for and the mirror's own thread does."""

    def __init__(self, *, sample: int, full: bool, repair: bool) -> None:
        self._sample, self._full, self._repair = sample, full, repair
        self._done = threading.Event()
        self._findings: Findings | None = None
        self._error: RuvectorError | None = None

    def run(self, mirror: Mirror, reader: TableReader) -> None:
        """Do it; an error goes to whoever waits, and on to the mirror."""
        try:
            self._findings = verify(mirror, reader, sample=self._sample, full=self._full, repair=self._repair)
        except RuvectorError as error:
            self._error = error
            raise
        finally:
            self._done.set()

    def fail(self, error: RuvectorError) -> None:
        """Tell whoever waits that it will not be done."""
        self._error = error
        self._done.set()

    def result(self, seconds: float) -> dict[str, object]:
        """Wait for the report."""
        if not self._done.wait(seconds):
            raise Cancelled(f"the verification did not end within {seconds:.0f} s", hint="Verify a smaller sample.")
        if self._error is not None:
            raise self._error
        return self._findings.report() if self._findings is not None else {}


def verify(mirror: Mirror, reader: TableReader, *, sample: int, full: bool, repair: bool) -> Findings:
    """Compare all rows, or ``sample`` of the table and ``sample`` of the index; repair those that differ if asked.

    Every slice is read in a snapshot up to which the changes were applied first, so a difference is a real one.
    """
    findings = Findings()
    if full:
        _verify_all(mirror, reader, findings, repair=repair)
    else:
        _verify_sample(mirror, reader, findings, sample=sample, repair=repair)
    return findings


def _verify_all(mirror: Mirror, reader: TableReader, findings: Findings, *, repair: bool) -> None:
    met: set[str] = set()
    last_key = None
    while True:
        with reader.at_snapshot() as (snapshot, lsn):
            apply_batch(mirror, reader, reader.changes_since(mirror.position or snapshot, snapshot, lsn))
            rows = reader.chunk_after(last_key)
            met.update(_compare(mirror, rows, findings, repair=repair))
        last_key = rows.last_key
        if rows.row_count < reader.chunk_rows:
            break
    # What the index holds and no slice met was deleted meanwhile, moved to another key, or is an orphan: ask again.
    unmet = [key for key in key_texts(mirror.index.keys()) if key not in met]
    for part in _parts(unmet):
        _check_orphans(mirror, reader, part, findings, repair=repair)


def _verify_sample(mirror: Mirror, reader: TableReader, findings: Findings, *, sample: int, repair: bool) -> None:
    total = max(len(mirror.index), 1)
    percent = min(100.0, 200.0 * sample / total)
    with reader.at_snapshot():
        keys = reader.sample_keys(percent=max(percent, 0.0001), rows=sample)
    held = key_texts(mirror.index.keys())
    step = max(1, len(held) // max(sample, 1))
    for part in _parts(list(dict.fromkeys([*keys, *held[::step][:sample]]))):
        _check_keys(mirror, reader, part, findings, repair=repair)


def _check_keys(mirror: Mirror, reader: TableReader, keys: Sequence[str], findings: Findings, *, repair: bool) -> None:
    with reader.at_snapshot() as (snapshot, lsn):
        apply_batch(mirror, reader, reader.changes_since(mirror.position or snapshot, snapshot, lsn))
        rows = reader.rows_of(keys)
        met = _compare(mirror, rows, findings, repair=repair)
    _note_orphans(mirror, [key for key in keys if key not in met], findings, repair=repair)


def _check_orphans(
    mirror: Mirror, reader: TableReader, keys: Sequence[str], findings: Findings, *, repair: bool
) -> None:
    with reader.at_snapshot() as (snapshot, lsn):
        apply_batch(mirror, reader, reader.changes_since(mirror.position or snapshot, snapshot, lsn))
        present = reader.rows_of(keys)
    met = set(key_texts(present.keys))
    _note_orphans(mirror, [key for key in keys if key not in met], findings, repair=repair)


def _note_orphans(mirror: Mirror, keys: Sequence[str], findings: Findings, *, repair: bool) -> None:
    kind = mirror.collection.options.key_kind
    held = mirror.index.vectors_of(index_keys(keys, kind))[1]
    orphans = [key for key, is_held in zip(keys, held, strict=True) if is_held]
    findings.orphan += orphans
    if repair and orphans:
        mirror.index.delete(index_keys(orphans, kind))
        findings.repaired += len(orphans)


def _compare(mirror: Mirror, rows: DecodedRows, findings: Findings, *, repair: bool) -> set[str]:
    """Compare decoded rows with the index; return the keys that are right to be in it."""
    usable = _usable(mirror, key_texts(rows.keys))
    keys, vectors = select(rows.keys, usable), rows.vectors[usable]
    findings.checked += len(keys)
    texts = key_texts(keys)
    stored, held = mirror.index.vectors_of(keys)
    differs = ~held | rows_differ(stored, vectors)
    findings.missing += [key for key, is_held in zip(texts, held, strict=True) if not is_held]
    findings.stale += [key for key, is_held, wrong in zip(texts, held, differs, strict=True) if is_held and wrong]
    if repair and differs.any():
        wrong_rows = DecodedRows(
            keys=select(keys, differs),
            vectors=vectors[differs],
            missing_keys=[],
            wrong_keys=[],
            last_key=None,
        )
        write_rows(mirror, wrong_rows)
        findings.repaired += int(differs.sum())
    return set(texts)


def _usable(mirror: Mirror, texts: Sequence[str]) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    reasons = mirror.unindexed.reasons
    return np.fromiter((key not in reasons for key in texts), dtype=np.bool_, count=len(texts))


def _parts(keys: Sequence[str]) -> Iterator[Sequence[str]]:
    for start in range(0, len(keys), limits.CHANGE_BATCH_ROWS_MAX):
        yield keys[start : start + limits.CHANGE_BATCH_ROWS_MAX]
