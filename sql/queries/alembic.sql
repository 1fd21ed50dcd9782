-- name: vector_indexes
-- Every pgvector index over one column, with its options and predicate.
SELECT n.nspname::text AS schema, t.relname::text AS table, a.attname::text AS column, i.relname::text AS name,
  m.amname::text AS method, o.opcname::text AS operator_class, coalesce(i.reloptions, '{}') AS options,
  pg_get_expr(x.indpred, x.indrelid) AS predicate
FROM pg_index x
JOIN pg_class i ON i.oid = x.indexrelid
JOIN pg_class t ON t.oid = x.indrelid
JOIN pg_namespace n ON n.oid = i.relnamespace
JOIN pg_am m ON m.oid = i.relam
JOIN pg_opclass o ON o.oid = x.indclass[0]
JOIN pg_attribute a ON a.attrelid = t.oid AND a.attnum = x.indkey[0]
WHERE m.amname IN ('hnsw', 'ivfflat') AND NOT t.relispartition
ORDER BY 1, 2, 4;

-- name: partitioned_tables
-- Tables whose indexes cannot be built concurrently.
SELECT n.nspname::text AS schema, t.relname::text AS table
FROM pg_class t JOIN pg_namespace n ON n.oid = t.relnamespace
WHERE t.relkind = 'p';

-- name: rename_index
-- Give an index another name.
ALTER INDEX {} RENAME TO {};
