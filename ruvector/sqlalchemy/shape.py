"""Recognize the nearest-neighbour SELECTs that a search answers exactly as the table would.

Takes: a SELECT about to be executed.  Gives: the search that stands for its ORDER BY ... LIMIT, None when it orders by
no distance of a collection, LeftAlone when it does but a search could give other rows.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from pgvector import SparseVector
from pgvector.sqlalchemy import BIT, HALFVEC, SPARSEVEC
from sqlalchemy import Column, Select
from sqlalchemy.orm import LoaderCriteriaOption, lazyload
from sqlalchemy.sql import operators, visitors
from sqlalchemy.sql.elements import (
    BinaryExpression,
    BindParameter,
    BooleanClauseList,
    False_,
    Grouping,
    Label,
    Null,
    Over,
    TextClause,
    UnaryExpression,
    _label_reference,
    _textual_label_reference,
)
from sqlalchemy.sql.expression import ClauseElement, ColumnElement, FromClause, Join
from sqlalchemy.sql.functions import FunctionElement

from ruvector import limits
from ruvector.sqlalchemy.collection import Collection
from ruvector.sqlalchemy.filters import Filter, LeftAlone, ValueOf, filter_of
from ruvector.sqlalchemy.nearest import keys_in
from ruvector.values import Metric

_METRICS = {metric.operator: metric for metric in Metric}
# One row in, one row out; of any other function in the list of columns we cannot know.
_SCALAR_FUNCTIONS = {"abs", "coalesce", "concat", "greatest", "least", "length", "lower", "now", "round", "upper"}
# Parts of a SELECT that change which rows come, or that a search may not see; attributes of Select.
_OTHER_PARTS = {
    "_distinct": "DISTINCT", "_group_by_clauses": "GROUP BY", "_having_criteria": "HAVING", "_fetch_clause": "FETCH",
    "_for_update_arg": "FOR UPDATE", "_prefixes": "a prefix", "_suffixes": "a suffix", "_hints": "a hint",
    "_statement_hints": "a hint", "_correlate": "a correlation", "_pre_columns_clause": "an extension",
    "_post_select_clause": "an extension", "_post_criteria_clause": "an extension", "_post_body_clause": "an extension",
}  # fmt: skip

CollectionOf = Callable[[ColumnElement[Any]], Collection | None]


@dataclass(frozen=True, slots=True, eq=False)
class Search:
    """What a SELECT asks for: the k rows of a collection nearest to a vector, under a filter, within a distance."""

    collection: Collection
    distance: BinaryExpression[Any]
    k: int
    filter: Filter | None
    max_distance: float | None
    rest: str = ""  # why the statement has conditions that are not in the filter; they are asked of the rows found


def search_of(statement: Select[Any], *, collection_of: CollectionOf, value_of: ValueOf) -> Search | None:
    """Return the search a SELECT stands for, or None when it orders by no distance of a collection.

    Raises:
        LeftAlone: it orders by such a distance, but must be answered by the table; the text says why.
    """
    order: Sequence[ClauseElement] = statement._order_by_clauses
    distance = _distance(order[0], statement) if order else None
    collection = collection_of(distance.left) if distance is not None else None
    if distance is None or collection is None:
        return None
    _check_metric(distance, collection)
    _check_vector(distance, collection, value_of)
    for attribute, word in _OTHER_PARTS.items():
        part = getattr(statement, attribute, None)
        if part if isinstance(part, (bool, tuple, Mapping)) else part is not None:
            raise LeftAlone(f"it has {word}")
    if any(isinstance(option, LoaderCriteriaOption) for option in statement._with_options):
        raise LeftAlone("it has with_loader_criteria")
    _check_columns(statement)
    _check_order(order[1:], statement, keys_in(distance.left, collection))
    k = _row_count(statement, value_of)
    _check_joins(statement, distance.left.table)
    filter_, rest = _filter(statement, distance, collection, value_of)
    return Search(collection, distance, k, filter_, _max_distance(statement, distance, value_of), rest)


def _unwrapped(element: Any, statement: Select[Any]) -> Any:
    """Return the expression an element of ORDER BY stands for; DESC and NULLS FIRST stay."""
    for _ in range(limits.ORDER_WRAPPERS_MAX):
        if isinstance(element, _textual_label_reference):
            names: Iterator[Any] = iter(statement._raw_columns)
            element = next((each for each in names if getattr(each, "name", None) == element.element), None)
        elif isinstance(element, (Grouping, Label, _label_reference)) or (
            isinstance(element, UnaryExpression) and element.modifier is operators.asc_op
        ):
            element = element.element
        else:
            break
    return element


def _distance(element: ClauseElement, statement: Select[Any]) -> BinaryExpression[Any] | None:
    found = _unwrapped(element, statement)
    if isinstance(found, UnaryExpression) and found.modifier is not None:
        found = None  # DESC, NULLS FIRST: not the nearest
    if not isinstance(found, BinaryExpression) or _operator(found) not in _METRICS:
        return None
    return found if getattr(found.left, "table", None) is not None else None


def _operator(distance: BinaryExpression[Any]) -> str:
    return str(getattr(distance.operator, "opstring", ""))


def _check_metric(distance: BinaryExpression[Any], collection: Collection) -> None:
    metric = _METRICS[_operator(distance)]
    if metric != collection.metric:
        raise LeftAlone(f"it orders by {metric}, the collection is indexed by {collection.metric}")


def _check_vector(distance: BinaryExpression[Any], collection: Collection, value_of: ValueOf) -> None:
    """Leave to pgvector what a search refuses: no vector, another number of dimensions, no direction."""
    if not isinstance(distance.right, BindParameter):
        raise LeftAlone("the vector is an expression, not a value")
    value, kind = value_of(distance.right), collection.column.type
    if value is None:
        raise LeftAlone("the vector is NULL")
    if isinstance(kind, BIT):
        return
    if isinstance(kind, SPARSEVEC):
        numbers = np.asarray(value.values() if isinstance(value, SparseVector) else [1.0], dtype=np.float32)
    else:
        numbers = np.asarray(
            value.to_list() if hasattr(value, "to_list") else value,
            dtype=np.float16 if isinstance(kind, HALFVEC) else np.float32,
        )
        if numbers.ndim != 1 or collection.dims_declared not in (None, len(numbers)):
            raise LeftAlone("the vector has other dimensions than the column")
    if not np.isfinite(numbers).all() or (collection.metric == Metric.COSINE and not numbers.any()):
        raise LeftAlone("the vector has no direction")


def _check_columns(statement: Select[Any]) -> None:
    for column in statement._raw_columns:
        entity = column._annotations.get("parententity")
        if entity is not None and entity.is_mapper and entity.single:
            raise LeftAlone("its entity is one of several in a table")
        if isinstance(column, FromClause) and not isinstance(column, FunctionElement):
            continue
        for part in visitors.iterate(column):
            if isinstance(part, Over):
                raise LeftAlone("it has a window function")
            if isinstance(part, FunctionElement) and getattr(part, "name", "") not in _SCALAR_FUNCTIONS:
                raise LeftAlone(f"it returns function {getattr(part, 'name', '')}, which may return several rows")


def _check_order(rest: Sequence[ClauseElement], statement: Select[Any], keys: Sequence[ColumnElement[Any]]) -> None:
    """Ties are broken by the key, as in a search, or not at all."""
    given = [_unwrapped(element, statement) for element in rest]
    if len(given) > len(keys) or any(not _is_column(one, key) for one, key in zip(given, keys, strict=False)):
        raise LeftAlone("it orders by something else than distance and key")


def _is_column(element: Any, column: ColumnElement[Any]) -> bool:
    return isinstance(element, ColumnElement) and element.compare(column)


def _row_count(statement: Select[Any], value_of: ValueOf) -> int:
    numbers = []
    for clause in (statement._limit_clause, statement._offset_clause):
        if clause is not None and not isinstance(clause, BindParameter):
            raise LeftAlone("its limit or offset is an expression")
        numbers.append(None if clause is None else value_of(clause))
    limit, offset = numbers[0], numbers[1] or 0
    if limit is None:
        raise LeftAlone("it has no limit")
    if not isinstance(limit, int) or not isinstance(offset, int) or limit < 1 or limit + offset > limits.K_MAX:
        raise LeftAlone(f"it asks for {limit} rows after {offset}, a search gives 1 to {limits.K_MAX}")
    return limit + offset


def _check_joins(statement: Select[Any], searched: FromClause) -> None:
    """Every row of the searched table must be in the joined rows, and none may be missing for want of a partner."""
    if not statement._setup_joins and not statement._from_obj and _is_only(statement, searched):
        return
    # Eager loading adds joins that change no row, or wraps the whole: without it the sources are those of the rows.
    bare = statement._generate()
    bare._with_options = (lazyload("*"),)
    sources = bare.get_final_froms()
    if len(sources) != 1:
        raise LeftAlone(f"it has {len(sources)} sources of rows")
    _partners(sources[0], searched)


def _is_only(statement: Select[Any], searched: FromClause) -> bool:
    """Tell cheaply, without compiling, whether columns and conditions name one table only."""
    named = list(statement.columns_clause_froms)
    if statement.whereclause is not None:
        named += statement.whereclause._from_objects
    return all(_is_same(each, searched) for each in named)


def _partners(source: FromClause, searched: FromClause) -> set[FromClause]:
    """Return the tables with exactly one row for each searched row."""
    if not isinstance(source, Join):
        if not _is_same(source, searched):
            raise LeftAlone(f"it selects from {source.description}")
        return {source}
    if source.full:
        raise LeftAlone("it has a full outer join")
    near, other = source.left, source.right
    if not source.isouter and any(_is_same(leaf, searched) for leaf in _leaves(other)):
        near, other = other, near
    certain = _partners(near, searched)
    if source.isouter:
        return certain  # at least one row each, which is enough: the first rows come from the nearest
    if not _follows_foreign_key(source.onclause, certain, other):
        raise LeftAlone(f"its inner join with {other.description} may drop rows")
    return certain | {other}


def _leaves(source: FromClause) -> Iterator[FromClause]:
    if isinstance(source, Join):
        yield from _leaves(source.left)
        yield from _leaves(source.right)
    else:
        yield source


def _is_same(one: FromClause, other: FromClause) -> bool:
    return hash(one) == hash(other)  # an annotated copy has the hash of its original


def _follows_foreign_key(condition: ClauseElement | None, certain: set[FromClause], other: FromClause) -> bool:
    """Tell whether a condition is exactly one foreign key of NOT NULL columns, from a certain table to the other."""
    pairs = {}
    for part in condition.clauses if isinstance(condition, BooleanClauseList) else [condition]:
        if not isinstance(part, BinaryExpression) or part.operator is not operators.eq:
            return False
        one, two = part.left, part.right
        if _is_same(getattr(one, "table", other), other):
            one, two = two, one
        if not any(_is_same(getattr(one, "table", other), each) for each in certain):
            return False
        if getattr(two, "table", None) is None or not _is_same(two.table, other):
            return False
        pairs[_base(one)] = _base(two)
    for column in pairs:
        for constraint in column.table.foreign_key_constraints if column is not None else ():
            targets = {element.parent: element.column for element in constraint.elements}
            if targets == pairs and not any(column.nullable for column in targets):
                return True
    return False


def _base(column: ColumnElement[Any]) -> Any:
    return next((base for base in column.base_columns if isinstance(base, Column)), None)


def _filter(
    statement: Select[Any], distance: BinaryExpression[Any], collection: Collection, value_of: ValueOf
) -> tuple[Filter | None, str]:
    """Return what of the conditions is a filter, and why the others are none."""
    searched = distance.left.table

    def name_of(column: ColumnElement[Any]) -> str:
        base = _base(column) if getattr(column, "table", None) is not None else None
        if base is None or not _is_same(column.table, searched):
            raise LeftAlone(f"its condition on {column} is not one on a column of {searched.description}")
        if base.name not in collection.filter_columns:
            raise LeftAlone(f"column {base.name} is no filter column of the collection")
        name: str = base.name
        return name

    parts, rest = [], ""
    for part in _conjuncts(statement.whereclause):
        if _is_implied(part, distance, value_of):
            continue
        try:
            parts.append(filter_of(part, name_of=name_of, value_of=value_of, depth=1))
        except LeftAlone as reason:
            _check_rest(part)
            rest = rest or str(reason)
    return None if not parts else parts[0] if len(parts) == 1 else {"$and": parts}, rest


def _check_rest(condition: ClauseElement) -> None:
    """Leave alone conditions that may hold for a row now and not in a moment, and those nobody can look into."""
    for part in visitors.iterate(condition):
        if isinstance(part, (TextClause, False_)):
            raise LeftAlone(f"its condition of kind {type(part).__name__} is no filter")
        if isinstance(part, FunctionElement) and getattr(part, "name", "") not in _SCALAR_FUNCTIONS:
            raise LeftAlone(f"its condition has function {getattr(part, 'name', '')}")


def _conjuncts(clause: ClauseElement | None) -> Iterator[ClauseElement]:
    if isinstance(clause, BooleanClauseList) and clause.operator is operators.and_:
        for part in clause.clauses:
            yield from _conjuncts(part)
    elif clause is not None:
        yield clause


def _is_implied(part: Any, distance: BinaryExpression[Any], value_of: ValueOf) -> bool:
    """Tell whether a condition needs no filter: the column is not NULL, or the distance is bounded."""
    if not isinstance(part, BinaryExpression):
        return False
    if part.operator is operators.is_not and isinstance(part.right, Null):
        return bool(part.left.compare(distance.left))
    return _is_bound(part, distance, value_of)


def _is_bound(part: Any, distance: BinaryExpression[Any], value_of: ValueOf) -> bool:
    """Tell whether a condition is an upper bound of the distance: it cuts the nearest rows off at their end."""
    if not isinstance(part, BinaryExpression):
        return False
    left: Any = part.left.element if isinstance(part.left, Grouping) else part.left
    vector: Any = distance.right
    return (
        part.operator in (operators.lt, operators.le)
        and isinstance(left, BinaryExpression)
        and _operator(left) == _operator(distance)
        and left.left.compare(distance.left)
        and isinstance(left.right, BindParameter)
        and value_of(left.right) is value_of(vector)
    )


def _max_distance(statement: Select[Any], distance: BinaryExpression[Any], value_of: ValueOf) -> float | None:
    """Return the least of the bounds of the distance that are numbers: a search need not look beyond it."""
    conditions: Iterator[Any] = _conjuncts(statement.whereclause)
    bounds = [
        value_of(part.right)
        for part in conditions
        if _is_bound(part, distance, value_of) and isinstance(part.right, BindParameter)
    ]
    numbers = [float(bound) for bound in bounds if isinstance(bound, (int, float)) and not math.isnan(bound)]
    return min(numbers, default=None)
