"""The SQL functions of cutover."""

from __future__ import annotations

from ruvector import limits
from ruvector.surface import database_only, sql_function
from ruvector.surface.rows import CutoverRow
from ruvector.surface.types import Bool, CollectionName, Int4, Jsonb, Real, Rows, Text


@sql_function(system="cutover", volatility="volatile", runs="database", access="admin")
def ruvector_cutover(
    collection: CollectionName, percent: Int4, guard: Jsonb | None = None, *, reason: Text | None = None
) -> Jsonb:
    """Let the index answer a share of all searches, in percent, and pgvector the others; return the step.

    Each search draws by itself. The index must be live unless `percent` is 0. Every step is written to
    `ruvector.cutover_step` with the role, the time and the reason. A sample of the searches is compared in the
    background; where it breaks the `guard`, `{"min_recall": 0.95, "max_p99_ratio": 1.5, "max_error_rate": 0.01}` if
    none is given, the sidecar rolls back by itself. `{}` guards nothing.
    """
    database_only()


@sql_function(system="cutover", volatility="volatile", runs="database", access="admin")
def ruvector_cutover_complete(
    collection: CollectionName, *, drop_pgvector_index: Bool = False, reason: Text | None = None
) -> Jsonb:
    """End a cutover that stands at 100 %: the index answers, and searches no longer ask; return the step.

    A collection that was just attached is in this state. `drop_pgvector_index` frees the space of pgvector's indexes
    for this metric; their definitions are saved in `ruvector.dropped_index`, and they are built again once the
    collection is no longer complete.
    """
    database_only()


@sql_function(system="cutover", volatility="volatile", runs="database", access="admin")
def ruvector_rollback(collection: CollectionName, *, reason: Text | None = None) -> Jsonb:
    """Let pgvector answer all searches again, from the next one on in every session; return the step."""
    database_only()


@sql_function(system="cutover", volatility="volatile", runs="database", access="admin")
def ruvector_shadow_start(
    collection: CollectionName, sample_rate: Real = limits.SHADOW_SAMPLE_RATE, *, reason: Text | None = None
) -> Bool:
    """Let pgvector answer all searches, and compare a share of them with the index in the background.

    Return true; an error tells why it cannot be. The comparison goes on in a ramp, at the same rate.
    """
    database_only()


@sql_function(system="cutover", volatility="stable", runs="database")
def ruvector_shadow_report(collection: CollectionName, since: Text | None = None) -> Jsonb:
    """Tell how index and pgvector compare since a time, or since the latest step, with 95 % intervals.

    Recall, overlap, latency and errors of the newest 10,000 pairs, and what of the guard they break.
    """
    database_only()


@sql_function(system="cutover", volatility="stable", runs="database", rows=10)
def ruvector_cutover_status(name: CollectionName | None = None) -> Rows[CutoverRow]:
    """Tell who answers the searches of a collection, or of all, and who changed it last."""
    database_only()
