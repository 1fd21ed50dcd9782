#variable_conflict use_column
declare
  c constant ruvector.collection := ruvector.collection_of(collection);
begin
  if c.vector_type <> 'sparsevec' then
    raise exception 'collection "%" holds no sparse vectors', collection using errcode = '22023',
      hint = 'Search it with ruvector_search(collection, query vector, k), or ruvector_search_bits for bits.';
  end if;
  return query execute format(
    'select s.id, s.distance::real, ruvector.score(%L, s.distance),
            case s.engine when ''ruvector'' then ''hot'' else s.engine end, true
     from ruvector.search_%s($1, $2, null, $3, $4, false) s', c.metric, c.id)
    using query, k, filter, exactness;
end
