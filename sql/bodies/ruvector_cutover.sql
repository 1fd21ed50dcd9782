begin
  return ruvector.set_cutover(collection, 'ramp', percent, reason, null, ruvector.checked_guard(guard));
end
