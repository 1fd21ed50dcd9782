-- language: sql
select jsonb_build_object(
  'data', jsonb_agg(case when scale > 0 then round((element::float8 - low) / scale)::int else 0 end order by n),
  'scale', min(scale), 'offset', min(low))
from unnest($1::@vector@.vector::real[]) with ordinality as e (element, n),
  (select min(element)::float8 as low, (max(element)::float8 - min(element)) / 255 as scale
   from unnest($1) as element) as extent
