begin
  perform ruvector.set_cutover(collection, 'shadow', 0, reason, coalesce(sample_rate, 0.05));
  return true;
end
