-- name: api_schema
-- Where the callable functions stand; no row when they are not installed.
SELECT n.nspname::text FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
WHERE p.proname = 'ruvector_search' AND p.prosrc ~ '^\s*-- ruvector api function\n';

-- name: operator_classes
-- Operator classes of the pgvector indexes of one column.
SELECT DISTINCT o.opcname::text FROM pg_index x
JOIN pg_class t ON t.oid = x.indrelid
JOIN pg_namespace n ON n.oid = t.relnamespace
JOIN pg_attribute a ON a.attrelid = t.oid AND a.attnum = x.indkey[0]
JOIN pg_class i ON i.oid = x.indexrelid
JOIN pg_am m ON m.oid = i.relam
JOIN pg_opclass o ON o.oid = x.indclass[0]
WHERE n.nspname = %(table_schema)s AND t.relname = %(table_name)s AND a.attname = %(column_name)s
  AND m.amname IN ('hnsw', 'ivfflat')
ORDER BY 1;

-- name: column_type
-- The name of a column's type; no row when there is no such column.
SELECT y.typname::text FROM pg_attribute a
JOIN pg_class t ON t.oid = a.attrelid
JOIN pg_namespace n ON n.oid = t.relnamespace
JOIN pg_type y ON y.oid = a.atttypid
WHERE n.nspname = %(table_schema)s AND t.relname = %(table_name)s AND a.attname = %(column_name)s AND a.attnum > 0;

-- name: register
-- Attach a column.
SELECT {api}.ruvector_register_collection(%(name)s, %(table_schema)s, %(table_name)s, %(column_name)s,
  dimensions => %(dims)s::int, distance_metric => %(metric)s, options => %(options)s::jsonb);

-- name: unregister
-- Detach a collection.
SELECT {api}.ruvector_unregister_collection(%(name)s);

-- name: check_column
-- Dimensions and key of a column that could be attached; the errors of an attach, without its locks.
SELECT c.dims, k.key_columns FROM ruvector.inspect_column(%(table_schema)s, %(table_name)s, %(column_name)s) c,
  ruvector.key_columns_of(c.table_oid) k;

-- name: search
-- The nearest rows.
SELECT s.id, s.distance::float8, s.score::float8, s.tier, s.is_exact
FROM {api}.ruvector_search(%(collection)s, %(query)s, k => %(k)s::int, ef_search => %(ef)s::int,
  filter => %(filter)s::jsonb, exactness => %(exactness)s,
  keys => %(keys)s::text[], max_distance => %(max_distance)s::float8) s;

-- name: search_bits
-- The nearest rows of a collection of bit strings.
SELECT s.id, s.distance::float8, s.score::float8, s.tier, s.is_exact
FROM {api}.ruvector_search_bits(%(collection)s, %(query)s, k => %(k)s::int, ef_search => %(ef)s::int,
  filter => %(filter)s::jsonb, exactness => %(exactness)s,
  keys => %(keys)s::text[], max_distance => %(max_distance)s::float8) s;

-- name: search_sparse
-- The nearest rows of a collection of sparse vectors.
SELECT s.id, s.distance::float8, s.score::float8, s.tier, s.is_exact
FROM {api}.ruvector_search_sparse(%(collection)s, %(query)s, k => %(k)s::int, filter => %(filter)s::jsonb,
  exactness => %(exactness)s,
  keys => %(keys)s::text[], max_distance => %(max_distance)s::float8) s;

-- name: search_batch
-- The nearest rows of many queries.
SELECT s.query_idx, s.id, s.distance::float8, ruvector.score(c.metric, s.distance)::float8 AS score
FROM {api}.ruvector_search_batch(%(collection)s, %(queries)s, %(k)s::int) s, ruvector.collection c
WHERE c.name = %(collection)s;

-- name: explain
-- How a search is answered.
SELECT * FROM {api}.ruvector_explain(%(collection)s, %(query)s, k => %(k)s::int, filter => %(filter)s::jsonb,
  ef_search => %(ef)s::int, keys => %(keys)s::text[], max_distance => %(max_distance)s::float8);

-- name: vector_of
-- The vector of one row.
SELECT i.{column}::text FROM {table} i WHERE {match};

-- name: wait_applied
-- Wait until the index holds what is committed.
SELECT {api}.ruvector_wait_applied(%(collection)s, %(timeout_ms)s::int);

-- name: verify
-- Compare table and mirror.
SELECT {api}.ruvector_verify(%(collection)s, sample => %(sample)s::int, "full" => %(full)s, repair => %(repair)s);

-- name: index_stats
-- Size, options and state of an index.
SELECT {api}.ruvector_index_stats(%(name)s);

-- name: simd_info
-- Answered by the sidecar alone: it tells that one is reachable.
SELECT {api}.ruvector_simd_info();

-- name: cutover
-- Let the index answer a share of all searches.
SELECT {api}.ruvector_cutover(%(collection)s, %(percent)s::int, %(guard)s::text::jsonb, reason => %(reason)s) AS step;

-- name: shadow_start
-- Let pgvector answer, and compare a share of the searches.
SELECT {api}.ruvector_shadow_start(%(collection)s, %(sample_rate)s::real, reason => %(reason)s) AS started;

-- name: shadow_report
-- How the two compare.
SELECT {api}.ruvector_shadow_report(%(collection)s, %(since)s::text) AS report;

-- name: cutover_complete
-- Let the index answer, for good.
SELECT {api}.ruvector_cutover_complete(%(collection)s, %(drop)s, reason => %(reason)s) AS step;

-- name: rollback
-- Let pgvector answer again.
SELECT {api}.ruvector_rollback(%(collection)s, reason => %(reason)s) AS step;

-- name: cutover_status
-- Who answers the searches of a collection, or of all.
SELECT * FROM {api}.ruvector_cutover_status(%(name)s);
