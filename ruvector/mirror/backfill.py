"""Read the attributes of all rows again, slice by slice, while the mirror follows and answers."""

from __future__ import annotations

from ruvector.capture.reader import TableReader
from ruvector.mirror.apply import apply_batch
from ruvector.mirror.ledger import Ledger
from ruvector.mirror.state import Mirror


class Backfill:
    """Fills columns that came to an index that has rows already, and its hashes when one went; vectors are not read.

    A slice is read in the snapshot up to which the mirror has applied all changes, so it never brings back an older
    value. Whoever began to write before the triggers told of the new columns may have changed a row that no change
    names: the first slice waits for all transactions that were under way when this began.
    """

    def __init__(self) -> None:
        """Begin with the first row."""
        self.is_busy = False  # with rows; not waiting for older transactions, nor done
        self._rows = 0
        self._horizon: int | None = None
        self._after: str | None = None

    def step(self, mirror: Mirror, reader: TableReader, ledger: Ledger) -> None:
        """Fill the next slice, if there is any; leave word when it was the last one."""
        index = mirror.index
        self.is_busy = not index.is_filled
        if not self.is_busy:
            return
        with reader.at_snapshot() as (snapshot, lsn):
            self._horizon = snapshot.xmax if self._horizon is None else self._horizon
            self.is_busy = snapshot.xmin >= self._horizon
            if not self.is_busy:
                return
            apply_batch(mirror, reader, reader.changes_since(mirror.position or snapshot, snapshot, lsn))
            keys, attributes, last_key = reader.attributes_after(self._after)
            if len(keys):
                if attributes is not None:
                    index.fill_attributes(keys, attributes)
                self._rows, self._after = self._rows + len(keys), last_key
            else:
                index.mark_filled()
                self.is_busy = False
            mirror.move_to(snapshot, lsn, applied=max(1, len(keys)))  # so that the next checkpoint holds it
        if not self.is_busy:
            names = [attribute.name for attribute in mirror.collection.attributes]
            ledger.note_event("attributes", {"rows": self._rows, "attributes": names})

    def finish(self, mirror: Mirror, reader: TableReader, ledger: Ledger) -> None:
        """Fill all slices; give up when older transactions are under way."""
        self.step(mirror, reader, ledger)
        while self.is_busy:
            self.step(mirror, reader, ledger)
