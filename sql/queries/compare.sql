-- name: setting
-- From now on, in this transaction.
SELECT set_config(%(name)s, %(value)s, true);

-- name: column
-- How the column is written in statements: its type, the operator of a metric, its rows and bytes.
SELECT format_type(a.atttypid, a.atttypmod) AS type, n.nspname::text AS operator_schema,
  greatest(t.reltuples, 0)::bigint AS rows, pg_total_relation_size(t.oid) AS bytes
FROM pg_attribute a
JOIN pg_class t ON t.oid = a.attrelid
JOIN pg_extension e ON e.extname = 'vector'
JOIN pg_namespace n ON n.oid = e.extnamespace
WHERE a.attrelid = to_regclass(format('%%I.%%I', %(schema)s::text, %(table)s::text)) AND a.attname = %(column)s;

-- name: indexes
-- The valid pgvector indexes of the column that serve a metric.
SELECT i.oid::regclass::text AS name, m.amname::text AS method, array_to_string(i.reloptions, ', ') AS options,
  pg_relation_size(i.oid) AS bytes
FROM pg_index x
JOIN pg_class i ON i.oid = x.indexrelid
JOIN pg_am m ON m.oid = i.relam
JOIN pg_opclass o ON o.oid = x.indclass[0]
JOIN pg_attribute a ON a.attrelid = x.indrelid AND a.attnum = x.indkey[0]
WHERE x.indrelid = to_regclass(format('%%I.%%I', %(schema)s::text, %(table)s::text)) AND a.attname = %(column)s
  AND x.indisvalid AND m.amname IN ('hnsw', 'ivfflat') AND o.opcname LIKE %(operator_class)s
ORDER BY 1;

-- name: sample
-- Vectors of random rows, the same for the same seed.
SELECT i.{column}::text FROM {table} i TABLESAMPLE BERNOULLI (%(percent)s) REPEATABLE (%(seed)s)
WHERE i.{column} IS NOT NULL LIMIT %(count)s;

-- name: condition
-- A filter as SQL over alias i.
SELECT ruvector.filter_sql(c, %(filter)s::jsonb) FROM ruvector.collection c WHERE c.name = %(name)s;

-- name: by_distance
-- What pgvector and the exact scan are asked.
SELECT d.distance::real FROM (
  SELECT i.{column} OPERATOR({operator_schema}.{operator}) %(query)s::{type} AS distance FROM {table} i
  WHERE {condition} AND i.{column} IS NOT NULL ORDER BY 1 LIMIT %(k)s) d
WHERE d.distance <> 'NaN';

-- name: plan
-- How the database answers it.
EXPLAIN (COSTS OFF) SELECT i.{column} OPERATOR({operator_schema}.{operator}) %(query)s::{type} FROM {table} i
WHERE {condition} AND i.{column} IS NOT NULL
ORDER BY i.{column} OPERATOR({operator_schema}.{operator}) %(query)s::{type} LIMIT %(k)s;

-- name: through_ruvector
-- What ruvector is asked.
SELECT s.distance, s.id, s.tier FROM {api}.{function}(%(name)s, %(query)s, k => %(k)s, {ef} filter => %(filter)s::jsonb) s;
