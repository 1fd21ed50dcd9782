-- language: sql
select c.id, c.name, format('%I.%I.%I', c.table_schema, c.table_name, c.column_name), c.dims, c.metric, c.index_kind,
       coalesce(s.rows_indexed, 0)
from ruvector.collection c left join ruvector.mirror_status s on s.mirror_id = c.id
order by c.name
