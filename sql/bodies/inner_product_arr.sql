-- language: sql
select @vector@.inner_product($1::@vector@.vector, $2::@vector@.vector)
