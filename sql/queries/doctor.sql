-- name: collections
-- Every mirror with what can be wrong about it: definition, triggers, freshness, left-out rows.
SELECT c.name, s.state, s.reason, s.pending_changes, s.lag_ms, s.changelog_bytes, s.unindexed,
  coalesce(m.rows_indexed, 0) AS rows_indexed,
  c.id, ruvector.table_problem(c.id) AS table_problem, ruvector.trigger_problem(c.id) AS trigger_problem,
  ruvector.is_current(c) AS is_current,
  (SELECT max(ruvector.bytes_a_day(s.changelog_bytes, k.checkpointed_at)) FROM ruvector.consumer k
   WHERE k.mirror_id = c.id) AS bytes_a_day,
  (SELECT g.setting FROM pg_settings g WHERE g.name = 'data_directory') AS data_directory,
  d.at::text AS differed_at, d.detail -> 'differences' AS differences,
  c.cutover_state, c.cutover_percent, g.at::text AS rolled_back_at, g.detail -> 'breaches' AS breaches,
  (SELECT count(*) FROM ruvector.dropped_index x WHERE x.mirror_id = c.id)::int AS indexes_dropped
FROM {api}.ruvector_consistency_status() s
JOIN ruvector.collection c ON c.name = s.collection
LEFT JOIN ruvector.mirror_status m ON m.mirror_id = c.id
LEFT JOIN LATERAL (
  SELECT e.at, e.detail FROM ruvector.event e
  WHERE e.mirror_id = c.id AND e.kind = 'difference'
    AND e.at > clock_timestamp() - make_interval(secs => %(alarm_seconds)s)
  ORDER BY e.id DESC LIMIT 1
) d ON true
LEFT JOIN LATERAL (
  SELECT e.at, e.detail FROM ruvector.event e
  WHERE e.mirror_id = c.id AND e.kind = 'guard' AND c.cutover_state = 'off'
    AND e.at > clock_timestamp() - make_interval(secs => %(alarm_seconds)s)
  ORDER BY e.id DESC LIMIT 1
) g ON true
ORDER BY c.name;

-- name: oldest_transaction
-- Seconds that the oldest open transaction of this database is open; such a one makes answers slower, never wrong.
SELECT coalesce(max(extract(epoch FROM clock_timestamp() - a.xact_start)), 0)::float8 AS seconds
FROM pg_stat_activity a WHERE a.datname = current_database() AND a.pid <> pg_backend_pid();

-- name: consumers
-- Names of the sidecars that hold checkpoints here.
SELECT DISTINCT k.name FROM ruvector.consumer k ORDER BY 1;
