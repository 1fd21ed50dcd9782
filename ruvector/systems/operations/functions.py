"""The SQL functions of operations."""

from __future__ import annotations

from ruvector.errors import InvalidParameter
from ruvector.surface import Context, sql_function
from ruvector.surface.rows import ConsistencyRow
from ruvector.surface.types import Bool, CollectionName, Int4, Jsonb, Rows, Text


@sql_function(system="operations", volatility="stable", runs="database")
def ruvector_version(context: Context) -> Text:
    """Return the version of the installed SQL functions."""
    return context.version()


@sql_function(system="operations", volatility="stable")
def ruvector_simd_info(context: Context) -> Text:
    """Name the distance kernels the sidecar chose, and what its processor offers."""
    return context.simd_info()


@sql_function(system="operations", volatility="volatile")
def ruvector_memory_stats(context: Context) -> Jsonb:
    """Report measured memory of the sidecar in bytes: the process, and each index."""
    return context.memory()


@sql_function(system="operations", volatility="stable", runs="database")
def ruvector_index_stats(context: Context, name: CollectionName) -> Jsonb:
    """Report size, dimensions, options and state of the index of a collection."""
    return context.stats(name)


@sql_function(system="operations", volatility="stable", runs="database", rows=10)
def ruvector_consistency_status(context: Context, collection: CollectionName | None = None) -> Rows[ConsistencyRow]:
    """Report how far the mirror of a collection, or of all, is behind its table.

    `state` is live when searches may use the index; otherwise `reason` says what is missing, and searches are
    answered by the database itself. `unindexed` counts rows the index leaves out, by reason.
    """
    return context.consistency(collection)


@sql_function(system="operations", volatility="volatile", runs="database")
def ruvector_wait_applied(
    context: Context, collection: CollectionName, *, timeout_ms: Int4 = 1000, _snapshot: Text | None = None
) -> Bool:
    """Wait until the index holds everything committed before the call; return false when the time is over.

    Searches do not need it to be right, only to be answered without overlaying recent changes.
    """
    if timeout_ms < 0:
        raise InvalidParameter(f"timeout_ms is {timeout_ms}", hint="Give milliseconds, 0 or more.")
    return context.wait_applied(collection, _snapshot, timeout_ms)


@sql_function(system="operations", volatility="volatile", access="admin")
def ruvector_verify(
    context: Context, collection: CollectionName, *, sample: Int4 = 1000, full: Bool = False, repair: Bool = False
) -> Jsonb:
    """Compare table and mirror: missing, stale and orphan rows of a sample, or of everything.

    With `repair` the rows that differ are read again; nothing else changes.
    """
    if sample < 1:
        raise InvalidParameter(f"sample is {sample}", hint="Give the number of rows to compare, 1 or more.")
    return context.verify(collection, sample=sample, full=full, repair=repair)
