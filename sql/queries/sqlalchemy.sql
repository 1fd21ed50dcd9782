-- name: has_schema
-- Whether schema ruvector exists here and this role may read its collections.
SELECT to_regclass('ruvector.collection') IS NOT NULL
  AND coalesce(has_schema_privilege(to_regnamespace('ruvector'), 'USAGE')
               AND has_table_privilege(to_regclass('ruvector.collection'), 'SELECT'), false);

-- name: collections
-- Every attached column with what it was attached with.
SELECT c.name, c.table_schema, c.table_name, c.column_name, c.key_columns, c.dims, c.metric, c.m,
  c.ef_construction, c.ef_search, c.filter_columns
FROM ruvector.collection c
ORDER BY c.id;
