-- DROP EXTENSION vector CASCADE drops every column of its types. While collections are attached it is refused, where a
-- superuser installs: only one may make an event trigger.

create or replace function ruvector.keep_vector() returns event_trigger
language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
declare
  attached text;
begin
  if exists (select from pg_event_trigger_dropped_objects() o
             where o.object_type = 'extension' and o.object_identity = 'vector')
     and to_regclass('ruvector.collection') is not null then
    select string_agg(format('%I.%I.%I', c.table_schema, c.table_name, c.column_name), ', ' order by c.id) into attached
      from ruvector.collection c;
    if attached is not null then
      raise exception 'extension vector must stay: it holds the types of the attached columns %', attached
        using errcode = '2BP01', detail = 'DROP EXTENSION ... CASCADE drops the columns with all their vectors.',
        hint = 'Nothing of pgvector needs to go to use ruvector. To drop it all the same, first: ruvector detach NAME.';
    end if;
  end if;
end $$;
revoke all on function ruvector.keep_vector() from public;

do $$
begin
  if not exists (select from pg_event_trigger t where t.evtname = 'ruvector_keep_vector') then
    if (select r.rolsuper from pg_roles r where r.rolname = current_user) then
      create event trigger ruvector_keep_vector on sql_drop when tag in ('DROP EXTENSION', 'DROP SCHEMA', 'DROP OWNED')
        execute function ruvector.keep_vector();
    end if;
  end if;
end $$;
