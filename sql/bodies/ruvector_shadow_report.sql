declare
  c constant ruvector.collection := ruvector.collection_of(collection);
  statistics constant jsonb := ruvector.shadow_statistics(c.id, coalesce(since::timestamptz, ruvector.cutover_since(c.id)));
  guard constant jsonb := case when c.cutover_state = 'ramp' then c.cutover_guard else ruvector.checked_guard(null) end;
begin
  return jsonb_build_object('collection', c.name, 'state', c.cutover_state, 'percent', c.cutover_percent,
    'sample_rate', c.cutover_sample_rate, 'guard', guard, 'breaches', ruvector.guard_breaches(statistics, guard)) || statistics;
end
