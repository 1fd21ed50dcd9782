-- How the database asks the sidecar: the only SQL that knows the transport (dblink).

-- Whether the session has a connection to the sidecar that answers in this epoch; one to a sidecar that lost the lease
-- is of no use, and might hang.
create or replace function ruvector.is_linked(epoch bigint) returns boolean
language sql stable set search_path = pg_catalog, pg_temp
as $$
select coalesce('ruvector_link' = any (@dblink@.dblink_get_connections())
                and current_setting('ruvector.linked_epoch', true) = epoch::text, false)
$$;
revoke all on function ruvector.is_linked(bigint) from public;

-- Open a connection of the session to the sidecar, or open it anew: one from before a restart of the sidecar is stale.
-- Samples of shadow traffic have one of their own, whose answers nobody waits for.
drop function if exists ruvector.link();
create or replace function ruvector.link(link text default 'ruvector_link') returns void
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp
as $$
declare
  gate ruvector.gate;
begin
  if link = any (@dblink@.dblink_get_connections()) then
    perform @dblink@.dblink_disconnect(link);
  end if;
  select g.* into gate from ruvector.gate g;
  if gate.host is null then
    raise exception 'no sidecar has registered with this database' using errcode = '08001',
      hint = 'Start it with: ruvector run';
  end if;
  begin
    -- Bound to the channel the login proves both sides to each other, without any authority for certificates.
    perform @dblink@.dblink_connect(link, format(
      'host=%s port=%s user=%s password=%s dbname=ruvector connect_timeout=2 application_name=ruvector_bridge '
      'gssencmode=disable keepalives_idle=10 tcp_user_timeout=5000 %s',
      gate.host, gate.port, gate.login, gate.password,
      case when gate.is_encrypted then 'sslmode=require channel_binding=require' else 'sslmode=prefer' end));
    perform set_config(case link when 'ruvector_link' then 'ruvector.linked_epoch' else 'ruvector.sampled_epoch' end,
                       (select max(p.epoch)::text from ruvector.pulse p), false);
  exception when sqlstate '08001' then
    raise exception 'the sidecar does not answer at %:%', gate.host, gate.port using errcode = '08001',
      detail = sqlerrm, hint = 'Start it with: ruvector run';
  end;
end $$;
revoke all on function ruvector.link(text) from public;

-- How long ago the sidecar gave a sign of life; whatever the snapshot of the caller.
create or replace function ruvector.silence() returns interval
language sql volatile security definer set search_path = pg_catalog, pg_temp
as $$ select clock_timestamp() - to_timestamp(b.last_value / 1000.0) from ruvector.beat b $$;
revoke all on function ruvector.silence() from public;

-- Why the sidecar is not even asked, NULL when it is: dblink cannot be cancelled while it waits for one that hangs.
create or replace function ruvector.silence_problem(silence interval) returns text
language sql stable set search_path = pg_catalog, pg_temp
as $$
select case when silence is null then 'no sidecar is running'
  when silence > interval '4 s' then format('the sidecar has been silent for %s s', round(extract(epoch from silence)))
  when coalesce(ruvector.setting('retry_after')::float8 > extract(epoch from clock_timestamp()), false)
    then 'the sidecar did not answer a moment ago' end
$$;

-- One request, one answer. Opens the session's connection when needed and reopens it once when the sidecar was restarted.
create or replace function ruvector.ask(request text)
returns table (kind text, key text, distance double precision)
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
  is_fresh boolean := false;
  pulse record;
  problem text;
begin
  select max(p.beat_at) as beat_at, max(p.epoch) as epoch into pulse from ruvector.pulse p;
  problem := ruvector.silence_problem(case when pulse.beat_at is not null then ruvector.silence() end);
  if problem is not null then
    raise exception '%', problem using errcode = '08001', hint = case when problem like '%silent%'
      then 'It was stopped, is overloaded, or has lost the database; see its log.' else 'Start it with: ruvector run' end;
  end if;
  loop
    begin
      if is_fresh or not ruvector.is_linked(pulse.epoch) then
        is_fresh := true;
        perform ruvector.link();
      end if;
      return query select a.kind, a.key, a.distance
        from @dblink@.dblink('ruvector_link', request) as a (kind text, key text, distance double precision);
      return;
    exception
      when sqlstate '08000' or sqlstate '08003' or sqlstate '08006' or sqlstate 'XX000' then
        if is_fresh then
          raise;       -- not the stale link of a restarted sidecar
        end if;
        is_fresh := true;
    end;
  end loop;
end $$;
revoke all on function ruvector.ask(text) from public;

