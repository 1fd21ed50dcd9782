-- name: todo
-- How many rows have no vector yet.
SELECT count(*) FROM {table} i WHERE i.{column} IS NULL;

-- name: batch
-- Some of them, in the order of their keys; who is being written by somebody else is left for later.
WITH chosen AS (
  SELECT {keys} FROM {table} i WHERE i.{column} IS NULL AND {after} ORDER BY {order} LIMIT %(batch)s
  FOR UPDATE SKIP LOCKED
), changed AS (
  UPDATE {table} i SET {column} = {using} FROM chosen WHERE {match} RETURNING i.{column} IS NOT NULL AS is_set
)
SELECT (SELECT count(*) FROM changed WHERE is_set), (SELECT count(*) FROM changed), chosen.*
FROM chosen ORDER BY {last} LIMIT 1;
