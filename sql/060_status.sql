-- What status functions read.

-- How fast a changelog grows that was empty, or nearly, at the last checkpoint.
create or replace function ruvector.bytes_a_day(log_bytes bigint, since timestamptz) returns bigint
language sql stable set search_path = pg_catalog, pg_temp
as $$
select (log_bytes * (86400 / greatest(extract(epoch from clock_timestamp() - since), 60)))::bigint
$$;

-- Empty the changelogs that outgrew a size because no sidecar runs; their mirrors compare or copy all rows when one
-- comes back. Nothing else waits for it: run it by hand or from a scheduler. Returns the collections.
create or replace function ruvector.empty_changelogs(bytes_max bigint default 4294967296) returns setof text
language plpgsql set search_path = pg_catalog, pg_temp set lock_timeout = '2s'
as $$
declare
  c record;
begin
  for c in
    select r.id, r.name from ruvector.collection r
    where pg_total_relation_size(format('ruvector.changelog_%s', r.id)::regclass) > bytes_max order by r.id
  loop
    delete from ruvector.live where mirror_id = c.id;
    delete from ruvector.consumer where mirror_id = c.id;
    execute format('truncate ruvector.changelog_%s', c.id);
    update ruvector.trimmed set below = pg_snapshot_xmax(pg_current_snapshot()) where mirror_id = c.id;
    update ruvector.mirror_status set state = 'needs_copy', reason = 'its changelog was emptied', updated_at = clock_timestamp()
    where mirror_id = c.id;
    return next c.name;
  end loop;
end $$;
revoke all on function ruvector.bytes_a_day(bigint, timestamptz), ruvector.empty_changelogs(bigint) from public;

-- The state of every mirror, or of one. Apart from ruvector_consistency_status because PL/pgSQL refuses an argument and
-- a result column of one name.
create or replace function ruvector.consistency(wanted text)
returns table (collection text, state text, reason text, last_heap_lsn text, last_index_lsn text, lag_bytes bigint,
  lag_ms double precision, pending_changes bigint, watermark text, checkpoint_age_ms double precision,
  changelog_bytes bigint, unindexed jsonb)
language plpgsql stable set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
  c record;
  log_bytes bigint;
  growth text;
  pending bigint;
  silent text;
  problem text;
  log_end constant pg_lsn := case when pg_is_in_recovery() then pg_last_wal_replay_lsn() else pg_current_wal_lsn() end;
begin
  if wanted is not null then
    perform ruvector.collection_of(wanted);
  end if;
  for c in
    select r.id, r.name, s.state, s.reason, s.position, s.position_lsn, s.position_at, s.unindexed, k.checkpointed_at,
           clock_timestamp() - s.updated_at as silence
    from ruvector.collection r
    left join ruvector.mirror_status s on s.mirror_id = r.id
    left join (select u.mirror_id, max(u.checkpointed_at) as checkpointed_at from ruvector.consumer u
               group by u.mirror_id) k on k.mirror_id = r.id
    where wanted is null or r.name = wanted
    order by r.name
  loop
    execute format(
      'select count(*) from ruvector.changelog_%1$s l
       where $1 is null or l.xid >= pg_snapshot_xmax($1) or l.xid = any (array(select pg_snapshot_xip($1)))', c.id)
      into pending using c.position;
    -- A sidecar that was killed leaves its last words behind: it speaks every 30 seconds, and holds the token.
    silent := case
      when c.state is null or c.state in ('new', 'needs_copy', 'stopped') then null
      when c.silence > interval '90 s'
        then format('the sidecar has not reported for %s s', extract(epoch from c.silence)::int)
      when c.state = 'live' and not exists (select from ruvector.live l where l.mirror_id = c.id)
        then 'no sidecar holds the live token' end;
    if silent is null and c.state = 'live' then
      problem := coalesce(problem, ruvector.sidecar_problem(), '');
      silent := nullif(problem, '');
    end if;
    log_bytes := pg_total_relation_size(format('ruvector.changelog_%s', c.id)::regclass);
    growth := case when pending > 0 and (silent is not null or c.state not in ('live', 'standby'))
      then format('its changelog takes %s and %s more a day', pg_size_pretty(log_bytes),
                  pg_size_pretty(ruvector.bytes_a_day(log_bytes, c.checkpointed_at))) end;
    return query select
      c.name,
      case when silent is not null then 'unreachable' else coalesce(c.state, 'new') end,
      nullif(concat_ws('; ', coalesce(silent, nullif(c.reason, '')), growth), ''),
      log_end::text, c.position_lsn::text,
      case when pending = 0 then 0 else pg_wal_lsn_diff(log_end, c.position_lsn)::bigint end,
      case when pending = 0 then 0 else extract(epoch from clock_timestamp() - c.position_at) * 1000 end::float8,
      pending, c.position::text,
      (extract(epoch from clock_timestamp() - c.checkpointed_at) * 1000)::float8,
      log_bytes, c.unindexed;
  end loop;
end $$;
revoke all on function ruvector.consistency(text) from public;
