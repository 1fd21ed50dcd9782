begin
  return ruvector.set_cutover(collection, 'off', 0, reason);
end
