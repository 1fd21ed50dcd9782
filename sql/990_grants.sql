-- Privileges, always last: nothing in schema ruvector is for PUBLIC.
revoke all on all tables in schema ruvector from public;
revoke all on all functions in schema ruvector from public;
grant execute on function ruvector.setting(text), ruvector.setting_int(text, int, int), ruvector.collection_of(text),
  ruvector.score(text, double precision),
  ruvector.filter_sql(ruvector.collection, jsonb), ruvector.filter_parts(ruvector.collection, jsonb),
  ruvector.filter_node(ruvector.collection, jsonb, jsonb, text, int), ruvector.filter_condition(text, text, text, jsonb),
  ruvector.filter_values(text, text, text, jsonb), ruvector.filter_value(text, text, text, jsonb),
  ruvector.filter_texts(text, text[]), ruvector.filter_pinned_texts(text, text[]), ruvector.deadline_ms(), ruvector.call(text, jsonb),
  ruvector.table_problem(int) to ruvector_user;
grant execute on function ruvector.setting(text), ruvector.fingerprint(oid, text[], int), ruvector.tree_of(oid),
  ruvector.is_key(oid, int[]), ruvector.column_numbers(oid, text[]), ruvector.follow(int), ruvector.holds(bigint) to ruvector_sidecar;
-- For a restored dump or a clone, where the tables have other OIDs.
grant update (table_oid, column_number, key_numbers, fingerprint) on ruvector.collection to ruvector_sidecar;
