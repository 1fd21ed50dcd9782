-- language: sql
-- security: definer
select * from ruvector.consistency($1)
