declare
  c constant ruvector.collection := ruvector.collection_of(name);
  gone record;
begin
  for gone in select d.index_name, d.definition from ruvector.dropped_index d where d.mirror_id = c.id order by d.id loop
    raise warning 'index "%" was dropped when the cutover was completed, and is not built again', gone.index_name
      using hint = gone.definition;
  end loop;
  perform ruvector.drop_mirror(c.id);
  return true;
end
