"""Turn the values of a call (literals, wire parameters, JSON) into the Python values a function declares."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ruvector import limits
from ruvector.errors import DimensionMismatch, InvalidParameter, InvalidVector
from ruvector.sparse import SparseVectors

_TRUE = frozenset({"t", "true", "y", "yes", "on", "1"})  # PostgreSQL's own spellings
_FALSE = frozenset({"f", "false", "n", "no", "off", "0"})


@dataclass(frozen=True, slots=True)
class BitString:
    """A bit string: its length, and its bits packed eight to a byte, first bit highest."""

    bits: int
    packed: NDArray[np.uint8]


def read_text(value: object) -> str:
    """Return text; whole numbers are accepted because row keys are often written without quotes."""
    if isinstance(value, str):
        return value
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    raise _wrong("text", value)


def integer_reader(*, sql: str, bits: int) -> Callable[[object], int]:
    """Return a reader of whole numbers of this many bits."""
    lowest, highest = -(1 << (bits - 1)), (1 << (bits - 1)) - 1

    def read_integer(value: object) -> int:
        number = _whole(value, sql=sql)
        if not lowest <= number <= highest:
            raise InvalidParameter(f"{number} is out of range for type {sql}", hint=f"Give {lowest} to {highest}.")
        return number

    return read_integer


def read_number(value: object) -> float:
    """Return a floating-point number; NaN and infinity pass, the function decides about them."""
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        try:
            return float(value)
        except OverflowError as problem:
            raise _wrong("double precision", value) from problem
    if isinstance(value, str):
        try:
            return float(value)
        except ValueError as problem:
            raise _wrong("double precision", value) from problem
    raise _wrong("double precision", value)


def read_bool(value: object) -> bool:
    """Return a truth value from a bool or one of PostgreSQL's spellings."""
    if isinstance(value, bool):
        return value
    if isinstance(value, str):
        word = value.strip().lower()
        if word in _TRUE:
            return True
        if word in _FALSE:
            return False
    raise _wrong("boolean", value)


def read_bytes(value: object) -> bytes:
    """Return bytes, given as such or in PostgreSQL's hex form."""
    if isinstance(value, bytes):
        return value
    if isinstance(value, str) and value.startswith("\\x"):
        try:
            return bytes.fromhex(value[2:])
        except ValueError as problem:
            raise _wrong("bytea", value) from problem
    raise _wrong("bytea", value)


def read_jsonb(value: object) -> Any:
    """Return a JSON document from its text, or as it is when it was decoded already."""
    if isinstance(value, str):
        return _parse_json(value, kind="jsonb")
    if value is None or isinstance(value, (bool, int, float, list, dict)):
        return value
    raise _wrong("jsonb", value)


def read_vector(value: object) -> NDArray[np.float32]:
    """Return a vector of finite float32 [dims] from pgvector's text form, a list of numbers or an array."""
    parsed = _parse_json(value, kind="vector") if isinstance(value, str) else value
    vector = _real_array(parsed, kind="vector")
    if not 1 <= len(vector) <= limits.DIMS_MAX:
        raise InvalidVector(
            f"a vector of {len(vector)} dimensions is not possible", hint=f"Give 1 to {limits.DIMS_MAX} dimensions."
        )
    if not np.isfinite(vector).all():
        raise InvalidVector("the vector holds NaN or infinity")
    return vector


def read_vectors(value: object) -> list[NDArray[np.float32]]:
    """Return vectors of one width from a list, or from an array literal such as ``{"[1,2]","[3,4]"}``."""
    vectors = [read_vector(item) for item in _items(value, kind="vector[]")]
    if len(vectors) > limits.BATCH_QUERIES_MAX:
        raise InvalidParameter(
            f"{len(vectors)} vectors in one call are too many", hint=f"Give at most {limits.BATCH_QUERIES_MAX}."
        )
    for vector in vectors[1:]:
        if len(vector) != len(vectors[0]):
            raise DimensionMismatch(expected=len(vectors[0]), got=len(vector))
    return vectors


def read_sparse(value: object) -> SparseVectors:
    """Return one sparse vector from pgvector's text form; a SparseVectors of one row passes."""
    if isinstance(value, str):
        return SparseVectors.from_texts([value])
    if isinstance(value, SparseVectors) and len(value) == 1:
        return value
    raise _wrong("sparsevec", value)


def read_bits(value: object) -> BitString:
    """Return a bit string from its text of zeros and ones."""
    if not isinstance(value, str):
        raise _wrong("bit", value)
    if not 1 <= len(value) <= limits.BITS_MAX:
        raise InvalidVector(
            f"a bit string of {len(value)} bits is not possible", hint=f"Give 1 to {limits.BITS_MAX} bits."
        )
    if not set(value) <= {"0", "1"}:
        raise InvalidVector("a bit string holds only 0 and 1", hint="Write it like '10110'.")
    digits = np.frombuffer(value.encode("ascii"), dtype=np.uint8) - ord("0")
    return BitString(bits=len(value), packed=np.packbits(digits))


