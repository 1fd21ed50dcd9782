begin
  if dt <= 0 or dt >= 'infinity' then
    raise exception 'dt is %', dt using errcode = '22023', hint = 'Give a time greater than 0.';
  end if;
  return ruvector.vector_mul_scalar(ruvector.vector_sub(v_t1, v_t0), (1 / dt::float8)::real);
end
