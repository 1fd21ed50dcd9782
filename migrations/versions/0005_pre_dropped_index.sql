-- pgvector's indexes that a completed cutover dropped. They outlive the collection: nothing else knows their definition.
create table ruvector.dropped_index (
  id bigint generated always as identity primary key,
  at timestamptz not null default clock_timestamp(),
  mirror_id int not null,
  collection text not null,
  table_schema text not null,
  index_name text not null,
  definition text not null,
  tablespace text,
  is_partitioned boolean not null,
  bytes bigint not null
);
create index dropped_index_mirror on ruvector.dropped_index (mirror_id);
grant select on ruvector.dropped_index to ruvector_user;
grant select, delete on ruvector.dropped_index to ruvector_sidecar;
