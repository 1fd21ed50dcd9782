-- name: mirrors
-- State, freshness and size of every mirror, or of one.
SELECT s.collection, format('%%I.%%I.%%I', c.table_schema, c.table_name, c.column_name) AS "column", s.state, s.reason,
  c.dims, c.metric, c.index_kind, m.rows_indexed, m.rows_copied, m.rows_total, m.rows_per_second, m.eta_seconds,
  s.lag_ms, s.lag_bytes, s.pending_changes, s.checkpoint_age_ms, s.changelog_bytes, s.unindexed, m.verified,
  m.updated_at::text AS updated_at
FROM {api}.ruvector_consistency_status(%(name)s) s
JOIN ruvector.collection c ON c.name = s.collection
LEFT JOIN ruvector.mirror_status m ON m.mirror_id = c.id
ORDER BY s.collection;
