-- name: create_table
-- The table of the demonstration: 12,000 word senses with the vectors of their texts.
CREATE TABLE glosses (
  id bigint PRIMARY KEY, synset text NOT NULL, lemma text NOT NULL, pos text NOT NULL, gloss text NOT NULL,
  embedding vector(384) NOT NULL);

-- name: load
-- All rows in one stream.
COPY glosses (id, synset, lemma, pos, gloss, embedding) FROM STDIN (FORMAT BINARY);

-- name: analyze
-- Let the planner know the table.
ANALYZE glosses;

-- name: versions
-- What is running.
SELECT current_setting('server_version'), (SELECT extversion FROM pg_extension WHERE extname = 'vector');

-- name: annotated
-- The nearest rows with their texts: what an application writes.
SELECT g.lemma, g.pos, g.gloss, s.distance::float8, s.tier
FROM ruvector_search('glosses_embedding', %(query)s, 5) s JOIN glosses g ON g.id = s.id::bigint
ORDER BY s.distance, g.id;

-- name: nearest
-- The nearest rows through ruvector.
SELECT s.id::bigint, s.distance::float8, s.tier FROM ruvector_search('glosses_embedding', %(query)s, %(k)s) s;

-- name: nearest_of_pos
-- The nearest rows of one part of speech through ruvector.
SELECT s.id::bigint, g.pos
FROM ruvector_search('glosses_embedding', %(query)s, 10, filter => jsonb_build_object('pos', %(pos)s::text)) s
JOIN glosses g ON g.id = s.id::bigint;

-- name: exact_of_pos
-- The same by the database itself.
SELECT id FROM glosses WHERE pos = %(pos)s ORDER BY embedding <=> %(query)s::vector, id LIMIT 10;

-- name: engine
-- Who answers such a search.
SELECT engine FROM ruvector_explain('glosses_embedding', %(query)s, 10, filter => %(filter)s::jsonb);

-- name: insert_gloss
-- One more word sense.
INSERT INTO glosses (id, synset, lemma, pos, gloss, embedding)
VALUES (%(id)s, %(synset)s, 'new', 'noun', %(gloss)s, %(embedding)s);

-- name: update_gloss
-- Another vector for it.
UPDATE glosses SET embedding = %(embedding)s WHERE id = %(id)s;

-- name: delete_gloss
-- Away with it.
DELETE FROM glosses WHERE id = %(id)s;

-- name: insert_many
-- New rows while the sidecar is dead.
INSERT INTO glosses (id, synset, lemma, pos, gloss, embedding)
SELECT id + 1000000, synset, lemma, pos, gloss, embedding FROM glosses WHERE id < 50;

-- name: update_many
-- Changed rows while the sidecar is dead.
UPDATE glosses g SET embedding = o.embedding FROM glosses o WHERE o.id = g.id + 100 AND g.id BETWEEN 100 AND 149;

-- name: delete_many
-- Deleted rows while the sidecar is dead.
DELETE FROM glosses WHERE id BETWEEN 300 AND 349;

-- name: count
-- How many rows there are.
SELECT count(*) FROM glosses;

-- name: vectors
-- Every key and vector, for the exact answers.
COPY (SELECT id, embedding FROM glosses ORDER BY id) TO STDOUT (FORMAT BINARY);

-- name: without_indexes
-- From now on this session reads whole tables.
SELECT set_config('enable_indexscan', 'off', false), set_config('enable_bitmapscan', 'off', false);

-- name: with_index
-- From now on this session takes the pgvector index, with this width of its search.
SELECT set_config('enable_seqscan', 'off', false), set_config('hnsw.ef_search', %(ef_search)s::text, false);

-- name: create_index
-- The index to compare with.
CREATE INDEX glosses_hnsw ON glosses USING hnsw (embedding vector_cosine_ops) WITH (m = 16, ef_construction = 200);

-- name: ordered
-- What pgvector and the exact scan are asked.
SELECT id FROM glosses ORDER BY embedding <=> %(query)s::vector LIMIT 10;

-- name: plan
-- How the database would answer it.
EXPLAIN (COSTS OFF) SELECT id FROM glosses ORDER BY embedding <=> %(query)s::vector LIMIT 10;

-- name: through_ruvector
-- What ruvector is asked.
SELECT id FROM ruvector_search('glosses_embedding', %(query)s, 10);

-- name: direct
-- Sent to the sidecar itself, as psql would.
SELECT * FROM ruvector_search({collection}, {query}, 5);
