"""Another history of the database: a standby promoted without the tail, a restored backup, pg_upgrade.

What the sidecar has applied may never have happened there. It must notice before it answers, and compare.
"""

import contextlib
import os
import subprocess

import psycopg
import pytest
from fix_postgres import TEST_SETTINGS, Database, describe
from fix_sidecar import RunningSidecar, running_sidecar, wait_until
from psycopg.conninfo import make_conninfo
from table_kit import VectorTable, gaussian, text_of

from ruvector.alembic.install import install
from ruvector.embedded import EmbeddedPostgres
from ruvector.embedded.binaries import run_as, server_account

pytestmark = pytest.mark.fault

DIMS = 4
ROWS = 300
QUERY = gaussian(1, DIMS, seed=111)[0]
TABLE = VectorTable("items", dims=DIMS)


def database_of(server):
    return Database(describe(server.dsn(), source="private", embedded=server), "postgres")


@pytest.fixture
def original(private_postgres):
    """A server with an attached table."""
    private_postgres.start()
    database = database_of(private_postgres)
    with database.connect() as connection:
        connection.execute("CREATE EXTENSION vector")
        install(database.dsn)
        TABLE.create(connection)
        TABLE.insert(connection, gaussian(ROWS, DIMS, seed=112))
        TABLE.attach(connection)
    return database


@pytest.fixture
def other(short_path):
    """Another server, not started."""
    with socket_free_port() as port:
        server = EmbeddedPostgres(short_path / "other", settings=TEST_SETTINGS, port=port)
    yield server
    server.remove()


@contextlib.contextmanager
def socket_free_port():
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        yield probe.getsockname()[1]


def hand_over(folder):
    account = server_account()
    if account.drop:
        for path in (folder, *folder.rglob("*")):
            os.chown(path, account.uid, account.gid)


def back_up(database, other):
    server = database.server.embedded
    other.data_dir.mkdir(mode=0o700)
    subprocess.run(
        [server.programs / "pg_basebackup", "-d", server.dsn(), "-D", other.cluster, "-X", "fetch", "-c", "fast"],
        check=True, capture_output=True,
    )  # fmt: skip
    hand_over(other.data_dir)


def write_tail(database, *, checkpoints):
    """Change rows after the backup, which the other history does not know, over so many checkpoints of the mirror."""
    with database.connect() as connection:
        for number in range(checkpoints):
            before = connection.execute("SELECT checkpoint_id FROM ruvector.consumer").fetchone()
            connection.execute("UPDATE items SET embedding = %s WHERE id = 300", (f"[{number},1,1,1]",))
            wait_until(
                lambda before=before: (
                    connection.execute("SELECT checkpoint_id FROM ruvector.consumer").fetchone() != before
                ),
                "a checkpoint",
            )
        connection.execute("DELETE FROM items WHERE id <= 20")
        connection.execute("UPDATE items SET embedding = %s WHERE id BETWEEN 21 AND 70", (text_of(QUERY),))
        TABLE.insert(connection, gaussian(30, DIMS, seed=113), first=1000)


def check_equal(sidecar, database):
    with database.connect() as connection:
        TABLE.check(connection, QUERY, k=ROWS)
        connection.execute("INSERT INTO items VALUES (5000, %s)", (text_of(QUERY),))
        sidecar.wait_applied("items")
        assert TABLE.check(connection, QUERY, k=5)[0][0] == "5000"
        events = connection.execute("SELECT kind, (detail ->> 'repaired')::int FROM ruvector.event").fetchall()
    assert sidecar.worker("items").verify(sample=1, full=True, repair=False)["differences"] == 0
    return events


def test_promoted_standby_without_the_tail(original, other, tmp_path):
    """The sidecar runs on: its connection string names both servers."""
    first = original.server.embedded
    both = make_conninfo(
        dbname="postgres", user="postgres", target_session_attrs="read-write",
        host=f"{first.socket_dir},{other.data_dir / 'socket'}", port=f"{first.port},{other.port}",
    )  # fmt: skip
    sidecar = RunningSidecar(original, tmp_path / "data", dsn=both, checkpoint_seconds=0.1)
    try:
        sidecar.start().wait_live("items")
        back_up(original, other)
        write_tail(original, checkpoints=3)
        sidecar.wait_applied("items")
        token = sidecar.mirror("items").token
        first.kill()
        (other.cluster / "standby.signal").touch()
        hand_over(other.data_dir)
        other.start()
        with psycopg.connect(other.dsn(), autocommit=True) as connection:
            assert connection.execute("SELECT pg_promote()").fetchone() == (True,)
        promoted = database_of(other)
        sidecar.database = promoted
        wait_until(lambda: sidecar.mirror("items").token not in (None, token), "the mirror to answer again")
        sidecar.wait_live("items")
        assert check_equal(sidecar, promoted) == [("reconciled", 101)]
    finally:
        sidecar.stop()


@pytest.mark.parametrize(("checkpoints", "events"), [(0, []), (3, [("reconciled", 101)])])
def test_restored_backup(original, other, tmp_path, checkpoints, events):
    """A generation that the backup still names serves as it is; without one all rows are compared."""
    with running_sidecar(original, tmp_path / "data", checkpoint_seconds=0.1) as sidecar:
        sidecar.wait_live("items")
        back_up(original, other)
        write_tail(original, checkpoints=checkpoints)
        sidecar.wait_applied("items")
    original.server.embedded.stop()
    other.start()
    restored = database_of(other)
    with running_sidecar(restored, tmp_path / "data") as sidecar:
        sidecar.wait_live("items")
        assert check_equal(sidecar, restored) == events


def test_pg_upgrade(original, other, tmp_path):
    server = original.server.embedded
    programs = server.programs
    with running_sidecar(original, tmp_path / "data") as sidecar:
        sidecar.wait_live("items")
    with original.connect() as connection:
        connection.execute("DELETE FROM items WHERE id <= 10")
    server.stop()
    other.start()
    other.stop()
    done = run_as(
        server_account(),
        [programs / "pg_upgrade", "-b", programs, "-B", programs, "-d", server.cluster, "-D", other.cluster,
         "-U", "postgres", "-p", str(server.port), "-P", str(other.port)],
        folder=other.data_dir, seconds=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    other.start()
    upgraded = database_of(other)
    with running_sidecar(upgraded, tmp_path / "data") as sidecar:
        sidecar.wait_live("items")
        assert check_equal(sidecar, upgraded) == [("reconciled", 10)]
