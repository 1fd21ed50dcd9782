begin
  if alpha <= 0 or alpha > 1 then
    raise exception 'alpha is %', alpha
      using errcode = '22023', hint = 'Give the weight of the current array: more than 0, at most 1.';
  end if;
  return ruvector.vector_add(
    ruvector.vector_mul_scalar(current, alpha), ruvector.vector_mul_scalar(ema_prev, (1 - alpha)::real));
end
