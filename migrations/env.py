"""Run the migrations of schema ruvector; its version table lives in that schema, beside nobody else's."""

from alembic import context

from ruvector.alembic.script import VERSION_TABLE_ARGUMENTS

connection = context.config.attributes.get("connection")
if connection is None:
    context.configure(dialect_name="postgresql", as_sql=True, **VERSION_TABLE_ARGUMENTS)
else:
    context.configure(connection=connection, **VERSION_TABLE_ARGUMENTS)
with context.begin_transaction():
    context.run_migrations()
