-- Who answers the searches of a collection, and every step that changed it.
alter table ruvector.collection
  add column cutover_state text not null default 'complete' check (cutover_state in ('off', 'ramp', 'complete')),
  add column cutover_percent int not null default 100 check (cutover_percent between 0 and 100);

create table ruvector.cutover_step (
  id bigint generated always as identity primary key,
  at timestamptz not null default clock_timestamp(),
  mirror_id int not null references ruvector.collection (id) on delete cascade,
  changed_by text not null default session_user,
  from_state text not null,
  from_percent int not null,
  state text not null,
  percent int not null,
  reason text not null default ''
);
create index cutover_step_mirror on ruvector.cutover_step (mirror_id, id);
grant select on ruvector.cutover_step to ruvector_user;
