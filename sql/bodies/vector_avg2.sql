-- language: sql
-- Halved first: the sum of two large numbers may be beyond a real.
select (($1::@vector@.vector operator(@vector@.*) half)
  operator(@vector@.+) ($2::@vector@.vector operator(@vector@.*) half))::real[]
from cast(array_fill(0.5::real, array[cardinality($1)]) as @vector@.vector) as half