def list_reader(read_item: Callable[[object], Any], *, sql: str) -> Callable[[object], list[Any]]:
    """Return a reader of one-dimensional arrays whose items are read by ``read_item``."""

    def read_list(value: object) -> list[Any]:
        return [None if item is None else read_item(item) for item in _items(value, kind=sql)]

    return read_list


def read_reals(value: object) -> NDArray[np.float32]:
    """Return float32 [n] from a list of numbers or an array literal; NaN and infinity pass."""
    return _real_array([read_number(item) for item in _items(value, kind="real[]")], kind="real[]")


def parse_array_literal(text: str) -> list[str | None]:
    """Return the items of a one-dimensional array literal such as ``{a,"b,c",NULL}``, in one pass over the text."""
    body = text.strip()
    if len(body) < 2 or body[0] != "{" or body[-1] != "}":
        raise InvalidParameter("an array literal starts with { and ends with }", hint="Write it like '{1,2,3}'.")
    body = body[1:-1]
    return list(_array_items(body)) if body.strip() else []


def _array_items(body: str) -> Iterator[str | None]:
    place, size = 0, len(body)
    while place <= size:  # each turn consumes one item and its comma
        while place < size and body[place].isspace():
            place += 1
        if place < size and body[place] == '"':
            item, place = _quoted_item(body, place + 1)
            yield item
            while place < size and body[place].isspace():
                place += 1
            if place < size and body[place] != ",":
                raise InvalidParameter("text follows a quoted item of an array literal")
        else:
            end = body.find(",", place)
            end = size if end < 0 else end
            bare = body[place:end].strip()
            if not bare or any(character in bare for character in '{}"\\'):
                raise InvalidParameter(
                    "an array literal has an empty, nested or half-quoted item", hint='Write it like \'{"a","b"}\'.'
                )
            yield None if bare.upper() == "NULL" else bare
            place = end
        place += 1


def _quoted_item(body: str, place: int) -> tuple[str, int]:
    parts: list[str] = []
    start = place
    while place < len(body):
        character = body[place]
        if character == '"':
            parts.append(body[start:place])
            return "".join(parts), place + 1
        if character == "\\":
            parts.append(body[start:place])
            start = place + 1
            place += 1  # the escaped character belongs to the item whatever it is
        place += 1
    raise InvalidParameter("a quoted item of an array literal does not end")


def _items(value: object, *, kind: str) -> Sequence[object]:
    if isinstance(value, str):
        return _parse_json(value, kind=kind) if value.lstrip().startswith("[") else parse_array_literal(value)
    if isinstance(value, (list, tuple, np.ndarray)):
        return list(value)
    raise _wrong(kind, value)


def _real_array(value: object, *, kind: str) -> NDArray[np.float32]:
    if isinstance(value, (list, tuple)) and any(item is None or isinstance(item, (bool, str)) for item in value):
        raise _wrong(kind, value)
    if not isinstance(value, (list, tuple, np.ndarray)):
        raise _wrong(kind, value)
    try:
        with np.errstate(over="ignore"):  # a number beyond float32 becomes infinity and is refused as such
            array = np.asarray(value, dtype=np.float32)
    except (TypeError, ValueError, OverflowError) as problem:
        raise _wrong(kind, value) from problem
    if array.ndim != 1:
        raise _wrong(kind, value)
    return array


def _whole(value: object, *, sql: str) -> int:
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    if isinstance(value, float) and math.isfinite(value) and value == int(value):
        return int(value)
    if isinstance(value, str):
        try:
            return int(value)
        except ValueError as problem:  # also a number of more digits than Python reads
            raise _wrong(sql, value) from problem
    raise _wrong(sql, value)


def _parse_json(text: str, *, kind: str) -> Any:
    try:
        return json.loads(text, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as problem:
        raise _wrong(kind, text) from problem


def _refuse_constant(word: str) -> object:
    raise ValueError(f"{word} is not JSON")


def _wrong(kind: str, value: object) -> InvalidParameter:
    # Values are shown short: a vector of 16,000 numbers must not fill the message or the log.
    shown = json.dumps(value, default=lambda other: type(other).__name__) if _is_small(value) else type(value).__name__
    return InvalidParameter(f"invalid value for type {kind}: {shown[:60]}")


def _is_small(value: object) -> bool:
    return value is None or isinstance(value, (bool, int, float)) or (isinstance(value, str) and len(value) <= 60)
