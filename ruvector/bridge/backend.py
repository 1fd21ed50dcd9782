"""What the endpoint asks of the rest of the product: logins, searches and function calls."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple, Protocol, TypeAlias

import numpy as np

from ruvector.bridge import oids
from ruvector.bridge.scram import ScramVerifier
from ruvector.clock import Clock
from ruvector.errors import Cancelled
from ruvector.limits import LONG_REQUEST_SECONDS_MAX, REQUEST_SECONDS_MAX

Value: TypeAlias = "bool | int | float | str | bytes | list[Value] | None"


class Access(StrEnum):
    """What a login may do."""

    BRIDGE = "bridge"  # the database's own connection: SEARCH, CALL and SAMPLE only
    USER = "user"  # functions declared with access="user"
    ADMIN = "admin"  # every function, SEARCH, CALL and SAMPLE


class Column(NamedTuple):
    """One column of an answer, or one parameter of a function."""

    name: str
    type_oid: int


# A refusal, or all the rest; lists as text of PostgreSQL's arrays: a row for each key would cost more than the search.
SEARCH_COLUMNS = (
    Column("refusal", oids.TEXT),
    Column("watermark", oids.TEXT),
    Column("keys", oids.TEXT),
    Column("reach", oids.FLOAT8),
    Column("touched", oids.TEXT),
    Column("report", oids.TEXT),
)
CALL_COLUMNS = (Column("kind", oids.TEXT), Column("key", oids.TEXT), Column("distance", oids.FLOAT8))


@dataclass(frozen=True, slots=True)
class RowSet:
    """An answer: its columns, and rows of Python values.

    A value of type ``bytes`` is taken as the finished text form of its type, except in a bytea column. Keep
    ``columns`` in a constant: the encoder of a shape is found by it.
    """

    columns: tuple[Column, ...]
    rows: Iterable[Sequence[object]]


@dataclass(frozen=True, slots=True)
class Login:
    """One name that may connect, and how its password is checked."""

    name: str
    access: Access
    verifier: ScramVerifier


@dataclass(frozen=True, slots=True)
class Signature:
    """Parameters and result columns of a function, known without calling it.

    A parameter whose type has no fixed identifier (vector) is given as text.
    """

    parameters: tuple[Column, ...]
    columns: tuple[Column, ...]


class CancelFlag:
    """Tells running work to stop: a byte for loops without the interpreter lock, and a deadline."""

    __slots__ = ("_clock", "_reason", "array", "deadline")

    def __init__(self, clock: Clock) -> None:
        self.array = np.zeros(1, dtype=np.uint8)
        self.deadline = float("inf")
        self._clock = clock
        self._reason = ""

    def arm(self, *, now: float) -> None:
        """Get ready for the next request, which started at ``now`` seconds of the clock."""
        self.array[0] = 0
        self.deadline = now + REQUEST_SECONDS_MAX

    def expire_within(self, seconds: float) -> None:
        """Bring the deadline forward to this many seconds from now; a later one than the present is ignored."""
        self.deadline = min(self.deadline, self._clock.now() + seconds)

    def allow(self, seconds: float) -> None:
        """Put the deadline this many seconds from now, also later than before: for checks of whole tables.

        An hour is the most; a lost client or a cancel request still ends the work.
        """
        self.deadline = self._clock.now() + min(seconds, LONG_REQUEST_SECONDS_MAX)

    def set(self, reason: str = "canceling statement due to user request") -> None:
        """Ask the work to stop; may be called from any thread."""
        self._reason = reason
        self.array[0] = 1

    @property
    def is_set(self) -> bool:
        """Tell whether the work was asked to stop."""
        return bool(self.array[0])

    def check(self) -> None:
        """Raise Cancelled when the work was asked to stop or its deadline has passed."""
        if self.array[0]:
            raise Cancelled(self._reason)
        if self._clock.now() > self.deadline:
            self.set("canceling statement due to statement timeout")
            raise Cancelled(self._reason)


class Backend(Protocol):
    """The product behind the endpoint; every method is called from many threads at once.

    Errors of ``ruvector.errors`` reach the client with code, message, detail and hint; all others are answered with
    "internal error" and logged without their values.
    """

    def authenticate(self, login: str) -> Login | None:
        """Return what is known about a login name, or None when it may not connect."""
        ...

    def rpc_search(self, payload: bytes, cancel: CancelFlag) -> RowSet:
        """Answer ``SEARCH <mac><fields>``; the payload starts at the mac, the columns are SEARCH_COLUMNS."""
        ...

    def rpc_call(self, payload: bytes, cancel: CancelFlag) -> RowSet:
        """Answer ``CALL <mac><json>``; the payload starts at the mac, the columns are CALL_COLUMNS.

        Each row is one document of JSON: ("v", document, None).
        """
        ...

    def rpc_sample(self, payload: bytes) -> RowSet:
        """Take ``SAMPLE <mac><json>``, a search to compare in the background; return CALL_COLUMNS without rows."""
        ...

    def describe(self, function: str) -> Signature:
        """Return the signature of a function; raise FunctionNotFound when there is none."""
        ...

    def call(
        self, function: str, args: list[Value], kwargs: dict[str, Value], *, access: Access, cancel: CancelFlag
    ) -> RowSet:
        """Call a function; raise FunctionNotFound, PermissionDenied or InvalidParameter when it cannot be."""
        ...
