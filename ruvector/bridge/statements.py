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


@dataclass(frozen=True, slots=True)
class CatalogQuery:
    """A query of system catalogs: it has these columns, uses these parameters, and finds nothing."""

    labels: tuple[str, ...]
    parameters: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Declare:
    """DECLARE name CURSOR FOR SELECT ...; a held cursor outlives its transaction."""

    name: str
    query: Call | Constants | CatalogQuery
    is_binary: bool
    is_held: bool


@dataclass(frozen=True, slots=True)
class Fetch:
    """FETCH or MOVE, forwards: so many rows of a cursor, None for all that are left."""

    cursor: str
    rows_max: int | None
    is_move: bool


class Remote(StrEnum):
    """The private statements of the bridge inside the database."""

    SEARCH = "SEARCH"
    CALL = "CALL"
    SAMPLE = "SAMPLE"


@dataclass(frozen=True, slots=True)
class RemoteCall:
    """``SEARCH <mac><fields>``, ``CALL <mac><json>`` or ``SAMPLE <mac><json>``."""

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
    CLOSE = "CLOSE"
    UNLISTEN = "UNLISTEN"


@dataclass(frozen=True, slots=True)
class SessionCommand:
    """A statement about the session itself; an empty name means all."""

    verb: Verb
    name: str = ""
    value: str | None = None


Statement: TypeAlias = Call | Constants | CatalogQuery | RemoteCall | Declare | Fetch | SessionCommand


def parameter_casts(statement: Statement) -> dict[int, str | None]:
    """Return the numbers of the parameters a statement uses, each with the type of its cast when it has one."""
    found: dict[int, str | None] = {}
    pending: list[tuple[Expression, str | None]] = []
    if isinstance(statement, Declare):
        statement = statement.query
    if isinstance(statement, CatalogQuery):
        return dict.fromkeys(statement.parameters)
    if isinstance(statement, Call):
        pending += [(each, None) for each in statement.arguments]
        pending += [(each, None) for _, each in statement.named]
        if statement.limit is not None:
            pending.append((statement.limit, "int8"))
    elif isinstance(statement, Constants):
        pending += [(each, None) for _, each in statement.items]
    while pending:
        expression, type_name = pending.pop()
        if isinstance(expression, Parameter):
            found[expression.number] = found.get(expression.number) or type_name
        elif isinstance(expression, Cast):
            pending.append((expression.operand, expression.type_name))
        elif isinstance(expression, ArrayOf):
            element = type_name.removesuffix("[]") if type_name is not None else None
            pending += [(each, element) for each in expression.items]
    return found


def default_label(expression: Expression) -> str:
    """Return the column name PostgreSQL gives to a value."""
    if isinstance(expression, Cast):
        inner = default_label(expression.operand)
        return expression.type_name.removesuffix("[]") if inner == "?column?" else inner
    if isinstance(expression, Builtin):
        return expression.name
    if isinstance(expression, Literal) and isinstance(expression.value, bool):
        return "bool"
    return "array" if isinstance(expression, ArrayOf) else "?column?"
