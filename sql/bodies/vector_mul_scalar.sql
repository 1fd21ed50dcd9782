-- language: sql
select ($1::@vector@.vector operator(@vector@.*) array_fill($2, array[cardinality($1)])::@vector@.vector)::real[]
