-- Attach and detach: changelog, capture function, triggers and the search functions of one mirror.
-- Every name of a user's object passes through format('%I'), every value through '%L'.

-- The types a row key may have; their text does not depend on anything but TimeZone and DateStyle, which the sidecar pins.
create or replace function ruvector.is_key_type(type oid) returns boolean
language sql immutable set search_path = pg_catalog, pg_temp
as $$
select type in ('int2'::regtype, 'int4'::regtype, 'int8'::regtype, 'uuid'::regtype, 'text'::regtype, 'varchar'::regtype,
                'bpchar'::regtype, 'bool'::regtype, 'numeric'::regtype, 'date'::regtype, 'timestamp'::regtype,
                'timestamptz'::regtype, 'name'::regtype)
$$;

create or replace function ruvector.is_filter_type(type oid) returns boolean
language sql immutable set search_path = pg_catalog, pg_temp
as $$
select ruvector.is_key_type(type) or type in ('float4'::regtype, 'float8'::regtype, 'text[]'::regtype, 'int4[]'::regtype,
                                              'int8[]'::regtype)
$$;

-- Types without their modifier, written so that a cast to them never cuts: format_type(..., -1) says bpchar, where null
-- would say character, which means character(1).
-- Columns of the row key: the primary key, else the smallest unique index over NOT NULL columns that is checked at once.
create or replace function ruvector.key_columns_of(mirrored oid, out key_columns text[], out key_types text[])
language plpgsql stable set search_path = pg_catalog, pg_temp
as $$
declare
  unfit record;
begin
  select i.names, i.types into key_columns, key_types
  from (
    select x.indisprimary, x.indnkeyatts, x.indexrelid,
           array_agg(a.attname::text order by k.position) as names,
           array_agg(format_type(a.atttypid, -1) order by k.position) as types,
           bool_and(a.attnotnull) as not_null
    from pg_index x
    cross join lateral unnest(x.indkey) with ordinality k (attnum, position)
    join pg_attribute a on a.attrelid = x.indrelid and a.attnum = k.attnum
    where x.indrelid = mirrored and x.indisunique and x.indimmediate and x.indisvalid and x.indpred is null
      and x.indexprs is null and k.position <= x.indnkeyatts
    group by x.indexrelid, x.indisprimary, x.indnkeyatts
  ) i
  where i.not_null
  order by i.indisprimary desc, i.indnkeyatts, i.indexrelid
  limit 1;
  if key_columns is null then
    raise exception 'table % has no primary key', mirrored::regclass
      using errcode = '55000',
      detail = 'The mirror needs a key that identifies a row for ever.',
      hint = format('Add one: ALTER TABLE %s ADD COLUMN id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY; '
                    'or a unique index over NOT NULL columns.', mirrored::regclass);
  end if;
  select a.attname, format_type(a.atttypid, null) as type into unfit
  from pg_attribute a
  where a.attrelid = mirrored and a.attname = any (key_columns) and not ruvector.is_key_type(a.atttypid)
  limit 1;
  if found then
    raise exception 'key column % of % has type %, which cannot be a row key', quote_ident(unfit.attname),
      mirrored::regclass, unfit.type
      using errcode = '0A000', hint = 'Integer, uuid, text, boolean, numeric, date and timestamp keys can be mirrored.';
  end if;
end $$;

-- SQL text of a key as text: the bare column for one column, a JSON array for several.
create or replace function ruvector.key_text_sql(alias text, key_columns text[]) returns text
language sql immutable set search_path = pg_catalog, pg_temp
as $$
select case when cardinality(key_columns) = 1 then format('%s.%I::text', alias, key_columns[1])
  else (select format('json_build_array(%s)::text', string_agg(format('%s.%I', alias, c), ', ' order by n))
        from unnest(key_columns) with ordinality z (c, n)) end
$$;

