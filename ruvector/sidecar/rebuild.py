"""After a rollback: pgvector's dropped indexes come back by themselves, while the database answers without them."""

from __future__ import annotations

import contextlib
import logging
import threading

import psycopg

from ruvector import db, limits
from ruvector.capture.indexes import pending_indexes, rebuild_indexes
from ruvector.clock import Clock
from ruvector.errors import DatabaseError, DatabaseUnreachable

logger = logging.getLogger(__name__)


class IndexRebuilder:
    """Builds on a thread and a connection of its own, one index after the other."""

    def __init__(self, dsn: str | None, *, clock: Clock) -> None:
        self._dsn = dsn
        self._clock = clock
        self._thread: threading.Thread | None = None
        self._connection: db.Connection | None = None
        self._is_stopped = False
        self._retry_at = 0.0

    def poll(self, connection: db.Connection) -> None:
        """Begin to build when something is pending and nothing is being built."""
        if (self._thread is not None and self._thread.is_alive()) or self._clock.now() < self._retry_at:
            return
        with db.translated():
            pending = pending_indexes(connection)
        if pending:
            logger.info("pgvector's indexes are built again: %s", ", ".join(pending))
            self._thread = threading.Thread(target=self._run, name="rebuild", daemon=True)
            self._thread.start()

    def stop(self) -> None:
        """Cancel the build under way: the next sidecar begins it anew."""
        self._is_stopped = True
        while self._thread is not None and self._thread.is_alive():
            if self._connection is not None:
                with contextlib.suppress(psycopg.Error):
                    self._connection.cancel_safe()
            self._thread.join(limits.SHADOW_POLL_SECONDS)

    def _run(self) -> None:
        self._retry_at = self._clock.now() + limits.REBUILD_RETRY_SECONDS
        try:
            with db.connect(self._dsn, application_name="ruvector rebuild") as connection:
                self._connection = connection
                if not self._is_stopped and (built := rebuild_indexes(connection)):
                    logger.info("built again: %s", ", ".join(built))
        except (DatabaseError, DatabaseUnreachable) as error:
            if not self._is_stopped:
                logger.warning(
                    "pgvector's index cannot be built again: %s; "
                    "the owner of the table can: ruvector cutover NAME rebuild",
                    error.message,
                )
            return
        finally:
            self._connection = None
        self._retry_at = 0.0
