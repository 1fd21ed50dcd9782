"""ruvector: an index beside PostgreSQL, kept equal by triggers and searched from SQL.

The path of a row::

    your table --row trigger--> ruvector.changelog --> capture --> mirror --> index + store --> kernels --> _ext
         ^                       (key only, xid8)                                  ^
         |                                                                         | systems/<name>/functions.py
    SELECT ruvector_search(...) --> remote call --> bridge (PG wire) --> surface --+ (@sql_function)

Down: what a write does. Up: what a query does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from ruvector.client import connect
    from ruvector.index import Index
    from ruvector.sparse import SparseVectors

__all__ = ["Index", "SparseVectors", "__version__", "connect"]

_HOMES = {"Index": "ruvector.index", "SparseVectors": "ruvector.sparse", "connect": "ruvector.client"}


def __getattr__(name: str) -> Any:
    """Load a public name on first use: importing ruvector must not load numpy, psycopg and the kernels."""
    if name in _HOMES:
        from importlib import import_module

        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'ruvector' has no attribute {name!r}")
