-- name: identity
-- Which database this is by its own word, and by the row that a dump would carry along.
SELECT i.instance_id::text, i.system_identifier = s.system_identifier AND i.database_oid = d.oid,
  extract(epoch from pg_postmaster_start_time())::text, d.oid::bigint, i.installed_version
FROM ruvector.instance i, pg_control_system() s, pg_database d WHERE d.datname = current_database();

-- name: adopt
-- A restored dump or a clone becomes a database of its own.
UPDATE ruvector.instance SET instance_id = gen_random_uuid(),
  system_identifier = (SELECT s.system_identifier FROM pg_control_system() s),
  database_oid = (SELECT d.oid FROM pg_database d WHERE d.datname = current_database());

-- name: forget_consumers
-- Checkpoints of another database mean nothing here.
DELETE FROM ruvector.consumer;

-- name: empty_changelog
-- Transaction numbers of another server mean nothing here.
DELETE FROM {changelog};

-- name: forget_table_oids
-- Numbers of another database; made unlike any table first, so that two rows never clash on the way.
UPDATE ruvector.collection SET table_oid = (4294967295 - id)::oid;

-- name: find_table_oids
-- The tables of the same names here.
UPDATE ruvector.collection c SET table_oid = t.oid, key_numbers = ruvector.column_numbers(t.oid, c.key_columns),
  column_number = (ruvector.column_numbers(t.oid, ARRAY[c.column_name]))[1],
  fingerprint = ruvector.fingerprint(t.oid, c.key_columns || c.column_name, c.id)
FROM ruvector.collection n, LATERAL (SELECT to_regclass(format('%I.%I', n.table_schema, n.table_name))::oid) t (oid)
WHERE n.id = c.id AND t.oid IS NOT NULL AND NOT ruvector.column_numbers(t.oid, c.key_columns || c.column_name) @> ARRAY[NULL::int];

-- name: restart_trim
-- From now on this server's transactions count.
UPDATE ruvector.trimmed SET below = pg_current_xact_id();

-- name: consumer
-- The checkpoints of this sidecar.
SELECT k.epoch, k.checkpoint_id::text, k.checkpoint::text, k.previous_checkpoint_id::text, k.previous_checkpoint::text
FROM ruvector.consumer k WHERE k.mirror_id = %(mirror)s AND k.name = %(name)s;

-- name: begin_copy
-- The position the first copy starts from: nobody may trim changes after it. An older row of this name is replaced.
INSERT INTO ruvector.consumer (mirror_id, name, checkpoint_id, checkpoint)
VALUES (%(mirror)s, %(name)s, %(id)s::uuid, %(position)s::text::pg_snapshot)
ON CONFLICT (mirror_id, name) DO UPDATE SET epoch = consumer.epoch + 1, checkpoint_id = excluded.checkpoint_id,
  checkpoint = excluded.checkpoint, previous_checkpoint_id = NULL, previous_checkpoint = NULL,
  checkpointed_at = clock_timestamp()
RETURNING epoch;

-- name: next_checkpoint
-- Only the owner of the epoch may write; no row means that another sidecar took over.
UPDATE ruvector.consumer SET previous_checkpoint_id = checkpoint_id, previous_checkpoint = checkpoint,
  checkpoint_id = %(id)s::uuid, checkpoint = %(position)s::text::pg_snapshot, checkpointed_at = clock_timestamp()
WHERE mirror_id = %(mirror)s AND name = %(name)s AND epoch = %(epoch)s;

-- name: take_over
-- A new process of this name: older ones match no row from now on.
UPDATE ruvector.consumer SET epoch = epoch + 1 WHERE mirror_id = %(mirror)s AND name = %(name)s RETURNING epoch;

-- name: trim_limit
-- The oldest transaction that some previous checkpoint has not finished; NULL while one consumer has none.
SELECT CASE WHEN bool_and(k.previous_checkpoint IS NOT NULL) THEN min(pg_snapshot_xmin(k.previous_checkpoint)::text::bigint) END
FROM ruvector.consumer k WHERE k.mirror_id = %(mirror)s;

-- name: forget_absent
-- Checkpoints of others that hold up a changelog above its bound: whoever comes back compares all rows.
WITH gone AS (
  DELETE FROM ruvector.consumer WHERE mirror_id = %(mirror)s AND name <> %(name)s
    AND pg_total_relation_size(format('ruvector.changelog_%%s', %(mirror)s::int)::regclass) > %(bytes)s
    AND (SELECT ruvector.holds(%(lease)s::bigint)) RETURNING name)
SELECT string_agg(name, ', ') FROM gone;

-- name: set_token
-- This mirror may answer, until the token is gone; no row when another sidecar holds the lease.
INSERT INTO ruvector.live (mirror_id, token) SELECT %(mirror)s, %(token)s WHERE (SELECT ruvector.holds(%(lease)s::bigint))
ON CONFLICT (mirror_id) DO UPDATE SET token = excluded.token;

-- name: mark_copy
-- A first copy is under way.
INSERT INTO ruvector.copying (mirror_id, name, checkpoint_id) VALUES (%(mirror)s, %(name)s, %(id)s::uuid)
ON CONFLICT (mirror_id, name) DO UPDATE SET checkpoint_id = excluded.checkpoint_id;

