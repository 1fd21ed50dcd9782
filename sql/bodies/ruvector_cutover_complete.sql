declare
  step jsonb := ruvector.set_cutover(collection, 'complete', 100, reason);
begin
  if drop_pgvector_index then
    step := step || jsonb_build_object('dropped', ruvector.drop_pgvector_indexes(collection));
  end if;
  return step;
end
