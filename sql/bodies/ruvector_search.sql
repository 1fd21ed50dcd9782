#variable_conflict use_column
declare
  c record;
begin
  select r.id, r.vector_type into c from ruvector.collection r where r.name = collection;
  if not found then
    perform ruvector.collection_of(collection);     -- says what is wrong with the name
  end if;
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
  return query execute 'select s.id, s.distance::real, s.score,
    case s.engine when ''ruvector'' then ''hot'' else s.engine end, true from ruvector.search_' || c.id
    || '($1, $2, $3, $4, $5, false, $6, $7) s' using query, k, ef_search, filter, exactness, keys, max_distance;
end
