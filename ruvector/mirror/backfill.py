"""Read the attributes of all rows again, slice by slice, while the mirror follows and answers."""

from __future__ import annotations

from ruvector.capture.reader import TableReader
from ruvector.mirror.apply import apply_batch
from ruvector.mirror.state import Mirror


class Backfill:
    """Fills columns that came to an index that has rows already; vectors are not read.

    A slice is read in the snapshot up to which the mirror has applied all changes, so it never brings back an older
    value. Whoever began to write before the triggers told of the new columns may have changed a row that no change
    names: the first slice waits for all transactions that were under way when this began.
    """

    def __init__(self) -> None:
        """Begin with the first row."""
        self.rows = 0
        self._horizon: int | None = None
        self._after: str | None = None

    def report(self, mirror: Mirror) -> dict[str, object]:
        """Return what was done."""
        return {"rows": self.rows, "attributes": [attribute.name for attribute in mirror.collection.attributes]}

    def step(self, mirror: Mirror, reader: TableReader) -> bool:
        """Fill the next slice; tell whether all rows are filled."""
        with reader.at_snapshot() as (snapshot, lsn):
            self._horizon = snapshot.xmax if self._horizon is None else self._horizon
            if snapshot.xmin < self._horizon:
                return False
            apply_batch(mirror, reader, reader.changes_since(mirror.position or snapshot, snapshot, lsn))
            keys, attributes, last_key = reader.attributes_after(self._after)
            if attributes is not None and len(keys):
                mirror.index.fill_attributes(keys, attributes)
            self.rows += len(keys)
            if len(keys):
                self._after = last_key
            else:
                mirror.index.mark_filled()
            mirror.move_to(snapshot, lsn, applied=max(1, len(keys)))  # so that the next checkpoint holds it
        return not len(keys)
