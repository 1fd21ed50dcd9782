begin
  return ruvector.set_cutover(collection, 'complete', 100, reason);
end
