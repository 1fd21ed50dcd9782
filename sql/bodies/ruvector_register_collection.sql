begin
  return ruvector.register(name, table_schema, table_name, column_name, dimensions, distance_metric, coalesce(options, '{}'));
end
