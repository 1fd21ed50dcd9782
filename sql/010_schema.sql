-- Small functions that the rest of schema ruvector is built from.

-- A session setting under ruvector.*, NULL when it is not set or empty.
create or replace function ruvector.setting(name text) returns text
language sql stable set search_path = pg_catalog, pg_temp
as $$ select nullif(current_setting('ruvector.' || name, true), '') $$;

-- The same as a whole number within bounds.
create or replace function ruvector.setting_int(name text, low int, high int) returns int
language plpgsql stable set search_path = pg_catalog, pg_temp
as $$
declare
  given constant text := ruvector.setting(name);
begin
  if given is null then
    return null;
  end if;
  if given !~ '^[0-9]{1,9}$' or given::int not between low and high then
    raise exception 'ruvector.% must be between % and %, not %', name, low, high, quote_literal(given)
      using errcode = '22023', hint = format('RESET ruvector.%s; takes the default.', name);
  end if;
  return given::int;
end $$;

-- The schema that pgvector lives in, quoted: asked for whenever text of SQL is put together, for it may hold any character.
create or replace function ruvector.vector_schema() returns text
language sql stable set search_path = pg_catalog, pg_temp
as $$
select quote_ident(n.nspname) from pg_extension e join pg_namespace n on n.oid = e.extnamespace where e.extname = 'vector'
$$;

-- A table and, when it is partitioned, all its partitions.
create or replace function ruvector.tree_of(mirrored oid) returns setof oid
language sql stable set search_path = pg_catalog, pg_temp
as $$ select mirrored union select t.relid::oid from pg_partition_tree(mirrored::regclass) t $$;

-- Attribute numbers of columns, in the order of the names; NULL for a name that the table does not have.
create or replace function ruvector.column_numbers(mirrored oid, names text[]) returns int[]
language sql stable set search_path = pg_catalog, pg_temp
as $$
select array_agg(a.attnum::int order by z.n)
from unnest(names) with ordinality z (name, n)
left join pg_attribute a on a.attrelid = mirrored and a.attname = z.name and a.attnum > 0 and not a.attisdropped
$$;

-- Whether a unique index that is checked at once stands on these columns, or on some of them.
create or replace function ruvector.is_key(mirrored oid, key_numbers int[]) returns boolean
language sql stable set search_path = pg_catalog, pg_temp
as $$
select exists (
  select from pg_index x
  where x.indrelid = mirrored and x.indisunique and x.indimmediate and x.indisvalid and x.indpred is null
    and x.indexprs is null and (string_to_array(x.indkey::text, ' ')::int[])[1:x.indnkeyatts] <@ key_numbers)
$$;

-- Everything about a table and its mirrored columns that must not change unnoticed; other columns may come and go, and
-- so may the triggers of another mirror of the table. Row-level security is asked for at every search.
create or replace function ruvector.fingerprint(mirrored oid, mirrored_columns text[], mirror int) returns text
language sql stable set search_path = pg_catalog, pg_temp
as $$
select md5(string_agg(x, ';' order by x)) from (
  select format('c%s:%s:%s:%s:%s', c.oid, c.relkind, c.relpersistence, c.relnamespace, c.relname) x
  from pg_class c where c.oid = mirrored
  union all
  select format('a%s:%s:%s:%s:%s:%s', attnum, attname, atttypid, atttypmod, attnotnull, attisdropped)
  from pg_attribute where attrelid = mirrored and attnum > 0 and attname = any (mirrored_columns)
  union all
  select format('t%s:%s:%s:%s:%s', oid, tgname, tgenabled, xmin, tgfoid)
  from pg_trigger
  where tgrelid in (select ruvector.tree_of(mirrored)) and tgname ~ format('^00_ruvector_(rows|update|truncate)_%s$', mirror)
  union all
  -- A partition that was emptied or filled by itself has other files.
  select format('i%s:%s:%s', inhrelid, inhdetachpending, pg_relation_filenode(inhrelid))
  from pg_inherits where inhrelid in (select ruvector.tree_of(mirrored)) and inhrelid <> mirrored
  union all
  select 'k' || ruvector.is_key(mirrored, (select array_agg(attnum::int) from pg_attribute
    where attrelid = mirrored and attname = any (mirrored_columns)))
  union all
  select format('p%s:%s:%s', p.oid, p.xmin, p.proowner)
  from pg_proc p join pg_trigger t on t.tgfoid = p.oid
  where t.tgrelid = mirrored and not tgisinternal and tgname ~ format('^00_ruvector_(rows|update|truncate)_%s$', mirror)
) z
$$;

-- Why the role that asks may not learn keys of a table from the index; NULL when it may. Called by functions that run as
-- the owner, so the asking role is what SET ROLE or the login says: inside somebody's SECURITY DEFINER function that is the
-- outer role, which errs on the safe side.
create or replace function ruvector.unreadable(mirrored regclass, mirrored_column text) returns text
language sql stable set search_path = pg_catalog, pg_temp
as $$
select case
  when not (has_table_privilege(r.oid, c.oid, 'select') or has_column_privilege(r.oid, c.oid, mirrored_column, 'select'))
    then format('role %I may not read %s itself', r.rolname, mirrored)
  when c.relrowsecurity and not (r.rolsuper or r.rolbypassrls)
    and (c.relforcerowsecurity or not pg_has_role(r.oid, c.relowner, 'usage'))
    then format('row-level security of %s is active for role %I', mirrored, r.rolname) end
from pg_class c, pg_roles r
where c.oid = mirrored and r.rolname = coalesce(nullif(current_setting('role'), 'none'), session_user)
$$;
revoke all on function ruvector.unreadable(regclass, text) from public;

-- The collection of a name, or error 42704 (22004 without a name).
create or replace function ruvector.collection_of(name text) returns ruvector.collection
language plpgsql stable set search_path = pg_catalog, pg_temp
as $$
declare
  found_row ruvector.collection;
begin
  if name is null then
    raise exception 'the collection name is null' using errcode = '22004',
      hint = 'List the names with SELECT * FROM ruvector_list_collections().';
  end if;
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
