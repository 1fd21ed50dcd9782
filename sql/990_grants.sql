-- Privileges, always last: nothing in schema ruvector is for PUBLIC.
revoke all on all tables in schema ruvector from public;
revoke all on all functions in schema ruvector from public;
grant execute on function ruvector.setting(text), ruvector.setting_int(text, int, int), ruvector.collection_of(text),
  ruvector.score(text, double precision),
  ruvector.filter_sql(ruvector.collection, jsonb, int), ruvector.filter_column_sql(text, text, jsonb),
  ruvector.filter_literal(text, text, jsonb), ruvector.deadline_ms(), ruvector.call(text, jsonb),
  ruvector.table_problem(int) to ruvector_user;
grant execute on function ruvector.setting(text), ruvector.fingerprint(oid, text[], int), ruvector.tree_of(oid),
  ruvector.is_key(oid, int[]), ruvector.column_numbers(oid, text[]), ruvector.follow(int), ruvector.holds(bigint) to ruvector_sidecar;
-- For a restored dump or a clone, where the tables have other OIDs.
grant update (table_oid, column_number, key_numbers, fingerprint) on ruvector.collection to ruvector_sidecar;
