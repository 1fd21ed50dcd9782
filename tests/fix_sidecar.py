"""A sidecar inside the test process, listening on a free port, over a real database.

`sidecar` serves the function-scoped `database`; `shared_sidecar` serves the `shared_database` of a whole module.
"""

import contextlib
import time
from pathlib import Path

import pytest
from psycopg.conninfo import make_conninfo

from ruvector.mirror.state import MirrorState
from ruvector.sidecar import Sidecar, SidecarSettings

WAIT_SECONDS = 60.0


class RunningSidecar:
    """A sidecar that can be stopped, started again over the same data directory, and waited for."""

    def __init__(self, database, data_dir, **settings):
        self.database = database
        self.data_dir = Path(data_dir)
        self._settings = settings
        self._sidecar = None

    @property
    def sidecar(self):
        assert self._sidecar is not None, "the sidecar is not running"
        return self._sidecar

    @property
    def is_running(self):
        return self._sidecar is not None

    def start(self):
        settings = SidecarSettings(
            **{"dsn": self.database.dsn, "data_dir": self.data_dir, "listen": ("127.0.0.1:0",), **self._settings}
        )
        started = Sidecar(settings)
        self._sidecar = started
        started.start()
        return self

    def stop(self):
        if self._sidecar is not None:
            stopped, self._sidecar = self._sidecar, None
            stopped.stop()

    def restart(self):
        self.stop()
        return self.start()

    def worker(self, name):
        return self.sidecar.workers.by_name(name)

    def mirror(self, name):
        return self.worker(name).mirror

    def wait_live(self, *names, seconds=WAIT_SECONDS):
        """Wait until each collection answers from the index, seen from both sides."""
        with self.database.connect() as connection:
            rows = connection.execute("SELECT name, id FROM ruvector.collection WHERE name = ANY (%s)", (list(names),))
            numbers = dict(rows.fetchall())
        for name in names:
            wait_until(lambda number=numbers[name]: self._is_live(number), f"{name} to be live", seconds=seconds)
        return self

    def wait_applied(self, name, *, seconds=WAIT_SECONDS):
        """Wait until everything committed now is in the index."""
        with self.database.connect() as connection:
            done = connection.execute(
                "SELECT ruvector_wait_applied(%s, timeout_ms => %s)", (name, int(seconds * 1000))
            ).fetchone()[0]
        assert done, f"{name} did not catch up in {seconds} s"
        return self

    def wait_state(self, name, state, *, seconds=WAIT_SECONDS):
        """Wait until the mirror of a collection is in a state."""
        wait_until(lambda: self.mirror(name).state == state, f"{name} to be {state}", seconds=seconds)
        return self

    def address(self):
        return next(address for address in self.sidecar.addresses if not address.is_unix)

    def dsn(self, **conninfo):
        """Return the connection string of a direct client."""
        address = self.address()
        return make_conninfo(
            **{"host": address.host, "port": address.port, "user": "ruvector", "dbname": "ruvector",
               "password": self.sidecar.client_password(), **conninfo}
        )  # fmt: skip

    def _is_live(self, number):
        # By number: a mirror of the same name may be on its way out.
        mirror = self.sidecar.workers.by_id().get(number)
        if mirror is None:
            return False
        assert mirror.state is not MirrorState.STALE, f"{mirror.collection.name} is stale: {mirror.reason}"
        return mirror.state is MirrorState.LIVE and self._is_heard()

    def _is_heard(self):
        with self.database.connect() as connection:
            return connection.execute(
                "SELECT count(*) = 1 FROM ruvector.pulse WHERE beat_at > clock_timestamp() - interval '4 s'"
            ).fetchone()[0]


def wait_until(condition, what, *, seconds=WAIT_SECONDS):
    """Poll a condition; say what was waited for when it never came."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"waited {seconds:.0f} s for {what}"
        time.sleep(0.01)


@contextlib.contextmanager
def running_sidecar(database, data_dir, **settings):
    """Run a sidecar over a database; it is stopped at the end whatever happened."""
    sidecar = RunningSidecar(database, data_dir, **settings)
    try:
        yield sidecar.start()
    finally:
        sidecar.stop()


@pytest.fixture
def sidecar(database, tmp_path):
    """A sidecar over the database of this test."""
    with running_sidecar(database, tmp_path / "sidecar") as running:
        yield running


@pytest.fixture(scope="module")
def shared_database(new_database):
    """One installed database for all tests of a module."""
    fresh = new_database("installed")
    yield fresh
    fresh.server.drop_database(fresh.name)


@pytest.fixture(scope="module")
def shared_sidecar(shared_database, tmp_path_factory):
    """One sidecar over the shared database of a module."""
    with running_sidecar(shared_database, tmp_path_factory.mktemp("sidecar")) as running:
        yield running
