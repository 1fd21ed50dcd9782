-- name: begin
-- Both answers and the truth are those of one snapshot.
SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY;

-- name: settings
-- An index that cannot answer is what is to be found out, not to be made up for.
SELECT set_config('ruvector.fallback', 'error', true), set_config('statement_timeout', %(milliseconds)s, true);

-- name: is_wanted
-- Whether samples of the collection are still compared.
SELECT EXISTS (SELECT FROM ruvector.collection c WHERE c.id = %(mirror)s AND c.cutover_state IN ('shadow', 'ramp'));

-- name: side
-- Who is asked next: ignore for the index, pgvector for pgvector.
SELECT set_config('ruvector.cutover', %(side)s, true);

-- name: answer
-- The search, as the user asked it.
SELECT a.id, a.distance, a.engine
FROM ruvector.shadow_answer(%(mirror)s, %(query)s, %(k)s, %(ef)s, %(filter)s::text::jsonb, %(exactness)s) a;

-- name: keep
-- One pair of answers, compared.
INSERT INTO ruvector.shadow_pair (mirror_id, k, is_filtered, missed, problem, pgvector_ms, index_ms, overlap,
  rank_correlation, distance_error, truth, pgvector_recall, index_recall)
VALUES (%(mirror)s, %(k)s, %(is_filtered)s, %(missed)s, %(problem)s, %(pgvector_ms)s, %(index_ms)s, %(overlap)s,
  %(rank_correlation)s, %(distance_error)s, %(truth)s, %(pgvector_recall)s, %(index_recall)s);

-- name: trim
-- Only the newest pairs of a collection are kept.
DELETE FROM ruvector.shadow_pair p WHERE p.mirror_id = %(mirror)s AND p.id <= (
  SELECT x.id FROM ruvector.shadow_pair x WHERE x.mirror_id = %(mirror)s ORDER BY x.id DESC OFFSET %(kept)s LIMIT 1);

-- name: check_guard
-- Roll back by itself; why, or NULL.
SELECT ruvector.check_guard(%(mirror)s);
