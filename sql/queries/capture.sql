-- name: collections
-- Every attached column, and the filter columns that are there and captured, with the types that they have now.
SELECT c.id, c.name, c.table_oid::bigint, c.table_schema, c.table_name, c.column_name, c.key_columns, c.key_types,
  c.vector_type, c.dims, c.metric, c.index_kind, c.m, c.ef_construction, c.ef_search, f.names, f.types, f.bytewise,
  f.versions, f.ordered, c.fingerprint
FROM ruvector.collection c
CROSS JOIN LATERAL (
  SELECT coalesce(array_agg(a.attname::text ORDER BY a.attname), '{}') AS names,
    coalesce(array_agg(format_type(a.atttypid, -1) ORDER BY a.attname), '{}') AS types,
    coalesce(array_agg(coalesce(l.collisdeterministic, true) ORDER BY a.attname), '{}') AS bytewise,
    coalesce(array_agg(concat_ws('.', c.captured ->> a.attname, a.attnum, a.xmin) ORDER BY a.attname), '{}') AS versions,
    coalesce(array_agg(coalesce(CASE l.collname WHEN 'default' THEN d.datcollate ELSE l.collname END IN ('C', 'POSIX'), false)
                       ORDER BY a.attname), '{}') AS ordered
  FROM pg_attribute a LEFT JOIN pg_collation l ON l.oid = a.attcollation
  JOIN pg_database d ON d.datname = current_database()
  WHERE a.attrelid = c.table_oid AND a.attname = ANY (c.filter_columns) AND c.captured ? a.attname AND NOT a.attisdropped
) f
ORDER BY c.id;

-- name: prepare_reader
-- A reader sees all rows or fails, and prints keys the same way for ever.
SELECT set_config('row_security', 'off', false), set_config('timezone', 'UTC', false),
  set_config('datestyle', 'ISO', false), set_config('synchronous_commit', 'on', false),
  set_config('extra_float_digits', '3', false), set_config('statement_timeout', '0', false),
  set_config('idle_in_transaction_session_timeout', '0', false), set_config('lock_timeout', '0', false);

-- name: snapshot
-- What this transaction sees, and how far the write-ahead log is.
SELECT pg_current_snapshot()::text,
  (CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_lsn() END)::text;

-- name: changes
-- Changelog rows visible here and not in the position; UNION ALL, because OR may scan the whole changelog.
SELECT l.xid::text::bigint, CASE WHEN NOT l.truncated THEN {log_key} END FROM {changelog} l
WHERE l.xid >= %(xmax)s::text::xid8
UNION ALL
SELECT l.xid::text::bigint, CASE WHEN NOT l.truncated THEN {log_key} END FROM {changelog} l
WHERE l.xid = ANY (%(xip)s::text[]::xid8[])
LIMIT %(rows)s;

-- name: changes_seen
-- All changelog rows whose transaction is visible in the position: the memory of a new process.
SELECT l.xid::text::bigint, CASE WHEN NOT l.truncated THEN {log_key} END FROM {changelog} l
WHERE pg_visible_in_snapshot(l.xid, %(position)s::text::pg_snapshot) LIMIT %(rows)s;

-- name: rows_of_keys
-- Present values of some keys.
COPY (SELECT {key}, i.{column} FROM {table} i WHERE {match}) TO STDOUT (FORMAT BINARY);

-- name: chunk
-- The next rows in key order.
COPY (SELECT {key}, i.{column} FROM {table} i WHERE {after} ORDER BY {order} LIMIT {rows}) TO STDOUT (FORMAT BINARY);

-- name: row_estimate
-- How many rows the planner believes in, partitions included; -1 when nobody knows.
SELECT coalesce(sum(greatest(c.reltuples, 0)), 0)::bigint FROM pg_class c
WHERE c.relkind = 'r' AND (c.oid = %(table)s OR c.oid IN (SELECT relid FROM pg_partition_tree(%(table)s::oid::regclass)));

-- name: sample_keys
-- Some keys of the table, spread over its pages.
SELECT {key_text} FROM {table} i TABLESAMPLE BERNOULLI ({percent}) LIMIT {rows};

-- name: drift
-- The fingerprint now, and whether the table of that name is still the one that was attached.
SELECT ruvector.fingerprint(%(table)s::oid, %(columns)s::text[], %(mirror)s),
  to_regclass(%(name)s)::oid IS NOT DISTINCT FROM %(table)s::oid;

-- name: forget_changes
-- One slice of the changelog that no checkpoint needs any more; both bounds keep the scan short.
DELETE FROM {changelog} WHERE (SELECT ruvector.holds(%(lease)s::bigint)) AND ctid = ANY (ARRAY(
  SELECT l.ctid FROM {changelog} l WHERE l.xid >= %(above)s::text::xid8 AND l.xid < %(below)s::text::xid8
  ORDER BY l.xid LIMIT %(rows)s));

-- name: trimmed
-- Below which transaction the changelog has nothing any more.
SELECT t.below::text::bigint FROM ruvector.trimmed t WHERE t.mirror_id = %(mirror)s;

-- name: set_trimmed
-- Nothing is left below.
UPDATE ruvector.trimmed SET below = %(below)s::text::xid8 WHERE mirror_id = %(mirror)s AND below < %(below)s::text::xid8;
