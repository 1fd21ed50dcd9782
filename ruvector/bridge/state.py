"""The state a session keeps between statements: its transaction, savepoints and settings."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from ruvector.bridge.statements import SessionCommand, Verb
from ruvector.errors import InvalidParameter, LimitExceeded, SessionProblem, UnsupportedStatement
from ruvector.limits import SAVEPOINTS_MAX, SETTINGS_MAX

SERVER_VERSION: Final = "15.0"  # the release whose protocol and result formats are spoken

IDLE: Final = "I"
IN_TRANSACTION: Final = "T"
FAILED: Final = "E"

# Settings a client may expect to exist; those in REPORTED are sent at login and when they change.
DEFAULT_SETTINGS: Final = {
    "application_name": "",
    "client_encoding": "UTF8",
    "client_min_messages": "notice",
    "datestyle": "ISO, MDY",
    "default_transaction_isolation": "repeatable read",
    "default_transaction_read_only": "off",
    "extra_float_digits": "1",
    "in_hot_standby": "off",
    "integer_datetimes": "on",
    "intervalstyle": "postgres",
    "is_superuser": "off",
    "search_path": "public",
    "server_encoding": "UTF8",
    "server_version": SERVER_VERSION,
    "server_version_num": "150000",
    "session_authorization": "",
    "standard_conforming_strings": "on",
    "statement_timeout": "0",
    "timezone": "UTC",
    "transaction_isolation": "repeatable read",
    "transaction_read_only": "off",
}
REPORTED: Final = {
    "application_name": "application_name",
    "client_encoding": "client_encoding",
    "datestyle": "DateStyle",
    "default_transaction_read_only": "default_transaction_read_only",
    "in_hot_standby": "in_hot_standby",
    "integer_datetimes": "integer_datetimes",
    "intervalstyle": "IntervalStyle",
    "is_superuser": "is_superuser",
    "server_encoding": "server_encoding",
    "server_version": "server_version",
    "session_authorization": "session_authorization",
    "standard_conforming_strings": "standard_conforming_strings",
    "timezone": "TimeZone",
}
_FIXED: Final = frozenset(
    {
        "in_hot_standby",
        "integer_datetimes",
        "is_superuser",
        "server_encoding",
        "server_version",
        "server_version_num",
        "session_authorization",
    }
)
_ENCODINGS: Final = {"utf8": "UTF8", "unicode": "UTF8", "sqlascii": "SQL_ASCII"}


@dataclass(slots=True)
class Effect:
    """What the client must be told after a session statement."""

    tag: str
    warning: tuple[str, str] | None = None  # SQLSTATE and text
    changed: list[str] = field(default_factory=list)  # settings to report again
    ends_transaction: bool = False  # open portals end with it


class SessionState:
    """Transaction status, savepoints and settings of one connection.

    The sidecar has no transactions: an answer is always as of the mirror. The states exist because clients send
    BEGIN and expect a failed block to stay failed until its end.
    """

    def __init__(self, startup: dict[str, str]) -> None:
        self.transaction = IDLE
        self._savepoints: list[str] = []
        self._initial = dict(DEFAULT_SETTINGS)
        self._initial["session_authorization"] = startup.get("user", "")
        self._initial["application_name"] = _printable(startup.get("application_name", ""))
        self._initial["client_encoding"] = _encoding(startup.get("client_encoding", "UTF8"))
        self.settings = dict(self._initial)

    def fail(self) -> None:
        """Note an error: an open transaction block is failed until it ends."""
        if self.transaction == IN_TRANSACTION:
            self.transaction = FAILED

    def check_usable(self) -> None:
        """Raise SessionProblem in a failed transaction block."""
        if self.transaction == FAILED:
            raise SessionProblem(
                "current transaction is aborted, commands ignored until end of transaction block", sqlstate="25P02"
            )

    def apply(self, command: SessionCommand) -> Effect:
        """Carry out a session statement other than SHOW; repeating one is what PostgreSQL makes of it."""
        verb = command.verb
        if verb not in (Verb.COMMIT, Verb.ROLLBACK, Verb.ROLLBACK_TO):
            self.check_usable()
        if verb in (Verb.BEGIN, Verb.START_TRANSACTION):
            return self._begin(verb)
        if verb in (Verb.COMMIT, Verb.ROLLBACK):
            return self._end(verb)
        if verb in (Verb.SAVEPOINT, Verb.RELEASE, Verb.ROLLBACK_TO):
            return self._savepoint(verb, command.name)
        if verb is Verb.SET:
            return Effect(verb, changed=self._set(command.name, command.value) if command.name else [])
        if verb is Verb.RESET:
            return Effect(verb, changed=self._reset(command.name))
        if verb is Verb.DISCARD:
            return self._discard(command.name)
        # DEALLOCATE and CLOSE: what they end lives elsewhere; UNLISTEN: nobody can listen.
        return Effect(verb if command.name or verb is Verb.UNLISTEN else f"{verb} ALL")

    def show(self, name: str) -> str:
        """Return the value of a setting; raise SessionProblem when it was never set and has no default."""
        self.check_usable()
        if name not in self.settings:
            raise SessionProblem(f'unrecognized configuration parameter "{name[:63]}"', sqlstate="42704")
        return self.settings[name]

    def _begin(self, verb: Verb) -> Effect:
        if self.transaction != IDLE:
            return Effect(verb, warning=("25001", "there is already a transaction in progress"))
        self.transaction = IN_TRANSACTION
        return Effect(verb)

    def _end(self, verb: Verb) -> Effect:
        was_failed, was_idle = self.transaction == FAILED, self.transaction == IDLE
        self.transaction = IDLE
        self._savepoints.clear()
        tag = Verb.ROLLBACK if was_failed else verb
        warning = ("25P01", "there is no transaction in progress") if was_idle else None
        return Effect(tag, warning=warning, ends_transaction=True)

    def _savepoint(self, verb: Verb, name: str) -> Effect:
        if self.transaction == IDLE:
            raise SessionProblem(f"{verb} can only be used in transaction blocks", sqlstate="25P01")
        if verb is Verb.SAVEPOINT:
            if len(self._savepoints) == SAVEPOINTS_MAX:
                raise LimitExceeded(f"more than {SAVEPOINTS_MAX} savepoints")
            self._savepoints.append(name)
            return Effect(verb)
        if name not in self._savepoints:
            raise SessionProblem(f'savepoint "{name[:63]}" does not exist', sqlstate="3B001")
        place = len(self._savepoints) - 1 - self._savepoints[::-1].index(name)
        if verb is Verb.RELEASE:
            del self._savepoints[place:]
            return Effect(verb)
        del self._savepoints[place + 1 :]
        self.transaction = IN_TRANSACTION
        return Effect(Verb.ROLLBACK)

    def _set(self, name: str, value: str | None) -> list[str]:
        if name in _FIXED:
            raise SessionProblem(f'parameter "{name}" cannot be changed', sqlstate="55P02")
        if name in ("role", "session_authorization"):
            raise UnsupportedStatement(f"SET {name} is not supported")
        if value is None:
            return self._reset(name)
        if name == "client_encoding":
            value = _encoding(value)
        if name == "datestyle":
            value = _date_style(value)
        if name == "standard_conforming_strings" and value.lower() not in ("on", "true", "yes", "1"):
            raise InvalidParameter("standard_conforming_strings cannot be turned off")
        if name not in self.settings and len(self.settings) >= SETTINGS_MAX + len(DEFAULT_SETTINGS):
            raise LimitExceeded(f"more than {SETTINGS_MAX} settings in one session")
        self.settings[name] = _printable(value)[:1_000]
        return [name]

    def _reset(self, name: str) -> list[str]:
        if not name:
            changed = [each for each in self.settings if self.settings[each] != self._initial.get(each)]
            self.settings = dict(self._initial)
            return changed
        if name in self._initial:
            self.settings[name] = self._initial[name]
            return [name]
        self.settings.pop(name, None)
        return []

    def _discard(self, what: str) -> Effect:
        if what != "all":
            return Effect(f"DISCARD {what.upper()}")
        if self.transaction != IDLE:
            raise SessionProblem("DISCARD ALL cannot run inside a transaction block", sqlstate="25001")
        return Effect("DISCARD ALL", changed=self._reset(""), ends_transaction=True)


def _encoding(name: str) -> str:
    """Return the canonical name of an encoding; only those whose text is valid UTF-8 are spoken."""
    plain = "".join(character for character in name.lower() if character.isalnum())  # as PostgreSQL reads it
    if plain not in _ENCODINGS:
        raise InvalidParameter(
            f'client_encoding "{name[:63]}" is not supported', hint="Set client_encoding to UTF8 (PGCLIENTENCODING)."
        )
    return _ENCODINGS[plain]


def _date_style(value: str) -> str:
    """Return the canonical form, which drivers read from the report; only ISO is spoken."""
    words = [word.strip().upper() for word in value.split(",")]
    order = next((word for word in words if word in ("DMY", "MDY", "YMD")), "MDY")
    if any(word not in ("ISO", order) for word in words):
        raise InvalidParameter(f'datestyle "{value[:63]}" is not supported', hint="Set datestyle to ISO.")
    return f"ISO, {order}"


def _printable(text: str) -> str:
    """Return text fit for a log: other characters than printable ASCII become question marks, as in PostgreSQL."""
    return "".join(character if " " <= character <= "~" else "?" for character in text)