-- name: copy_mark
-- The first copy under way, if the server has not crashed since.
SELECT checkpoint_id::text FROM ruvector.copying WHERE mirror_id = %(mirror)s AND name = %(name)s;

-- name: remove_token
-- This mirror may not answer any more; a token of somebody else stays.
DELETE FROM ruvector.live WHERE mirror_id = %(mirror)s AND token = %(token)s;

-- name: status
-- What this mirror says about itself.
INSERT INTO ruvector.mirror_status (mirror_id, state, reason, position, position_lsn, position_at, rows_indexed,
  rows_copied, rows_total, rows_per_second, eta_seconds, unindexed, stats, verified, updated_at)
SELECT %(mirror)s, %(state)s, %(reason)s, %(position)s::text::pg_snapshot, %(lsn)s::text::pg_lsn, clock_timestamp(),
  %(rows_indexed)s, %(rows_copied)s, %(rows_total)s, %(rows_per_second)s, %(eta_seconds)s, %(unindexed)s::text::jsonb,
  %(stats)s::text::jsonb, %(verified)s::text::jsonb, clock_timestamp()
WHERE (SELECT ruvector.holds(%(lease)s::bigint))
ON CONFLICT (mirror_id) DO UPDATE SET state = excluded.state, reason = excluded.reason, position = excluded.position,
  position_lsn = excluded.position_lsn, position_at = excluded.position_at, rows_indexed = excluded.rows_indexed,
  rows_copied = excluded.rows_copied, rows_total = excluded.rows_total, rows_per_second = excluded.rows_per_second,
  eta_seconds = excluded.eta_seconds, unindexed = excluded.unindexed, stats = excluded.stats,
  verified = excluded.verified, updated_at = excluded.updated_at;

-- name: follow
-- Bring the registration up to date with its table; NULL when that is done, else what stops it.
SELECT ruvector.follow(%(mirror)s);

-- name: note_event
-- Something that somebody should know of later; only the newest events of a mirror are kept.
WITH old AS (
  DELETE FROM ruvector.event WHERE mirror_id = %(mirror)s AND id <= (
    SELECT e.id FROM ruvector.event e WHERE e.mirror_id = %(mirror)s ORDER BY e.id DESC OFFSET %(kept)s LIMIT 1))
INSERT INTO ruvector.event (mirror_id, kind, detail) VALUES (%(mirror)s, %(kind)s, %(detail)s::text::jsonb);

-- name: secrets
-- What a request of the database is signed with, and how it logs in.
SELECT s.inner_key, s.outer_key, g.login, g.password FROM ruvector.secret s, ruvector.gate g;

-- name: set_gate
-- Where the database finds this sidecar.
UPDATE ruvector.gate
SET host = %(host)s, port = %(port)s, is_encrypted = %(is_encrypted)s, updated_at = clock_timestamp()
WHERE (host, port, is_encrypted) IS DISTINCT FROM (%(host)s, %(port)s, %(is_encrypted)s)
  AND (SELECT ruvector.holds(%(lease)s::bigint));

-- name: prepare_pulse
-- What a crash takes away is older than the crash: nobody needs to wait for the disk.
SET synchronous_commit = off;

-- name: beat
-- A sign of life, on the clock of the database, and the lease goes on; no row when somebody else has it.
WITH renewed AS (
  UPDATE ruvector.lease SET until = clock_timestamp() + make_interval(secs => %(seconds)s)
  WHERE holder = %(holder)s AND epoch = %(epoch)s RETURNING epoch)
INSERT INTO ruvector.pulse (name, beat_at, epoch) SELECT %(name)s, clock_timestamp(), renewed.epoch FROM renewed
ON CONFLICT (name) DO UPDATE SET beat_at = excluded.beat_at, epoch = excluded.epoch
RETURNING epoch, setval('ruvector.beat', (extract(epoch from beat_at) * 1000)::bigint);

-- name: take_lease
-- The lease, if it is free: tokens and signs of life of whoever had it are gone with it. Must survive a crash.
WITH taken AS (
  UPDATE ruvector.lease SET holder = %(holder)s, epoch = epoch + 1,
    until = clock_timestamp() + make_interval(secs => %(seconds)s)
  WHERE until < clock_timestamp() RETURNING epoch, set_config('synchronous_commit', 'on', true)
), tokens AS (DELETE FROM ruvector.live WHERE EXISTS (SELECT FROM taken)
), beats AS (DELETE FROM ruvector.pulse WHERE EXISTS (SELECT FROM taken))
SELECT epoch FROM taken;

-- name: lease_holder
-- Who answers at the moment; empty when nobody does.
SELECT CASE WHEN until >= clock_timestamp() THEN holder ELSE '' END FROM ruvector.lease;

-- name: end_lease
-- An orderly stop: the next one need not wait.
WITH ended AS (
  UPDATE ruvector.lease SET until = '-infinity' WHERE holder = %(holder)s AND epoch = %(epoch)s RETURNING epoch)
DELETE FROM ruvector.pulse p USING ended e WHERE p.epoch = e.epoch;

-- name: free_lease
-- In a restored dump or a clone nobody has it, whatever the row says.
UPDATE ruvector.lease SET until = '-infinity';
