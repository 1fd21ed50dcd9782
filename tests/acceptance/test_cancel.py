"""A search that its caller gives up: the sidecar stops working, the next search is answered."""

import threading
import time

import psycopg
import pytest
from table_kit import VectorTable, gaussian

from ruvector.errors import Cancelled

DIMS = 8
SEARCH = "SELECT min(tier) FROM ruvector_search('items', %s::real[]::vector, 5)"
QUERY = gaussian(1, DIMS, seed=2)[0].tolist()
PATIENCE_SECONDS = 20.0  # far above every deadline here: a search that lasts so long was not stopped


class Endless:
    """The real index, whose searches end only when they are told to."""

    def __init__(self, index):
        self._index = index
        self.started = threading.Event()
        self.stopped_after = None

    def __getattr__(self, name):
        return getattr(self._index, name)

    def __len__(self):
        return len(self._index)

    def search(self, query, k, *, ef, cancel, sieve):
        start = time.monotonic()
        self.started.set()
        while not cancel[0] and time.monotonic() < start + PATIENCE_SECONDS:
            time.sleep(0.002)
        self.stopped_after = time.monotonic() - start
        raise Cancelled("the search was cancelled")


@pytest.fixture
def table(database, sidecar):
    with database.connect() as connection:
        table = VectorTable("items").create(connection)
        table.insert(connection, gaussian(50, DIMS, seed=1))
        table.attach(connection)
    sidecar.wait_live("items")
    return sidecar.mirror("items")


def test_cancelled_search_ends_at_its_deadline(database, table):
    whole = table.index
    with database.connect() as connection, database.connect() as other:
        connection.execute("SET ruvector.timeout_ms = 1000")
        assert connection.execute(SEARCH, [QUERY]).fetchone() == ("hot",)
        table.index = endless = Endless(whole)
        failures = []

        def ask():
            try:
                connection.execute(SEARCH, [QUERY])
            except psycopg.Error as error:
                failures.append(error)

        asking = threading.Thread(target=ask)
        asking.start()
        assert endless.started.wait(10)
        other.execute("SELECT pg_cancel_backend(%s)", [connection.info.backend_pid])
        asking.join(PATIENCE_SECONDS / 2)
        assert not asking.is_alive()
        assert isinstance(failures.pop(), psycopg.errors.QueryCanceled)
        assert endless.stopped_after < PATIENCE_SECONDS / 2
        table.index = whole
        assert connection.execute(SEARCH, [QUERY]).fetchone() == ("hot",)


def test_statement_timeout_stops_the_search_first(database, table):
    whole = table.index
    with database.connect() as connection:
        notices = []
        connection.add_notice_handler(lambda notice: notices.append(notice.message_primary))
        connection.execute("SET statement_timeout = '1500ms'")
        table.index = endless = Endless(whole)
        # The sidecar gives up before the statement does, so that the database still has time to answer by itself.
        assert connection.execute(SEARCH, [QUERY]).fetchone()[0] in ("pgvector", "exact")
        assert endless.stopped_after < PATIENCE_SECONDS / 2
        assert len(notices) == 1
        table.index = whole
        connection.execute("RESET statement_timeout; SET ruvector.retry_after = ''")
        assert connection.execute(SEARCH, [QUERY]).fetchone() == ("hot",)
