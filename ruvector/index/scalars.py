"""Values of filters and attributes: what texts and objects mean, and codes that order them as PostgreSQL.

All readers raise Unreadable for a value that is none of their type.
"""

from __future__ import annotations

import datetime
import decimal
import uuid
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

_EPOCH_DAY = datetime.date(2000, 1, 1).toordinal()
_EPOCH = datetime.datetime(2000, 1, 1, tzinfo=datetime.UTC)
_MICROSECOND = datetime.timedelta(microseconds=1)
_INT64 = np.iinfo(np.int64)
INTEGERS: Mapping[str, type[np.signedinteger[Any]]] = {
    "smallint": np.int16,
    "integer": np.int32,
    "bigint": np.int64,
}


class Unreadable(ValueError):
    """A value that this program cannot read as one of a column's type."""


def double_codes(values: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
    """Return whole numbers in PostgreSQL's order of doubles: NaN equals itself and is the greatest, -0 equals 0."""
    numbers = values.astype(np.float64) + 0.0
    bits = np.where(np.isnan(numbers), np.nan, numbers).view(np.int64)
    return np.where(bits < 0, bits ^ np.int64(_INT64.max), bits)


def real_codes(values: npt.NDArray[Any]) -> npt.NDArray[np.int32]:
    """Return the same of reals."""
    with np.errstate(over="ignore"):
        numbers = values.astype(np.float32) + np.float32(0)
    bits = np.where(np.isnan(numbers), np.float32(np.nan), numbers).view(np.int32)
    return np.where(bits < 0, bits ^ np.int32(np.iinfo(np.int32).max), bits)


def day_codes(values: npt.NDArray[Any]) -> npt.NDArray[np.int32]:
    """Return days as they fit four bytes; infinities stay at the ends."""
    bounds = np.iinfo(np.int32)
    return np.clip(values.astype(np.int64), bounds.min, bounds.max).astype(np.int32)


def read_bool(value: object) -> bool:
    """Return a boolean."""
    if isinstance(value, (bool, np.bool_)):
        return bool(value)
    if value in ("true", "t", "false", "f"):
        return str(value).startswith("t")
    raise Unreadable("true or false")


def integer_reader(dtype: type[np.signedinteger[Any]]) -> Callable[[object], int]:
    """Return what reads whole numbers of this type."""
    bounds = np.iinfo(dtype)

    def read(value: object) -> int:
        if isinstance(value, str):
            try:
                value = int(value)
            except ValueError:
                raise Unreadable("a whole number") from None
        if isinstance(value, (bool, np.bool_)) or not isinstance(value, (int, np.integer)):
            raise Unreadable("a whole number")
        if not bounds.min <= int(value) <= bounds.max:
            raise Unreadable(f"a whole number of {bounds.bits // 8} bytes")
        return int(value)

    return read


def read_float(value: object) -> float:
    """Return a number."""
    if isinstance(value, (bool, np.bool_)) or not isinstance(
        value, (int, float, str, decimal.Decimal, np.integer, np.floating)
    ):
        raise Unreadable("a number")
    try:
        return float(value)
    except (ValueError, OverflowError):
        raise Unreadable("a number") from None


def read_date(value: object) -> int:
    """Return days since 2000-01-01."""
    if isinstance(value, str) and value in ("infinity", "-infinity"):
        return int(_INT64.max if value == "infinity" else _INT64.min)
    if isinstance(value, np.datetime64):
        value = value.astype("datetime64[D]").item()
    if isinstance(value, str):
        try:
            value = datetime.date.fromisoformat(value)
        except ValueError:
            raise Unreadable("a date") from None
    if isinstance(value, datetime.datetime) or not isinstance(value, datetime.date):
        raise Unreadable("a date")
    return value.toordinal() - _EPOCH_DAY


def read_time(value: object) -> int:
    """Return microseconds since 2000-01-01 UTC; without a zone UTC is meant."""
    if isinstance(value, str) and value in ("infinity", "-infinity"):
        return int(_INT64.max if value == "infinity" else _INT64.min)
    if isinstance(value, np.datetime64):
        value = value.astype("datetime64[us]").item()
    if isinstance(value, str):
        try:
            value = datetime.datetime.fromisoformat(value)
        except ValueError:
            raise Unreadable("a timestamp") from None
    if not isinstance(value, datetime.datetime):
        raise Unreadable("a timestamp")
    if value.tzinfo is None:
        value = value.replace(tzinfo=datetime.UTC)
    return (value - _EPOCH) // _MICROSECOND


def read_uuid(value: object) -> bytes:
    """Return 16 bytes."""
    if isinstance(value, str):
        try:
            value = uuid.UUID(value)
        except ValueError:
            raise Unreadable("a uuid") from None
    if not isinstance(value, uuid.UUID):
        raise Unreadable("a uuid")
    return value.bytes


def read_text(value: object) -> str:
    """Return a text."""
    if not isinstance(value, str):
        raise Unreadable("a text")
    return value
