-- Whether a lease of this epoch is in force, and stays so until the end of the transaction; NULL asks for nothing.
create or replace function ruvector.holds(lease_epoch bigint) returns boolean
language plpgsql volatile set search_path = pg_catalog, pg_temp
as $$
begin
  if lease_epoch is null then
    return true;
  end if;
  perform from ruvector.lease l where l.epoch = lease_epoch for share;
  return found;
end $$;
revoke all on function ruvector.holds(bigint) from public;

-- What happens to a mirror when its table changes: the registration follows, or says why it cannot.

-- What is wrong with the triggers of a mirror; NULL when nothing is.
create or replace function ruvector.trigger_problem(mirror int) returns text
language sql stable set search_path = pg_catalog, pg_temp
as $$
select string_agg(format('trigger %I %s', z.name, case when t.oid is null then 'is missing'
    when t.tgfoid is distinct from to_regprocedure(format('ruvector.capture_%s()', mirror)) then 'calls another function'
    when t.tgenabled <> 'A' then 'is disabled, or not enabled always' else 'does not look at filter columns' end
    || case when z.relid <> c.table_oid then format(' on %s', z.relid::regclass) else '' end), '; ' order by z.relid, z.name)
from ruvector.collection c
cross join lateral (
  select format('00_ruvector_%s_%s', kind, mirror) as name, relid, kind = 'update' and c.filter_columns <> '{}' as is_wide
  from unnest(array['rows', 'update', 'truncate']) kind cross join ruvector.tree_of(c.table_oid) relid
  where kind <> 'truncate' or relid = c.table_oid
) z
left join pg_trigger t on t.tgrelid = z.relid and t.tgname = z.name
where c.id = mirror
  and (t.tgenabled is distinct from 'A' or t.tgfoid is distinct from to_regprocedure(format('ruvector.capture_%s()', mirror))
       or z.is_wide and pg_get_triggerdef(t.oid) !~ ' WHEN \(\(true OR record_image_ne')
$$;

-- Why a table cannot be mirrored any more as it was; NULL when it can.
create or replace function ruvector.table_problem(mirror int) returns text
language plpgsql stable security definer set search_path = pg_catalog, pg_temp
as $$
declare
  c ruvector.collection;
  given record;
begin
  select * into strict c from ruvector.collection where id = mirror;
  if not exists (select from pg_class r where r.oid = c.table_oid) then
    return format('table %I.%I was dropped', c.table_schema, c.table_name);
  end if;
  for given in
    select z.name, z.type, z.dims, a.attisdropped, format_type(a.atttypid, -1) as type_now, a.atttypmod, a.attnotnull,
           z.is_vector, y.typname
    from (select c.column_name as name, c.column_number as number, c.vector_type as type, c.dims, true as is_vector
          union all
          select n.name, n.number, n.type, null, false
          from unnest(c.key_columns, c.key_numbers, c.key_types) n (name, number, type)) z
    left join pg_attribute a on a.attrelid = c.table_oid and a.attnum = z.number
    left join pg_type y on y.oid = a.atttypid
  loop
    if given.attisdropped is not false then
      return format('column %I was dropped', given.name);
    elsif given.is_vector and (given.typname <> given.type or given.atttypmod not in (-1, given.dims)) then
      return format('column %I is %s now, not %s(%s)', given.name,
        given.typname || case when given.atttypmod > 0 then format('(%s)', given.atttypmod) else '' end, given.type, given.dims);
    elsif not given.is_vector and (given.type_now <> given.type or not given.attnotnull) then
      return format('key column %I is %s%s now, not %s', given.name, given.type_now,
        case when given.attnotnull then '' else ' and may be null' end, given.type);
    end if;
  end loop;
  if not ruvector.is_key(c.table_oid, c.key_numbers) then
    return format('the unique index over the key (%s) is gone', ruvector.each('%1$I', c.key_columns));
  end if;
  if (select r.relpersistence from pg_class r where r.oid = c.table_oid) <> 'p' then
    return 'the table is unlogged now';
  end if;
  return null;
end $$;

-- Whether nothing about a table changed since it was registered.
create or replace function ruvector.is_current(c ruvector.collection) returns boolean
language sql stable set search_path = pg_catalog, pg_temp
as $$
select c.fingerprint = ruvector.fingerprint(c.table_oid, c.key_columns || c.column_name, c.id)
  and to_regclass(format('%I.%I', c.table_schema, c.table_name))::oid is not distinct from c.table_oid
$$;

-- Bring the registration of a mirror up to date with a table that was renamed, moved, got or lost partitions, or whose
-- triggers were switched off for a while. Every checkpoint of it is forgotten: who knows what was written unseen, so
-- the sidecar compares all rows. NULL when that is done, else what stops it. Twice equals once.
create or replace function ruvector.follow(mirror int) returns text
language plpgsql security definer set search_path = pg_catalog, pg_temp set lock_timeout = '2s'
as $$
declare
  c ruvector.collection;
  problem text;
  now_schema text;
  now_name text;
  now_column text;
  now_keys text[];
