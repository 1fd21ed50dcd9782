-- language: sql
select $1 operator(@vector@.*) array_fill($2, array[@vector@.vector_dims($1)])::@vector@.vector