-- SQL text of "the row of alias has one of the keys in the text[] called pool".
create or replace function ruvector.key_match_sql(alias text, key_columns text[], key_types text[], pool text) returns text
language sql immutable set search_path = pg_catalog, pg_temp
as $$
select case when cardinality(key_columns) = 1 then format('%s.%I = any (%s::%s[])', alias, key_columns[1], pool, key_types[1])
  else (select format('(%s) in (select %s from unnest(%s) u (t))',
               string_agg(format('%s.%I', alias, c), ', ' order by n),
               string_agg(format('(u.t::json ->> %s)::%s', n - 1, t), ', ' order by n), pool)
        from unnest(key_columns, key_types) with ordinality z (c, t, n)) end
$$;

-- Comma-separated list: each element of names, printed with the given format.
create or replace function ruvector.each(pattern text, names text[], types text[] default null) returns text
language sql immutable set search_path = pg_catalog, pg_temp
as $$
select string_agg(format(pattern, z.c, z.t, z.n), ', ' order by z.n)
from unnest(names, coalesce(types, names)) with ordinality z (c, t, n)
$$;

-- Text of the function that the triggers of one mirror call: it names the columns of key, vector and filters.
create or replace function ruvector.capture_body(c ruvector.collection) returns text
language plpgsql stable set search_path = pg_catalog, pg_temp
as $capture$
declare
  new_key constant text := ruvector.each('new.%1$I', c.key_columns);
  old_key constant text := ruvector.each('old.%1$I', c.key_columns);
  log_columns constant text := ruvector.each('key_%3$s', c.key_columns);
  compared constant text[] := c.filter_columns || c.key_columns || c.column_name;     -- the vector last: it is the longest
  comparison text := '';
begin
  -- Columns of filters are for the application to drop, to rename and to give another type, which must not fail a write,
  -- nor be forbidden: then, or when a session still has the plan of before, every update counts as a change.
  if c.filter_columns <> '{}' then
    comparison := format($body$
    begin
      if not record_image_ne(row(%s), row(%s)) then
        return null;
      end if;
    exception when others then
      null;
    end;$body$, ruvector.each('old.%1$I', compared), ruvector.each('new.%1$I', compared));
  end if;
  -- Keys only, nothing that can wait or fail: the user's write must never notice.
  return format($body$
begin
  if tg_op = 'INSERT' then
    insert into ruvector.changelog_%1$s (%2$s) values (%3$s);
  elsif tg_op = 'DELETE' then
    insert into ruvector.changelog_%1$s (%2$s) values (%4$s);
  elsif tg_op = 'UPDATE' then%5$s
    insert into ruvector.changelog_%1$s (%2$s) values (%4$s);
    if record_image_ne(row(%4$s), row(%3$s)) then
      insert into ruvector.changelog_%1$s (%2$s) values (%3$s);
    end if;
  else
    insert into ruvector.changelog_%1$s (truncated) values (true);
  end if;
  return null;
end $body$, c.id, log_columns, new_key, old_key, comparison);
end $capture$;

-- (Re)create the function that the triggers of one mirror call.
create or replace function ruvector.create_capture_function(mirror int) returns void
language plpgsql set search_path = pg_catalog, pg_temp
as $$
declare
  c ruvector.collection;
