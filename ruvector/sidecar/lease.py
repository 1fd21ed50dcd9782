"""The lease of the database: which sidecar answers it and does what only one may do, and its signs of life."""

from __future__ import annotations

import logging
import threading
from typing import Any

from ruvector import db, limits
from ruvector.clock import Clock, random_token
from ruvector.errors import RuvectorError

logger = logging.getLogger(__name__)


class Lease:
    """Takes the lease when it is free and renews it, over a connection and in a thread of its own.

    Time is the database's. Its holder counts it as lost earlier than the database gives it to somebody else: from the
    moment before the last renewal was sent.
    """

    def __init__(self, dsn: str | None, *, name: str, clock: Clock) -> None:
        """Start without it."""
        self.holder = f"{name} {random_token()[:8]}"
        self.other = ""  # who has it, when it is not this one
        self._dsn, self._name, self._clock = dsn, name, clock
        self._epoch = 0
        self._held_until = 0.0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="lease", daemon=True)
        self._connection: db.Connection | None = None

    @property
    def epoch(self) -> int:
        """Return the epoch of the lease that is held now, or 0."""
        return self._epoch if self._clock.now() < self._held_until else 0

    @property
    def is_twin(self) -> bool:
        """Tell whether a sidecar of the same name has it: its checkpoints must be left alone."""
        return self.epoch == 0 and self.other.rpartition(" ")[0] == self._name

    def start(self) -> None:
        """Try to take it, then go on in the thread; an error of the first try is raised."""
        self.try_once()
        self._thread.start()

    def try_once(self) -> None:
        """Renew the lease, or take it when it is free."""
        asked_at = self._clock.now()
        row = self._one("beat") if self._epoch else None
        if row is None and (row := self._one("take_lease")) is not None:
            self._epoch = int(row[0])
            self._one("beat")
        if row is not None:
            self._held_until, self.other = asked_at + limits.LEASE_SECONDS, ""
            return
        holder = self._one("lease_holder")
        self._epoch, self.other = 0, str(holder[0]) if holder else ""

    def stop(self) -> None:
        """Give it back: from now on nobody is asked, or another sidecar at once."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()
        try:
            if self._epoch:
                self._one("end_lease")
        except RuvectorError as error:
            logger.debug("the database could not be told of the end: %s", error.message)
        self._epoch = 0
        self._disconnect()

    def _run(self) -> None:
        pause = limits.PULSE_SECONDS
        while not self._stop.wait(pause):
            try:
                self.try_once()
                pause = limits.PULSE_SECONDS
            except RuvectorError as error:
                pause = limits.PULSE_SECONDS / 10  # the first sign after a crash ends the fallback
                logger.debug("no sign of life could be given: %s", error.message)
                self._disconnect()

    def _one(self, name: str) -> tuple[Any, ...] | None:
        if self._connection is None or self._connection.closed:
            self._connection = db.connect(self._dsn, application_name="ruvector pulse")
            with db.translated():
                self._connection.execute(db.query("mirror", "prepare_pulse").encode())
        values = {"name": self._name, "holder": self.holder, "epoch": self._epoch, "seconds": limits.LEASE_SECONDS}
        with db.translated():
            cursor = self._connection.execute(db.query("mirror", name).encode(), values)
            return cursor.fetchone() if cursor.description is not None else None

    def _disconnect(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None
