-- Bring the generated functions of every attached collection to this version. Triggers are left alone: a new
-- trigger would look like drift to a running sidecar.
select ruvector.create_search(c.id) from ruvector.collection c;
