"""Turn the driver's errors into ours: the border of everything that comes from the database."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import psycopg

from ruvector.errors import Cancelled, DatabaseError, DatabaseUnreachable, RuvectorError

_CANCELED = "57014"
# The connection is gone or never was: class 08, and the server shutting down, crashed or starting.
_UNREACHABLE = ("57P01", "57P02", "57P03")


@contextmanager
def translated() -> Iterator[None]:
    """Raise errors of psycopg inside the block as DatabaseUnreachable, Cancelled or DatabaseError."""
    try:
        yield
    except psycopg.Error as error:
        raise translate(error) from error


def translate(error: psycopg.Error) -> RuvectorError:
    """Return our error for one of the driver; code, detail and hint of the server are kept."""
    diagnostics = error.diag
    message = diagnostics.message_primary or str(error).strip() or type(error).__name__
    sqlstate = error.sqlstate
    if sqlstate is None:
        if isinstance(error, (psycopg.OperationalError, psycopg.InterfaceError)):
            return DatabaseUnreachable(message)
        return DatabaseError(message, sqlstate="XX000")
    if sqlstate.startswith("08") or sqlstate in _UNREACHABLE:
        return DatabaseUnreachable(message, detail=diagnostics.message_detail or "")
    if sqlstate == _CANCELED:
        return Cancelled(message)
    return DatabaseError(
        message, sqlstate=sqlstate, detail=diagnostics.message_detail or "", hint=diagnostics.message_hint or ""
    )
