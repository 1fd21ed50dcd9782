-- name: server
-- Who answers: version, database, role.
SELECT current_setting('server_version') AS version, current_setting('server_version_num')::int AS version_number,
  current_database()::text AS database, current_user::text AS role, pg_is_in_recovery() AS is_standby,
  has_database_privilege(current_database(), 'CREATE') AS may_install;

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
  size.rows, size.bytes, k.key_columns, k.key_types,
  format('%%I.%%I.%%I', n.nspname, t.relname, a.attname) AS name, format('%%I.%%I', n.nspname, t.relname) AS table_name
FROM pg_attribute a
JOIN pg_class t ON t.oid = a.attrelid
JOIN pg_namespace n ON n.oid = t.relnamespace
JOIN pg_type y ON y.oid = a.atttypid
CROSS JOIN LATERAL (
  SELECT CASE WHEN bool_or(p.reltuples >= 0) THEN sum(greatest(p.reltuples, 0))::bigint END AS rows,
         sum(pg_total_relation_size(p.oid))::bigint AS bytes
  FROM pg_class p
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
  pg_relation_size(i.oid)::bigint AS bytes, pg_get_indexdef(i.oid) AS definition,
  format('%%I.%%I', n.nspname, i.relname) AS name
FROM pg_index x
JOIN pg_class i ON i.oid = x.indexrelid
JOIN pg_class t ON t.oid = x.indrelid
JOIN pg_namespace n ON n.oid = i.relnamespace
JOIN pg_am m ON m.oid = i.relam
JOIN pg_opclass o ON o.oid = x.indclass[0]
LEFT JOIN pg_attribute a ON a.attrelid = t.oid AND a.attnum = x.indkey[0]
WHERE m.amname IN ('hnsw', 'ivfflat') AND NOT t.relispartition
ORDER BY 2, 3, 5;
