declare
  wanted constant text := pg_current_snapshot()::text;
  until constant timestamptz := clock_timestamp() + make_interval(secs => coalesce(timeout_ms, 1000) / 1000.0);
  applied boolean;
begin
  perform ruvector.collection_of(collection);
  if timeout_ms < 0 then
    raise exception 'timeout_ms is %', timeout_ms using errcode = '22023', hint = 'Give milliseconds, 0 or more.';
  end if;
  -- Short waits in a loop: a cancel reaches this function between two of them.
  loop
    select value::boolean into applied from ruvector.call('ruvector_wait_applied', jsonb_build_object(
      'collection', collection, 'snapshot', wanted,
      'timeout_ms', least(100, greatest(0, extract(epoch from until - clock_timestamp()) * 1000))::int)) r (value);
    if applied or clock_timestamp() >= until then
      return coalesce(applied, false);
    end if;
  end loop;
end
