-- The filter columns whose changes the triggers capture, each with the transaction since which they do.
alter table ruvector.collection add column captured jsonb not null default '{}';
