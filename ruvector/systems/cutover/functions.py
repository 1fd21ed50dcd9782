"""The SQL functions of cutover."""

from __future__ import annotations

from ruvector.surface import database_only, sql_function
from ruvector.surface.rows import CutoverRow
from ruvector.surface.types import CollectionName, Int4, Jsonb, Rows, Text


@sql_function(system="cutover", volatility="volatile", runs="database", access="admin")
def ruvector_cutover(collection: CollectionName, percent: Int4, *, reason: Text | None = None) -> Jsonb:
    """Let the index answer a share of all searches, in percent, and pgvector the others; return the step.

    Each search draws by itself. The index must be live unless `percent` is 0. Every step is written to
    `ruvector.cutover_step` with the role, the time and the reason.
    """
    database_only()


@sql_function(system="cutover", volatility="volatile", runs="database", access="admin")
def ruvector_cutover_complete(collection: CollectionName, *, reason: Text | None = None) -> Jsonb:
    """End a cutover that stands at 100 %: the index answers, and searches no longer ask; return the step.

    A collection that was just attached is in this state.
    """
    database_only()


@sql_function(system="cutover", volatility="volatile", runs="database", access="admin")
def ruvector_rollback(collection: CollectionName, *, reason: Text | None = None) -> Jsonb:
    """Let pgvector answer all searches again, from the next one on in every session; return the step."""
    database_only()


@sql_function(system="cutover", volatility="stable", runs="database", rows=10)
def ruvector_cutover_status(name: CollectionName | None = None) -> Rows[CutoverRow]:
    """Tell who answers the searches of a collection, or of all, and who changed it last."""
    database_only()