begin
  select * into c from ruvector.collection where id = mirror for update;
  if not found then
    return 'the collection was detached';
  end if;
  if ruvector.is_current(c) then
    return null;
  end if;
  problem := ruvector.table_problem(mirror);
  if problem is not null then
    return problem;
  end if;
  select n.nspname, r.relname into now_schema, now_name
  from pg_class r join pg_namespace n on n.oid = r.relnamespace where r.oid = c.table_oid;
  select a.attname into now_column from pg_attribute a where a.attrelid = c.table_oid and a.attnum = c.column_number;
  select array_agg(a.attname::text order by z.n) into now_keys
  from unnest(c.key_numbers) with ordinality z (number, n)
  join pg_attribute a on a.attrelid = c.table_oid and a.attnum = z.number;
  if (now_schema, now_name) is distinct from (c.table_schema, c.table_name)
    and to_regclass(format('%I.%I', c.table_schema, c.table_name)) is not null then
    return format('%I.%I is another table now; the mirrored one is %I.%I', c.table_schema, c.table_name, now_schema, now_name);
  end if;
  if (now_schema, now_name, now_column, now_keys)
    is distinct from (c.table_schema, c.table_name, c.column_name, c.key_columns) then
    update ruvector.collection set table_schema = now_schema, table_name = now_name, column_name = now_column,
      key_columns = now_keys where id = mirror;
    perform ruvector.create_capture_function(mirror);
    perform ruvector.create_search(mirror);
    execute format('grant usage on schema %I to ruvector_sidecar', now_schema);
  end if;
  problem := ruvector.trigger_problem(mirror);
  if problem is not null then
    return problem;
  end if;
  perform ruvector.create_capture_function(mirror);   -- whatever stands there now
  update ruvector.collection set fingerprint = ruvector.fingerprint(table_oid, key_columns || column_name, id)
  where id = mirror;
  delete from ruvector.consumer where mirror_id = mirror;
  delete from ruvector.live where mirror_id = mirror;
  return null;
end $$;

-- Create missing triggers of a mirror again and enable them, then follow; for whoever owns the table.
create or replace function ruvector.recapture(mirror int) returns text
language plpgsql set search_path = pg_catalog, pg_temp
as $$
declare
  problem text := ruvector.follow(mirror);
begin
  if ruvector.table_problem(mirror) is null and ruvector.trigger_problem(mirror) is not null then
    perform ruvector.create_capture(mirror);
    problem := ruvector.follow(mirror);
  end if;
  return problem;
end $$;
-- Bring capture function and triggers of one mirror to what its registration says, while its sidecar runs: writers wait
-- for a moment. What was written is captured by the old triggers, what will be by the new ones.
create or replace function ruvector.renew_triggers(mirror int) returns void
language plpgsql set search_path = pg_catalog, pg_temp set lock_timeout = '2s'
as $$
declare
  c ruvector.collection;
  is_followed boolean;
begin
  select * into strict c from ruvector.collection where id = mirror for update;
  execute format('lock table %I.%I in share row exclusive mode', c.table_schema, c.table_name);
  is_followed := ruvector.is_current(c);
  perform ruvector.create_triggers(mirror);
  if is_followed then          -- else something was written unseen, and the sidecar has still to notice
    update ruvector.collection r set fingerprint = ruvector.fingerprint(c.table_oid, c.key_columns || c.column_name, mirror)
    where r.id = mirror;
  end if;
end $$;

-- Whether the function that captures is the one that the registration and this version ask for.
create or replace function ruvector.captures_as_registered(c ruvector.collection) returns boolean
language sql stable set search_path = pg_catalog, pg_temp
as $$
select p.prosrc is not distinct from ruvector.capture_body(c) and c.captured ?& c.filter_columns
  and ruvector.trigger_problem(c.id) is null
from pg_proc p where p.oid = to_regprocedure(format('ruvector.capture_%s()', c.id))
$$;

-- Change the columns that filters of a collection may use. No vector is copied again: the sidecar reads the new columns of
-- the rows that are there. Whatever is committed after this is captured with the new columns.
create or replace function ruvector.set_filter_columns(name text, names text[]) returns void
language plpgsql set search_path = pg_catalog, pg_temp
as $$
declare
  c ruvector.collection := ruvector.collection_of(name);
begin
  select * into strict c from ruvector.collection r where r.id = c.id for update;
  perform ruvector.check_filter_columns(to_regclass(format('%I.%I', c.table_schema, c.table_name)), names);
  update ruvector.collection r set filter_columns = array(select distinct n from unnest(names) n order by 1)
  where r.id = c.id returning * into c;
  if ruvector.captures_as_registered(c) is not true then
    perform ruvector.renew_triggers(c.id);
  end if;
end $$;

revoke all on function ruvector.is_current(ruvector.collection), ruvector.follow(int), ruvector.recapture(int), ruvector.table_problem(int),
  ruvector.trigger_problem(int) from public;
