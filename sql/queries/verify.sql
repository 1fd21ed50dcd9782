-- name: hashed_rows
-- A hash of each row in key order: what send writes of its vector and the hash of its attributes, both seeded by its key;
-- NULL where the index has no row.
SELECT y.key, CASE WHEN {usable} THEN hash_array_extended(ARRAY[y.sent], {seed}) # y.attributes END AS hash
FROM (SELECT {key} AS key, substr(array_send(ARRAY[i.{column}]), 25) AS sent, {attributes} AS attributes FROM {table} i
      WHERE {after} AND {upto} ORDER BY {order} LIMIT {rows}) y

-- name: bucket_sums
-- The same rows, every so many of them summed up: their keys, how many have a hash, and all hashes combined.
SELECT {bucket_keys}, count(z.hash), coalesce(bit_xor(z.hash), 0), count(*)
FROM (SELECT h.key, h.hash, row_number() OVER () AS place FROM ({hashed_rows}) h) z
GROUP BY (z.place - 1) / {bucket_rows} ORDER BY min(z.place);
