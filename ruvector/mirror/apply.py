"""Bring an index to a snapshot: read the changed keys, then upsert or delete each by its present row."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from ruvector import limits
from ruvector.capture.reader import ChangeBatch, TableReader
from ruvector.errors import ensure
from ruvector.index import chosen_rows, usable_rows
from ruvector.mirror.state import Mirror
from ruvector.values import DecodedRows, KeyKind, Metric

if TYPE_CHECKING:
    from ruvector.values import RowKeys


def changes_max(mirror: Mirror) -> int:
    """Return how many changes at once are worth following; searches need the table anyway when there are so many."""
    share = int(limits.FLOOD_SHARE * len(mirror.index))
    return min(limits.RECENT_CHANGES_MAX, max(limits.DIRTY_KEYS_MAX, share))


def catch_up(
    mirror: Mirror, reader: TableReader, *, also: Iterable[str] = (), rows_max: int = limits.RECENT_CHANGES_MAX
) -> ChangeBatch:
    """Apply everything committed since the mirror's position, and the keys in ``also``; twice equals once.

    The snapshot in which the changes are listed is the one in which the rows are read (invariant I4), so the order of
    changes to one key does not matter.
    """
    with reader.at_snapshot() as (snapshot, lsn):
        ensure(mirror.position is not None, "a mirror without a position cannot catch up")
        position = mirror.position if mirror.position is not None else snapshot
        batch = reader.changes_since(position, snapshot, lsn, rows_max=rows_max)
        apply_batch(mirror, reader, batch, also=also)
    return batch


def apply_batch(mirror: Mirror, reader: TableReader, batch: ChangeBatch, *, also: Iterable[str] = ()) -> None:
    """Apply one batch inside the transaction it was read in: recent changes first, the position last."""
    mirror.remember(batch.keyed())
    if batch.truncated:
        mirror.index.clear()
        mirror.unindexed.reasons.clear()
    keys = list(dict.fromkeys([*batch.keys(), *also]))
    for start in range(0, len(keys), limits.CHANGE_BATCH_ROWS_MAX):
        part = keys[start : start + limits.CHANGE_BATCH_ROWS_MAX]
        write_rows(mirror, reader.rows_of(part), expected=part)
    mirror.move_to(batch.snapshot, batch.lsn, applied=len(keys))


def write_rows(
    mirror: Mirror, rows: DecodedRows, *, expected: Sequence[str] | None = None, defer: bool = False
) -> None:
    """Put rows into the index; expected keys that have no usable row any more are deleted from it.

    With ``defer`` the index links them later, all at once.
    """
    index, options = mirror.index, mirror.collection.options
    keys, vectors, attributes = rows.keys, rows.vectors, rows.attributes
    zero: list[str] = []
    if options.metric is Metric.COSINE and len(keys):
        usable = usable_rows(vectors, metric=options.metric)
        if not usable.all():
            zero = key_texts(select(keys, ~usable))
            keys, vectors = select(keys, usable), vectors[usable]
            attributes = None if attributes is None else chosen_rows(attributes, usable)
    if len(keys):
        index.upsert(keys, vectors, defer=defer, attributes=attributes)
    missing, wrong = key_texts(rows.missing_keys), key_texts(rows.wrong_keys)
    if expected is not None:
        present = key_texts(keys)
        gone = set(expected).difference(present)
        if gone:
            index.delete(index_keys(gone, options.key_kind))
        mirror.unindexed.forget(expected)
    mirror.unindexed.put(missing, "null")
    mirror.unindexed.put(wrong, "wrong_dims")
    mirror.unindexed.put(zero, "zero")


def key_texts(keys: RowKeys) -> list[str]:
    """Return keys as the texts in which they cross the bridge."""
    return keys if isinstance(keys, list) else [str(key) for key in keys.tolist()]


def index_keys(texts: Iterable[str], kind: KeyKind) -> RowKeys:
    """Return key texts as the engine holds them."""
    if kind is KeyKind.TEXT:
        return list(texts)
    return np.fromiter((int(text) for text in texts), dtype=np.int64)


def select(keys: RowKeys, mask: np.ndarray[tuple[int], np.dtype[np.bool_]]) -> RowKeys:
    """Return the keys where the mask holds."""
    if isinstance(keys, list):
        return [key for key, keep in zip(keys, mask.tolist(), strict=True) if keep]
    return keys[mask]
