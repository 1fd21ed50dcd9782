"""Read the signature of a declared function: arguments, defaults and result as SQL sees them."""

from __future__ import annotations

import dataclasses
import inspect
import types
import typing
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Literal

from ruvector.errors import ensure
from ruvector.surface.types import RowsMarker, SqlType

Volatility = Literal["immutable", "stable", "volatile"]
Runs = Literal["sidecar", "database"]
Access = Literal["user", "admin"]
Home = Literal["api", "ruvector"]

NO_DEFAULT: Final = object()
PREFIX: Final = "ruvector_"


@dataclass(frozen=True, slots=True)
class Argument:
    """One argument.

    ``python_name`` differs from ``name`` where the SQL name is a Python builtin (``filter_``) and for private
    arguments (``_snapshot``), which the database's own functions give and SQL callers do not see.
    """

    name: str
    python_name: str
    type: SqlType
    nullable: bool
    default: object = NO_DEFAULT

    @property
    def is_private(self) -> bool:
        """Tell whether only the database's own functions may give the argument."""
        return self.python_name.startswith("_")

    @property
    def is_optional(self) -> bool:
        """Tell whether a call may leave the argument out."""
        return self.default is not NO_DEFAULT


@dataclass(frozen=True, slots=True)
class ResultColumn:
    """One column of a result."""

    name: str
    type: SqlType


@dataclass(frozen=True, slots=True)
class SqlFunction:
    """One SQL function with everything that is generated from it."""

    name: str
    system: str
    volatility: Volatility
    runs: Runs
    access: Access
    home: Home
    rows: int | None
    cost: int | None
    arguments: tuple[Argument, ...]
    private_arguments: tuple[Argument, ...]
    columns: tuple[ResultColumn, ...]
    returns_rows: bool
    summary: str
    details: str
    implementation: Callable[..., Any]
    takes_context: bool

    @property
    def is_strict(self) -> bool:
        """Tell whether NULL for any argument gives NULL, as with operators: so for all that only computes."""
        return self.volatility == "immutable"

    @property
    def label(self) -> str:
        """Return the name as people call it: with its schema unless it stands where users find it by itself."""
        return self.name if self.home == "api" else f"{self.home}.{self.name}"

    @property
    def signature(self) -> str:
        """Return name, arguments and defaults as people write them in documents."""
        return f"{self.label}({', '.join(map(_describe, self.arguments))})"


def read_arguments(function: Callable[..., Any]) -> tuple[tuple[Argument, ...], bool]:
    """Return the SQL arguments, and whether the function also takes a Context first."""
    hints = typing.get_type_hints(function, include_extras=True)
    parameters = list(inspect.signature(function).parameters.values())
    takes_context = bool(parameters) and parameters[0].name == "context"
    arguments = tuple(
        _read_argument(function, parameter, hints) for parameter in (parameters[1:] if takes_context else parameters)
    )
    optional_seen = False
    for argument in arguments:
        ensure(
            argument.is_optional or not optional_seen,
            f"{function.__name__}: {argument.name} needs a default because an argument before it has one",
        )
        optional_seen = argument.is_optional
    return arguments, takes_context


def read_result(function: Callable[..., Any]) -> tuple[tuple[ResultColumn, ...], bool]:
    """Return the columns of the result, and whether there may be many rows; a scalar's column is named as in SQL."""
    name = function.__name__
    hints = typing.get_type_hints(function, include_extras=True)
    ensure("return" in hints, f"{name}: the result has no type")
    hint = hints["return"]
    metadata = getattr(hint, "__metadata__", ())
    if any(isinstance(item, RowsMarker) for item in metadata):
        (row,) = typing.get_args(typing.get_args(hint)[0])
        ensure(dataclasses.is_dataclass(row), f"{name}: Rows[...] wants a frozen dataclass")
        return read_columns(row), True
    sql_type, _ = _read_type(hint)
    ensure(sql_type is not None, f"{name}: the result has no SQL type")
    return (ResultColumn(name, typing.cast("SqlType", sql_type)),), False


def read_columns(row: type) -> tuple[ResultColumn, ...]:
    """Return one column per field of a row dataclass."""
    hints = typing.get_type_hints(row, include_extras=True)
    columns = []
    for field in dataclasses.fields(row):
        sql_type, _ = _read_type(hints[field.name])
        ensure(sql_type is not None, f"{row.__name__}.{field.name} has no SQL type")
        columns.append(ResultColumn(field.name, typing.cast("SqlType", sql_type)))
    return tuple(columns)


def _read_argument(function: Callable[..., Any], parameter: inspect.Parameter, hints: dict[str, Any]) -> Argument:
    label = f"{function.__name__}: argument {parameter.name}"
    ensure(
        parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY), f"{label} must be a plain argument"
    )
    ensure(parameter.name in hints, f"{label} has no type")
    sql_type, nullable = _read_type(hints[parameter.name])
    ensure(sql_type is not None, f"{label} has no SQL type")
    return Argument(
        name=parameter.name.strip("_"),
        python_name=parameter.name,
        type=typing.cast("SqlType", sql_type),
        nullable=nullable,
        default=NO_DEFAULT if parameter.default is inspect.Parameter.empty else parameter.default,
    )


def _read_type(hint: Any) -> tuple[SqlType | None, bool]:
    nullable = False
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        members = [member for member in typing.get_args(hint) if member is not type(None)]
        nullable = len(members) < len(typing.get_args(hint))
        hint = members[0] if len(members) == 1 else None
    for item in getattr(hint, "__metadata__", ()):
        if isinstance(item, SqlType):
            return item, nullable
    return None, nullable


def _describe(argument: Argument) -> str:
    text = f"{argument.name} {argument.type.label}"
    if not argument.is_optional:
        return text
    if argument.default is None:
        return f"{text} = NULL"
    if isinstance(argument.default, bool):
        return f"{text} = {str(argument.default).lower()}"
    if isinstance(argument.default, (int, float)):
        return f"{text} = {argument.default}"
    return f"{text} = '{argument.default if isinstance(argument.default, str) else '{}'}'"
