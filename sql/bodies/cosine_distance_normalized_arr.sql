-- language: sql
select 1 - @vector@.inner_product($1::@vector@.vector, $2::@vector@.vector)
