"""The decorator that declares a SQL function, and the manifest of a system."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn, TypeVar

from ruvector import resources
from ruvector.errors import UnsupportedStatement, ensure
from ruvector.surface import registry as registry_module
from ruvector.surface.context import Context
from ruvector.surface.signature import PREFIX, Access, Home, Runs, SqlFunction, Volatility, read_arguments, read_result

_Implementation = TypeVar("_Implementation", bound=Callable[..., object])


@dataclass(frozen=True, slots=True)
class System:
    """The manifest of one capability: its folder under ``systems``, what it is for, and the systems it builds on."""

    name: str
    summary: str
    needs: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Job:
    """Work that a system does on a schedule; ``run`` must give the same state when it runs twice."""

    name: str
    every_seconds: float
    run: Callable[[Context], None]


def sql_function(
    *,
    system: str,
    volatility: Volatility,
    rows: int | None = None,
    runs: Runs = "sidecar",
    access: Access = "user",
    cost: int | None = None,
    home: Home = "api",
    registry: registry_module.Registry | None = None,
    bodies: Path | None = None,
) -> Callable[[_Implementation], _Implementation]:
    """Declare a SQL function from the signature and docstring of a Python function.

    ``runs="sidecar"``: SQL calls come here over the bridge. ``runs="database"``: SQL runs sql/bodies/<name>.sql, and
    the Python function answers clients that talk to the sidecar directly. ``access="admin"``: only the owner of the
    installation may call it. ``home="ruvector"``: the function stands in schema ruvector, its name has no prefix, and
    pgvector may have one of that name. ``rows`` and ``cost`` are estimates for PostgreSQL's planner.
    Declaring fails on a missing type, docstring, prefix or body, and on a name declared before.
    """

    def declare(implementation: _Implementation) -> _Implementation:
        name = implementation.__name__
        ensure(
            name.startswith(PREFIX) == (home == "api"),
            f"{name}: the name of a SQL function starts with {PREFIX}, unless its home is another schema",
        )
        documentation = inspect.cleandoc(implementation.__doc__ or "")
        summary, _, details = documentation.partition("\n\n")
        ensure(summary, f"{name}: the docstring becomes the COMMENT and is missing")
        if runs == "database":
            body = (bodies or resources.root("sql") / "bodies") / f"{name}.sql"
            ensure(body.is_file(), f"{name}: runs in the database, but {body.name} is missing from sql/bodies")
        arguments, takes_context = read_arguments(implementation)
        columns, returns_rows = read_result(implementation)
        ensure(rows is None or returns_rows, f"{name}: rows= is for functions that return Rows[...]")
        function = SqlFunction(
            name=name,
            system=system,
            volatility=volatility,
            runs=runs,
            access=access,
            home=home,
            rows=rows,
            cost=cost,
            arguments=tuple(argument for argument in arguments if not argument.is_private),
            private_arguments=tuple(argument for argument in arguments if argument.is_private),
            columns=columns,
            returns_rows=returns_rows,
            summary=" ".join(summary.split()),
            details=details.strip(),
            implementation=implementation,
            takes_context=takes_context,
        )
        (registry or registry_module.DEFAULT).add(function)
        return implementation

    return declare


def database_only() -> NoReturn:
    """Refuse a call that reached the sidecar directly although only the database can answer it."""
    raise UnsupportedStatement(
        "this function runs in the database only", hint="Send the same statement to the database instead."
    )
