-- name: server
-- Who answers: version, database, role.
SELECT current_setting('server_version') AS version, current_setting('server_version_num')::int AS version_number,
  current_database()::text AS database, current_user::text AS role, pg_is_in_recovery() AS is_standby,
  has_database_privilege(current_database(), 'CREATE') AS may_install,
  pg_size_bytes(current_setting('maintenance_work_mem'))::bigint AS maintenance_work_mem,
  (SELECT d.stats_reset::text FROM pg_stat_database d WHERE d.datname = current_database()) AS statistics_since;

-- name: extensions
-- The extensions ruvector needs: what is available, what is installed and where.
SELECT w.name, v.default_version AS available, e.extversion AS installed, n.nspname::text AS schema
FROM (VALUES ('vector'), ('dblink')) w (name)
LEFT JOIN pg_available_extensions v ON v.name = w.name
LEFT JOIN pg_extension e ON e.extname = w.name
LEFT JOIN pg_namespace n ON n.oid = e.extnamespace
ORDER BY w.name DESC;

-- name: installed_version
-- The version of schema ruvector; run only where it exists.
SELECT installed_version FROM ruvector.instance;

-- name: is_installed
-- Whether schema ruvector exists here and this role may look into it.
SELECT to_regclass('ruvector.instance') IS NOT NULL AS exists,
  coalesce(has_schema_privilege(to_regnamespace('ruvector'), 'USAGE')
           AND has_table_privilege(to_regclass('ruvector.instance'), 'SELECT'), false) AS readable;

-- name: attached
-- Which columns are attached already; run only where schema ruvector exists.
SELECT c.table_oid::bigint AS table_oid, c.column_name AS column, c.name FROM ruvector.collection c;

-- name: columns
-- Every column that holds vectors, partitions counted with their parent.
SELECT t.oid::bigint AS table_oid, n.nspname::text AS schema, t.relname::text AS table, a.attname::text AS column,
  y.typname::text AS type, nullif(a.atttypmod, -1) AS dims,
  CASE t.relkind WHEN 'r' THEN 'table' WHEN 'p' THEN 'partitioned table' WHEN 'm' THEN 'materialized view'
                 ELSE 'foreign table' END AS kind,
  CASE t.relpersistence WHEN 'u' THEN 'unlogged' WHEN 't' THEN 'temporary' ELSE 'permanent' END AS persistence,
  t.relrowsecurity AS has_row_security,
  t.relkind = 'r' AND EXISTS (SELECT FROM pg_inherits h WHERE h.inhparent = t.oid) AS has_children,
  size.rows, size.bytes, size.toast_bytes, size.dead_rows, k.key_columns, k.key_types,
  format('%%I.%%I.%%I', n.nspname, t.relname, a.attname) AS name, format('%%I.%%I', n.nspname, t.relname) AS table_name
FROM pg_attribute a
JOIN pg_class t ON t.oid = a.attrelid
JOIN pg_namespace n ON n.oid = t.relnamespace
JOIN pg_type y ON y.oid = a.atttypid
CROSS JOIN LATERAL (
  SELECT CASE WHEN bool_or(p.reltuples >= 0) THEN sum(greatest(p.reltuples, 0))::bigint END AS rows,
         sum(pg_total_relation_size(p.oid))::bigint AS bytes,
         coalesce(sum(pg_relation_size(nullif(p.reltoastrelid, 0))), 0)::bigint AS toast_bytes,
         sum(s.n_dead_tup)::bigint AS dead_rows
  FROM pg_class p
  LEFT JOIN pg_stat_all_tables s ON s.relid = p.oid
  WHERE p.oid = t.oid OR t.relkind = 'p' AND p.oid IN (SELECT r.relid FROM pg_partition_tree(t.oid) r WHERE r.isleaf)
) size
LEFT JOIN LATERAL (
  SELECT array_agg(b.attname::text ORDER BY o.position) AS key_columns,
         array_agg(format_type(b.atttypid, NULL) ORDER BY o.position) AS key_types
  FROM pg_index x
  CROSS JOIN LATERAL unnest(x.indkey) WITH ORDINALITY o (attnum, position)
  JOIN pg_attribute b ON b.attrelid = x.indrelid AND b.attnum = o.attnum
  WHERE x.indrelid = t.oid AND x.indisunique AND x.indimmediate AND x.indisvalid AND x.indpred IS NULL
    AND x.indexprs IS NULL AND o.position <= x.indnkeyatts
  GROUP BY x.indexrelid, x.indisprimary, x.indnkeyatts
  HAVING bool_and(b.attnotnull)
  ORDER BY x.indisprimary DESC, x.indnkeyatts, x.indexrelid
  LIMIT 1
) k ON true
WHERE y.typname IN ('vector', 'halfvec', 'sparsevec', 'bit') AND a.attnum > 0 AND NOT a.attisdropped
  AND t.relkind IN ('r', 'p', 'm', 'f') AND NOT t.relispartition
  AND n.nspname NOT IN ('pg_catalog', 'information_schema', 'ruvector') AND n.nspname NOT LIKE 'pg\_toast%%'
