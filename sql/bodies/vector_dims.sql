-- language: sql
select @vector@.vector_dims($1::@vector@.vector)
