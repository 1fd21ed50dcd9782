#variable_conflict use_column
declare
  c constant ruvector.collection := ruvector.collection_of(collection);
begin
  if use_gnn then
    raise exception 'use_gnn is not available in this version' using errcode = '0A000',
      hint = 'Leave it out: the answer is the plain nearest neighbours.';
  end if;
  if c.vector_type = 'bit' then
    raise exception 'collection "%" holds bit vectors', collection using errcode = '22023',
      hint = 'Search it with ruvector_search_bits(collection, query bit, k).';
  end if;
  if c.vector_type = 'sparsevec' then
    raise exception 'collection "%" holds sparse vectors', collection using errcode = '22023',
      hint = 'Search it with ruvector_search_sparse(collection, query sparsevec, k).';
  end if;
  return query execute format(
    'select s.id, s.distance::real, ruvector.score(%L, s.distance),
            case s.engine when ''ruvector'' then ''hot'' else s.engine end, true
     from ruvector.search_%s($1, $2, $3, $4, $5, false) s', c.metric, c.id)
    using query, k, ef_search, filter, exactness;
end
