"""Install, upgrade and remove schema ruvector: Alembic for what happens once, sql/ for what may be repeated."""

from __future__ import annotations

import io
from contextlib import contextmanager
from typing import TYPE_CHECKING

import psycopg
from alembic import command
from alembic.config import Config
from psycopg import sql
from sqlalchemy import Connection, create_engine, pool

from ruvector import __version__, db, resources
from ruvector.errors import InvalidParameter, NotInstalled, PermissionDenied

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

SERVER_VERSION_MIN = 140000  # CREATE OR REPLACE TRIGGER and pg_snapshot's functions as used here


def install(dsn: str | None, *, api_schema: str = "public") -> list[str]:
    """Create or upgrade schema ruvector and its SQL functions; twice equals once.

    Returns one line per step that was done. Raises PermissionDenied, NotInstalled or DatabaseError before anything
    was changed when the server, the extensions or the privileges do not fit; everything is one transaction.
    """
    engine = create_engine(
        "postgresql+psycopg://",
        creator=lambda: db.connect(dsn, application_name="ruvector install", autocommit=False),
        poolclass=pool.NullPool,
    )
    with db.translated(), engine.begin() as shared:
        return install_on(shared, api_schema=api_schema)


def install_on(shared: Connection, *, api_schema: str = "public") -> list[str]:
    """Do what install does, on a connection of SQLAlchemy over psycopg, in its transaction."""
    # Alembic and the repeatable scripts run on one connection, so that they commit or fail together.
    connection = _driver_connection(shared)
    steps = _prepare(connection, api_schema)
    config = _config()
    config.attributes["connection"] = shared
    command.upgrade(config, "head")
    for name, statements in repeatable_scripts(connection, api_schema):
        connection.execute(statements.encode())
        steps.append(f"applied {name}")
    connection.execute(db.query("install", "set_version").encode(), {"version": __version__})
    return steps


def uninstall(dsn: str | None) -> int:
    """Detach every collection and remove schema ruvector; the user's tables stay. Returns the collections detached."""
    with db.connect(dsn, application_name="ruvector uninstall", autocommit=False) as connection, db.translated():
        if not is_installed(connection):
            return 0
        drop_mirrors, *others = removal()
        detached = connection.execute(drop_mirrors.encode()).fetchall()
        for statement in others:
            connection.execute(statement.encode())
        connection.commit()
        for role in ("ruvector_user", "ruvector_sidecar"):
            _drop_role(connection, role)
    return len(detached)


def removal() -> list[str]:
    """Return the statements that detach every collection, then remove the functions, then the schema."""
    return [db.query("install", name) for name in ("drop_mirrors", "drop_api", "drop_schema")]


def print_sql(dsn: str | None, *, api_schema: str = "public") -> str:
    """Return everything install would run, as one script for psql; reads the extensions' schemas, changes nothing."""
    with db.connect(dsn, application_name="ruvector install", autocommit=False) as connection, db.translated():
        _check_server(connection, api_schema)
        statements = script(schemas_of(connection, api_schema))
        connection.rollback()
    return f"\\set ON_ERROR_STOP on\nBEGIN;\n{statements}\nCOMMIT;"


def script(schemas: Mapping[str, str]) -> str:
    """Return everything install would run; ``schemas`` are those of api, vector and dblink."""
    parts = [_read("queries/extensions.sql", {}), _migrations_offline()]
    parts += [f"-- {name}\n{statements}" for name, statements in _scripts(schemas)]
    version = sql.Literal(__version__).as_string()
    parts.append(db.query("install", "set_version").replace("%(version)s", version) + ";")
    return "\n".join(parts)


def is_installed(connection: db.Connection) -> bool:
    """Tell whether schema ruvector with its instance row exists in this database."""
    row = connection.execute(db.query("install", "is_installed").encode()).fetchone()
    return bool(row and row[0])


def repeatable_scripts(connection: db.Connection, api_schema: str) -> list[tuple[str, str]]:
    """Return (name, SQL) of sql/*.sql in order, with the schemas of this database filled in."""
    return _scripts(schemas_of(connection, api_schema))


def schemas_of(connection: db.Connection, api_schema: str) -> dict[str, str]:
    """Return the schemas of the API functions and of the extensions in this database."""
    schemas = {"api": api_schema}
    for extension in ("vector", "dblink"):
        row = connection.execute(db.query("install", "extension_schema").encode(), {"extension": extension}).fetchone()
        schemas[extension] = row[0] if row else "public"
    return schemas