-- Milliseconds the sidecar may take: dblink cannot be cancelled while it waits, so the sidecar keeps the deadline. It
-- leaves the database time to answer by itself before the statement is over.
create or replace function ruvector.deadline_ms() returns int
language sql stable set search_path = pg_catalog, pg_temp
as $$
select greatest(1, least(coalesce(ruvector.setting_int('timeout_ms', 1, 600000), 2000), case when t.ms > 0 then t.ms - least(200, t.ms / 4) end))::int
from (select extract(epoch from current_setting('statement_timeout')::interval) * 1000 as ms) t
$$;

-- A request with the proof that the database made it: only functions of this schema know the keys.
create or replace function ruvector.signed(verb text, body text) returns text
language sql stable security definer set search_path = pg_catalog, pg_temp
as $$
select verb || ' ' || encode(sha256(s.outer_key || sha256(s.inner_key || convert_to(body, 'UTF8'))), 'hex') || body
from ruvector.secret s
$$;
revoke all on function ruvector.signed(text, text) from public;

create or replace function ruvector.call_as(access text, function_name text, arguments jsonb, wait_ms int)
returns setof jsonb
language sql volatile security definer set search_path = pg_catalog, pg_temp
as $$
select a.key::jsonb from ruvector.ask(ruvector.signed('CALL', jsonb_build_object(
  'function', function_name, 'arguments', arguments, 'access', access, 'deadline_ms', wait_ms,
  'system', (select c.system_identifier::text from pg_control_system() c),
  'database', (select d.oid::bigint from pg_database d where d.datname = current_database()))::text)) a
$$;
revoke all on function ruvector.call_as(text, text, jsonb, int) from public;

-- Why the sidecar does not answer; NULL when it does.
create or replace function ruvector.sidecar_problem() returns text
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp
as $$
begin
  perform ruvector.call_as('user', 'ruvector_version', '{}', 1000);
  return null;
exception
  when sqlstate '08000' or sqlstate '08001' or sqlstate '08003' or sqlstate '08006' or sqlstate 'XX000'
    or sqlstate '2F003' then
    return 'sidecar unreachable: ' || sqlerrm;
end $$;
revoke all on function ruvector.sidecar_problem() from public;

-- Call a function of the sidecar; for every application role.
create or replace function ruvector.call(function_name text, arguments jsonb) returns setof jsonb
language sql volatile security definer set search_path = pg_catalog, pg_temp
as $$ select ruvector.call_as('user', function_name, arguments, ruvector.deadline_ms()) $$;
revoke all on function ruvector.call(text, jsonb) from public;
grant execute on function ruvector.call(text, jsonb) to ruvector_user;

-- The same for what only the owner of the schema may ask; without statement_timeout such work may take an hour.
create or replace function ruvector.call_admin(function_name text, arguments jsonb) returns setof jsonb
language sql volatile security definer set search_path = pg_catalog, pg_temp
as $$
select ruvector.call_as('admin', function_name, arguments,
  case when current_setting('statement_timeout')::interval > interval '0' then greatest(60000, ruvector.deadline_ms())
  else 3600000 end)
$$;
revoke all on function ruvector.call_admin(text, jsonb) from public;

-- Hand a search over to be compared in the background. It waits for no answer: where the sidecar has not taken the sample
-- before, this one is left out. A search never fails because it is watched.
create or replace function ruvector.sample(mirror int, query text, k int, ef int, filter jsonb) returns void
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp
as $$
declare
  pulse record;
begin
  if pg_is_in_recovery() or octet_length(query) + coalesce(octet_length(filter::text), 0) > 1000000 then return; end if;
  select max(p.epoch)::text as epoch, case when max(p.beat_at) is not null then ruvector.silence() end as silence into pulse
    from ruvector.pulse p;
  if ruvector.silence_problem(pulse.silence) is not null then return; end if;
  if current_setting('ruvector.sampled_epoch', true) is distinct from pulse.epoch
     or not coalesce('ruvector_sample' = any (@dblink@.dblink_get_connections()), false) then
    perform ruvector.link('ruvector_sample');
  elsif @dblink@.dblink_is_busy('ruvector_sample') = 1 then
    return;
  end if;
  -- The answer to the sample before, and the end of it: libpq sends nothing until both are taken.
  perform from @dblink@.dblink_get_result('ruvector_sample', false) as (kind text, key text, distance float8);
  perform from @dblink@.dblink_get_result('ruvector_sample', false) as (kind text, key text, distance float8);
  perform @dblink@.dblink_send_query('ruvector_sample', ruvector.signed('SAMPLE', jsonb_build_object(
    'mirror', mirror, 'query', query, 'k', k, 'ef', ef, 'filter', filter,
    'started', extract(epoch from pg_postmaster_start_time())::text,
    'database', (select d.oid::bigint from pg_database d where d.datname = current_database()))::text));
exception when others then
  perform set_config('ruvector.sampled_epoch', '', false);
end $$;
revoke all on function ruvector.sample(int, text, int, int, jsonb) from public;
