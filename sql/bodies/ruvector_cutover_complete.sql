declare
  c constant ruvector.collection := ruvector.collection_of(collection);
begin
  if (c.cutover_state, c.cutover_percent) not in (('ramp', 100), ('complete', 100)) then
    raise exception 'the cutover of collection "%" is %, not at 100 %%', collection,
      case c.cutover_state when 'off' then 'off' else format('at %s %%', c.cutover_percent) end
      using errcode = '55000', hint = 'Let the index answer all searches for a while: SELECT ruvector_cutover(name, 100).';
  end if;
  return ruvector.set_cutover(collection, 'complete', 100, reason);
end
