begin
  return ruvector.set_cutover(collection, 'ramp', percent, reason);
end