ORDER BY 2, 3, a.attnum;

-- name: indexes
-- Every pgvector index with its options and definition; column is null for an index over an expression.
SELECT x.indrelid::bigint AS table_oid, n.nspname::text AS schema, t.relname::text AS table, a.attname::text AS column,
  i.relname::text AS index, m.amname::text AS method, o.opcname::text AS operator_class,
  coalesce(i.reloptions, '{}') AS options, x.indisvalid AS is_valid, x.indpred IS NOT NULL AS is_partial,
  greatest(pg_relation_size(i.oid), (SELECT sum(pg_relation_size(p.relid)) FROM pg_partition_tree(i.oid) p))::bigint AS bytes,
  (SELECT sum(s.idx_scan) FROM pg_stat_all_indexes s WHERE s.indexrelid = i.oid
   OR s.indexrelid IN (SELECT p.relid FROM pg_partition_tree(i.oid) p))::bigint AS scans,
  pg_get_indexdef(i.oid) AS definition, format('%%I.%%I', n.nspname, i.relname) AS name,
  format('%%I.%%I', tn.nspname, t.relname) AS table_name, tn.nspname::text AS table_schema,
  format_type(a.atttypid, a.atttypmod) AS type, quote_ident(v.nspname) AS vector_schema
FROM pg_index x
JOIN pg_class i ON i.oid = x.indexrelid
JOIN pg_class t ON t.oid = x.indrelid
JOIN pg_namespace n ON n.oid = i.relnamespace
JOIN pg_namespace tn ON tn.oid = t.relnamespace
JOIN pg_am m ON m.oid = i.relam
JOIN pg_opclass o ON o.oid = x.indclass[0]
JOIN pg_namespace v ON v.oid = o.opcnamespace
LEFT JOIN pg_attribute a ON a.attrelid = t.oid AND a.attnum = x.indkey[0]
WHERE m.amname IN ('hnsw', 'ivfflat') AND NOT t.relispartition
ORDER BY 2, 3, 5;

-- name: statements_schema
-- Where pg_stat_statements is, if it is installed.
SELECT quote_ident(n.nspname) AS schema FROM pg_extension e JOIN pg_namespace n ON n.oid = e.extnamespace
WHERE e.extname = 'pg_stat_statements';

-- name: statements
-- The costliest queries of this database that may compute distances.
SELECT s.query, s.calls, s.mean_exec_time AS mean_ms, s.total_exec_time AS total_ms, s.rows
FROM {schema}.pg_stat_statements s JOIN pg_database d ON d.oid = s.dbid
WHERE d.datname = current_database() AND s.query ~ '<(->|#>|=>|[+]>|~>|%%>)' AND length(s.query) < 20000
ORDER BY s.total_exec_time DESC LIMIT 200;

-- name: statement_plan
-- How a query with parameters could be answered; it is not run.
EXPLAIN (GENERIC_PLAN, FORMAT JSON) {statement}

-- name: prefer_indexes
-- What can use an index does, in this transaction; and it ends after a while.
SELECT set_config('enable_seqscan', 'off', true), set_config('enable_sort', 'off', true),
  set_config('statement_timeout', %(milliseconds)s, true);

-- name: probe_sample
-- Vectors of some rows, from pages drawn at random.
SELECT i.{column}::text FROM {table} i TABLESAMPLE SYSTEM (%(percent)s) WHERE i.{column} IS NOT NULL LIMIT %(count)s;

-- name: probe_some
-- Vectors of some rows, where drawn pages had none.
SELECT i.{column}::text FROM {table} i WHERE i.{column} IS NOT NULL LIMIT %(count)s;

-- name: probe_index
-- What an index finds.
SELECT (i.{column} OPERATOR({operator}) %(query)s::{type})::float8 FROM {table} i WHERE i.{column} IS NOT NULL
ORDER BY i.{column} OPERATOR({operator}) %(query)s::{type} LIMIT %(k)s;

-- name: probe_plan
-- Which index that is.
EXPLAIN (FORMAT JSON) SELECT (i.{column} OPERATOR({operator}) %(query)s::{type})::float8 FROM {table} i
WHERE i.{column} IS NOT NULL ORDER BY i.{column} OPERATOR({operator}) %(query)s::{type} LIMIT %(k)s;

-- name: probe_exact
-- What there is: "+ 0" keeps every index out.
SELECT d.distance FROM (
  SELECT (i.{column} OPERATOR({operator}) %(query)s::{type})::float8 + 0 AS distance FROM {table} i
  WHERE i.{column} IS NOT NULL) d WHERE d.distance <> 'NaN' ORDER BY 1 LIMIT %(k)s;

-- name: beam
-- How wide an index searches in this session.
SELECT coalesce(current_setting(%(name)s, true), '') AS width;
