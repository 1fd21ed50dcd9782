"""Read changes and rows of one mirrored table over one connection of its own."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import psycopg
from psycopg import sql

from ruvector import db, limits
from ruvector.capture.attributes import read_attributes
from ruvector.capture.statements import TableStatements
from ruvector.errors import Flood
from ruvector.kernels.copyformat import decode
from ruvector.snapshot import Snapshot
from ruvector.values import AttributeRows, Collection, DecodedRows, ElementType

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from ruvector.values import RowKeys


@dataclass(frozen=True, slots=True)
class ChangeBatch:
    """Everything that happened between two snapshots: who changed which key (None: the table was emptied)."""

    snapshot: Snapshot
    lsn: str
    changes: tuple[tuple[int, str | None], ...]

    @property
    def truncated(self) -> bool:
        """Tell whether the table was emptied in between."""
        return any(key is None for _, key in self.changes)

    def keyed(self) -> list[tuple[int, str]]:
        """Return the (xid, key) pairs that name a key."""
        return [(xid, key) for xid, key in self.changes if key is not None]

    def keys(self) -> list[str]:
        """Return each changed key once, in the order of first appearance."""
        return list(dict.fromkeys(key for _, key in self.changes if key is not None))


@dataclass(frozen=True, slots=True)
class BucketSum:
    """Some neighbouring rows of the table: their keys, or the last one, and the sum over those an index takes."""

    keys: list[str]
    usable: int
    combined: int  # all their hashes, exclusive-or, as a signed number
    rows: int


class TableReader:
    """Reads one table and its changelog; not thread-safe. Raises our database errors."""

    def __init__(self, dsn: str | None, collection: Collection) -> None:
        self.collection = collection
        self._statements = TableStatements(collection)
        self._connection = db.connect(dsn, application_name=f"ruvector {collection.name}"[:63])
        try:
            with db.translated():
                self._connection.execute(db.query("capture", "prepare_reader").encode())
            self._connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
            self._connection.read_only = True
        except BaseException:
            self._connection.close()
            raise

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    @contextmanager
    def at_snapshot(self) -> Iterator[tuple[Snapshot, str]]:
        """Open one read-only REPEATABLE READ transaction; give its snapshot and log position (LSN)."""
        with db.translated(), self._connection.transaction():
            row = self._connection.execute(db.query("capture", "snapshot").encode()).fetchone()
            if row is None:
                raise psycopg.OperationalError("the database did not tell its snapshot")
            yield Snapshot.parse(row[0]), row[1]

    def changes_since(
        self, position: Snapshot, snapshot: Snapshot, lsn: str, *, rows_max: int = limits.RECENT_CHANGES_MAX
    ) -> ChangeBatch:
        """Return what this snapshot sees and the position does not; call inside at_snapshot.

        Raises:
            Flood: there are more than ``rows_max``.
        """
        parameters = {"xmax": str(position.xmax), "xip": [str(xid) for xid in position.xip], "rows": rows_max + 1}
        rows = self._connection.execute(self._statements.changes(), parameters).fetchall()
        if len(rows) > rows_max:
            raise Flood(f"more than {rows_max} changes at once")
        return ChangeBatch(snapshot, lsn, tuple((xid, key) for xid, key in rows))

    def changes_within(self, position: Snapshot) -> list[tuple[int, str]] | None:
        """Return the changelog rows whose transaction is visible in the position; None when they are too many."""
        parameters = {"position": str(position), "rows": limits.RECENT_CHANGES_MAX + 1}
        with db.translated():
            rows = self._connection.execute(self._statements.changes_seen(), parameters).fetchall()
        if len(rows) > limits.RECENT_CHANGES_MAX:
            return None
        return [(xid, key) for xid, key in rows if key is not None]

    def rows_of(self, keys: Sequence[str]) -> DecodedRows:
        """Return the rows that exist now of these keys (at most CHANGE_BATCH_ROWS_MAX)."""
        return self._copy(self._statements.rows_of_keys(keys))

    def chunk_after(self, key: str | None) -> DecodedRows:
        """Return the next rows in key order."""
        return self._copy(self._statements.chunk(key, rows=self.chunk_rows))

    @property
    def chunk_rows(self) -> int:
        """How many rows one chunk asks for: fewer when the vectors are wide."""
        return max(1, min(limits.COPY_CHUNK_ROWS, limits.COPY_CHUNK_BYTES // self._row_bytes))

    @property
    def _row_bytes(self) -> int:
        options = self.collection.options
        return limits.SPARSE_ROW_BYTES if options.element is ElementType.SPARSE else 64 + 4 * options.dims

    def sample_keys(self, *, percent: float, rows: int) -> list[str]:
        """Return the keys of some rows of the table."""
        return [row[0] for row in self._connection.execute(self._statements.sample_keys(percent=percent, rows=rows))]

    @property
    def slice_rows(self) -> int:
        """How many rows one slice of a verification takes: fewer when the vectors are wide."""
        return max(1, min(limits.VERIFY_SLICE_ROWS, limits.VERIFY_SLICE_BYTES // self._row_bytes))

    def attributes_after(self, key: str | None) -> tuple[RowKeys, AttributeRows | None, str | None]:
        """Return keys and attributes of the next rows in key order, and the last key; of at most ``slice_rows``."""
        statement = self._statements.attributes_after(key, rows=limits.VERIFY_SLICE_ROWS)
        rows, buffer = self._received(statement)
        attributes = self._attributes_of(buffer, rows.missing_spans)
        return rows.missing_keys, attributes, rows.last_key

    def bucket_sums(self, after: str | None, *, with_attributes: bool = False) -> list[BucketSum]:
        """Return sums over the next slice of rows in key order; call inside at_snapshot."""
        statement = self._statements.bucket_sums(
            after,
            rows=self.slice_rows,
            bucket_rows=limits.VERIFY_BUCKET_ROWS,
            with_attributes=with_attributes,
        )
        return [BucketSum(*row) for row in self._connection.execute(statement)]

    def row_hashes(
        self, after: str | None, upto: str | None, *, with_attributes: bool = False
    ) -> dict[str, int | None]:
        """Return the hash of each row in a range of keys; None for rows an index does not take."""
        statement = self._statements.hashed_rows(after, upto, with_attributes=with_attributes)
        return {str(key): row_hash for key, row_hash in self._connection.execute(statement)}

    def row_estimate(self) -> int:
        """Return how many rows the planner believes in; 0 when it does not know."""
        with db.translated():
            row = self._connection.execute(
                db.query("capture", "row_estimate").encode(), {"table": self.collection.table_oid}
            ).fetchone()
        return max(0, int(row[0])) if row else 0

    def drift(self) -> str:
        """Say what changed about the table since it was attached; empty when nothing did."""
        parameters = {
            "mirror": self.collection.id,
            "table": self.collection.table_oid,
            "name": self._statements.table_name(),
            "columns": [*self.collection.key_columns, self.collection.column_name],
        }
        row = self._connection.execute(db.query("capture", "drift").encode(), parameters).fetchone()
        if row is None or not row[1]:
            return f"{self.collection.table_ref} is no longer the table with OID {self.collection.table_oid}"
        if row[0] != self.collection.fingerprint:
            return f"the definition of {self.collection.table_ref} or its triggers changed since it was attached"
        return ""

    def _copy(self, statement: sql.Composed) -> DecodedRows:
        rows, buffer = self._received(statement)
        return replace(rows, attributes=self._attributes_of(buffer, rows.spans))

    def _attributes_of(self, buffer: bytearray, spans: NDArray[np.int64] | None) -> AttributeRows | None:
        return None if spans is None else read_attributes(buffer, spans, self.collection.attributes)

    def _received(self, statement: sql.Composed) -> tuple[DecodedRows, bytearray]:
        options, attributes = self.collection.options, self.collection.attributes
        buffer = bytearray()
        with self._connection.cursor() as cursor, cursor.copy(statement) as copy:
            for block in copy:
                buffer += block
        rows = decode(
            buffer,
            key_kind=options.key_kind.value,
            element=options.element.value,
            dims=options.dims,
            fields=len(attributes) + 1 if attributes else 0,
        )
        return rows, buffer
