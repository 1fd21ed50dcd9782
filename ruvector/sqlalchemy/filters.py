"""Conditions of a SELECT as filters of a search, where both mean exactly the same.

Takes: the WHERE clause of a statement.  Gives: a filter of ruvector_search, or LeftAlone with the reason.

A condition is translated only when the database would evaluate it and the filter alike, NULL included: comparisons, IN,
BETWEEN, IS NULL, AND, OR and NOT over filter columns, with values of the column's own type.
"""

from __future__ import annotations

import datetime
import decimal
import enum
import math
import uuid
from collections.abc import Callable, Mapping
from typing import Any

from sqlalchemy import types as kinds
from sqlalchemy.sql import operators
from sqlalchemy.sql.elements import (
    AsBoolean,
    BinaryExpression,
    BindParameter,
    BooleanClauseList,
    False_,
    Grouping,
    Null,
    True_,
    UnaryExpression,
)
from sqlalchemy.sql.expression import ClauseElement, ColumnElement

from ruvector import limits

Filter = dict[str, Any]
ValueOf = Callable[[BindParameter[Any]], Any]
NameOf = Callable[[ColumnElement[Any]], str]

_COMPARISONS: Mapping[Any, str] = {
    operators.eq: "$eq",
    operators.ne: "$ne",
    operators.lt: "$lt",
    operators.le: "$lte",
    operators.gt: "$gt",
    operators.ge: "$gte",
}
_LISTS: Mapping[Any, str] = {operators.in_op: "$in", operators.not_in_op: "$nin"}


class LeftAlone(Exception):
    """The statement is not routed; the text says why."""


def json_value(value: object) -> Any:
    """Return a filter, or a value in one, as JSON has it; numbers, times and UUIDs lose nothing."""
    if isinstance(value, Mapping):
        return {str(name): json_value(inner) for name, inner in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [json_value(inner) for inner in value]
    if isinstance(value, (datetime.date, datetime.datetime)):
        return value.isoformat()
    if isinstance(value, (decimal.Decimal, uuid.UUID)):
        return str(value)
    return value


def filter_of(clause: ClauseElement, *, name_of: NameOf, value_of: ValueOf, depth: int = 0) -> Filter:
    """Return a condition as a filter.

    Args:
        clause: the condition.
        name_of: gives the name of a filter column, or raises LeftAlone for every other column.
        value_of: gives the value that a parameter has in this execution.
        depth: of the clause in the condition.

    Raises:
        LeftAlone: the condition cannot be said as a filter.
    """
    if depth > limits.FILTER_DEPTH_MAX:
        raise LeftAlone(f"its conditions are nested deeper than {limits.FILTER_DEPTH_MAX} levels")

    def inner(part: Any) -> Filter:
        return filter_of(part, name_of=name_of, value_of=value_of, depth=depth + 1)

    if isinstance(clause, Grouping):
        return inner(clause.element)
    if isinstance(clause, True_):
        return {}
    if isinstance(clause, BooleanClauseList) and clause.operator in (operators.and_, operators.or_):
        word = "$and" if clause.operator is operators.and_ else "$or"
        return {word: [inner(part) for part in clause.clauses]}
    if isinstance(clause, UnaryExpression) and clause.operator in (operators.inv, operators.is_false):
        return {"$not": inner(clause.element)}
    if isinstance(clause, AsBoolean):
        return inner(clause.element)
    if isinstance(clause, BinaryExpression):
        return _comparison(clause, name_of, value_of)
    if isinstance(clause, ColumnElement) and type(clause.type) in (kinds.Boolean, kinds.BOOLEAN):
        return {name_of(clause): True}
    raise LeftAlone(f"its condition of kind {type(clause).__name__} is no filter")


def _comparison(clause: BinaryExpression[Any], name_of: NameOf, value_of: ValueOf) -> Filter:
    column, operator, right = clause.left, clause.operator, clause.right
    name = name_of(column)
    if operator in (operators.is_, operators.is_not) and isinstance(right, Null):
        return {name: {"$exists": operator is operators.is_not}}
    if operator in _COMPARISONS:
        return {name: {_COMPARISONS[operator]: _value(column, right, value_of)}}
    if operator in _LISTS and isinstance(right, BindParameter):
        values = value_of(right)
        if not isinstance(values, (list, tuple, set, frozenset)) or len(values) > limits.FILTER_VALUES_MAX:
            raise LeftAlone(f"the list compared with column {name} has more than {limits.FILTER_VALUES_MAX} values")
        return {name: {_LISTS[operator]: [_encoded(column, value) for value in values]}}
    if operator is operators.between_op:
        low, high = (_value(column, bound, value_of) for bound in getattr(right, "clauses", (None, None)))
        return {name: {"$gte": low, "$lte": high}}
    raise LeftAlone(f"operator {getattr(operator, '__name__', operator)} on column {name} is no filter")


def _value(column: ColumnElement[Any], given: Any, value_of: ValueOf) -> Any:
    if isinstance(given, (True_, False_)):
        return _encoded(column, isinstance(given, True_))
    while isinstance(given, Grouping):
        given = given.element
    if not isinstance(given, BindParameter):
        raise LeftAlone(f"column {column} is compared with an expression, not with a value")
    return _encoded(column, value_of(given))


def _encoded(column: ColumnElement[Any], value: Any) -> Any:
    """Return a value as JSON if column and filter compare it alike."""
    if not _fits(column.type, value):
        raise LeftAlone(f"column {column} of type {column.type!r} is compared with a value of type {_name(value)}")
    return json_value(value)


def _name(value: object) -> str:
    return type(value).__name__


def _fits(kind: kinds.TypeEngine[Any], value: Any) -> bool:
    """Tell whether a value of a type means the same to the column and to a filter.

    A filter reads a value as one of the column's type. That is another comparison than the statement's for real numbers
    (compared as double precision), character(n) (blanks), types of the application, and times whose zone is implied.
    """
    if isinstance(kind, (kinds.TypeDecorator, kinds.Enum, kinds.REAL, kinds.CHAR, kinds.NCHAR)):
        return False
    if value is None or isinstance(value, enum.Enum):  # psycopg sends the name of an Enum
        return False
    if isinstance(kind, kinds.Boolean):
        return isinstance(value, bool)
    if isinstance(kind, kinds.Integer):
        bits = 15 if isinstance(kind, kinds.SmallInteger) else 63 if isinstance(kind, kinds.BigInteger) else 31
        return _is_number(value, int) and -(2**bits) <= value < 2**bits
    if isinstance(kind, kinds.Float):
        is_double = kind.precision is None or kind.precision > 24
        return is_double and _is_number(value, float, int) and math.isfinite(value)
    if isinstance(kind, kinds.Numeric):
        return _is_number(value, decimal.Decimal, int) and decimal.Decimal(value).is_finite()
    if isinstance(kind, kinds.String):
        return isinstance(value, str) and "\0" not in value
    if isinstance(kind, kinds.DateTime):
        return isinstance(value, datetime.datetime) and bool(kind.timezone) == (value.tzinfo is not None)
    if isinstance(kind, kinds.Date):
        return isinstance(value, datetime.date) and not isinstance(value, datetime.datetime)
    return isinstance(kind, kinds.Uuid) and isinstance(value, uuid.UUID)


def _is_number(value: object, *allowed: type) -> bool:
    return isinstance(value, allowed) and not isinstance(value, bool)
