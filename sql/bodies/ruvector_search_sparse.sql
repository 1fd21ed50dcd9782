#variable_conflict use_column
declare
  c record;
begin
  select r.id, r.vector_type into c from ruvector.collection r where r.name = collection;
  if not found then
    perform ruvector.collection_of(collection);     -- says what is wrong with the name
  end if;
  if c.vector_type <> 'sparsevec' then
    raise exception 'collection "%" holds no sparse vectors', collection using errcode = '22023',
      hint = 'Search it with ruvector_search(collection, query vector, k), or ruvector_search_bits for bits.';
  end if;
  return query execute 'select s.id, s.distance::real, s.score,
    case s.engine when ''ruvector'' then ''hot'' else s.engine end, true from ruvector.search_' || c.id
    || '($1, $2, null, $3, $4, false, $5, $6) s' using query, k, filter, exactness, keys, max_distance;
end
