begin
  if time_delta <= 0 or time_delta >= 'infinity' then
    raise exception 'time_delta is %', time_delta using errcode = '22023', hint = 'Give a time greater than 0.';
  end if;
  return ruvector.l2_distance_arr(v1, v2) / time_delta;
end
