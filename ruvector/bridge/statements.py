"""The closed set of statements the endpoint understands, as values."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TypeAlias


@dataclass(frozen=True, slots=True)
class Literal:
    """A constant."""

    value: bool | int | float | str | None


@dataclass(frozen=True, slots=True)
class Parameter:
    """A parameter of a prepared statement; the first has number 1."""

    number: int


@dataclass(frozen=True, slots=True)
class ArrayOf:
    """ARRAY[...]."""

    items: tuple[Expression, ...]


@dataclass(frozen=True, slots=True)
class Cast:
    """A value with a type: ``value::type`` or CAST(value AS type)."""

    operand: Expression
    type_name: str  # lower case, without modifiers; "[]" behind an array


@dataclass(frozen=True, slots=True)
class Builtin:
    """A value of the session: version(), current_schema(), current_user and their like."""

    name: str


Expression: TypeAlias = Literal | Parameter | ArrayOf | Cast | Builtin


@dataclass(frozen=True, slots=True)
class SelectItem:
    """One wanted column: ``*`` or a column's name, with its new name when it has one."""

    name: str
    label: str | None = None


@dataclass(frozen=True, slots=True)
class Call:
    """SELECT ... FROM function(...) or SELECT function(...)."""

    function: str
    arguments: tuple[Expression, ...]
    named: tuple[tuple[str, Expression], ...]
    items: tuple[SelectItem, ...] | None  # None: the function stands in the select list
    label: str | None = None  # new name of a result with one column
    column_labels: tuple[str, ...] = ()
    limit: Expression | None = None


@dataclass(frozen=True, slots=True)
class Constants:
    """SELECT of constants, without a function."""

    items: tuple[tuple[str, Expression], ...]


class Remote(StrEnum):
    """The private statements of the bridge inside the database."""

    SEARCH = "SEARCH"
    CALL = "CALL"


@dataclass(frozen=True, slots=True)
class RemoteCall:
    """``SEARCH <mac><json>`` or ``CALL <mac><json>``."""

    kind: Remote
    payload: bytes


class Verb(StrEnum):
    """What a session statement does; the value is its command tag."""

    BEGIN = "BEGIN"
    START_TRANSACTION = "START TRANSACTION"
    COMMIT = "COMMIT"
    ROLLBACK = "ROLLBACK"
    SAVEPOINT = "SAVEPOINT"
    RELEASE = "RELEASE"
    ROLLBACK_TO = "ROLLBACK TO"
    SET = "SET"
    RESET = "RESET"
    SHOW = "SHOW"
    DISCARD = "DISCARD"
    DEALLOCATE = "DEALLOCATE"


@dataclass(frozen=True, slots=True)
class SessionCommand:
    """A statement about the session itself; an empty name means all."""

    verb: Verb
    name: str = ""
    value: str | None = None


Statement: TypeAlias = Call | Constants | RemoteCall | SessionCommand
