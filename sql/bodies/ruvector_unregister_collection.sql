begin
  perform ruvector.drop_mirror((ruvector.collection_of(name)).id);
  return true;
end
