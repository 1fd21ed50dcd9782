-- Cutover: who answers the searches of a collection, pgvector or the index, and how the two compare.

drop function if exists ruvector.set_cutover(text, text, int, text);      -- of an older release

-- What the generated search function of a collection asks before it asks the index; nothing where the index always answers.
-- The state is part of the function: it costs a completed cutover nothing, and a change is seen by the next call of every
-- session, whatever the isolation level of its transaction, because functions are looked up in the newest catalog.
create or replace function ruvector.cutover_check(c ruvector.collection) returns text
language sql stable set search_path = pg_catalog, pg_temp
as $$
select case when c.cutover_state = 'complete' then '' else ruvector.fill($check$
  obeyed := coalesce(nullif(current_setting('ruvector.cutover', true), ''), 'obey');
  if obeyed not in ('obey', 'sticky', 'ignore', 'pgvector') then
    raise exception 'unknown ruvector.cutover %', quote_literal(obeyed) using errcode = '22023',
      hint = 'Values are obey, sticky to stay on one side in a ramp, ignore to ask the index and pgvector to ask pgvector.';
  end if;{drawn}
  if reason is null and (obeyed = 'pgvector' or obeyed <> 'ignore'{chosen}) then
    reason := case obeyed when 'pgvector' then 'ruvector.cutover asks for pgvector' else {why} end; is_held := true;
  end if;$check$, jsonb_build_object(
    'chosen', case when c.cutover_state = 'ramp'
              then format(' and case obeyed when ''sticky'' then abs(hashint4(pg_backend_pid()) %% 10000) / 100.0
    else random() * 100 end >= %s', c.cutover_percent) else '' end,
    'drawn', case when c.cutover_state in ('shadow', 'ramp') then format($drawn$
  is_sampled := reason is null and obeyed in ('obey', 'sticky') and not explained and keys is null and max_distance is null
    and random() < %s;$drawn$, c.cutover_sample_rate) else '' end,
    'why', quote_literal(case c.cutover_state when 'ramp'
                         then format('the cutover gives the index %s %% of all searches', c.cutover_percent)
                         else format('the cutover is %s', replace(c.cutover_state, 'shadow', 'in shadow')) end))) end
$$;

-- What the search function does with a search that was drawn, once it has the answer.
create or replace function ruvector.cutover_sample(c ruvector.collection) returns text
language sql stable set search_path = pg_catalog, pg_temp
as $$
select case when c.cutover_state not in ('shadow', 'ramp') then '' else format($sample$
  if is_sampled then
    perform ruvector.sample(%s, query::text, k, beam, filter);
  end if;$sample$, c.id) end
$$;

-- The guard of a ramp, checked; without one the usual.
create or replace function ruvector.checked_guard(guard jsonb) returns jsonb
language plpgsql immutable set search_path = pg_catalog, pg_temp
as $$
declare
  entry record;
begin
  if guard is null then
    return '{"min_recall": 0.95, "max_p99_ratio": 1.5, "max_error_rate": 0.01}';
  end if;
  if jsonb_typeof(guard) <> 'object' then
    raise exception 'a guard must be a jsonb object, not %', guard using errcode = '22023',
      hint = 'For example {"min_recall": 0.95, "max_p99_ratio": 1.5}; {} guards nothing.';
  end if;
  for entry in select g.key, g.value from jsonb_each(guard) g loop
    if entry.key not in ('min_recall', 'max_p99_ratio', 'max_error_rate') then
      raise exception 'unknown guard %', quote_literal(entry.key) using errcode = '22023',
        hint = 'Guards are min_recall, max_p99_ratio and max_error_rate.';
    end if;
    if jsonb_typeof(entry.value) <> 'number' or entry.value::numeric < 0
       or entry.key <> 'max_p99_ratio' and entry.value::numeric > 1 then
      raise exception 'guard % must be a number %, not %', entry.key,
        case entry.key when 'max_p99_ratio' then 'from 0' else 'from 0 to 1' end, entry.value using errcode = '22023',
        hint = 'For example {"min_recall": 0.95, "max_p99_ratio": 1.5, "max_error_rate": 0.01}.';
    end if;
  end loop;
  return guard;
end $$;

-- Take one step, atomically, and write it down; the same step again changes nothing. It waits for no search, only for
-- another step of the same collection, and asks what that one left behind whether it may be taken.
create or replace function ruvector.set_cutover(
  name text, state text, percent int, reason text, sample_rate real default null, guard jsonb default null) returns jsonb
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
  if sample_rate = 'NaN' or sample_rate <= 0 or sample_rate > 1 then
    raise exception 'sample_rate must be above 0 and at most 1, not %', sample_rate using errcode = '22023',
      hint = 'Give the share of searches to compare, for example 0.05.';
  end if;
  select r.* into c from ruvector.collection r where r.id = c.id for no key update;
  if not found then
    perform ruvector.collection_of(name);        -- detached while we waited
  end if;
  if state = 'complete' and c.cutover_percent < 100 then
    raise exception 'the cutover of collection "%" is %, not at 100 %%', name,
      case c.cutover_state when 'ramp' then format('at %s %%', c.cutover_percent)
                           when 'shadow' then 'in shadow' else c.cutover_state end
      using errcode = '55000', hint = 'Let the index answer all searches for a while: SELECT ruvector_cutover(name, 100).';
  elsif state = 'shadow' or state = 'ramp' and percent > 0 then
    select s.state || coalesce(': ' || nullif(s.reason, ''), '') into problem
      from (select) one left join ruvector.mirror_status s on s.mirror_id = c.id where s.state is distinct from 'live';
    if found then
      raise exception 'the index of collection "%" cannot answer yet: it is %', name, coalesce(problem, 'new')
        using errcode = '55000', hint = 'Let the sidecar build it first: ruvector run; ruvector status shows its progress.';
    end if;
  end if;
  sample_rate := coalesce(sample_rate, c.cutover_sample_rate);
  guard := coalesce(guard, c.cutover_guard);
  if (c.cutover_state, c.cutover_percent, c.cutover_sample_rate, c.cutover_guard)
     is distinct from (state, percent, sample_rate, guard) then
    update ruvector.collection r set cutover_state = set_cutover.state, cutover_percent = percent,
      cutover_sample_rate = sample_rate, cutover_guard = guard where r.id = c.id;
    insert into ruvector.cutover_step (mirror_id, from_state, from_percent, state, percent, reason)
    values (c.id, c.cutover_state, c.cutover_percent, set_cutover.state, set_cutover.percent,
            coalesce(set_cutover.reason, ''));
    perform ruvector.create_search(c.id);
  end if;
  return jsonb_build_object('collection', name, 'state', state, 'percent', percent,
                            'from_state', c.cutover_state, 'from_percent', c.cutover_percent);
end $$;

-- What a search of a mirror answers, its query given as text; ruvector.cutover says who is asked.
create or replace function ruvector.shadow_answer(mirror int, query text, k int, ef int, filter jsonb, exactness text)
returns table (id text, distance float8, engine text)
language plpgsql stable set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
  c ruvector.collection;
begin
  select r.* into strict c from ruvector.collection r where r.id = mirror;
  return query execute format('select s.id, s.distance, s.engine from ruvector.search_%s($1::%s, $2, $3, $4, $5, false) s',
    mirror, case c.vector_type when 'bit' then 'varbit' when 'sparsevec' then ruvector.vector_schema() || '.sparsevec'
            else ruvector.vector_schema() || '.vector' end) using query, k, ef, filter, exactness;
end $$;

-- The mean of n values between 0 and 1 with its 95 % interval (normal approximation).
create or replace function ruvector.mean_interval(n bigint, mean float8, deviation float8) returns jsonb
language sql immutable set search_path = pg_catalog, pg_temp
as $$
select case when n > 0 then jsonb_build_object('mean', mean,
  'low', greatest(0, mean - 1.96 * coalesce(deviation, 1) / sqrt(n)),
  'high', least(1, mean + 1.96 * coalesce(deviation, 1) / sqrt(n))) end
$$;

-- A share of n with its 95 % interval (Wilson, 1927).
create or replace function ruvector.share_interval(hits bigint, n bigint) returns jsonb
language sql immutable set search_path = pg_catalog, pg_temp
as $$
select case when n > 0 then jsonb_build_object('mean', p, 'low', greatest(0, middle - half), 'high', least(1, middle + half)) end
from (select hits::float8 / nullif(n, 0) as p, 1.96 ^ 2 as z) a,
  lateral (select (p + z / (2 * n)) / (1 + z / n) as middle,
                  sqrt(z * (p * (1 - p) / n + z / (4 * n::float8 ^ 2))) / (1 + z / n) as half) b
$$;

-- A quantile of sorted values with its 95 % interval by order statistics, which assumes nothing about their distribution.
-- Without an upper end where there are too few values to know one.
create or replace function ruvector.quantile_interval(sorted float8[], q float8) returns jsonb
language sql immutable set search_path = pg_catalog, pg_temp
as $$
select jsonb_build_object('value', sorted[greatest(1, ceil(n * q))::int],
  'low', sorted[greatest(1, floor(n * q - 1.96 * sqrt(n * q * (1 - q))))::int],
  'high', sorted[ceil(n * q + 1.96 * sqrt(n * q * (1 - q)))::int + 1])
from (select cardinality(sorted)) a (n) where n > 0
$$;

-- What the newest 10,000 pairs of a collection since a moment say.
create or replace function ruvector.shadow_statistics(mirror int, since timestamptz) returns jsonb
language sql stable set search_path = pg_catalog, pg_temp
as $$
with pair as materialized (
  select p.* from ruvector.shadow_pair p where p.mirror_id = mirror and p.at >= since order by p.id desc limit 10000
), facts as (
  select count(*) as n, count(p.problem) as errors, count(*) - count(p.problem) as compared, coalesce(sum(p.missed), 0) as missed,
    count(*) filter (where p.overlap < 1) as mismatches, count(*) filter (where p.truth = 'exact') as exact,
    avg(p.overlap) as overlap, stddev_samp(p.overlap) as overlap_deviation,
    avg(p.index_recall) as index_recall, stddev_samp(p.index_recall) as index_deviation,
    avg(p.pgvector_recall) as pgvector_recall, stddev_samp(p.pgvector_recall) as pgvector_deviation,
    min(p.index_recall) as index_worst, min(p.pgvector_recall) as pgvector_worst,
    avg(p.rank_correlation) as rank_correlation, avg(p.distance_error) as distance_error,
    array_agg(p.index_ms order by p.index_ms) filter (where p.problem is null) as index_ms,
    array_agg(p.pgvector_ms order by p.pgvector_ms) filter (where p.problem is null) as pgvector_ms,
    percentile_cont(0.5) within group (order by p.index_ms / nullif(p.pgvector_ms, 0)) as median_ratio,
    (select jsonb_object_agg(e.problem, e.count) from (
      select x.problem, count(*) from pair x where x.problem is not null group by 1 order by 2 desc limit 5) e) as problems
  from pair p
), latency as (
  select f.*, i.*, (p99 -> 'ruvector' ->> 'value')::float8 / nullif((p99 -> 'pgvector' ->> 'value')::float8, 0) as ratio
  from facts f, lateral (
    select jsonb_object_agg(e.engine, ruvector.quantile_interval(e.ms, 0.5)) as p50,
           jsonb_object_agg(e.engine, ruvector.quantile_interval(e.ms, 0.95)) as p95,
           jsonb_object_agg(e.engine, ruvector.quantile_interval(e.ms, 0.99)) as p99
    from (values ('ruvector', f.index_ms), ('pgvector', f.pgvector_ms)) e (engine, ms)) i
)
select jsonb_build_object(
  'since', since, 'n', l.n, 'compared', l.compared, 'missed', l.missed,
  'error_rate', ruvector.share_interval(l.errors, l.n), 'errors', coalesce(l.problems, '{}'),
  'mismatches', l.mismatches, 'overlap_at_k', ruvector.mean_interval(l.compared, l.overlap, l.overlap_deviation),
  'recall_at_k', jsonb_build_object(
    'exact', l.exact, 'pooled', l.compared - l.exact,
    'ruvector', ruvector.mean_interval(l.compared, l.index_recall, l.index_deviation) || jsonb_build_object('min', l.index_worst),
    'pgvector', ruvector.mean_interval(l.compared, l.pgvector_recall, l.pgvector_deviation)
                || jsonb_build_object('min', l.pgvector_worst)),
  'rank_correlation', l.rank_correlation, 'distance_error', l.distance_error,
  'latency_ms', jsonb_build_object('p50', l.p50, 'p95', l.p95, 'p99', l.p99),
  'median_ratio', l.median_ratio,
  'p99_ratio', jsonb_build_object('value', l.ratio,
    'low', (l.p99 -> 'ruvector' ->> 'low')::float8 / nullif((l.p99 -> 'pgvector' ->> 'high')::float8, 0),
    'high', (l.p99 -> 'ruvector' ->> 'high')::float8 / nullif((l.p99 -> 'pgvector' ->> 'low')::float8, 0)))
from latency l
$$;

-- What of a guard the statistics break for certain: an interval that lies wholly beyond the bound, of 20 pairs at least.
create or replace function ruvector.guard_breaches(statistics jsonb, guard jsonb) returns text[]
language sql immutable set search_path = pg_catalog, pg_temp
as $$
select array_remove(array[
  case when compared >= 20 and recall_high < (guard ->> 'min_recall')::float8
    then format('recall %s (at most %s) is below min_recall %s, in %s pairs', round(recall::numeric, 3),
                round(recall_high::numeric, 3), guard ->> 'min_recall', compared) end,
  case when ratio_low > (guard ->> 'max_p99_ratio')::float8
    then format('the p99 of ruvector is %s (at least %s) times that of pgvector, above max_p99_ratio %s, in %s pairs',
                round(ratio::numeric, 2), round(ratio_low::numeric, 2), guard ->> 'max_p99_ratio', compared) end,
  case when n >= 20 and rate_low > (guard ->> 'max_error_rate')::float8
    then format('%s of %s searches failed (at least %s), above max_error_rate %s: %s', round(rate * n), n,
                round(rate_low::numeric, 3), guard ->> 'max_error_rate', statistics -> 'errors') end], null)
from (select (statistics ->> 'n')::bigint, (statistics ->> 'compared')::bigint,
             (statistics #>> '{recall_at_k,ruvector,mean}')::float8, (statistics #>> '{recall_at_k,ruvector,high}')::float8,
             (statistics #>> '{p99_ratio,value}')::float8, (statistics #>> '{p99_ratio,low}')::float8,
             (statistics #>> '{error_rate,mean}')::float8, (statistics #>> '{error_rate,low}')::float8)
  s (n, compared, recall, recall_high, ratio, ratio_low, rate, rate_low)
$$;

-- When the latest step of a collection was taken: pairs from before it say nothing about the present state.
create or replace function ruvector.cutover_since(mirror int) returns timestamptz
language sql stable set search_path = pg_catalog, pg_temp
as $$
select coalesce((select s.at from ruvector.cutover_step s where s.mirror_id = mirror order by s.id desc limit 1), '-infinity')
$$;

-- Roll a ramp back whose guard is broken; return why, NULL when it holds. The sidecar asks after new pairs.
create or replace function ruvector.check_guard(mirror int) returns text
language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
declare
  c ruvector.collection;
  statistics jsonb;
  breaches text[];
begin
  select r.* into c from ruvector.collection r where r.id = mirror;
  if c.cutover_state is distinct from 'ramp' or c.cutover_guard = '{}' then
    return null;
  end if;
  statistics := ruvector.shadow_statistics(mirror, ruvector.cutover_since(mirror));
  breaches := ruvector.guard_breaches(statistics, c.cutover_guard);
  if breaches = '{}' then
    return null;
  end if;
  perform from ruvector.collection r where r.id = mirror and r.cutover_state = 'ramp' for no key update;
  if not found then
    return null;                                 -- somebody else took a step meanwhile
  end if;
  perform ruvector.set_cutover(c.name, 'off', 0, 'guard: ' || array_to_string(breaches, '; '));
  insert into ruvector.event (mirror_id, kind, detail) values (mirror, 'guard', jsonb_build_object(
    'breaches', breaches, 'guard', c.cutover_guard, 'percent', c.cutover_percent, 'statistics', statistics));
  return array_to_string(breaches, '; ');
end $$;
revoke all on function ruvector.cutover_check(ruvector.collection), ruvector.cutover_sample(ruvector.collection),
  ruvector.set_cutover(text, text, int, text, real, jsonb), ruvector.check_guard(int) from public;

-- Drop the valid indexes of pgvector that serve the metric of a collection, their definitions saved first; return each with
-- its bytes and how often it was used. Other indexes of the column serve other queries, and stay.
create or replace function ruvector.drop_pgvector_indexes(collection text) returns jsonb
language plpgsql set search_path = pg_catalog, pg_temp set lock_timeout = '2s'
as $$
declare
  c constant ruvector.collection := ruvector.collection_of(collection);
  old record;
  dropped jsonb := '[]';
begin
  for old in
    select i.oid, i.relname, n.nspname, pg_get_indexdef(i.oid) as definition, t.spcname, i.relkind = 'I' as is_partitioned,
      greatest(pg_relation_size(i.oid), (select sum(pg_relation_size(p.relid)) from pg_partition_tree(i.oid) p)) as bytes,
      coalesce(s.idx_scan, 0) as scans
    from pg_index x
    join pg_class i on i.oid = x.indexrelid
    join pg_namespace n on n.oid = i.relnamespace
    join pg_am m on m.oid = i.relam
    join pg_opclass o on o.oid = x.indclass[0]
    join pg_attribute a on a.attrelid = x.indrelid and a.attnum = x.indkey[0]
    left join pg_tablespace t on t.oid = i.reltablespace
    left join pg_stat_all_indexes s on s.indexrelid = i.oid
    where x.indrelid = c.table_oid and a.attname = c.column_name and x.indisvalid and m.amname in ('hnsw', 'ivfflat')
      and o.opcname = format('%s_%s_ops', c.vector_type, c.metric)
    order by i.oid
  loop
    insert into ruvector.dropped_index (mirror_id, collection, table_schema, index_name, definition, tablespace,
                                        is_partitioned, bytes)
    values (c.id, c.name, old.nspname, old.relname, old.definition, old.spcname, old.is_partitioned, old.bytes);
    execute format('drop index %I.%I', old.nspname, old.relname);
    dropped := dropped || jsonb_build_object('index', format('%I.%I', old.nspname, old.relname), 'bytes', old.bytes,
                                             'scans', old.scans);
  end loop;
  return dropped;
end $$;
revoke all on function ruvector.drop_pgvector_indexes(text) from public;
