declare
  c constant ruvector.collection := ruvector.collection_of(name);
begin
  return (
    select jsonb_build_object('collection', c.name, 'index_type', c.index_kind, 'dimensions', c.dims,
      'distance_metric', c.metric, 'm', c.m, 'ef_construction', c.ef_construction, 'ef_search', c.ef_search,
      'vector_count', coalesce(s.rows_indexed, 0), 'state', s.state, 'unindexed', s.unindexed,
      'updated_at', s.updated_at) || coalesce(s.stats, '{}')
    from (values (c.id)) v (id) left join ruvector.mirror_status s on s.mirror_id = v.id);
end
