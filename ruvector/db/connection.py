"""Open connections to the user's database."""

from __future__ import annotations

import os
from typing import Any, TypeAlias

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from ruvector import limits
from ruvector.db.translate import translated
from ruvector.errors import InvalidParameter

Connection: TypeAlias = psycopg.Connection[tuple[Any, ...]]

# A setting of the connection string or of libpq's own environment variable wins over these.
_DEFAULTS: dict[str, tuple[str, int]] = {
    "connect_timeout": ("PGCONNECT_TIMEOUT", limits.CONNECT_SECONDS_MAX),
    "keepalives_idle": ("", limits.KEEPALIVE_SECONDS),
    "keepalives_interval": ("", limits.KEEPALIVE_SECONDS),
    "keepalives_count": ("", 3),
    "tcp_user_timeout": ("", limits.TCP_SILENCE_MS_MAX),
}


def conninfo(dsn: str | None, *, application_name: str) -> str:
    """Return a complete libpq connection string.

    Args:
        dsn: a libpq string or a postgresql:// address (SQLAlchemy's ``postgresql+psycopg://`` too); when None, the
            environment variable RUVECTOR_DSN, else an empty string, so that libpq reads its PG* variables.
        application_name: shown in pg_stat_activity.

    Raises:
        InvalidParameter: the string is not a connection string; it is not repeated, it may hold a password.
    """
    text = dsn if dsn is not None else os.environ.get("RUVECTOR_DSN", "")
    scheme, separator, rest = text.partition("://")
    if separator and scheme.partition("+")[0] in ("postgresql", "postgres"):
        text = f"postgresql://{rest}"
    try:
        given = conninfo_to_dict(text)
    except psycopg.ProgrammingError:
        raise InvalidParameter(
            "the connection string cannot be read",
            hint="Write it as postgresql://user@host:5432/database or as host=... dbname=... user=...",
        ) from None
    added = {
        name: value
        for name, (variable, value) in _DEFAULTS.items()
        if name not in given and not os.environ.get(variable)
    }
    return make_conninfo(text, application_name=application_name, **added)


def connect(dsn: str | None, *, application_name: str, autocommit: bool = True) -> Connection:
    """Open one connection; close it, or use it as a context manager.

    Raises:
        InvalidParameter: the connection string cannot be read.
        DatabaseUnreachable: nothing answers, or the login is refused.
    """
    complete = conninfo(dsn, application_name=application_name)
    with translated():
        return psycopg.connect(complete, autocommit=autocommit)
