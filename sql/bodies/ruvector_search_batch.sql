#variable_conflict use_column
begin
  if cardinality(queries) > 1000 then
    raise exception 'a batch may hold 1000 queries, not %', cardinality(queries) using errcode = '54000',
      hint = 'Split it into several calls.';
  end if;
  return query
    select (q.position - 1)::int, s.id, s.distance
    from unnest(queries) with ordinality q (query, position)
    cross join lateral @api@.ruvector_search(collection, q.query, k) s;
end
