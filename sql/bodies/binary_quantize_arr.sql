-- language: sql
select decode(string_agg(lpad(to_hex(byte), 2, '0'), '' order by place), 'hex')
from (
  select (n - 1) / 8 as place, sum(case when element > 0 then 1 << ((n - 1) % 8)::int else 0 end)::int as byte
  from unnest($1::@vector@.vector::real[]) with ordinality as e (element, n)
  group by (n - 1) / 8
) as bytes
