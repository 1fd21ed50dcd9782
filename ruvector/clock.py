"""The clock and the randomness of the product; the only module that reads either."""

from __future__ import annotations

import os
import threading
import time
import uuid
from typing import Protocol


class Clock(Protocol):
    """Seconds that only go forward, and a way to wait."""

    def now(self) -> float:
        """Return monotonic seconds."""
        ...

    def sleep(self, seconds: float) -> None:
        """Wait."""
        ...

    def wait(self, event: threading.Event, seconds: float) -> bool:
        """Wait until the event is set, at most so long; tell whether it is."""
        ...


class SystemClock:
    """The real clock."""

    def now(self) -> float:
        """Return monotonic seconds since an arbitrary start."""
        return time.monotonic()

    def sleep(self, seconds: float) -> None:
        """Wait this many seconds."""
        time.sleep(seconds)

    def wait(self, event: threading.Event, seconds: float) -> bool:
        """Wait until the event is set, at most so long; tell whether it is."""
        return event.wait(seconds)


def random_token() -> str:
    """Return 128 random bits from the operating system as 32 hex digits."""
    return os.urandom(16).hex()


def random_share() -> float:
    """Return a random number from 0 up to 1, without 1."""
    return int.from_bytes(os.urandom(4)) / 2**32


def random_uuid() -> str:
    """Return a random UUID as text."""
    return str(uuid.uuid4())
