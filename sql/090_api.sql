-- Two steps of the generated 900_functions.sql that let it run over any older release.

-- Drop API functions of this product that the release no longer has, or that stand in another schema: `names` belong in the
-- schema users find by themselves, `own_names` in ours.
create or replace function ruvector.api_keep_only(api regnamespace, names text[], own_names text[]) returns void
language plpgsql set search_path = pg_catalog, pg_temp
as $$
declare
  stranger regprocedure;
begin
  for stranger in
    select p.oid from pg_proc p
    where p.prosrc ~ '^\s*-- ruvector api function\n'
      and not (p.pronamespace = api and p.proname = any (names))
      and not (p.pronamespace = 'ruvector'::regnamespace and p.proname = any (own_names))
    order by p.oid
  loop
    execute format('drop function %s', stranger);
  end loop;
end $$;

-- Drop a function of this name unless CREATE OR REPLACE can turn it into the declared one; never touch a stranger's.
create or replace function ruvector.api_make_way(
  api regnamespace, name text, names text[], types regtype[], result regtype, returns_rows boolean, inputs int,
  defaults int
) returns void
language plpgsql set search_path = pg_catalog, pg_temp
as $$
declare
  present record;
begin
  for present in
    select p.oid::regprocedure as routine, p.prosrc ~ '^\s*-- ruvector api function\n' as is_ours,
      coalesce(p.proallargtypes, array(select unnest(p.proargtypes))) = types::oid[]
        and coalesce(p.proargnames, '{}') = names and p.prorettype = result::oid and p.proretset = returns_rows
        and p.pronargs = inputs and p.pronargdefaults <= defaults as fits
    from pg_proc p
    where p.pronamespace = api and p.proname = name
    order by p.oid
  loop
    if not present.is_ours then
      raise exception 'function % exists and does not belong to this product', present.routine
        using errcode = '42723', hint = 'Drop it, or install the functions in a schema of their own with --api-schema.';
    end if;
    if not present.fits then
      execute format('drop function %s', present.routine);
    end if;
  end loop;
end $$;

revoke all on function ruvector.api_keep_only(regnamespace, text[], text[]) from public;
revoke all on function ruvector.api_make_way(regnamespace, text, text[], regtype[], regtype, boolean, int, int) from public;
