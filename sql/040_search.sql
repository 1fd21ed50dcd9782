-- Search: the filter language, and the two functions generated for every mirror.

-- The functions of an older release.
do $$
declare
  old regprocedure;
begin
  for old in
    select p.oid from pg_proc p
    where p.pronamespace = 'ruvector'::regnamespace
      and (p.proname in ('filter_literal', 'filter_column_sql') or p.proname = 'filter_sql' and p.pronargs = 3)
  loop
    execute format('drop function %s', old);
  end loop;
end $$;

-- The same as filter_texts for the types whose texts depend on settings, which it pins; that takes longer than all the rest.
-- A timestamp without a zone means UTC, whatever the session: filters are data, and answers must not depend on settings.
create or replace function ruvector.filter_pinned_texts(type text, given text[]) returns text[]
language plpgsql stable set search_path = pg_catalog, pg_temp set timezone = 'UTC' set datestyle = 'ISO, YMD'
set extra_float_digits = 1
as $$
begin
  case type
    when 'double precision' then return given::float8[]::text[];
    when 'timestamp with time zone' then return given::timestamptz[]::text[];
    when 'date' then return given::date[]::text[];
    when 'real' then return given::float4[]::text[];
    when 'timestamp without time zone' then return given::timestamp[]::text[];
    else
      raise exception 'filters do not know the type %', type using errcode = '0A000',
        hint = 'Give the column its old type, or leave it out: SELECT ruvector.set_filter_columns(name, columns).';
  end case;
end $$;

-- Values as the texts that PostgreSQL prints for a type that filters know; an error of class 22 says what is no value of
-- it. All at once and by casts that are part of this text: a list of 100,000 takes milliseconds, none is executed as SQL.
create or replace function ruvector.filter_texts(type text, given text[]) returns text[]
language plpgsql stable set search_path = pg_catalog, pg_temp
as $$
begin
  case type
    when 'text' then return given;
    when 'integer' then return given::int4[]::text[];
    when 'bigint' then return given::int8[]::text[];
    when 'boolean' then return given::bool[]::text[];
    when 'numeric' then return given::numeric[]::text[];
    when 'uuid' then return given::uuid[]::text[];
    when 'character varying' then return given::varchar[]::text[];
    when 'smallint' then return given::int2[]::text[];
    when 'bpchar' then return given::bpchar[]::text[];
    when 'name' then return given::name[]::text[];
    else return ruvector.filter_pinned_texts(type, given);
  end case;
end $$;

-- The values of a list in a filter as filter_texts prints them; the error names the first that is none of its column.
create or replace function ruvector.filter_values(column_name text, type text, place text, list jsonb) returns text[]
language plpgsql stable set search_path = pg_catalog, pg_temp
as $$
declare
  given constant text[] := array(select v.value from jsonb_array_elements_text(list) v (value));
  texts text[];
  problem text;
  low int := 1;
  high int := cardinality(given);
  middle int;
  unfit record;
begin
  -- A list or an object begins like one in its text, too, and few other values do: only those are looked at.
  if exists (select from unnest(given) g (value) where left(g.value, 1) in ('[', '{')) then
    select v.value, v.n - 1 as n into unfit from jsonb_array_elements(list) with ordinality v (value, n)
    where jsonb_typeof(v.value) in ('object', 'array') limit 1;
    if found then
      raise exception 'filter on column % expects a single value, not %', quote_ident(column_name), unfit.value
        using errcode = '22023', detail = format('At %s[%s].', place, unfit.n),
        hint = 'Give a string, number, boolean or null.';
    end if;
  end if;
  begin
    return ruvector.filter_texts(type, given);
  exception when data_exception then
    problem := sqlerrm;
  end;
  while low < high loop
    middle := (low + high) / 2;
    begin
      texts := ruvector.filter_texts(type, given[low:middle]);
      low := middle + 1;
    exception when data_exception then
      problem := sqlerrm;
      high := middle;
    end;
  end loop;
  begin
    texts := ruvector.filter_texts(type, given[low:low]);
  exception when data_exception then
    problem := sqlerrm;
  end;
  raise exception 'filter on column %: % is not a value of type %', quote_ident(column_name), list -> (low - 1), type
    using errcode = '22023', detail = format('At %s[%s]: %s.', place, low - 1, problem),
    hint = 'Give a value that the column could hold.';
end $$;