begin
  select * into strict c from ruvector.collection where id = mirror;
  execute format('create or replace function ruvector.capture_%s() returns trigger
      language plpgsql security definer set search_path = pg_catalog, pg_temp as %L', mirror, ruvector.capture_body(c));
  execute format('revoke all on function ruvector.capture_%s() from public', mirror);
end $$;

-- (Re)create capture function and triggers of one mirror. Twice equals once.
create or replace function ruvector.create_triggers(mirror int) returns void
language plpgsql set search_path = pg_catalog, pg_temp set lock_timeout = '2s'
as $capture$
declare
  c ruvector.collection;
  target text;
  trigger_name text;
  is_changed text;
begin
  select * into strict c from ruvector.collection where id = mirror;
  target := format('%I.%I', c.table_schema, c.table_name);
  perform ruvector.create_capture_function(mirror);
  execute format('create or replace trigger "00_ruvector_rows_%1$s" after insert or delete on %2$s
      for each row execute function ruvector.capture_%1$s()', mirror, target);
  -- record_image_ne over rows, not IS DISTINCT FROM: the latter makes dumps that cannot be restored for vectors. It names
  -- key and vector also where the function compares: what is named here cannot be dropped or get another type. The
  -- columns of filters can, so they are not.
  is_changed := format('record_image_ne(row(%s), row(%s))', ruvector.each('old.%1$I', c.key_columns || c.column_name),
                       ruvector.each('new.%1$I', c.key_columns || c.column_name));
  execute format('create or replace trigger "00_ruvector_update_%1$s" after update on %2$s for each row
      when (%3$s) execute function ruvector.capture_%1$s()', mirror, target,
      case when c.filter_columns = '{}' then is_changed else 'true or ' || is_changed end);
  execute format('create or replace trigger "00_ruvector_truncate_%1$s" after truncate on %2$s
      for each statement execute function ruvector.capture_%1$s()', mirror, target);
  foreach trigger_name in array array['rows', 'update', 'truncate'] loop
    execute format('alter table %s enable always trigger "00_ruvector_%s_%s"', target, trigger_name, mirror);
  end loop;
  -- A column that was taken away and comes back is another one: what was written meanwhile is not known.
  update ruvector.collection r set captured = (
    select coalesce(jsonb_object_agg(f.name, coalesce(c.captured ->> f.name, pg_current_xact_id()::text)), '{}')
    from unnest(c.filter_columns) f (name))
  where r.id = mirror;
end $capture$;

-- (Re)create changelog, capture function and triggers of one mirror. Twice equals once.
create or replace function ruvector.create_capture(mirror int) returns void
language plpgsql set search_path = pg_catalog, pg_temp set lock_timeout = '2s'
as $$
declare
  c ruvector.collection;
begin
  select * into strict c from ruvector.collection where id = mirror;
  execute format('create table if not exists ruvector.changelog_%s (
      xid xid8 not null default pg_current_xact_id(), truncated boolean not null default false, %s)',
      mirror, ruvector.each('key_%3$s %2$s', c.key_columns, c.key_types));
  execute format('create index if not exists changelog_%1$s_xid on ruvector.changelog_%1$s (xid)', mirror);
  -- Without a replica identity a FOR ALL TABLES publication would make the trim fail.
  execute format('alter table ruvector.changelog_%s replica identity full', mirror);
  execute format('alter table ruvector.changelog_%s set (autovacuum_vacuum_scale_factor = 0,
      autovacuum_vacuum_threshold = 20000, autovacuum_vacuum_insert_scale_factor = 0,
      autovacuum_vacuum_insert_threshold = 100000)', mirror);
  execute format('revoke all on ruvector.changelog_%s from public', mirror);
  execute format('grant select, delete on ruvector.changelog_%s to ruvector_sidecar', mirror);
  perform ruvector.create_triggers(mirror);
end $$;

-- Remove everything of one mirror; the user's table is untouched, and may be gone already.
create or replace function ruvector.drop_mirror(mirror int) returns void
language plpgsql set search_path = pg_catalog, pg_temp set lock_timeout = '2s'
as $$
declare
  c ruvector.collection;
  targets oid[] := '{}';
  homes text[] := '{}';
  target record;
  leftover record;
begin
  select * into strict c from ruvector.collection where id = mirror for update;   -- first, as ruvector.follow does
  -- By their function, not by the table: its OID is another one in a restored dump.
  for leftover in
    select t.tgname, t.tgrelid::regclass as target from pg_trigger t
    where t.tgparentid = 0 and t.tgfoid = to_regprocedure(format('ruvector.capture_%s()', mirror))
  loop
    execute format('drop trigger %I on %s', leftover.tgname, leftover.target);
    targets := targets || leftover.target::oid;
  end loop;
  for leftover in
    select p.oid::regprocedure as signature from pg_proc p
    where p.pronamespace = 'ruvector'::regnamespace
      and p.proname in (format('capture_%s', mirror), format('candidates_%s', mirror), format('search_%s', mirror))
  loop
    execute format('drop function %s', leftover.signature);
  end loop;
  execute format('drop table if exists ruvector.changelog_%s', mirror);
  delete from ruvector.live where mirror_id = mirror;
  delete from ruvector.copying where mirror_id = mirror;
  delete from ruvector.collection where id = mirror;
  -- The sidecar keeps its rights as long as another mirror needs them.
  for target in
    select r.oid::regclass as name, n.nspname::text as home from pg_class r join pg_namespace n on n.oid = r.relnamespace
    where r.oid = any (targets)
  loop
    if not exists (select from pg_trigger t where t.tgrelid = target.name and t.tgname ~ '^00_ruvector_rows_') then
      execute format('revoke select on %s from ruvector_sidecar', target.name);
    end if;
    homes := homes || target.home;
  end loop;
  for target in
    select n.nspname from pg_namespace n
    where n.nspname = any (homes || c.table_schema)
      and not exists (select from ruvector.collection o where o.table_schema = n.nspname)
  loop
    execute format('revoke usage on schema %I from ruvector_sidecar', target.nspname);
  end loop;
end $$;

-- Check a column and describe it as a collection, or say what stops it and what to do.
create or replace function ruvector.inspect_column(
  table_schema text, table_name text, column_name text, out table_oid oid, out vector_type text, out dims int)
language plpgsql stable set search_path = pg_catalog, pg_temp
as $$
declare
  kind "char";
  persistence "char";
  type_oid oid;
  type_modifier int;
  is_vector boolean;
begin
  select c.oid, c.relkind, c.relpersistence into table_oid, kind, persistence
  from pg_class c join pg_namespace n on n.oid = c.relnamespace
  where n.nspname = table_schema and c.relname = table_name;
  if table_oid is null then
    raise exception 'table %.% does not exist', quote_ident(table_schema), quote_ident(table_name)
      using errcode = '42P01', hint = 'Names are case-sensitive here: give them as pg_class has them.';
  end if;
  if kind not in ('r', 'p') then
    raise exception '%.% is not an ordinary or partitioned table', quote_ident(table_schema), quote_ident(table_name)
      using errcode = '42809', hint = 'Attach the table behind the view or foreign table.';
  end if;
  if kind = 'r' and exists (select from pg_inherits h where h.inhparent = table_oid) then
    raise exception 'table %.% has inheritance children, whose writes its triggers do not see',
      quote_ident(table_schema), quote_ident(table_name)
      using errcode = '0A000', hint = 'Attach each child, or make it a partitioned table.';
  end if;
  if persistence <> 'p' then
    raise exception '%.% is an unlogged or temporary table', quote_ident(table_schema), quote_ident(table_name)
      using errcode = '55000', hint = format('ALTER TABLE %I.%I SET LOGGED;', table_schema, table_name);
  end if;
  select a.atttypid, a.atttypmod, t.typname,
    t.oid = any (array['bit'::regtype::oid, to_regtype(ruvector.vector_schema() || '.vector')::oid,
                       to_regtype(ruvector.vector_schema() || '.halfvec')::oid,
                       to_regtype(ruvector.vector_schema() || '.sparsevec')::oid])
    into type_oid, type_modifier, vector_type, is_vector
  from pg_attribute a join pg_type t on t.oid = a.atttypid
  where a.attrelid = table_oid and a.attname = column_name and a.attnum > 0 and not a.attisdropped;
  if type_oid is null then
    raise exception 'table %.% has no column %', quote_ident(table_schema), quote_ident(table_name), quote_ident(column_name)
      using errcode = '42703', hint = 'Names are case-sensitive here: give them as pg_attribute has them.';
  end if;
  if is_vector is not true then
    raise exception 'column % has type %, not vector, halfvec, sparsevec or bit', quote_ident(column_name),
      format_type(type_oid, null) using errcode = '42804',
      hint = format('Is it the right column? ALTER TABLE %I.%I ALTER COLUMN %I TYPE vector(<dims>) converts an array.',
                    table_schema, table_name, column_name);
  end if;
  dims := nullif(type_modifier, -1);
end $$;

-- A whole number among the options of an attach, in its bounds.
create or replace function ruvector.option_int(options jsonb, option text, low int, high int, standard int) returns int
language plpgsql immutable set search_path = pg_catalog, pg_temp
as $$
declare
  given constant jsonb := options -> option;
begin
  if given is null or jsonb_typeof(given) = 'null' then
    return standard;
  end if;
  if jsonb_typeof(given) <> 'number' or (given #>> '{}')::numeric not between low and high
    or trunc((given #>> '{}')::numeric) <> (given #>> '{}')::numeric then
    raise exception 'option % must be a whole number from % to %, not %', option, low, high, given
      using errcode = '22023', hint = format('Leave it out for the default, %s.', standard);
  end if;
  return (given #>> '{}')::numeric::int;
end $$;

-- Refuse names that are no columns of a table, or of a type that filters do not know.
create or replace function ruvector.check_filter_columns(filtered regclass, names text[]) returns void
language plpgsql stable set search_path = pg_catalog, pg_temp
as $$
declare
  unfit text;
begin
  select string_agg(quote_ident(f.name), ', ') into unfit
  from unnest(names) f (name)
  where not exists (select from pg_attribute a where a.attrelid = filtered and a.attname = f.name
                    and a.attnum > 0 and not a.attisdropped and ruvector.is_filter_type(a.atttypid)
                    and a.attgenerated <> 'v');     -- triggers do not see the values of a virtual column
  if unfit is not null then
    raise exception 'column % of % does not exist or cannot be filtered', unfit,
      (select format('%I.%I', n.nspname, c.relname) from pg_class c join pg_namespace n on n.oid = c.relnamespace
       where c.oid = filtered)
      using errcode = '42703', hint = 'Filter columns are bool, int, float, numeric, text, date, timestamp, uuid, text[] or int[].';
  end if;
end $$;

-- Register one vector column: row, changelog, triggers, search functions. The sidecar finds it and copies it.
create or replace function ruvector.register(
  name text, table_schema text, table_name text, column_name text, dimensions int, distance_metric text, options jsonb)
returns int
language plpgsql set search_path = pg_catalog, pg_temp set lock_timeout = '2s'
as $$
#variable_conflict use_variable
declare
  found_column record;
  key record;
  unfit text;
  filter_columns text[];
  kind text;
  mirror int;
begin
  if name is null or octet_length(name) not between 1 and 63 then
    raise exception 'a collection name must have 1 to 63 bytes, not %', coalesce(octet_length(name), 0)
      using errcode = '22023', hint = 'Choose a shorter name.';
  end if;
  if jsonb_typeof(options) <> 'object' then
    raise exception 'options must be a jsonb object, not %', options using errcode = '22023',
      hint = 'For example {"m": 16, "ef_construction": 200, "columns": ["category"]}.';
  end if;
  select string_agg(o.key, ', ') into unfit from jsonb_object_keys(options) o (key)
  where o.key not in ('m', 'ef_construction', 'ef_search', 'columns', 'index_kind');
  if unfit is not null then
    raise exception 'unknown option: %', unfit using errcode = '22023',
      hint = 'Options are m, ef_construction, ef_search, columns, index_kind.';
  end if;
  if coalesce(jsonb_typeof(options -> 'columns'), 'array') <> 'array'
    or jsonb_path_exists(options, '$.columns[*] ? (@.type() != "string")') then
    raise exception 'option columns must be a list of column names, not %', options -> 'columns' using errcode = '22023',
      hint = 'For example {"columns": ["category", "price"]}.';
  end if;
  filter_columns := array(select distinct c.value from jsonb_array_elements_text(coalesce(options -> 'columns', '[]')) c
                          order by 1);
  kind := options ->> 'index_kind';
  if kind not in ('hnsw', 'ivf', 'flat', 'inverted') then
    raise exception 'unknown index kind %', options -> 'index_kind' using errcode = '22023',
      hint = 'Kinds are hnsw, ivf and flat, for sparsevec inverted.';
  end if;
  select * into found_column from ruvector.inspect_column(table_schema, table_name, column_name);
  kind := coalesce(kind, case found_column.vector_type when 'sparsevec' then 'inverted' else 'hnsw' end);
  if (kind = 'inverted') <> (found_column.vector_type = 'sparsevec') then
    raise exception 'index kind % does not work on a % column', kind, found_column.vector_type using errcode = '22023',
      hint = 'sparsevec columns have inverted lists, all others hnsw or flat; leave it out.';
  end if;
  if found_column.dims is not null and dimensions is distinct from null and dimensions <> found_column.dims then
    raise exception 'column % has % dimensions, not %', quote_ident(column_name), found_column.dims, dimensions
      using errcode = '22023', hint = 'Leave the dimensions out: the column type knows them.';
  end if;
  dimensions := coalesce(found_column.dims, dimensions);
  if dimensions is null then
    raise exception 'column % does not declare its dimensions', quote_ident(column_name)
      using errcode = '22023', hint = 'Give them: dimensions => 768.';
  end if;
  if dimensions not between 1 and (case found_column.vector_type when 'bit' then 64000 when 'sparsevec' then 1000000000
                                    else 16000 end) then
    raise exception 'a % collection cannot have % dimensions', found_column.vector_type, dimensions using errcode = '22023',
      hint = 'vector and halfvec take 1 to 16000 dimensions, bit 1 to 64000, sparsevec 1 to 1000000000.';
  end if;
  if distance_metric is null or distance_metric not in ('l2', 'ip', 'cosine', 'l1', 'hamming', 'jaccard') then
    raise exception 'unknown distance metric %', coalesce(quote_ident(distance_metric), 'null') using errcode = '22023',
      hint = 'Metrics are l2, ip, cosine, l1 and, for bit columns, hamming, jaccard.';
  end if;
  if (found_column.vector_type = 'bit') <> (distance_metric in ('hamming', 'jaccard')) then
    raise exception 'metric % does not work on a % column', distance_metric, found_column.vector_type
      using errcode = '22023', hint = 'bit columns take hamming or jaccard, all others l2, ip, cosine or l1.';
  end if;
  select * into key from ruvector.key_columns_of(found_column.table_oid);
  perform ruvector.check_filter_columns(found_column.table_oid, filter_columns);
  if exists (select from ruvector.collection c where c.name = name) then
    raise exception 'collection "%" exists already', name using errcode = '42710',
      hint = 'Choose another name, or detach it first: ruvector detach ' || quote_ident(name);
  end if;
  if exists (select from ruvector.collection c
             where c.table_oid = found_column.table_oid and c.column_name = column_name) then
    raise exception 'column %.%.% is attached already', quote_ident(table_schema), quote_ident(table_name),
      quote_ident(column_name)
      using errcode = '42710',
      detail = (select format('It is collection "%s".', c.name) from ruvector.collection c
                where c.table_oid = found_column.table_oid and c.column_name = column_name),
      hint = 'Detach it first to attach it with other options.';
  end if;
  insert into ruvector.collection (name, table_oid, table_schema, table_name, column_name, column_number, key_columns,
    key_numbers, key_types, vector_type, dims, metric, index_kind, m, ef_construction, ef_search, filter_columns, fingerprint)
  values (name, found_column.table_oid, table_schema, table_name, column_name,
    (ruvector.column_numbers(found_column.table_oid, array[column_name]))[1], key.key_columns,
    ruvector.column_numbers(found_column.table_oid, key.key_columns), key.key_types, found_column.vector_type, dimensions,
    distance_metric, kind,
    ruvector.option_int(options, 'm', 2, 128, 16), ruvector.option_int(options, 'ef_construction', 4, 2000, 200),
    ruvector.option_int(options, 'ef_search', 1, 20000, 100), filter_columns, '')
  returning id into mirror;
  perform ruvector.create_capture(mirror);
  perform ruvector.create_search(mirror);
  execute format('grant select on %I.%I to ruvector_sidecar', table_schema, table_name);
  execute format('grant usage on schema %I to ruvector_sidecar', table_schema);
  insert into ruvector.trimmed (mirror_id, below) values (mirror, pg_current_xact_id());
  insert into ruvector.mirror_status (mirror_id, state, reason)
  values (mirror, 'new', 'attached; the sidecar has not started to copy it');
  update ruvector.collection c
  set fingerprint = ruvector.fingerprint(found_column.table_oid, key.key_columns || column_name, mirror)
  where c.id = mirror;
  return mirror;
end $$;
