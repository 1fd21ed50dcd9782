-- language: sql
select @vector@.l2_normalize($1::@vector@.vector)::real[]
