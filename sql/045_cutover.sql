-- Cutover: who answers the searches of a collection, pgvector or the index.

-- What the generated search function of a collection asks before it asks the index; nothing where the index always answers.
-- The state is part of the function: it costs a completed cutover nothing, and a change is seen by the next call of every
-- session, whatever the isolation level of its transaction, because functions are looked up in the newest catalog.
create or replace function ruvector.cutover_check(c ruvector.collection) returns text
language sql stable set search_path = pg_catalog, pg_temp
as $$
select case when c.cutover_state = 'complete' then '' else ruvector.fill($check$
  obeyed := coalesce(nullif(current_setting('ruvector.cutover', true), ''), 'obey');
  if obeyed not in ('obey', 'ignore') then
    raise exception 'unknown ruvector.cutover %', quote_literal(obeyed) using errcode = '22023',
      hint = 'Values are obey, and ignore to ask the index whatever the cutover says.';
  end if;
  if reason is null and obeyed = 'obey'{chosen} then
    reason := {why}; is_held := true;
  end if;$check$, jsonb_build_object(
    'chosen', case when c.cutover_state = 'ramp' and c.cutover_percent > 0
              then format(' and random() * 100 >= %s', c.cutover_percent) else '' end,
    'why', quote_literal(case c.cutover_state when 'off' then 'the cutover is off'
                         else format('the cutover gives the index %s %% of all searches', c.cutover_percent) end))) end
$$;

-- Take one step, atomically, and write it down; the same step again changes nothing. It waits for no search, only for
-- another step of the same collection.
create or replace function ruvector.set_cutover(name text, state text, percent int, reason text) returns jsonb
language plpgsql set search_path = pg_catalog, pg_temp
as $$
declare
  c ruvector.collection := ruvector.collection_of(name);
begin
  select r.* into c from ruvector.collection r where r.id = c.id for no key update;
  if not found then
    perform ruvector.collection_of(name);        -- detached while we waited
  end if;
  if (c.cutover_state, c.cutover_percent) is distinct from (state, percent) then
    update ruvector.collection r set cutover_state = set_cutover.state, cutover_percent = percent where r.id = c.id;
    insert into ruvector.cutover_step (mirror_id, from_state, from_percent, state, percent, reason)
    values (c.id, c.cutover_state, c.cutover_percent, set_cutover.state, set_cutover.percent,
            coalesce(set_cutover.reason, ''));
    perform ruvector.create_search(c.id);
  end if;
  return jsonb_build_object('collection', name, 'state', state, 'percent', percent,
                            'from_state', c.cutover_state, 'from_percent', c.cutover_percent);
end $$;
revoke all on function ruvector.cutover_check(ruvector.collection), ruvector.set_cutover(text, text, int, text) from public;
