"""Fill a new vector column from what the rows hold already: online, in batches, resumable."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from psycopg import sql

from ruvector import db
from ruvector.errors import InvalidParameter

if TYPE_CHECKING:
    from ruvector.client.names import ColumnName


@dataclass(frozen=True, slots=True)
class Backfilled:
    """How many rows got a vector, and how many have none still: the expression gave NULL, or others hold them."""

    filled: int
    remaining: int


def backfill(
    connection: db.Connection,
    column: ColumnName,
    keys: Sequence[str],
    *,
    using: str,
    batch: int,
    pause_seconds: float,
    sleep: Callable[[float], None],
    on_progress: Callable[[str, int, int], None] | None,
) -> Backfilled:
    """Set the column to the expression in every row where it is NULL; see `Client.backfill`."""
    if batch < 1 or pause_seconds < 0:
        raise InvalidParameter(f"a batch of {batch} rows and a pause of {pause_seconds} s make no backfill")
    statements = _Statements(connection, column, keys, using)
    filled, total = 0, statements.todo()
    while True:
        before, last = filled, None
        while True:
            with db.translated():
                row = statements.run(batch, last)
            if row is None:
                break
            count, seen, *last = row
            filled += count
            if on_progress is not None:
                on_progress(f"{column.table}.{column.column}", filled, max(total, filled))
            if seen and pause_seconds:
                sleep(pause_seconds)
        # Once more from the start, for rows that were held by others, as long as that helps.
        if filled == before:
            return Backfilled(filled, statements.todo())


class _Statements:
    """The statements of one backfill."""

    def __init__(self, connection: db.Connection, column: ColumnName, keys: Sequence[str], using: str) -> None:
        self._connection = connection
        own = [sql.SQL("i.{}").format(sql.Identifier(key)) for key in keys]
        # Other names than the table's, so that the expression may use those of its columns as they are.
        taken = [sql.Identifier(f"ruvector_key_{n}") for n in range(1, len(keys) + 1)]
        self._parts: dict[str, sql.Composable] = {
            "table": sql.Identifier(column.schema, column.table),
            "column": sql.Identifier(column.column),
            "keys": sql.SQL(", ").join(sql.SQL("{} AS {}").format(*pair) for pair in zip(own, taken, strict=True)),
            "order": sql.SQL(", ").join(own),
            "match": sql.SQL(" AND ").join(sql.SQL("{} = {}").format(*pair) for pair in zip(own, taken, strict=True)),
            "last": sql.SQL(", ").join(sql.SQL("{} DESC").format(each) for each in taken),
            "using": sql.SQL("({})").format(sql.SQL(using.replace("%", "%%"))),
        }
        self._first = self._batch(sql.SQL("true"))
        places = sql.SQL(", ").join(sql.Placeholder(f"key_{n}") for n in range(len(keys)))
        self._next = self._batch(sql.SQL("({}) > ({})").format(sql.SQL(", ").join(own), places))

    def _batch(self, after: sql.Composable) -> sql.Composed:
        return sql.SQL(db.query("backfill", "batch")).format(**self._parts, after=after)

    def todo(self) -> int:
        """Return how many rows have no vector."""
        statement = sql.SQL(db.query("backfill", "todo")).format(**self._parts)
        with db.translated():
            row = self._connection.execute(statement).fetchone()
        return int(row[0]) if row else 0

    def run(self, batch: int, last: Sequence[Any] | None) -> tuple[Any, ...] | None:
        """Fill one batch behind a key; return rows filled, rows seen and the last key, None when there were none."""
        values = {"batch": batch, **{f"key_{n}": value for n, value in enumerate(last or ())}}
        with self._connection.transaction():
            return self._connection.execute(self._next if last else self._first, values).fetchone()
