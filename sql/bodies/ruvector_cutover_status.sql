-- language: sql
select c.name, c.cutover_state, c.cutover_percent,
       to_char(s.at at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'), s.changed_by, s.reason, c.cutover_sample_rate,
       c.cutover_guard, (select count(*)::int from ruvector.dropped_index d where d.mirror_id = c.id)
from ruvector.collection c
left join lateral (select z.at, z.changed_by, z.reason from ruvector.cutover_step z
                   where z.mirror_id = c.id order by z.id desc limit 1) s on true
where ruvector_cutover_status.name is null or c.id = (ruvector.collection_of(ruvector_cutover_status.name)).id
order by c.name
