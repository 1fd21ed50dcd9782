-- language: sql
select @vector@.vector_norm($1::@vector@.vector)
