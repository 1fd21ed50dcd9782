"""Filters: parsed once against the columns, then evaluated for all rows or for some.

The grammar and its meaning are those of SQL with three values (docs/filters.md). Negation is pushed down to single
comparisons while a filter is parsed: there it is known which of them may be true, and NULL makes none of them true.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

import numpy as np

from ruvector import limits
from ruvector.errors import InvalidParameter, LimitExceeded
from ruvector.index.columns import Column, Mask
from ruvector.index.scalars import Unreadable

_OPERATORS = {"$eq": "=", "$ne": "<>", "$lt": "<", "$lte": "<=", "$gt": ">", "$gte": ">="}
_NEGATED = {"=": "<>", "<>": "=", "<": ">=", "<=": ">", ">": "<=", ">=": "<"}


@dataclass(frozen=True, slots=True)
class Constant:
    """Lets every row pass, or none."""

    value: bool


@dataclass(frozen=True, slots=True)
class Comparison:
    """A column compared with a value."""

    column: str
    operator: str
    operand: Any


@dataclass(frozen=True, slots=True)
class Membership:
    """A column, or an element of one that holds arrays, that is one of some values; negated: none of them."""

    column: str
    operands: tuple[Any, ...]
    negated: bool


@dataclass(frozen=True, slots=True)
class Presence:
    """A column that is not NULL; negated: that is."""

    column: str
    negated: bool


@dataclass(frozen=True, slots=True)
class Unsure:
    """A comparison whose value this program cannot read: every row with a value may pass."""

    column: str


@dataclass(frozen=True, slots=True)
class Junction:
    """All of the parts, or any of them."""

    parts: tuple[Expression, ...]
    is_all: bool


Expression = Constant | Comparison | Membership | Presence | Unsure | Junction


class KnownColumn:
    """A column and which rows were written since it is there."""

    def __init__(self, column: Column, known: Mask | None) -> None:
        """Start with the rows that are known; None: all are."""
        self.column = column
        self.known = known


def parse(filter_: object, columns: Mapping[str, Column], *, is_strict: bool) -> Expression:
    """Return a filter as an expression.

    Args:
        filter_: as docs/filters.md has it; values of Python, or as PostgreSQL prints them.
        columns: by name.
        is_strict: refuse a value that is none of its column's type. Else the database has read it as one already, and
            what is not understood here lets rows pass.

    Raises:
        InvalidParameter, LimitExceeded: with the place in the filter.
    """
    return _Parser(columns, is_strict=is_strict).node(filter_, "$", depth=0, negated=False)


class _Parser:
    def __init__(self, columns: Mapping[str, Column], *, is_strict: bool) -> None:
        self._columns, self._is_strict = columns, is_strict

    def node(self, filter_: object, place: str, *, depth: int, negated: bool) -> Expression:
        """Return a filter object, or its negation."""
        if depth > limits.FILTER_DEPTH_MAX:
            raise LimitExceeded(
                f"the filter is nested deeper than {limits.FILTER_DEPTH_MAX} levels", hint="Flatten $and and $or."
            )
        if not isinstance(filter_, Mapping):
            _refuse(f"a filter must be an object, not {filter_!r:.80}", place, '{"price": {"$lt": 50}}')
        parts = []
        for name, value in filter_.items():
            at = f"{place}.{name}"
            if name in ("$and", "$or"):
                parts.append(self._junction(name, value, at, depth, negated=negated))
            elif name == "$not":
                parts.append(self.node(value, at, depth=depth + 1, negated=not negated))
            else:
                parts.append(self._column(name, value, at, negated=negated))
        return _joined(parts, is_all=not negated)

    def _junction(self, name: str, value: object, place: str, depth: int, *, negated: bool) -> Expression:
        if not isinstance(value, Sequence) or isinstance(value, str) or not value:
            _refuse(f"{name} expects a list of filters, not {value!r:.80}", place, '{"$or": [{"a": 1}, {"b": 2}]}')
        parts = [self.node(each, f"{place}[{at}]", depth=depth + 1, negated=negated) for at, each in enumerate(value)]
        return _joined(parts, is_all=(name == "$and") != negated)

    def _column(self, name: object, condition: object, place: str, *, negated: bool) -> Expression:
        column = self._columns.get(name) if isinstance(name, str) else None
        if column is None or not isinstance(name, str):
            names = ", ".join(sorted(self._columns)) or "none"
            raise InvalidParameter(
                f"column {name!r:.80} is not a filter column (at {place})",
                detail=f"Filter columns: {names}.",
                hint="Give it among the attributes, or attach the collection with it.",
            )
        if condition is None or not isinstance(condition, (Mapping, list, tuple, set, frozenset, np.ndarray)):
            condition = {"$eq": condition}
        elif not isinstance(condition, Mapping):
            condition = {"$in": condition}
        parts = [
            self._operation(name, column, operator, value, f"{place}.{operator}", negated=negated)
            for operator, value in condition.items()
        ]
        return _joined(parts, is_all=not negated)

    def _operation(
        self, name: str, column: Column, operator: str, value: object, place: str, *, negated: bool
    ) -> Expression:
        if operator in ("$in", "$nin"):
            return self._membership(name, column, value, place, negated=negated != (operator == "$nin"))
        if operator == "$exists":
            if not isinstance(value, (bool, np.bool_)):
                _refuse(f"$exists expects true or false, not {value!r:.80}", place, '{"a": {"$exists": true}}')
            return Presence(name, negated=bool(value) == negated)
        if operator not in _OPERATORS:
            _refuse(f"unknown operator {operator!r:.80}", place, "$eq $ne $lt $lte $gt $gte $in $nin $exists")
        compared = _OPERATORS[operator]
        if value is None:
            if compared not in ("=", "<>"):
                return Constant(value=False)  # NULL, and so is its negation
            return Presence(name, negated=(compared == "=") != negated)
        if column.is_list and compared not in ("=", "<>"):
            _refuse(f"{operator} does not work on a list", place, "a value (contains), $in (contains one of), $exists")
        if negated:
            compared = _NEGATED[compared]
        operand = self._read(name, column, value, place)
        return Unsure(name) if operand is None else Comparison(name, compared, operand[0])

    def _membership(self, name: str, column: Column, value: object, place: str, *, negated: bool) -> Expression:
        if isinstance(value, np.ndarray):
            value = value.tolist()
        if not isinstance(value, (list, tuple, set, frozenset)):
            _refuse(f"a list is expected, not {value!r:.80}", place, f'{{"{name}": {{"$in": ["a", "b"]}}}}')
        if len(value) > limits.FILTER_VALUES_MAX:
            raise LimitExceeded(
                f"the list at {place} has {len(value)} values, at most {limits.FILTER_VALUES_MAX} are allowed"
            )
        given = [each for each in value if each is not None]
        if not column.is_list:
            if not value:
                return Constant(value=negated)
            if negated and len(given) < len(value):
                return Constant(value=False)  # x NOT IN (a, NULL) is never true
        operands = [self._read(name, column, each, place) for each in given]
        if any(operand is None for operand in operands):
            return Unsure(name)
        return Membership(name, tuple(operand[0] for operand in operands if operand is not None), negated)

    def _read(self, name: str, column: Column, value: object, place: str) -> tuple[Any] | None:
        """Return the value as the column compares it; None when it cannot be read, and need not be."""
        try:
            return (column.read(value),)
        except Unreadable as problem:
            if self._is_strict:
                kind = column.attribute.type
                raise InvalidParameter(
                    f"filter on column {name}: {value!r:.80} is not a value of type {kind} (at {place})",
                    hint=f"Give {problem}.",
                ) from None
            return None


def _joined(parts: list[Expression], *, is_all: bool) -> Expression:
    """Return all of the parts, or any; what is certain already is left out."""
    open_parts = [part for part in parts if part != Constant(value=is_all)]
    if Constant(value=not is_all) in open_parts:
        return Constant(value=not is_all)
    if not open_parts:
        return Constant(value=is_all)
    return open_parts[0] if len(open_parts) == 1 else Junction(tuple(open_parts), is_all)


def _refuse(problem: str, place: str, example: str) -> NoReturn:
    raise InvalidParameter(f"{problem} (at {place})", hint=f"For example {example}.")


def evaluate(expression: Expression, columns: Mapping[str, KnownColumn], at: Any, count: int) -> tuple[Mask, bool]:
    """Tell for ``count`` rows ``at`` tags, or a slice of them, whether they may pass, and whether that is certain."""
    if isinstance(expression, Constant):
        return np.full(count, expression.value), True
    if isinstance(expression, Junction):
        mask, is_exact = evaluate(expression.parts[0], columns, at, count)
        for part in expression.parts[1:]:
            more, is_sure = evaluate(part, columns, at, count)
            mask = mask & more if expression.is_all else mask | more
            is_exact = is_exact and is_sure
        return mask, is_exact
    held = columns[expression.column]
    column = held.column
    if isinstance(expression, Comparison):
        mask, is_exact = column.compare(expression.operator, expression.operand, at)
    elif isinstance(expression, Membership):
        mask, is_exact = column.is_among(expression.operands, at, negated=expression.negated)
    elif isinstance(expression, Presence):
        mask, is_exact = column.is_present(at) != expression.negated, True
    else:
        mask, is_exact = column.is_present(at).copy(), False
    if held.known is None:
        return mask, is_exact
    known = held.known[at]
    return mask | ~known, is_exact and bool(known.all())
