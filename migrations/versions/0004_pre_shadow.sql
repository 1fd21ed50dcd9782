-- A state in which pgvector answers and a sample of the searches is compared; what was compared; what ends a ramp.
alter table ruvector.collection
  drop constraint collection_cutover_state_check,
  add constraint collection_cutover_state_check check (cutover_state in ('off', 'shadow', 'ramp', 'complete')),
  add column cutover_sample_rate real not null default 0.05 check (cutover_sample_rate > 0 and cutover_sample_rate <= 1),
  add column cutover_guard jsonb not null default '{}';

-- One search, asked of both in one snapshot; no vector and no key is kept. Without an answer of the index only `problem`
-- and pgvector's time are known. `truth` says what recall was measured against: 'exact', or 'pooled', the nearest of both answers.
create table ruvector.shadow_pair (
  id bigint generated always as identity primary key,
  at timestamptz not null default clock_timestamp(),
  mirror_id int not null references ruvector.collection (id) on delete cascade,
  k int not null,
  is_filtered boolean not null,
  missed int not null,
  problem text,
  pgvector_ms float8 not null,
  index_ms float8,
  overlap float8,
  rank_correlation float8,
  distance_error float8,
  truth text check (truth in ('exact', 'pooled')),
  pgvector_recall float8,
  index_recall float8
);
create index shadow_pair_mirror on ruvector.shadow_pair (mirror_id, id);
grant select on ruvector.shadow_pair to ruvector_user;
grant select, insert, delete on ruvector.shadow_pair to ruvector_sidecar;
