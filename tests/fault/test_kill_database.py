"""kill -9 of the server under load with asynchronous commits: what it forgets, the mirror must forget too."""

import contextlib
import threading
import time

import psycopg
import pytest
from fix_postgres import Database, describe
from fix_sidecar import running_sidecar, wait_until

from ruvector.alembic.install import install

pytestmark = pytest.mark.fault

KILLS = 4
SETUP = """
CREATE TABLE items (id bigint PRIMARY KEY, embedding vector(4));
INSERT INTO items SELECT n, ARRAY[n, n % 7, n % 5, 1]::real[]::vector FROM generate_series(1, 500) n;
SELECT ruvector_register_collection('items', 'public', 'items', 'embedding', NULL, 'l2', '{"index_kind": "flat"}');
"""


class Writer(threading.Thread):
    """Commits asynchronously as fast as it can, through every crash of the server."""

    def __init__(self, dsn):
        super().__init__(daemon=True)
        self._dsn, self._ended = dsn, threading.Event()
        self.commits = 0

    def run(self):
        while not self._ended.is_set():
            # A crash ends the connection; the next one goes on.
            with contextlib.suppress(psycopg.Error), psycopg.connect(self._dsn, autocommit=True) as connection:
                connection.execute("SET synchronous_commit = off")
                while not self._ended.is_set():
                    self.commits += 1
                    key = self.commits * 7919 % 700
                    connection.execute(
                        "INSERT INTO items VALUES (%s, %s)"
                        " ON CONFLICT (id) DO UPDATE SET embedding = excluded.embedding",
                        (key, f"[{self.commits % 1000},{key},1,2]"),
                    )
                    connection.execute("DELETE FROM items WHERE id = %s", (self.commits * 104729 % 700,))
            time.sleep(0.01)

    def end(self):
        self._ended.set()
        self.join(30)


def test_crash_of_the_server_takes_the_mirror_back(private_postgres, tmp_path):
    server = private_postgres
    server.start()
    database = Database(describe(server.dsn(), source="private", embedded=server), "postgres")
    with database.connect() as connection:
        connection.execute("CREATE EXTENSION vector")
    install(database.dsn)
    with database.connect() as connection:
        connection.execute(SETUP)
    with running_sidecar(database, tmp_path / "sidecar", checkpoint_seconds=0.2) as sidecar:
        sidecar.wait_live("items")
        writer = Writer(database.dsn)
        writer.start()
        for _ in range(KILLS):
            before = sidecar.mirror("items").changes_applied
            wait_until(lambda before=before: sidecar.mirror("items").changes_applied > before + 50, "changes to flow")
            old_token = sidecar.mirror("items").token
            server.kill()
            server.start()
            wait_until(
                lambda old_token=old_token: sidecar.mirror("items").token not in (None, old_token), "a new token"
            )
        writer.end()
        sidecar.wait_live("items").wait_applied("items")
        report = sidecar.worker("items").verify(sample=0, full=True, repair=False)
        assert report["differences"] == 0, report
        assert writer.commits > 200
