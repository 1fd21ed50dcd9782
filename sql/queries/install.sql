-- name: is_installed
-- Whether schema ruvector of this program exists here.
SELECT to_regclass('ruvector.instance') IS NOT NULL;

-- name: set_version
-- Remember which version installed itself.
UPDATE ruvector.instance SET installed_version = %(version)s;

-- name: privileges
-- What the role may do: create schemas here, functions in the API schema, and the two roles (or they exist).
SELECT current_user::text, has_database_privilege(current_database(), 'CREATE'), has_schema_privilege(n.oid, 'CREATE'),
  (SELECT r.rolcreaterole OR r.rolsuper FROM pg_roles r WHERE r.rolname = current_user)
  OR (SELECT count(*) = 2 FROM pg_roles r WHERE r.rolname IN ('ruvector_user', 'ruvector_sidecar'))
FROM pg_namespace n WHERE n.nspname = %(api_schema)s;

-- name: extension_schema
-- The schema an extension lives in; no row when it is not installed.
SELECT n.nspname::text FROM pg_extension e JOIN pg_namespace n ON n.oid = e.extnamespace WHERE e.extname = %(extension)s;

-- name: extension_available
-- One row when the server has the files of the extension.
SELECT name FROM pg_available_extensions WHERE name = %(extension)s;

-- name: create_extension
-- The extension in its default schema.
CREATE EXTENSION {};

-- name: create_schema
-- Before the first migration: Alembic keeps its version table there.
CREATE SCHEMA IF NOT EXISTS ruvector;

-- name: drop_mirrors
-- Detach every collection.
SELECT ruvector.drop_mirror(id) FROM ruvector.collection;

-- name: drop_api
-- The functions that install made outside schema ruvector; a stranger's function of a like name stays.
SELECT ruvector.api_keep_only('pg_catalog'::regnamespace, '{}', '{}');

-- name: drop_schema
-- Everything of ours.
DROP SCHEMA ruvector CASCADE;

-- name: drop_role
-- Fails while another database still grants something to it.
DROP ROLE IF EXISTS {};
