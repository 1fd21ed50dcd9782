"""Hold every declared function, and run the calls that arrive for them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import numpy as np

from ruvector.errors import FunctionNotFound, InternalError, InvalidParameter, PermissionDenied, ensure
from ruvector.surface.context import Context
from ruvector.surface.signature import Argument, ResultColumn, SqlFunction

Answer = tuple[tuple[ResultColumn, ...], list[tuple[Any, ...]]]


class Registry:
    """The functions of the product by name; a name is declared once."""

    def __init__(self) -> None:
        self._functions: dict[str, SqlFunction] = {}

    def add(self, function: SqlFunction) -> None:
        """Remember a declared function."""
        ensure(function.name not in self._functions, f"{function.name} is declared twice")
        self._functions[function.name] = function

    def functions(self) -> list[SqlFunction]:
        """Return all functions in order of their names."""
        return [self._functions[name] for name in sorted(self._functions)]

    def get(self, name: str) -> SqlFunction:
        """Return one function, or raise FunctionNotFound."""
        function = self._functions.get(name)
        if function is None:
            raise FunctionNotFound(f"function {name[:63]} does not exist")
        return function

    def invoke(
        self,
        name: str,
        context: Context,
        args: Sequence[object],
        kwargs: Mapping[str, object],
        *,
        access: str = "user",
    ) -> Answer:
        """Bind arguments, run the function and return its columns and rows.

        Raises FunctionNotFound where PostgreSQL would (name, number or names of arguments), InvalidParameter for a
        value that does not fit its type, PermissionDenied where ``access`` is not enough: all but "admin" are users.
        """
        function = self._permitted(name, access)
        return function.columns, _run(function, context, bind(function, args, kwargs))

    def invoke_json(
        self, name: str, context: Context, arguments: Mapping[str, object], *, access: str = "user"
    ) -> list[str]:
        """Run a call of the database's generated wrapper; each row comes back as one JSON document.

        A scalar is the document itself, a row is an object whose members are its columns. Only here private
        arguments may be given.
        """
        function = self._permitted(name, access)
        private = {argument.name: argument for argument in function.private_arguments if argument.name in arguments}
        bound = bind(function, (), {key: value for key, value in arguments.items() if key not in private})
        for key, argument in private.items():
            bound[argument.python_name] = _bind_one(function, argument, arguments[key])
        rows = _run(function, context, bound)
        if function.returns_rows:
            names = [column.name for column in function.columns]
            return [_to_json(name, dict(zip(names, row, strict=True))) for row in rows]
        return [_to_json(name, row[0]) for row in rows]

    def _permitted(self, name: str, access: str) -> SqlFunction:
        function = self.get(name)
        if function.access == "admin" and access != "admin":
            raise PermissionDenied(
                f"permission denied for function {name}", hint="It is for the owner of schema ruvector."
            )
        return function


DEFAULT: Final = Registry()


def functions() -> list[SqlFunction]:
    """Return the product's functions in order of their names; ``ruvector.systems.load()`` declares them."""
    return DEFAULT.functions()


def get(name: str) -> SqlFunction:
    """Return one function of the product, or raise FunctionNotFound."""
    return DEFAULT.get(name)


def invoke(
    name: str, context: Context, args: Sequence[object], kwargs: Mapping[str, object], *, access: str = "user"
) -> Answer:
    """Run a function of the product; see ``Registry.invoke``."""
    return DEFAULT.invoke(name, context, args, kwargs, access=access)


def invoke_json(name: str, context: Context, arguments: Mapping[str, object], *, access: str = "user") -> list[str]:
    """Run a function of the product for the database's wrapper; see ``Registry.invoke_json``."""
    return DEFAULT.invoke_json(name, context, arguments, access=access)


def bind(function: SqlFunction, args: Sequence[object], kwargs: Mapping[str, object]) -> dict[str, object]:
    """Return the Python arguments of a call; NULL for an argument with a default means the default."""
    if len(args) > len(function.arguments):
        raise _mismatch(function, f"takes at most {len(function.arguments)} arguments, {len(args)} were given")
    given: dict[str, object] = {argument.name: value for argument, value in zip(function.arguments, args, strict=False)}
    known = {argument.name for argument in function.arguments}
    for name, value in kwargs.items():
        if name not in known:
            raise _mismatch(function, f"has no argument named {name[:63]}")
        if name in given:
            raise _mismatch(function, f"got argument {name} twice")
        given[name] = value
    for argument in function.arguments:
        if argument.name not in given and not argument.is_optional:
            raise _mismatch(function, f"needs argument {argument.name}")
    return {
        argument.python_name: _bind_one(function, argument, given.get(argument.name)) for argument in function.arguments
    }


def _bind_one(function: SqlFunction, argument: Argument, value: object) -> object:
    if value is None:
        if argument.is_optional:
            return argument.default
        if argument.nullable:
            return None
        raise InvalidParameter(
            f"argument {argument.name} of {function.name} must not be null", hint=f"Signature: {function.signature}"
        )
    try:
        return argument.type.read(value)
    except InvalidParameter as problem:
        raise InvalidParameter(
            f"argument {argument.name} of {function.name}: {problem.message}",
            hint=problem.hint or f"Signature: {function.signature}",
        ) from problem


def _mismatch(function: SqlFunction, problem: str) -> FunctionNotFound:
    return FunctionNotFound(f"function {function.name} {problem}", hint=f"Signature: {function.signature}")


def _run(function: SqlFunction, context: Context, bound: Mapping[str, object]) -> list[tuple[Any, ...]]:
    given = (context,) if function.takes_context else ()
    return list(_rows_of(function, function.implementation(*given, **bound)))


def _rows_of(function: SqlFunction, answer: Any) -> Iterable[tuple[Any, ...]]:
    if not function.returns_rows:
        yield (_plain(answer),)
        return
    names = [column.name for column in function.columns]
    for row in answer:
        yield tuple(_plain(getattr(row, name)) for name in names)


def _plain(value: Any) -> Any:
    # Kernels answer with numpy numbers, the sidecar with frozen mappings; what encodes the answer knows neither.
    if isinstance(value, np.generic):
        return value.item()
    return dict(value) if isinstance(value, Mapping) else value


def _to_json(name: str, value: object) -> str:
    if isinstance(value, float):
        value = _finite_or_word(value)
    elif isinstance(value, dict):
        value = {key: _finite_or_word(item) for key, item in value.items()}
    try:
        return json.dumps(value, allow_nan=False, default=_to_list)
    except (TypeError, ValueError) as problem:
        raise InternalError(f"{name} gave a value that is not JSON: {problem}") from problem


def _finite_or_word(value: Any) -> Any:
    # JSON has no NaN or infinity; PostgreSQL reads these words into a real or double precision column.
    if isinstance(value, float) and not np.isfinite(value):
        return "NaN" if value != value else "Infinity" if value > 0 else "-Infinity"
    return value


def _to_list(value: object) -> object:
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(f"{type(value).__name__} is not JSON")
