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
    'chosen', case when c.cutover_state = 'ramp'
              then format(' and random() * 100 >= %s', c.cutover_percent) else '' end,
    'why', quote_literal(case c.cutover_state when 'off' then 'the cutover is off'
                         else format('the cutover gives the index %s %% of all searches', c.cutover_percent) end))) end
$$;

-- Take one step, atomically, and write it down; the same step again changes nothing. It waits for no search, only for
-- another step of the same collection, and asks what that one left behind whether it may be taken.
create or replace function ruvector.set_cutover(name text, state text, percent int, reason text) returns jsonb
language plpgsql set search_path = pg_catalog, pg_temp
as $$
declare
  c ruvector.collection := ruvector.collection_of(name);
  problem text;
begin
  if percent is null or percent not between 0 and 100 then
    raise exception 'percent must be between 0 and 100, not %', coalesce(percent::text, 'null') using errcode = '22023',
      hint = 'Give the share of searches that the index answers; ruvector_rollback gives all of them back to pgvector.';
  end if;
  select r.* into c from ruvector.collection r where r.id = c.id for no key update;
  if not found then
    perform ruvector.collection_of(name);        -- detached while we waited
  end if;
  if state = 'complete' and c.cutover_percent < 100 then
    raise exception 'the cutover of collection "%" is %, not at 100 %%', name,
      case c.cutover_state when 'off' then 'off' else format('at %s %%', c.cutover_percent) end
      using errcode = '55000', hint = 'Let the index answer all searches for a while: SELECT ruvector_cutover(name, 100).';
  elsif state = 'ramp' and percent > 0 then
    select s.state || coalesce(': ' || nullif(s.reason, ''), '') into problem
      from (select) one left join ruvector.mirror_status s on s.mirror_id = c.id where s.state is distinct from 'live';
    if found then
      raise exception 'the index of collection "%" cannot answer yet: it is %', name, coalesce(problem, 'new')
        using errcode = '55000', hint = 'Let the sidecar build it first: ruvector run; ruvector status shows its progress.';
    end if;
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