def _scripts(schemas: Mapping[str, str]) -> list[tuple[str, str]]:
    quoted = {f"@{token}@": sql.Identifier(name).as_string() for token, name in schemas.items()}
    return [(path.name, _read(path.name, quoted)) for path in sorted(resources.root("sql").glob("*.sql"))]


def _read(name: str, replacements: dict[str, str]) -> str:
    text = (resources.root("sql") / name).read_text(encoding="utf-8")
    for token, value in replacements.items():
        text = text.replace(token, value)
    return text


def _check_server(connection: db.Connection, api_schema: str) -> None:
    if connection.info.server_version < SERVER_VERSION_MIN:
        raise NotInstalled(
            f"the server is PostgreSQL {connection.info.server_version // 10000}, at least 14 is needed",
            hint="Upgrade the server.",
        )
    row = connection.execute(db.query("install", "privileges").encode(), {"api_schema": api_schema}).fetchone()
    if row is None:
        raise InvalidParameter(f'schema "{api_schema}" does not exist', hint="Create it, or leave --api-schema out.")
    role, may_create, may_create_api, roles_ready = row
    if not may_create:
        raise PermissionDenied(
            f'role "{role}" may not create a schema in database "{connection.info.dbname}"',
            hint=f'As its owner: GRANT CREATE ON DATABASE "{connection.info.dbname}" TO "{role}";',
        )
    if not may_create_api:
        raise PermissionDenied(
            f'role "{role}" may not create functions in schema "{api_schema}"',
            hint=f'As its owner: GRANT CREATE ON SCHEMA "{api_schema}" TO "{role}"; or choose another --api-schema.',
        )
    if not roles_ready:
        raise PermissionDenied(
            f'role "{role}" may not create the roles ruvector_user and ruvector_sidecar',
            hint="As an administrator: CREATE ROLE ruvector_user NOLOGIN; CREATE ROLE ruvector_sidecar NOLOGIN;",
        )


def _prepare(connection: db.Connection, api_schema: str) -> list[str]:
    _check_server(connection, api_schema)
    steps = []
    for extension, purpose in (("vector", "the vector type"), ("dblink", "calls from the database to the sidecar")):
        if connection.execute(db.query("install", "extension_schema").encode(), {"extension": extension}).fetchone():
            continue
        available = connection.execute(
            db.query("install", "extension_available").encode(), {"extension": extension}
        ).fetchone()
        if not available:
            raise NotInstalled(
                f'extension "{extension}" ({purpose}) is not available on this server',
                hint="Install the package: pgvector for vector, postgresql-contrib for dblink.",
            )
        try:
            connection.execute(sql.SQL(db.query("install", "create_extension")).format(sql.Identifier(extension)))
        except psycopg.errors.InsufficientPrivilege as error:
            raise PermissionDenied(
                f'this role may not create extension "{extension}" ({purpose})',
                hint=f"As an administrator, in this database: CREATE EXTENSION {extension};",
            ) from error
        steps.append(f"created extension {extension}")
    connection.execute(db.query("install", "create_schema").encode())
    return steps


def _driver_connection(shared: Connection) -> db.Connection:
    connection = shared.connection.driver_connection
    if not isinstance(connection, psycopg.Connection):
        raise InvalidParameter(
            f"the installer runs on psycopg 3, this connection is of {type(connection).__module__}",
            hint="Use an address postgresql+psycopg://..., or run `ruvector install` before the migration.",
        )
    return connection


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(resources.root("migrations")).replace("%", "%%"))
    return config


def _migrations_offline() -> str:
    output = io.StringIO()
    config = _config()
    config.output_buffer = output
    command.upgrade(config, "head", sql=True)
    return output.getvalue()


@contextmanager
def _own_transaction(connection: db.Connection) -> Iterator[None]:
    try:
        yield
        connection.commit()
    except psycopg.Error:
        connection.rollback()


def _drop_role(connection: db.Connection, role: str) -> None:
    # Another database of the server may still use the role: then it stays.
    with _own_transaction(connection):
        connection.execute(sql.SQL(db.query("install", "drop_role")).format(sql.Identifier(role)))
