#variable_conflict use_column
declare
  c constant ruvector.collection := ruvector.collection_of(collection);
  engine text;
  report jsonb;
begin
  if c.vector_type in ('bit', 'sparsevec') then
    raise exception 'collection "%" holds % vectors', collection, case c.vector_type when 'bit' then 'bit' else 'sparse' end
      using errcode = '22023',
      hint = 'ruvector_explain takes vector and halfvec collections.';
  end if;
  execute format('select s.engine, s.report from ruvector.search_%s($1, $2, $3, $4, null, true, $5, $6) s', c.id)
    into engine, report using query, k, ef_search, filter, keys, max_distance;
  return query select
    report ->> 'plan', engine, (report ->> 'selectivity')::real, (report #>> '{sidecar,ef}')::int,
    (report #>> '{sidecar,visited}')::bigint, (report #>> '{sidecar,reranked}')::bigint,
    coalesce(report #> '{sidecar,tiers}', '{}'), report ->> 'watermark', (report #>> '{sidecar,lag_ms}')::float8,
    (report ->> 'overlay_rows')::int, (report ->> 'candidates')::int, report ->> 'reason',
    jsonb_strip_nulls(jsonb_build_object(
      'prepare', report #> '{sidecar,prepare_ms}', 'ask', report #> '{sidecar,ask_ms}',
      'search', report #> '{sidecar,search_ms}', 'overlay', report #> '{sidecar,overlay_ms}',
      'rank', report -> 'rank_ms')),
    (report ->> 'total_ms')::float8;
end