-- A single value of a filter as filter_texts prints it.
create or replace function ruvector.filter_value(column_name text, type text, place text, value jsonb) returns text
language plpgsql stable set search_path = pg_catalog, pg_temp
as $$
begin
  if jsonb_typeof(value) in ('object', 'array') then
    raise exception 'filter on column % expects a single value, not %', quote_ident(column_name), value
      using errcode = '22023', detail = format('At %s.', place), hint = 'Give a string, number, boolean or null.';
  end if;
  begin
    return (ruvector.filter_texts(type, array[value #>> '{}']))[1];
  exception when data_exception then
    raise exception 'filter on column %: % is not a value of type %', quote_ident(column_name), value, type
      using errcode = '22023', detail = format('At %s: %s.', place, sqlerrm),
      hint = 'Give a value that the column could hold.';
  end;
end $$;

-- One column condition, a value, a list (IN), or an object of operators: as SQL over alias i, and as an object of
-- operators whose values are the texts that PostgreSQL prints for the type. Lists are one literal: the NULLs in them
-- count as they do in IN.
create or replace function ruvector.filter_condition(column_name text, type text, place text, given jsonb,
  out condition text, out canonical jsonb)
language plpgsql stable set search_path = pg_catalog, pg_temp
as $$
declare
  is_array constant boolean := right(type, 2) = '[]';
  element constant text := case when is_array then left(type, -2) else type end;
  target constant text := format('i.%I', column_name);
  operators jsonb := given;
  entry record;
  texts text[];
  value text;
  parts text[] := '{}';
begin
  if jsonb_typeof(given) = 'array' then
    operators := jsonb_build_object('$in', given);
  elsif jsonb_typeof(given) <> 'object' then
    operators := jsonb_build_object('$eq', given);
  end if;
  canonical := '{}';
  for entry in select o.key, o.value, format('%s.%s', place, o.key) as place from jsonb_each(operators) o loop
    if entry.key in ('$in', '$nin') then
      if jsonb_typeof(entry.value) <> 'array' then
        raise exception 'filter on column %: % expects a list, not %', quote_ident(column_name), entry.key, entry.value
          using errcode = '22023', detail = format('At %s.', entry.place),
          hint = 'For example {"category": {"$in": ["a", "b"]}}.';
      end if;
      if jsonb_array_length(entry.value) > 100000 then
        raise exception 'filter on column %: the list has % values, at most 100000 are allowed', quote_ident(column_name),
          jsonb_array_length(entry.value) using errcode = '54000', detail = format('At %s.', entry.place),
          hint = 'Put the values in a table, join it, and give the rows: keys => ARRAY(SELECT ...).';
      end if;
      texts := ruvector.filter_values(column_name, element, entry.place, entry.value);
      parts := parts || case
        when is_array then format('%s(%s && %L::%s)', case entry.key when '$nin' then 'not ' else '' end, target, texts, type)
        when texts = '{}' then case entry.key when '$in' then 'false' else 'true' end
        else format('%s %s (%L::%s[])', target, case entry.key when '$in' then '= any' else '<> all' end, texts, type) end;
      canonical := canonical || jsonb_build_object(entry.key, texts);
    elsif entry.key = '$exists' then
      if jsonb_typeof(entry.value) <> 'boolean' then
        raise exception 'filter on column %: $exists expects true or false, not %', quote_ident(column_name), entry.value
          using errcode = '22023', detail = format('At %s.', entry.place),
          hint = 'For example {"category": {"$exists": true}}.';
      end if;
      parts := parts || (target || case when entry.value::boolean then ' is not null' else ' is null' end);
      canonical := canonical || jsonb_build_object(entry.key, entry.value);
    elsif entry.key in ('$eq', '$ne', '$lt', '$lte', '$gt', '$gte') then
      if is_array and entry.key not in ('$eq', '$ne') then
        raise exception 'filter on column %: % does not work on a list', quote_ident(column_name), entry.key
          using errcode = '22023', detail = format('At %s.', entry.place),
          hint = 'Lists take a value (contains), $in (contains one of) and $exists.';
      end if;
      value := ruvector.filter_value(column_name, element, entry.place, entry.value);
      parts := parts || case
        when value is null and entry.key in ('$eq', '$ne')
          then target || case entry.key when '$eq' then ' is null' else ' is not null' end
        when is_array
          then format('%s(%L::%s = any (%s))', case entry.key when '$ne' then 'not ' else '' end, value, element, target)
        else format('%s %s %L::%s', target,
          case entry.key when '$eq' then '=' when '$ne' then '<>' when '$lt' then '<' when '$lte' then '<='
                         when '$gt' then '>' else '>=' end, value, type) end;
      canonical := canonical || jsonb_build_object(entry.key, value);
    else
      raise exception 'filter on column %: unknown operator %', quote_ident(column_name), quote_literal(entry.key)
        using errcode = '22023', detail = format('At %s.', entry.place),
        hint = 'Operators are $eq $ne $lt $lte $gt $gte $in $nin $exists.';
    end if;
  end loop;
  condition := '(' || coalesce(nullif(array_to_string(parts, ' and '), ''), 'true') || ')';
end $$;

-- One object of a filter, and those below it; types has the type of every filter column that the table has.
create or replace function ruvector.filter_node(c ruvector.collection, types jsonb, filter jsonb, place text, depth int,
  out condition text, out canonical jsonb)
language plpgsql stable set search_path = pg_catalog, pg_temp
as $$
declare
  entry record;
  node record;
  parts text[] := '{}';
begin
  if depth > 32 then
    raise exception 'the filter is nested deeper than 32 levels' using errcode = '54000', hint = 'Flatten $and and $or.';
  end if;
  if jsonb_typeof(filter) <> 'object' then
    raise exception 'a filter must be a jsonb object, not %', filter using errcode = '22023',
      detail = format('At %s.', place), hint = 'For example {"category": "a", "price": {"$lt": 50}}.';
  end if;
  canonical := '{}';
  for entry in select o.key, o.value, format('%s.%s', place, o.key) as place from jsonb_each(filter) o loop
    if entry.key in ('$and', '$or') then
      if jsonb_typeof(entry.value) <> 'array' or jsonb_array_length(entry.value) = 0 then
        raise exception '% expects a list of filters, not %', entry.key, entry.value using errcode = '22023',
          detail = format('At %s.', entry.place),
          hint = 'For example {"$or": [{"category": "a"}, {"price": {"$lt": 50}}]}.';
      end if;
      select string_agg(n.condition, case entry.key when '$and' then ' and ' else ' or ' end order by v.n) as condition,
             jsonb_agg(n.canonical order by v.n) as canonical
        into node
        from jsonb_array_elements(entry.value) with ordinality v (value, n)
        cross join lateral ruvector.filter_node(c, types, v.value, format('%s[%s]', entry.place, v.n - 1), depth + 1) n;
      node.condition := '(' || node.condition || ')';
    elsif entry.key = '$not' then
      node := ruvector.filter_node(c, types, entry.value, entry.place, depth + 1);
      node.condition := '(not ' || node.condition || ')';
    elsif not entry.key = any (c.filter_columns) then
      raise exception 'column % is not a filter column of collection "%"', quote_ident(entry.key), c.name
        using errcode = '42703',
        detail = format('At %s. Filter columns: %s.', entry.place,
                        coalesce(nullif(array_to_string(c.filter_columns, ', '), ''), 'none')),
        hint = 'Attach it with the column: ruvector attach ... --columns '
               || array_to_string(c.filter_columns || entry.key, ',');
    elsif types ->> entry.key is null then
      raise exception 'filter column % was dropped from the table', quote_ident(entry.key) using errcode = '42703',
        detail = format('At %s.', entry.place),
        hint = 'Name the columns it has now: SELECT ruvector.set_filter_columns(name, columns).';
    else
      node := ruvector.filter_condition(entry.key, types ->> entry.key, entry.place, entry.value);
    end if;
    parts := parts || node.condition;
    canonical := canonical || jsonb_build_object(entry.key, node.canonical);
  end loop;
  condition := '(' || coalesce(nullif(array_to_string(parts, ' and '), ''), 'true') || ')';
end $$;

-- A jsonb filter, read once: as SQL over alias i of the mirrored table, whose names are mirrored columns and whose values
-- are quoted literals, and as the sidecar reads it, of the same structure with values as PostgreSQL prints them.
-- Of every filter column there is a version, another one when the column may hold values that nobody told the sidecar of:
-- after ALTER TABLE, or when it was no filter column for a while. The sidecar applies a filter to the versions it read.
-- Its queries are planned once in a session: planning them for the columns of each collection took half of the time.
create or replace function ruvector.filter_parts(c ruvector.collection, filter jsonb, out condition text,
  out canonical jsonb, out versions jsonb)
language plpgsql stable set search_path = pg_catalog, pg_temp set plan_cache_mode = force_generic_plan
as $$
declare
  types jsonb;
  node record;
begin
  select jsonb_object_agg(a.attname, format_type(a.atttypid, -1)),
         jsonb_object_agg(a.attname, concat_ws('.', c.captured ->> a.attname, a.attnum, a.xmin))   -- as in capture.sql
    into types, versions from pg_attribute a
  where a.attrelid = to_regclass(format('%I.%I', c.table_schema, c.table_name)) and a.attname = any (c.filter_columns)
    and not a.attisdropped;
  node := ruvector.filter_node(c, coalesce(types, '{}'), filter, '$', 0);
  condition := node.condition;
  canonical := node.canonical;
end $$;

-- A jsonb filter as SQL over alias i of the mirrored table.
create or replace function ruvector.filter_sql(c ruvector.collection, filter jsonb) returns text
language sql stable set search_path = pg_catalog, pg_temp
as $$ select f.condition from ruvector.filter_parts(c, filter) f $$;

-- Whether a role may read every filter column that the table has: who may not must not learn from what passes either.
create or replace function ruvector.may_filter(mirror int, role name) returns boolean
language sql stable set search_path = pg_catalog, pg_temp
as $$
select coalesce(bool_and(has_column_privilege(role, a.attrelid, a.attnum, 'select')), true)
from ruvector.collection c
join pg_attribute a on a.attrelid = c.table_oid and a.attname = any (c.filter_columns) and not a.attisdropped
where c.id = mirror
$$;
revoke all on function ruvector.may_filter(int, name) from public;

-- SQL text of "the keys in the text[] called given, as the mirror writes them", for keys that are values of their types.
-- The text of a value says which value it is, unless equal values have several: those are looked up.
create or replace function ruvector.key_members_sql(c ruvector.collection, given text) returns text
language sql stable set search_path = pg_catalog, pg_temp
as $$
select case
  when 'numeric' = any (c.key_types) or exists (
      select from pg_attribute a join pg_collation l on l.oid = a.attcollation
      where a.attrelid = c.table_oid and a.attnum = any (c.key_numbers) and not l.collisdeterministic)
    then format('array(select %s from %I.%I i where %s)', ruvector.key_text_sql('i', c.key_columns), c.table_schema,
                c.table_name, ruvector.key_match_sql('i', c.key_columns, c.key_types, given))
  when cardinality(c.key_columns) = 1
    then format('array(select u.t::text from unnest(%s::%s[]) u (t) where u.t is not null)', given, c.key_types[1])
  else (select format('array(select json_build_array(%s)::text from unnest(%s) u (t) where u.t is not null)',
               string_agg(format('(u.t::json ->> %s)::%s', z.n - 1, z.t), ', ' order by z.n), given)
        from unnest(c.key_types) with ordinality z (t, n)) end
$$;

-- Generate candidates_<id> (asks the sidecar, overlays unapplied changes) and search_<id> (joins back, refills to k).
-- Both are STABLE: every statement inside then uses the caller's snapshot, the very one that is sent to the sidecar.
create or replace function ruvector.create_search(mirror int) returns void
language plpgsql set search_path = pg_catalog, pg_temp
as $create$
declare
  c ruvector.collection;
  query_type text;
  sent_form text;
  operator text;
  dims_of text;
  zero_check text := '';
  template text;
  parts jsonb;
  quote_tag text := '$body$';
  home constant text := ruvector.vector_schema();
  rounded text := 'query';
  old regprocedure;
begin
  select * into strict c from ruvector.collection where id = mirror;
  for old in         -- of an older release: other arguments would make another function beside it
    select p.oid from pg_proc p
    where p.pronamespace = 'ruvector'::regnamespace
      and (p.proname = format('candidates_%s', mirror) and p.pronargs <> 5
           or p.proname = format('search_%s', mirror) and p.pronargs <> 8)
  loop
    execute format('drop function %s', old);
  end loop;
  query_type := case c.vector_type when 'bit' then 'bit' when 'sparsevec' then home || '.sparsevec'
                                   else home || '.vector' end;
  if c.vector_type = 'halfvec' then
    rounded := format('(query::%1$s.halfvec)::%1$s.vector', home);   -- the distance is measured from what halfvec can hold
  end if;
  sent_form := case c.vector_type when 'bit' then 'bit_send(query)' when 'sparsevec' then home || '.sparsevec_send(query)'
                                  else format('%s.vector_send(%s)', home, rounded) end;
  operator := case c.metric when 'l2' then '<->' when 'ip' then '<#>' when 'cosine' then '<=>' when 'l1' then '<+>'
                            when 'hamming' then '<~>' else '<%>' end;
  -- pgvector has no function for the dimensions of a sparsevec: they are the first four bytes that it sends.
  dims_of := case c.vector_type when 'bit' then 'length({value})'
    when 'sparsevec' then '(''x'' || encode(substr({home}.sparsevec_send({value}), 1, 4), ''hex''))::bit(32)::int'
    else '{home}.vector_dims({value})' end;
  if c.metric = 'cosine' then
    zero_check := ruvector.fill($check$
  if {home}.{norm}({rounded}) = 0 then
    raise exception 'the query vector is all zeros, which has no direction under the cosine metric'
      using errcode = '22023', hint = 'Give a vector with at least one element that is not zero.';
  end if;$check$, jsonb_build_object('home', home, 'rounded', rounded,
      'norm', case c.vector_type when 'sparsevec' then 'l2_norm' else 'vector_norm' end));
  end if;
  template := $template$
create or replace function ruvector.candidates_{id}(query {query_type}, wanted int, ef int, explained boolean default false,
  sieve json default null, out keys text[], out dirty text[], out overlaid int, out reach float8, out returned int, out watermark pg_snapshot,
  out refusal text, out report jsonb)
language plpgsql stable security definer set search_path = pg_catalog, pg_temp{pinned} as {quote_tag}
-- Every statement here costs its start in each search, so there are three: what is known about mirror and role, the
-- question to the sidecar, the overlay. What only says why there is no answer stands behind them.
declare
  dirty_max constant int := 20000;
  started constant timestamptz := clock_timestamp();
  asking constant name := coalesce(nullif(current_setting('role'), 'none'), session_user);
  state record; sent bytea; body text; asked_at timestamptz; answered_at timestamptz; is_fresh boolean := false;
  truncated_seen boolean; logged text[]; scanned int; is_withheld boolean := false;
begin
  dirty := '{}'; overlaid := 0;
  if wanted not between 1 and 20000 then
    raise exception 'candidate count % is out of range', wanted using errcode = '22023', hint = 'Ask for 1 to 20000.';
  end if;
  if pg_is_in_recovery() then refusal := 'this server is a standby'; return; end if;
  select has_table_privilege(asking, c.oid, 'select') and not c.relrowsecurity as is_open, l.token, s.inner_key,
         s.outer_key, d.oid as database_oid, p.epoch,
         case when p.beat_at is not null then clock_timestamp() - to_timestamp(b.last_value / 1000.0) end as silence
    into state
    from ruvector.secret s
    join pg_database d on d.datname = current_database()
    left join pg_class c on c.oid = {table_literal}::regclass
    left join ruvector.live l on l.mirror_id = {id}
    left join ruvector.pulse p on true
    cross join ruvector.beat b;
  if state.is_open is not true then
    refusal := ruvector.unreadable({table_literal}::regclass, {column_literal});
    if refusal is not null then return; end if;
    if sieve is not null and not ruvector.may_filter({id}, asking) then
      is_withheld := true;
      sieve := json_build_object('plan', 'auto', 'filter', null, 'members', sieve -> 'members',
                                 'max_distance', sieve -> 'max_distance');
    end if;
  end if;
  if octet_length(sieve::text) > 50331648 then refusal := 'filter and keys are too long to be sent'; return; end if;
  if state.token is null then
    select 'the mirror is ' || case when s.state = 'live' then 'without a sidecar' else s.state end
           || coalesce(': ' || nullif(s.reason, ''), '')
      into refusal from ruvector.mirror_status s where s.mirror_id = {id};
    refusal := coalesce(refusal, 'the mirror is new');
    return;
  end if;
  if not coalesce(state.silence < interval '4 s', false) or current_setting('ruvector.retry_after', true) <> '' then
    refusal := 'sidecar unreachable: ' || ruvector.silence_problem(state.silence);
    if refusal is not null then return; end if;
  end if;
  -- Fields without spaces, in an order of their own, what may pass if not everything may, and the query behind them. The
  -- code in front proves that this function wrote them; it is made of the query's bytes, half as many as their digits.
  sent := {sent_form};
  body := concat_ws(' ', {id}, wanted, coalesce(ef, 0), {deadline}, explained::int,
    extract(epoch from pg_postmaster_start_time()), state.database_oid, state.token, pg_current_snapshot(), sieve, '');
  body := concat('SEARCH ', encode(sha256(state.outer_key || sha256(state.inner_key || convert_to(body, 'UTF8')
    || sent)), 'hex'), body, encode(sent, 'hex'));
  asked_at := clock_timestamp();
  loop
    begin
      if is_fresh or not {is_linked} then
        is_fresh := true;
        perform ruvector.link();
      end if;
      select a.refusal, a.watermark, a.keys, a.reach, a.touched, a.report
        into refusal, watermark, keys, reach, dirty, report
        from {answer} as a (
          refusal text, watermark pg_snapshot, keys text[], reach float8, touched text[], report jsonb);
      exit;
    exception
      when sqlstate '08000' or sqlstate '08001' or sqlstate '08003' or sqlstate '08006' or sqlstate 'XX000'
        or sqlstate '2F003' then
        if is_fresh or sqlstate in ('08001', '2F003') then
          refusal := 'sidecar unreachable: ' || sqlerrm;
          exit;
        end if;
        is_fresh := true;        -- the stale link of a restarted sidecar: once more, over a new one
    end;
  end loop;
  answered_at := clock_timestamp();
  if refusal is not null then
    dirty := '{}';
    -- A sidecar that hangs costs the connect timeout once, not on every search of the session.
    if answered_at - started > interval '500 ms' then
      perform set_config('ruvector.retry_after', extract(epoch from answered_at + interval '3 s')::text, false);
    end if;
    return;
  end if;
  returned := cardinality(keys);
  -- Mostly there are none, and one look into the index costs less than collecting. In order, because a plan that
  -- expects any row to do, or some of many, reads the whole changelog when there is none.
  if pg_snapshot_xmin(watermark) < pg_snapshot_xmax(watermark) or (
    select l.xid from ruvector.changelog_{id} l where l.xid >= pg_snapshot_xmax(watermark) order by l.xid limit 1
  ) is not null then
    select array_agg(distinct z.key) filter (where z.key is not null), bool_or(z.truncated), count(*)
      into logged, truncated_seen, scanned
      from ((select case when not l.truncated then {log_key} end as key, l.truncated
             from ruvector.changelog_{id} l where l.xid >= pg_snapshot_xmax(watermark)
             order by l.xid limit dirty_max + 1)
            union all
            select case when not l.truncated then {log_key} end, l.truncated
              from ruvector.changelog_{id} l where l.xid = any (array(select pg_snapshot_xip(watermark)))
            limit dirty_max + 1) z;
    overlaid := coalesce(cardinality(logged), 0);
    dirty := dirty || logged;
  end if;
  -- Rows, not only keys: the limit may have cut off the changes of further keys.
  if greatest(scanned, cardinality(dirty)) > dirty_max then refusal := 'too many recent changes'; return; end if;
  if truncated_seen then keys := '{}'; returned := 0; end if;   -- everything older is gone, everything newer is dirty
  if is_withheld then report := coalesce(report, '{}') || '{"filter": "not pushed"}'; end if;
  if explained then
    report := report || jsonb_build_object(
      'prepare_ms', extract(epoch from asked_at - started) * 1000,
      'ask_ms', extract(epoch from answered_at - asked_at) * 1000,
      'overlay_ms', extract(epoch from clock_timestamp() - answered_at) * 1000);
  end if;
end {quote_tag};

create or replace function ruvector.search_{id}(query {query_type}, k int, ef int, filter jsonb, exactness text,
  explained boolean, keys text[] default null, max_distance float8 default null)
returns table (id text, distance float8, score real, engine text, report jsonb)
language plpgsql stable set search_path = pg_catalog, pg_temp{pinned} as {quote_tag}
#variable_conflict use_variable
-- Every column below is qualified: the table may have columns called query, dims or k.
declare
  dims constant int := {dims};
  wanted_max constant int := 20000;
  started constant timestamptz := clock_timestamp();
  -- Settings are read where they are used: calling a function for each would cost more than the index's search.
  mode constant text := coalesce(exactness, nullif(current_setting('ruvector.exactness', true), ''), 'balanced');
  fallback constant text := coalesce(nullif(current_setting('ruvector.fallback', true), ''), 'pgvector');
  beam constant int := coalesce(ef, case when current_setting('ruvector.ef_search', true) <> ''
                                    then ruvector.setting_int('ef_search', 1, 20000) end);
  most constant float8 := coalesce(max_distance, 'Infinity');
  wanted int; c record; pool text[]; kth float8; survivors int; passing int; rounds int := 0;
  ranking_at timestamptz; ranked_at timestamptz;
  condition text; canonical jsonb; versions jsonb; sieve json; members text[]; plan text; is_pushed boolean;
  is_certain boolean; is_held boolean := false; obeyed text;   -- held back from the index by a cutover
  is_sampled boolean := false;
  reason text; ids text[]; distances float8[]; answered text := 'ruvector';
begin
  if k is null or k not between 1 and 10000 then
    raise exception 'k must be between 1 and 10000, not %', coalesce(k::text, 'null') using errcode = '22023',
      hint = 'Ask for fewer rows; read a whole table without an index.';
  end if;
  if query is null then
    raise exception 'the query vector is null' using errcode = '22004', hint = 'Give a vector with {dims} dimensions.';
  end if;
  if {query_dims} <> dims then
    raise exception 'the query has % dimensions, collection % has %', {query_dims}, {name_literal}, dims
      using errcode = '22023', hint = 'Give a vector with {dims} dimensions.';
  end if;{zero_check}
  if beam not between 1 and 20000 then
    raise exception 'ef_search must be between 1 and 20000, not %', beam using errcode = '22023',
      hint = 'Leave it out to use the collection''s own value.';
  end if;
  if most = 'NaN' then
    raise exception 'max_distance is not a number' using errcode = '22023', hint = 'Leave it out to allow any distance.';
  end if;
  if mode not in ('fast', 'balanced', 'exact') then
    raise exception 'unknown exactness %', quote_literal(mode) using errcode = '22023',
      hint = 'Values are fast, balanced and exact.';
  end if;
  if fallback not in ('pgvector', 'error') then
    raise exception 'unknown ruvector.fallback %', quote_literal(fallback) using errcode = '22023',
      hint = 'Values are pgvector and error.';
  end if;
  if filter is not null or keys is not null or max_distance is not null then
    plan := coalesce(nullif(current_setting('ruvector.filter_plan', true), ''), 'auto');
    if plan not in ('auto', 'scan', 'hop', 'walk') then
      raise exception 'unknown ruvector.filter_plan %', quote_literal(plan) using errcode = '22023',
        hint = 'Values are auto, scan, hop and walk.';
    end if;
    if filter is not null then
      c := ruvector.filter_parts(ruvector.collection_of({name_literal}), filter);
      condition := c.condition; canonical := c.canonical; versions := c.versions;
    end if;
    if keys is not null then
      if cardinality(keys) > 1000000 then
        raise exception '% keys were given, at most 1000000 are allowed', cardinality(keys) using errcode = '54000',
          hint = 'Attach a column that says which rows are meant, and give a filter.';
      end if;
      begin
        members := {key_members};
      exception when data_exception then
        raise exception 'a text in keys is not a key of collection %: %', {name_literal}, sqlerrm using errcode = '22023',
          hint = 'Give keys as this function returns them: {key_hint}.';
      end;
    end if;
    sieve := json_build_object('plan', plan, 'filter', canonical, 'versions', versions, 'members', members,
                               'max_distance', max_distance::text);
    if filter is not null or keys is not null then
      condition := coalesce(condition, 'true');
    end if;
  end if;
  if mode = 'exact' then
    reason := 'exactness exact was asked for';
  elsif row_security_active({table_literal}::regclass) then
    reason := 'row-level security is active for this role';
  end if;{cutover_check}
  if reason is not null then
    select null::pg_snapshot as watermark, null::int as overlaid, null::int as returned, null::jsonb as report into c;
  end if;
  wanted := least(wanted_max, k + 8);
  while reason is null loop
    rounds := rounds + 1;
    c := ruvector.candidates_{id}(query, wanted, beam, explained, sieve);
    reason := c.refusal;
    exit when reason is not null;
    -- Without recent changes every key is visible, and passes, with the vector that the index has: the first k are the
    -- answer. Unless the sidecar could not tell for certain what passes: then the condition is asked of all.
    is_certain := c.dirty = '{}' and (condition is null or c.report is null
                                      or not (c.report ? 'unsure' or c.report @> '{"filter": "not pushed"}'));
    pool := case when is_certain and rounds = 1 then c.keys[:k] else c.keys || c.dirty end;
    if members is not null and not is_certain then
      pool := array(select unnest(pool) intersect select unnest(members));
    end if;
    ranking_at := clock_timestamp();
    if condition is null or is_certain then
      select array_agg(z.id), array_agg(z.d) into ids, distances
        from (select {row_key} as id, i.{column} {operator} {typed_query} as d from {table} i
              where {key_match} and {comparable} order by 2, {order_key} limit k) z where z.d <= most;
    else
      execute {filtered_pool} || condition || {filtered_pool_end} using pool, query, k, most into ids, distances;
    end if;
    survivors := coalesce(cardinality(ids), 0);
    kth := distances[survivors];
    ranked_at := clock_timestamp();
    -- Nothing the index did not return can be nearer than reach; the margin is the rounding of f32 arithmetic.
    exit when c.returned < wanted or (survivors >= k and kth <= c.reach + abs(c.reach) * 1e-5 + 1e-7)
      or most < c.reach - abs(c.reach) * 1e-5 - 1e-7;
    if wanted >= wanted_max then
      reason := format('%s of %s candidates passed filter and visibility', survivors, wanted);
    end if;
    wanted := least(wanted_max, greatest(4 * wanted, (2.0 * k * wanted / greatest(survivors, 1))::int));
  end loop;
  if reason is not null then
    if ruvector.table_problem({id}) ~ '^column ' then
      raise exception 'collection % does not fit its table any more: %', {name_literal}, ruvector.table_problem({id})
        using errcode = '55000', hint = 'Detach the collection, then attach the column as it is now.';
    end if;
    if fallback = 'error' and mode <> 'exact' and not is_held then
      raise exception 'the index of collection % cannot answer: %', {name_literal}, reason using errcode = '08001',
        hint = 'SET ruvector.fallback = ''pgvector'' lets the database answer; ruvector doctor tells what is wrong.';
    end if;
    if mode <> 'exact' and not explained and not is_held then
      raise notice 'ruvector: collection % was searched by the database itself: %', {name_literal}, reason;
    end if;
    if condition is null and mode <> 'exact' and not row_security_active({table_literal}::regclass) then
      answered := 'pgvector';      -- may use a pgvector index, if there is one
      select array_agg(z.id), array_agg(z.d) into ids, distances
        from (select {row_key} as id, i.{column} {operator} {typed_query} as d from {table} i where {comparable}
              order by i.{column} {operator} {typed_query} limit k) z where z.d <= most;
    else
      answered := 'exact';         -- "+ 0" keeps every approximate index out
      execute {exact_scan} || coalesce(condition, 'true') || case when members is null then '' else {among_members} end
        || {exact_scan_end} using query, k, members, most into ids, distances;
    end if;
  end if;
  if explained then
    is_pushed := jsonb_typeof(c.report -> 'filter') = 'object';
    if condition is not null and answered = 'ruvector' and c.returned > 0 and is_pushed is not true then
      pool := case when members is null then c.keys
              else array(select unnest(c.keys) intersect select unnest(members)) end;
      execute {passing_count} || condition using pool into passing;
    end if;
    return query select null::text, null::float8, null::real, answered, jsonb_strip_nulls(jsonb_build_object(
      'plan', case when answered = 'exact' then 'exact scan' when answered = 'pgvector' then 'pgvector order by'
                   when condition is null then 'index'
                   when is_pushed then concat_ws(': ', 'index, filtered', c.report #>> '{filter,plan}')
                   else 'index, filter after join, refill' end,
      'rounds', rounds, 'watermark', c.watermark, 'overlay_rows', c.overlaid, 'candidates', c.returned,
      'selectivity', case when is_pushed then (c.report #>> '{filter,matching}')::float8
        / nullif((c.report #>> '{filter,rows}')::float8, 0) else passing::float8 / c.returned end, 'reason', reason, 'sidecar', c.report,
      'rank_ms', extract(epoch from ranked_at - ranking_at) * 1000,
      'total_ms', extract(epoch from clock_timestamp() - started) * 1000));
    return;
  end if;{cutover_sample}
  for place in 1 .. coalesce(cardinality(ids), 0) loop
    id := ids[place]; distance := distances[place]; score := {score}; engine := answered;
    return next;
  end loop;
end {quote_tag};
revoke all on function ruvector.candidates_{id}({query_type}, int, int, boolean, json) from public;
revoke all on function ruvector.search_{id}({query_type}, int, int, jsonb, text, boolean, text[], float8) from public;
grant execute on function ruvector.candidates_{id}({query_type}, int, int, boolean, json) to ruvector_user, ruvector_sidecar;
grant execute on function ruvector.search_{id}({query_type}, int, int, jsonb, text, boolean, text[], float8)
  to ruvector_user, ruvector_sidecar;
$template$;
  parts := ruvector.query_parts(c, 'query', 'pool', dims_of, operator) || jsonb_build_object(
    'id', mirror, 'query_type', query_type, 'sent_form', sent_form, 'dims', c.dims, 'zero_check', zero_check,
    'cutover_check', ruvector.cutover_check(c), 'cutover_sample', ruvector.cutover_sample(c),
    'name_literal', quote_literal(c.name),
    -- Text of timestamps and dates depends on settings; the others do not, and a pinned setting costs time.
    'pinned', case when c.key_types && array['date', 'timestamp without time zone', 'timestamp with time zone']
              then ' set timezone = ''UTC'' set datestyle = ''ISO''' else '' end,
    'log_key', ruvector.key_text_sql('l', array(select 'key_' || n from generate_series(1, cardinality(c.key_columns)) n)),
    'table_literal', quote_literal(format('%I.%I', c.table_schema, c.table_name)),
    'column_literal', quote_literal(c.column_name),
    'deadline', $sql$case when current_setting('statement_timeout') = '0'
      and coalesce(current_setting('ruvector.timeout_ms', true), '') = '' then 2000 else ruvector.deadline_ms() end$sql$,
    'is_linked', $sql$coalesce('ruvector_link' = any (@dblink@.dblink_get_connections())
        and current_setting('ruvector.linked_epoch', true) = state.epoch::text, false)$sql$,
    'answer', $sql$@dblink@.dblink('ruvector_link', body)$sql$,
    'score', case c.metric when 'ip' then '-distance' when 'cosine' then '1 - distance' when 'jaccard' then '1 - distance'
             else '1 / (1 + distance)' end,
    'filtered_pool', quote_literal(ruvector.fill(
      'select array_agg(z.id), array_agg(z.d)
       from (select {row_key} as id, i.{column} {operator} {typed_query} as d from {table} i
             where {key_match} and {comparable} and ', ruvector.query_parts(c, '$2', '$1', dims_of, operator))),
    'filtered_pool_end', quote_literal(ruvector.fill(' order by 2, {order_key} limit $3) z where z.d <= $4',
      ruvector.query_parts(c, '$2', '$1', dims_of, operator))),
    'passing_count', quote_literal(ruvector.fill('select count(*) from {table} i where {key_match} and {comparable} and ',
      ruvector.query_parts(c, '', '$1', dims_of, operator))),
    'exact_scan', quote_literal(ruvector.fill(
      'select array_agg(z.id), array_agg(z.d)
       from (select {row_key} as id, (i.{column} {operator} {typed_query}) + 0::float8 as d from {table} i
             where {comparable} and ', ruvector.query_parts(c, '$1', '', dims_of, operator))),
    'key_members', ruvector.key_members_sql(c, 'keys'),
    'key_hint', case when cardinality(c.key_columns) = 1 then 'keys => ARRAY(SELECT key::text FROM ...)'
                else 'keys => ARRAY(SELECT json_build_array(first, second)::text FROM ...)' end,
    'among_members', quote_literal(' and ' || ruvector.key_match_sql('i', c.key_columns, c.key_types, '$3')),
    'exact_scan_end', quote_literal(ruvector.fill(' order by 2, {order_key} limit $2) z where z.d <= $4',
      ruvector.query_parts(c, '$1', '', dims_of, operator))));
  -- A name may hold the quote of the function bodies: take one that occurs nowhere.
  while position(quote_tag in parts::text) > 0 loop
    quote_tag := '$body' || substr(md5(quote_tag || parts::text), 1, 8) || '$';
  end loop;
  execute ruvector.fill(template, parts || jsonb_build_object('quote_tag', quote_tag));
end $create$;

-- Replace each {name} of a template by the text of that name, in one pass: a value is never searched again.
create or replace function ruvector.fill(template text, parts jsonb) returns text
language sql immutable set search_path = pg_catalog, pg_temp
as $$
select string_agg(case when p.n % 2 = 1 then p.part else coalesce(parts ->> p.part, '{' || p.part || '}') end, '' order by p.n)
from regexp_split_to_table(regexp_replace(template, '\{([a-z_]+)\}', E'\x01\\1\x01', 'g'), E'\x01') with ordinality p (part, n)
$$;

-- The parts of a query over the mirrored table, alias i: where the query vector and the key pool are bound.
create or replace function ruvector.query_parts(
  c ruvector.collection, query_at text, pool_at text, dims_of text, operator text) returns jsonb
language sql stable set search_path = pg_catalog, pg_temp
as $$
select jsonb_build_object(
  'row_key', ruvector.key_text_sql('i', c.key_columns), 'order_key', ruvector.each('i.%1$I', c.key_columns),
  'column', quote_ident(c.column_name), 'operator', format('operator(%s.%s)', ruvector.vector_schema(), operator),
  'typed_query', case c.vector_type when 'halfvec' then format('(%s)::%s.halfvec', query_at, ruvector.vector_schema())
                 else query_at end,
  'table', format('%I.%I', c.table_schema, c.table_name),
  'query_dims', ruvector.fill(dims_of, jsonb_build_object('home', ruvector.vector_schema(), 'value', 'query')),
  -- Asking a vector for its dimensions fetches it: only where the column's type does not say them.
  'comparable', case when c.dims = (
      select a.atttypmod from pg_attribute a
      where a.attrelid = to_regclass(format('%I.%I', c.table_schema, c.table_name)) and a.attname = c.column_name)
    then format('i.%I is not null', c.column_name)
    else ruvector.fill(dims_of, jsonb_build_object('home', ruvector.vector_schema(),
                                                   'value', format('i.%I', c.column_name))) || ' = ' || c.dims end,
  'key_match', ruvector.key_match_sql('i', c.key_columns, c.key_types, pool_at))
$$;
