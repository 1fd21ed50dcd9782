"""The rows that set-returning functions give; a field is a column, its annotation the column's SQL type."""

from __future__ import annotations

from dataclasses import dataclass

from ruvector.surface.types import Bool, Double, Int4, Int8, Jsonb, Real, Text


@dataclass(frozen=True, slots=True)
class SearchRow:
    """One neighbour."""

    id: Text
    distance: Real
    score: Real
    tier: Text
    is_exact: Bool


@dataclass(frozen=True, slots=True)
class BatchRow:
    """One neighbour of one query of a batch; queries are numbered from 0."""

    query_idx: Int4
    id: Text
    distance: Real


@dataclass(frozen=True, slots=True)
class CollectionRow:
    """One registered collection."""

    id: Int4
    name: Text
    table_ref: Text
    dimensions: Int4
    distance_metric: Text
    index_type: Text
    vector_count: Int8


@dataclass(frozen=True, slots=True)
class CutoverRow:
    """Who answers the searches of one collection; changed_at, changed_by and reason (of the latest step) may be NULL.

    Times are UTC. sample_rate and guard hold in the states shadow and ramp. indexes_dropped counts those of pgvector
    that a completed cutover dropped and that are not built again yet.
    """

    collection: Text
    state: Text
    percent: Int4
    changed_at: Text | None
    changed_by: Text | None
    reason: Text | None
    sample_rate: Real
    guard: Jsonb
    indexes_dropped: Int4


@dataclass(frozen=True, slots=True)
class ExplainRow:
    """How one search was answered."""

    plan: Text
    engine: Text
    selectivity: Real | None
    ef: Int4 | None
    visited: Int8 | None
    reranked: Int8 | None
    tiers: Jsonb | None
    watermark: Text | None
    lag_ms: Double | None
    overlay_rows: Int4 | None
    candidates: Int4 | None
    reason: Text | None
    stages_ms: Jsonb
    total_ms: Double


@dataclass(frozen=True, slots=True)
class ConsistencyRow:
    """How far the mirror of one collection is behind its table."""

    collection: Text
    state: Text
    reason: Text | None
    last_heap_lsn: Text | None
    last_index_lsn: Text | None
    lag_bytes: Int8 | None
    lag_ms: Double | None
    pending_changes: Int8 | None
    watermark: Text | None
    checkpoint_age_ms: Double | None
    changelog_bytes: Int8 | None
    unindexed: Jsonb | None
