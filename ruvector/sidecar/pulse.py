"""Signs of life of the sidecar: the database asks only one that has been heard of lately."""

from __future__ import annotations

import logging
import threading

from ruvector import db, limits
from ruvector.errors import RuvectorError

logger = logging.getLogger(__name__)


class Pulse:
    """Writes the time of the database into ruvector.pulse, over a connection and in a thread of its own."""

    def __init__(self, dsn: str | None, *, name: str) -> None:
        self._dsn, self._parameters = dsn, {"name": name}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="pulse", daemon=True)
        self._connection: db.Connection | None = None

    def start(self) -> None:
        """Beat once, then go on in the thread; an error of the first beat is raised."""
        self._write("beat")
        self._thread.start()

    def stop(self) -> None:
        """Say goodbye: from now on nobody is asked."""
        self._stop.set()
        if not self._thread.is_alive():
            return
        self._thread.join()
        try:
            self._write("end_beat")
        except RuvectorError as error:
            logger.debug("the database could not be told of the end: %s", error.message)
        self._disconnect()

    def _run(self) -> None:
        pause = limits.PULSE_SECONDS
        while not self._stop.wait(pause):
            try:
                self._write("beat")
                pause = limits.PULSE_SECONDS
            except RuvectorError as error:
                pause = limits.PULSE_SECONDS / 10  # the first sign after a crash ends the fallback
                logger.debug("no sign of life could be given: %s", error.message)
                self._disconnect()

    def _write(self, query: str) -> None:
        if self._connection is None or self._connection.closed:
            self._connection = db.connect(self._dsn, application_name="ruvector pulse")
            with db.translated():
                self._connection.execute(db.query("mirror", "prepare_pulse").encode())
        with db.translated():
            self._connection.execute(db.query("mirror", query).encode(), self._parameters)

    def _disconnect(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None
