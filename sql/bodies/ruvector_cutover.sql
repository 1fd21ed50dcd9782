declare
  problem text;
begin
  if percent is null or percent not between 0 and 100 then
    raise exception 'percent must be between 0 and 100, not %', coalesce(percent::text, 'null') using errcode = '22023',
      hint = 'Give the share of searches that the index answers; ruvector_rollback gives all of them back to pgvector.';
  end if;
  if percent > 0 and not exists (
    select from ruvector.mirror_status s where s.mirror_id = (ruvector.collection_of(collection)).id and s.state = 'live')
  then
    select s.state || coalesce(': ' || nullif(s.reason, ''), '') into problem
      from ruvector.mirror_status s where s.mirror_id = (ruvector.collection_of(collection)).id;
    raise exception 'the index of collection "%" cannot answer yet: it is %', collection, coalesce(problem, 'new')
      using errcode = '55000', hint = 'Let the sidecar build it first: ruvector run; ruvector status shows its progress.';
  end if;
  return ruvector.set_cutover(collection, 'ramp', percent, reason);
end
