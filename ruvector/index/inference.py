"""Attributes that a program gives as arrays and lists: what types they are, and their values as columns take them."""

from __future__ import annotations

import datetime
import uuid
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ruvector.errors import InvalidParameter
from ruvector.index.columns import Column, new_column
from ruvector.index.scalars import Unreadable
from ruvector.values import Attribute, AttributeRows, AttributeValues

_KINDS: Mapping[type, str] = {
    bool: "boolean",
    int: "bigint",
    float: "double precision",
    str: "text",
    datetime.datetime: "timestamp with time zone",
    datetime.date: "date",
    uuid.UUID: "uuid",
}
_LISTS: Mapping[type, str] = {str: "text[]", int: "bigint[]"}


def infer(given: Mapping[str, Any]) -> list[Attribute]:
    """Return the attributes that values are of, by their first value that is not None.

    Texts are ordered by code points. Raises InvalidParameter for values of no such type.
    """
    return [
        Attribute(name, _kind_of(name, _values_of(name, values)), is_ordered=True) for name, values in given.items()
    ]


def rows_of(given: Mapping[str, Any], attributes: Sequence[Attribute], count: int) -> AttributeRows:
    """Return the values of ``count`` rows as columns take them; attributes that are not given are NULL.

    Raises:
        InvalidParameter: a name is unknown, or a value does not fit its attribute.
    """
    known = {attribute.name: attribute for attribute in attributes}
    unknown = sorted(set(given).difference(known))
    if unknown:
        raise InvalidParameter(
            f'this index has no attribute "{unknown[0]}"',
            hint=f"Its attributes are those of the first rows: {', '.join(sorted(known)) or 'none'}.",
        )
    nothing = [None] * count
    columns = {}
    for name, attribute in known.items():
        values = _values_of(name, given.get(name, nothing))
        if len(values) != count:
            raise InvalidParameter(f'attribute "{name}" has {len(values)} values for {count} rows')
        columns[name] = _column_values(attribute, values)
    return AttributeRows(columns, np.zeros(count, dtype=np.int64))


def _values_of(name: str, values: Any) -> list[Any]:
    """Return values as a list; masked ones and NaT are None."""
    if isinstance(values, np.ma.MaskedArray):
        return [None if hidden else each for each, hidden in zip(values.data, np.ma.getmaskarray(values), strict=True)]
    if isinstance(values, np.ndarray):
        if values.ndim == 2:
            return [row.tolist() for row in values]
        if values.ndim != 1:
            raise InvalidParameter(f'attribute "{name}" has {values.ndim} axes')
        if values.dtype.kind == "M":
            unit = "datetime64[D]" if values.dtype == "datetime64[D]" else "datetime64[us]"
            return [None if np.isnat(each) else each for each in values.astype(unit)]
        return list(values.tolist())
    if isinstance(values, (str, bytes)) or not hasattr(values, "__iter__"):
        raise InvalidParameter(f'attribute "{name}" is no list of values, one for each row')
    return list(values)


def _kind_of(name: str, values: list[Any]) -> str:
    first = next((value for value in values if value is not None), None)
    if isinstance(first, np.datetime64):
        return "date" if first.dtype == "datetime64[D]" else "timestamp without time zone"
    if isinstance(first, np.generic):
        first = first.item()
    if isinstance(first, datetime.datetime) and first.tzinfo is None:
        return "timestamp without time zone"
    if isinstance(first, int) and any(isinstance(value, float) for value in values):
        return "double precision"
    kind = _KINDS.get(type(first))
    if isinstance(first, (list, tuple, set, frozenset, np.ndarray)):
        elements = [element for each in values if each is not None for element in each if element is not None]
        kind = _LISTS.get(type(elements[0])) if elements else "text[]"
    if kind is None:
        raise InvalidParameter(
            f'attribute "{name}" has values of type {type(first).__name__}',
            hint="Give booleans, numbers, texts, dates, times, UUIDs, or lists of texts or whole numbers.",
        )
    return kind


def _column_values(attribute: Attribute, values: list[Any]) -> AttributeValues:
    column = new_column(attribute)
    if column is None:
        raise InvalidParameter(f'attribute "{attribute.name}" has the unknown type {attribute.type}')
    present = np.array([value is not None for value in values], dtype=np.bool_)
    read = [
        _read(attribute, column, value) if is_there else None for value, is_there in zip(values, present, strict=True)
    ]
    if column.is_list or attribute.type == "text":
        return AttributeValues(_objects(read), present)
    dtypes: Mapping[str, Any] = {"boolean": np.bool_, "double precision": np.float64, "uuid": "S16"}
    filled: npt.NDArray[Any] = np.zeros(len(read), dtype=dtypes.get(attribute.type, np.int64))
    filled[present] = [value for value in read if value is not None]
    return AttributeValues(filled, present)


def _read(attribute: Attribute, column: Column, value: Any) -> Any:
    try:
        if column.is_list:
            return tuple(None if element is None else column.read(element) for element in value)
        return column.value(value)
    except (Unreadable, TypeError) as problem:
        expected = str(problem) if isinstance(problem, Unreadable) else "a list"
        raise InvalidParameter(
            f'attribute "{attribute.name}" is {attribute.type}, not {value!r:.80}', hint=f"Give {expected}."
        ) from None


def _objects(values: list[Any]) -> npt.NDArray[Any]:
    out = np.empty(len(values), dtype=object)
    out[:] = values
    return out
