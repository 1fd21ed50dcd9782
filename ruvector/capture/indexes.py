"""pgvector's own indexes: build again those that a completed cutover dropped."""

from __future__ import annotations

from typing import Any

from ruvector import db


def pending_indexes(connection: db.Connection, *, name: str | None = None) -> list[str]:
    """Return the indexes to build, of one collection or of all: dropped once, and missed since it is not complete."""
    rows = connection.execute(db.query("indexes", "pending").encode(), {"name": name}).fetchall()
    return [str(row[1]) for row in rows]


def rebuild_indexes(connection: db.Connection, *, name: str | None = None) -> list[str] | None:
    """Build the pending indexes, CONCURRENTLY but on partitioned tables; return those that are there now.

    May be interrupted at any moment and started again: an index left half built is dropped first. Returns None when
    somebody else builds at the moment. The connection must be in autocommit, and its role must own the tables.
    """
    with db.translated():
        (is_mine,) = connection.execute(db.query("indexes", "lock").encode()).fetchone() or (False,)
        if not is_mine:
            return None
        try:
            return [_rebuild(connection, row) for row in
                    connection.execute(db.query("indexes", "pending").encode(), {"name": name}).fetchall()]  # fmt: skip
        finally:
            if not connection.closed:
                connection.execute(db.query("indexes", "unlock").encode())


def _rebuild(connection: db.Connection, row: tuple[Any, ...]) -> str:
    number, place, is_valid, removal, creation, tablespace = row
    if is_valid is False:
        connection.execute(removal.encode())
    if not is_valid:
        connection.execute(db.query("indexes", "tablespace").encode(), {"name": tablespace})
        connection.execute(creation.encode())
    connection.execute(db.query("indexes", "forget").encode(), {"id": number})
    return str(place)
