-- language: sql
select @vector@.inner_product($1, $2)
