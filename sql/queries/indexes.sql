-- name: pending
-- Indexes of pgvector that are missed since their collection is no longer complete; of one collection, or of all.
-- An index left half built is dropped first; one of a partitioned table is built with those of the partitions.
SELECT d.id, p.place, x.indisvalid AS is_valid,
  concat('DROP INDEX ', CASE WHEN NOT d.is_partitioned THEN 'CONCURRENTLY ' END, p.place) AS removal,
  CASE WHEN d.is_partitioned THEN regexp_replace(d.definition, ' ON ONLY ', ' ON ')
    ELSE regexp_replace(d.definition, '^CREATE INDEX ', 'CREATE INDEX CONCURRENTLY ') END AS creation,
  coalesce(d.tablespace, '') AS tablespace
FROM ruvector.dropped_index d
JOIN ruvector.collection c ON c.id = d.mirror_id
CROSS JOIN LATERAL format('%%I.%%I', d.table_schema, d.index_name) p (place)
LEFT JOIN pg_index x ON x.indexrelid = to_regclass(p.place)
WHERE c.cutover_state <> 'complete' AND (%(name)s::text IS NULL OR c.name = %(name)s::text)
ORDER BY d.id;

-- name: lock
-- Only one builds at a time.
SELECT pg_try_advisory_lock(hashtextextended('ruvector builds dropped indexes', 0));

-- name: unlock
-- Others may build.
SELECT pg_advisory_unlock(hashtextextended('ruvector builds dropped indexes', 0));

-- name: tablespace
-- Where the next index is built.
SELECT set_config('default_tablespace', %(name)s, false);

-- name: forget
-- It is built.
DELETE FROM ruvector.dropped_index WHERE id = %(id)s;
