-- Schema ruvector: what a backup of the database must contain. Everything else is rebuilt from the tables.
create schema if not exists ruvector;
revoke all on schema ruvector from public;

-- Roles are shared by all databases of a server: another database may have made them already.
do $$
begin
  if not exists (select from pg_catalog.pg_roles where rolname = 'ruvector_user') then
    create role ruvector_user nologin;
  end if;
  if not exists (select from pg_catalog.pg_roles where rolname = 'ruvector_sidecar') then
    create role ruvector_sidecar nologin;
  end if;
end $$;
grant usage on schema ruvector to ruvector_user, ruvector_sidecar;

-- Which database this is: a restored dump or a clone differs from the row it carries.
create table ruvector.instance (
  only_one boolean primary key default true check (only_one),
  instance_id uuid not null default gen_random_uuid(),
  system_identifier bigint not null,
  database_oid oid not null,
  installed_version text not null default ''
);
insert into ruvector.instance (system_identifier, database_oid)
select c.system_identifier, d.oid
from pg_catalog.pg_control_system() c, pg_catalog.pg_database d
where d.datname = current_database();

-- Where the database reaches the sidecar, and the password it shows there. The owner's alone.
create table ruvector.gate (
  only_one boolean primary key default true check (only_one),
  host text,
  port int,
  is_encrypted boolean not null default false,
  login text not null default 'bridge',
  password text not null default replace(gen_random_uuid()::text || gen_random_uuid()::text, '-', ''),
  updated_at timestamptz
);
insert into ruvector.gate default values;

-- Keys of the message code over every request that the database sends to the sidecar.
create table ruvector.secret (
  only_one boolean primary key default true check (only_one),
  inner_key bytea not null default sha256(convert_to(gen_random_uuid()::text || gen_random_uuid()::text, 'UTF8')),
  outer_key bytea not null default sha256(convert_to(gen_random_uuid()::text || gen_random_uuid()::text, 'UTF8'))
);
insert into ruvector.secret default values;

create table ruvector.collection (
  id int generated always as identity primary key,
  name text not null unique check (octet_length(name) between 1 and 63),
  table_oid oid not null,
  table_schema text not null,
  table_name text not null,
  column_name text not null,
  column_number int not null,       -- names may change, attribute numbers do not
  key_columns text[] not null,
  key_numbers int[] not null,
  key_types text[] not null,
  vector_type text not null check (vector_type in ('vector', 'halfvec', 'bit', 'sparsevec')),
  dims int not null check (dims between 1 and 1000000000),
  metric text not null check (metric in ('l2', 'ip', 'cosine', 'l1', 'hamming', 'jaccard')),
  index_kind text not null default 'hnsw' check (index_kind in ('hnsw', 'ivf', 'flat', 'inverted')),
  m int not null default 16 check (m between 2 and 128),
  ef_construction int not null default 200 check (ef_construction between 4 and 2000),
  ef_search int not null default 100 check (ef_search between 1 and 20000),
  filter_columns text[] not null default '{}',
  fingerprint text not null,
  created_at timestamptz not null default clock_timestamp(),
  unique (table_oid, column_name)
);
comment on table ruvector.collection is 'Attached vector columns.';

create table ruvector.consumer (          -- one row per mirror and sidecar
  mirror_id int not null references ruvector.collection (id) on delete cascade,
  name text not null,
  epoch bigint not null default 0,
  checkpoint_id uuid not null,
  checkpoint pg_snapshot not null,
  previous_checkpoint_id uuid,
  previous_checkpoint pg_snapshot,
  checkpointed_at timestamptz not null default clock_timestamp(),
  primary key (mirror_id, name)
);
create table ruvector.trimmed (
  mirror_id int primary key references ruvector.collection (id) on delete cascade,
  below xid8 not null
);
-- Emptied by crash recovery and by promotion, which is the point: no token, no answer from the index.
create unlogged table ruvector.live (mirror_id int primary key, token text not null);

-- Signs of life: a request is not sent to a sidecar that has been silent, for dblink cannot be cancelled while it waits.
create unlogged table ruvector.pulse (name text primary key, beat_at timestamptz not null, epoch bigint not null default 0);
-- The moment of the last sign of life, in milliseconds since 1970. A sequence, because its value is the present one
-- in every snapshot: a REPEATABLE READ transaction that lasts must not take the sidecar for silent.
create sequence ruvector.beat minvalue 0 start 0;

-- Which sidecar answers and does what only one may do. Every effect of it is bound to the epoch: one that was frozen and
-- wakes later matches no row. A row, not an advisory lock, which a pooler or a half-open connection would break silently.
create table ruvector.lease (
  only_one boolean primary key default true check (only_one),
  holder text not null default '',
  epoch bigint not null default 0,
  until timestamptz not null default '-infinity'
);
insert into ruvector.lease default values;

-- First copies under way: a crash of the server may take rows that were copied already, and it empties this table.
create unlogged table ruvector.copying (
  mirror_id int not null,
  name text not null,
  checkpoint_id uuid not null,
  primary key (mirror_id, name)
);

-- What the sidecar says about itself, for status functions that must work while it is down.
create table ruvector.mirror_status (
  mirror_id int primary key references ruvector.collection (id) on delete cascade,
  state text not null,
  reason text not null default '',
  position pg_snapshot,
  position_lsn pg_lsn,
  position_at timestamptz,
  rows_indexed bigint not null default 0,
  rows_copied bigint not null default 0,
  rows_total bigint not null default 0,
  rows_per_second double precision,
  eta_seconds double precision,
  unindexed jsonb not null default '{}',
  stats jsonb not null default '{}',
  verified jsonb not null default '{}',
  updated_at timestamptz not null default clock_timestamp()
);

-- What somebody should know of later: differences found and repaired, changed owners, lost history. Bounded per mirror.
create table ruvector.event (
  id bigint generated always as identity primary key,
  at timestamptz not null default clock_timestamp(),
  mirror_id int not null references ruvector.collection (id) on delete cascade,
  kind text not null,
  detail jsonb not null default '{}'
);
create index event_mirror on ruvector.event (mirror_id, id);

grant select on ruvector.collection, ruvector.mirror_status, ruvector.instance to ruvector_user;
grant select on ruvector.instance, ruvector.trimmed, ruvector.collection, ruvector.gate, ruvector.secret
  to ruvector_sidecar;
grant update on ruvector.trimmed, ruvector.gate, ruvector.instance to ruvector_sidecar;
grant select, insert, delete on ruvector.event to ruvector_sidecar;
grant select, update on ruvector.lease to ruvector_sidecar;
grant select, update on sequence ruvector.beat to ruvector_sidecar;
grant select, insert, update, delete on ruvector.consumer, ruvector.live, ruvector.copying, ruvector.pulse,
  ruvector.mirror_status
  to ruvector_sidecar;
