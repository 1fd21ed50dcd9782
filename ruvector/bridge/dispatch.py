"""Run statements: evaluate their values, call the backend, choose the columns that were asked for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import islice
from operator import itemgetter
from typing import Final

from ruvector.bridge import oids
from ruvector.bridge.backend import (
    CALL_COLUMNS,
    SEARCH_COLUMNS,
    Access,
    Backend,
    CancelFlag,
    Column,
    RowSet,
    Signature,
    Value,
)
from ruvector.bridge.fields import convert_text, json_text
from ruvector.bridge.statements import (
    ArrayOf,
    Builtin,
    Call,
    Cast,
    CatalogQuery,
    Constants,
    Declare,
    Expression,
    Literal,
    Parameter,
    Remote,
    RemoteCall,
    SelectItem,
    Statement,
    parameter_casts,
)
from ruvector.errors import (
    FunctionNotFound,
    InvalidParameter,
    InvalidText,
    PermissionDenied,
    SessionProblem,
    SyntaxProblem,
    UnsupportedStatement,
    ensure,
)

_UNDEFINED_COLUMN: Final = "42703"
_UNDEFINED_TYPE: Final = "42704"
_UNDEFINED_PARAMETER: Final = "42P02"
_INT_TYPES: Final = frozenset({oids.INT2, oids.INT4, oids.INT8})
_FLOAT_TYPES: Final = frozenset({oids.FLOAT4, oids.FLOAT8})


class Dispatcher:
    """Runs the statements of one login."""

    def __init__(self, backend: Backend, *, access: Access, builtins: Mapping[str, Value]) -> None:
        self._backend = backend
        self._access = access
        self._builtins = builtins

    def remote(self, kind: Remote, payload: bytes, cancel: CancelFlag) -> RowSet:
        """Run a private statement; PermissionDenied for a login that is neither the bridge nor an administrator."""
        if self._access is Access.USER:
            raise PermissionDenied(f"{kind} is reserved for the bridge of the database")
        if kind is Remote.SEARCH:
            return self._backend.rpc_search(payload, cancel)
        if kind is Remote.SAMPLE:
            return self._backend.rpc_sample(payload)
        return self._backend.rpc_call(payload, cancel)

    def run(self, statement: Statement, parameters: Sequence[Value], cancel: CancelFlag) -> RowSet:
        """Run a statement that answers with rows; the first parameter is ``$1``."""
        if isinstance(statement, RemoteCall):
            return self.remote(statement.kind, statement.payload, cancel)
        if isinstance(statement, Constants):
            return self._constants(statement, parameters)
        if isinstance(statement, CatalogQuery):
            return RowSet(self.columns(statement, ()), ())
        ensure(isinstance(statement, Call), "a session statement was dispatched")
        return self._call(statement, parameters, cancel)  # type: ignore[arg-type]  # the ensure above

    def columns(self, statement: Statement, type_oids: Sequence[int]) -> tuple[Column, ...]:
        """Return the columns of a statement's answer without running it; ``type_oids`` are its parameters'."""
        if isinstance(statement, RemoteCall):
            return SEARCH_COLUMNS if statement.kind is Remote.SEARCH else CALL_COLUMNS
        if isinstance(statement, Constants):
            return tuple(Column(name, _type_of(value, type_oids)) for name, value in statement.items)
        if isinstance(statement, CatalogQuery):
            return tuple(Column(label, oids.TEXT) for label in statement.labels)
        ensure(isinstance(statement, Call), "a session statement was described")
        signature = self._signature(statement)  # type: ignore[arg-type]
        return _projection(statement, signature.columns)[0]  # type: ignore[arg-type]

    def parameter_types(self, statement: Statement, declared: Sequence[int]) -> tuple[int, ...]:
        """Return the type of each parameter: as declared, else by its cast, else as the function wants it, else text.

        Raises SessionProblem when a parameter below the highest one is neither used nor declared.
        """
        if isinstance(statement, Declare):
            statement = statement.query
        casts = parameter_casts(statement)
        wanted: dict[int, int] = {}
        if isinstance(statement, Call):
            wanted = _argument_types(statement, self._signature(statement))
        types: list[int] = []
        for number in range(1, max([len(declared), *casts]) + 1):
            type_oid = declared[number - 1] if number <= len(declared) else oids.UNKNOWN_TYPE
            if type_oid in (oids.UNKNOWN_TYPE, oids.UNKNOWN):
                if number not in casts:
                    raise SessionProblem(
                        f"could not determine data type of parameter ${number}", sqlstate=_UNDEFINED_PARAMETER
                    )
                type_oid = _named_type(casts[number]) or wanted.get(number) or oids.TEXT
            types.append(type_oid)
        return tuple(types)

    def _signature(self, call: Call) -> Signature:
        if self._access is Access.BRIDGE:
            raise PermissionDenied("the bridge of the database may use SEARCH, CALL and SAMPLE only")
        return self._backend.describe(call.function)

    def _call(self, call: Call, parameters: Sequence[Value], cancel: CancelFlag) -> RowSet:
        if self._access is Access.BRIDGE:
            raise PermissionDenied("the bridge of the database may use SEARCH, CALL and SAMPLE only")
        arguments = [self._evaluate(each, parameters) for each in call.arguments]
        named = {name: self._evaluate(each, parameters) for name, each in call.named}
        limit = None if call.limit is None else _row_limit(self._evaluate(call.limit, parameters))
        answer = self._backend.call(call.function, arguments, named, access=self._access, cancel=cancel)
        columns, places = _projection(call, answer.columns)
        rows = answer.rows if limit is None else islice(answer.rows, limit)
        if places is None:
            return RowSet(columns, rows)
        if len(places) == 1:
            place = places[0]
            return RowSet(columns, ((row[place],) for row in rows))
        return RowSet(columns, map(itemgetter(*places), rows))

    def _constants(self, statement: Constants, parameters: Sequence[Value]) -> RowSet:
        values = tuple(self._evaluate(each, parameters) for _, each in statement.items)
        return RowSet(self.columns(statement, ()), (values,))

    def _evaluate(self, expression: Expression, parameters: Sequence[Value]) -> Value:
        if isinstance(expression, Literal):
            return expression.value
        if isinstance(expression, Parameter):
            if expression.number > len(parameters):
                raise SessionProblem(
                    f"there is no parameter ${expression.number}",
                    sqlstate=_UNDEFINED_PARAMETER,
                    hint="Parameters need a prepared statement.",
                )
            return parameters[expression.number - 1]
        if isinstance(expression, ArrayOf):
            return [self._evaluate(each, parameters) for each in expression.items]
        if isinstance(expression, Builtin):
            return self._builtins[expression.name]
        return cast(self._evaluate(expression.operand, parameters), expression.type_name)


def cast(value: Value, type_name: str) -> Value:
    """Convert a value to a type of SQL; types of extensions keep their text, which the function reads itself.

    Raises InvalidText when it does not fit and SessionProblem for a type that is not known here.
    """
    element_name = type_name.removesuffix("[]")
    if element_name not in oids.OID_OF_NAME and element_name not in oids.TEXT_LIKE_NAMES:
        raise SessionProblem(f'type "{type_name[:63]}" does not exist here', sqlstate=_UNDEFINED_TYPE)
    if value is None:
        return None
    if type_name.endswith("[]"):
        if isinstance(value, list):
            return [cast(each, type_name if isinstance(each, list) else element_name) for each in value]
        if isinstance(value, str):
            values = convert_text(value, type_oid=oids.TEXT_ARRAY)
            return cast(values, type_name)
        raise InvalidText(f"cannot cast a single value to {type_name}")
    if element_name in oids.TEXT_LIKE_NAMES:
        return value
    return _cast_scalar(value, oids.OID_OF_NAME[element_name])


def _cast_scalar(value: Value, type_oid: int) -> Value:
    if isinstance(value, (list, bytes)):
        raise InvalidText("cannot cast an array or bytea to a single value")
    if isinstance(value, str) or value is None:
        return None if value is None else convert_text(value, type_oid=type_oid)
    if type_oid in _INT_TYPES:
        try:
            return convert_text(str(round(value)), type_oid=type_oid)
        except (OverflowError, ValueError):
            raise InvalidParameter(f"{value} is out of range for an integer") from None
    if type_oid in _FLOAT_TYPES or type_oid == oids.NUMERIC:
        return float(value) if type_oid in _FLOAT_TYPES else value
    if type_oid == oids.BOOL:
        return bool(value)
    return json_text(value)


def _row_limit(value: Value) -> int | None:
    """Return the greatest number of rows; NULL means all."""
    if isinstance(value, str):
        value = convert_text(value, type_oid=oids.INT8)
    if value is None:
        return None
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise InvalidParameter("LIMIT must be a whole number that is not negative")
    return value


def _projection(call: Call, columns: tuple[Column, ...]) -> tuple[tuple[Column, ...], tuple[int, ...] | None]:
    """Return the wanted columns and their places in a row; no places when the rows stay as they are."""
    if call.items is None:
        if len(columns) != 1:
            raise UnsupportedStatement(
                f"{call.function} returns {len(columns)} columns",
                hint="Call it in the FROM clause instead of the select list.",
            )
        return ((Column(call.label, columns[0].type_oid),), None) if call.label else (columns, None)
    if len(call.column_labels) > len(columns):
        raise SyntaxProblem(f"{len(columns)} columns available but {len(call.column_labels)} column labels given")
    if call.items == (SelectItem("*"),) and not call.column_labels and (len(columns) > 1 or not call.label):
        return columns, None
    names = [*call.column_labels, *(column.name for column in columns[len(call.column_labels) :])]
    if len(columns) == 1 and call.label and not call.column_labels:
        names = [call.label]  # as in PostgreSQL, the alias of a scalar function names its column
    places: list[int] = []
    wanted: list[Column] = []
    for item in call.items:
        chosen = range(len(columns)) if item.name == "*" else [_place(item.name, names, call.function)]
        places += chosen
        wanted += [Column(item.label or names[place], columns[place].type_oid) for place in chosen]
    return tuple(wanted), tuple(places)


def _place(name: str, names: Sequence[str], function: str) -> int:
    if name not in names:
        raise SessionProblem(
            f'column "{name[:63]}" does not exist',
            sqlstate=_UNDEFINED_COLUMN,
            hint=f"{function} returns: {', '.join(names)}.",
        )
    return names.index(name)


def _argument_types(call: Call, signature: Signature) -> dict[int, int]:
    """Return the types the function declares for the arguments that are bare parameters."""
    by_name = {parameter.name: parameter.type_oid for parameter in signature.parameters}
    wanted: dict[int, int] = {}
    if len(call.arguments) > len(signature.parameters):
        raise FunctionNotFound(
            f"{call.function} takes {len(signature.parameters)} arguments, {len(call.arguments)} were given"
        )
    for expression, parameter in zip(call.arguments, signature.parameters, strict=False):
        if isinstance(expression, Parameter):
            wanted[expression.number] = parameter.type_oid
    for name, expression in call.named:
        if isinstance(expression, Parameter) and name in by_name:
            wanted[expression.number] = by_name[name]
    if isinstance(call.limit, Parameter):
        wanted[call.limit.number] = oids.INT8
    return wanted


def _named_type(name: str | None) -> int:
    """Return the identifier of a type's name, or 0."""
    if name is None:
        return oids.UNKNOWN_TYPE
    element_oid = oids.OID_OF_NAME.get(name.removesuffix("[]"), oids.UNKNOWN_TYPE)
    return oids.ARRAY_OF.get(element_oid, oids.UNKNOWN_TYPE) if name.endswith("[]") else element_oid


def _type_of(expression: Expression, type_oids: Sequence[int]) -> int:
    """Return the type a constant has in an answer."""
    if isinstance(expression, Parameter):
        place = expression.number - 1
        return type_oids[place] if place < len(type_oids) else oids.TEXT
    if isinstance(expression, Cast):
        return _named_type(expression.type_name) or oids.TEXT
    if isinstance(expression, ArrayOf):
        element = _type_of(expression.items[0], type_oids) if expression.items else oids.TEXT
        return oids.ARRAY_OF.get(element, element)
    if isinstance(expression, Builtin):
        return {"pg_backend_pid": oids.INT4, "pg_is_in_recovery": oids.BOOL}.get(expression.name, oids.TEXT)
    return _type_of_literal(expression.value)


def _type_of_literal(value: object) -> int:
    if isinstance(value, bool):
        return oids.BOOL
    if isinstance(value, int):
        return oids.INT4 if -(2**31) <= value < 2**31 else oids.INT8 if -(2**63) <= value < 2**63 else oids.NUMERIC
    return oids.FLOAT8 if isinstance(value, float) else oids.TEXT
