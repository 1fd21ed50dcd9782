"""Answer SQL clients on PostgreSQL's own wire protocol.

Takes: bytes of the version 3 protocol from psql, psycopg, drivers and dblink.  Gives: calls of a Backend, and its
rows or errors back on the wire.
"""

from __future__ import annotations

from ruvector.bridge.backend import (
    CALL_COLUMNS,
    SEARCH_COLUMNS,
    Access,
    Backend,
    CancelFlag,
    Column,
    Login,
    RowSet,
    Signature,
)
from ruvector.bridge.scram import ScramVerifier
from ruvector.bridge.server import Server

__all__ = [
    "CALL_COLUMNS",
    "SEARCH_COLUMNS",
    "Access",
    "Backend",
    "CancelFlag",
    "Column",
    "Login",
    "RowSet",
    "ScramVerifier",
    "Server",
    "Signature",
]
