-- Small functions that the rest of schema ruvector is built from.

-- A session setting under ruvector.*, NULL when it is not set or empty.
create or replace function ruvector.setting(name text) returns text
language sql stable set search_path = pg_catalog, pg_temp
as $$ select nullif(current_setting('ruvector.' || name, true), '') $$;

-- Everything about a table and its mirrored columns that must not change unnoticed; other columns may come and go.
create or replace function ruvector.fingerprint(mirrored oid, mirrored_columns text[]) returns text
language sql stable set search_path = pg_catalog, pg_temp
as $$
select md5(string_agg(x, ';' order by x)) from (
  select format('c%s:%s:%s:%s:%s:%s', c.oid, c.relkind, c.relrowsecurity, c.relpersistence, c.relnamespace, c.relname) x
  from pg_class c where c.oid = mirrored
  union all
  select format('a%s:%s:%s:%s:%s:%s', attnum, attname, atttypid, atttypmod, attnotnull, attisdropped)
  from pg_attribute where attrelid = mirrored and attnum > 0 and attname = any (mirrored_columns)
  union all
  select format('t%s:%s:%s:%s:%s', oid, tgname, tgenabled, xmin, tgfoid)
  from pg_trigger where tgrelid = mirrored and not tgisinternal and tgname like '00\_ruvector\_%'
  union all
  select format('i%s:%s', inhrelid, inhdetachpending) from pg_inherits where inhparent = mirrored
  union all
  select format('p%s:%s:%s:%s:%s', p.oid, md5(prosrc), p.proowner, array_to_string(proconfig, ','), prosecdef)
  from pg_proc p join pg_trigger t on t.tgfoid = p.oid
  where t.tgrelid = mirrored and not tgisinternal and t.tgname like '00\_ruvector\_%'
) z
$$;

-- The collection of a name, or error 42704.
create or replace function ruvector.collection_of(name text) returns ruvector.collection
language plpgsql stable set search_path = pg_catalog, pg_temp
as $$
declare
  found_row ruvector.collection;
begin
  select c.* into found_row from ruvector.collection c where c.name = collection_of.name;
  if not found then
    raise exception 'collection "%" does not exist', name
      using errcode = '42704', hint = 'List them with SELECT * FROM ruvector_list_collections().';
  end if;
  return found_row;
end $$;

-- The answer that a distance is worth: larger is better, 1 is the best of the bounded metrics.
create or replace function ruvector.score(metric text, distance double precision) returns real
language sql immutable set search_path = pg_catalog, pg_temp
as $$
select (case metric when 'ip' then -distance when 'cosine' then 1 - distance when 'jaccard' then 1 - distance
        else 1 / (1 + distance) end)::real
$$;
