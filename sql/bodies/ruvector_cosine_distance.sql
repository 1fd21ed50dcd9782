-- language: sql
select $1 operator(@vector@.<=>) $2
