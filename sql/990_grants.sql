-- Privileges, always last: nothing in schema ruvector is for PUBLIC.
revoke all on all tables in schema ruvector from public;
revoke all on all functions in schema ruvector from public;
grant execute on function ruvector.setting(text), ruvector.setting_int(text, int, int), ruvector.collection_of(text),
  ruvector.score(text, double precision),
  ruvector.filter_sql(ruvector.collection, jsonb), ruvector.filter_parts(ruvector.collection, jsonb),
  ruvector.filter_node(ruvector.collection, jsonb, jsonb, text, int), ruvector.filter_condition(text, text, text, jsonb),
  ruvector.filter_values(text, text, text, jsonb), ruvector.filter_value(text, text, text, jsonb),
  ruvector.filter_texts(text, text[]), ruvector.filter_pinned_texts(text, text[]), ruvector.deadline_ms(),
  ruvector.table_problem(int) to ruvector_user, ruvector_sidecar;
grant execute on function ruvector.sample(int, text, int, int, jsonb) to ruvector_user, ruvector_sidecar;
grant execute on function ruvector.call(text, jsonb),
  ruvector.shadow_statistics(int, timestamptz), ruvector.cutover_since(int), ruvector.guard_breaches(jsonb, jsonb),
  ruvector.checked_guard(jsonb), ruvector.mean_interval(bigint, float8, float8), ruvector.share_interval(bigint, bigint),
  ruvector.quantile_interval(float8[], float8) to ruvector_user;
grant execute on function ruvector.setting(text), ruvector.fingerprint(oid, text[], int), ruvector.tree_of(oid),
  ruvector.is_key(oid, int[]), ruvector.column_numbers(oid, text[]), ruvector.follow(int), ruvector.holds(bigint),
  ruvector.vector_schema(), ruvector.shadow_answer(int, text, int, int, jsonb, text), ruvector.check_guard(int) to ruvector_sidecar;
-- For a restored dump or a clone, where the tables have other OIDs.
grant update (table_oid, column_number, key_numbers, fingerprint) on ruvector.collection to ruvector_sidecar;
