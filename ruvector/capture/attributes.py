"""Attributes of rows from the fields that COPY BINARY sent behind key and vector."""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ruvector.errors import ProtocolViolation
from ruvector.values import Attribute, AttributeRows, AttributeValues

Spans = NDArray[np.int64]  # [rows, 2]: offset and length, -1 for NULL
_FIXED: Mapping[str, str] = {
    "boolean": "u1",
    "smallint": ">i2",
    "integer": ">i4",
    "bigint": ">i8",
    "real": ">f4",
    "double precision": ">f8",
    "date": ">i4",
    "timestamp without time zone": ">i8",
    "timestamp with time zone": ">i8",
    "uuid": "S16",
}
_WIDE: Mapping[str, Any] = {"u1": np.bool_, ">f4": np.float64, ">f8": np.float64, "S16": "S16"}
_INTEGERS = {2: ">h", 4: ">i", 8: ">q"}
_INT32, _INT64 = np.iinfo(np.int32), np.iinfo(np.int64)


def read_attributes(
    data: bytes | bytearray, spans: NDArray[np.int64], attributes: Sequence[Attribute]
) -> AttributeRows:
    """Return the attributes of rows.

    Args:
        data: all that one COPY sent.
        spans: int64 [rows, attributes + 1, 2], as the decoder tells them; the last field is the hash, a bigint.
        attributes: in the order of the fields. numeric is sent as text.

    Raises:
        ProtocolViolation: a field is not what PostgreSQL sends of its type.
    """
    view = np.frombuffer(data, dtype=np.uint8)
    columns = {each.name: _values(data, view, spans[:, at], each) for at, each in enumerate(attributes)}
    hashes = _fixed(view, spans[:, -1], ">i8", "the hash of a row")
    return AttributeRows(columns, hashes.astype(np.int64))


def _values(data: bytes | bytearray, view: NDArray[np.uint8], spans: Spans, attribute: Attribute) -> AttributeValues:
    present = spans[:, 1] >= 0
    kind = attribute.type
    if kind in _FIXED:
        sent = _fixed(view, spans, _FIXED[kind], f'attribute "{attribute.name}"')
        values = sent.astype(_WIDE.get(_FIXED[kind], np.int64))
        if kind == "date":
            values[sent == _INT32.max], values[sent == _INT32.min] = _INT64.max, _INT64.min
        return AttributeValues(values, present)
    if kind == "numeric":
        numbers = [float(text) if text is not None else 0.0 for text in _each(data, spans, _text)]
        return AttributeValues(np.array(numbers, dtype=np.float64), present)
    read: Callable[[bytes | bytearray], Any] = _array if kind.endswith("[]") else _text
    values = np.empty(len(spans), dtype=object)
    values[:] = _each(data, spans, read)
    return AttributeValues(values, present)


def _fixed(view: NDArray[np.uint8], spans: Spans, dtype: str, what: str) -> NDArray[Any]:
    """Gather values of one width; those that are NULL are 0."""
    width = np.dtype(dtype).itemsize
    present = spans[:, 1] >= 0
    if (spans[present, 1] != width).any():
        raise ProtocolViolation(f"COPY data cannot be read: {what} has another length than its type")
    bodies = np.zeros((len(spans), width), dtype=np.uint8)
    bodies[present] = view[spans[present, 0][:, np.newaxis] + np.arange(width)]
    return bodies.reshape(-1).view(dtype)


def _each(data: bytes | bytearray, spans: Spans, read: Callable[[bytes | bytearray], Any]) -> list[Any]:
    try:
        return [
            None if length < 0 else read(data[offset : offset + length])
            for offset, length in zip(spans[:, 0].tolist(), spans[:, 1].tolist(), strict=True)
        ]
    except (ValueError, struct.error) as problem:  # UnicodeDecodeError is one
        raise ProtocolViolation(
            f"COPY data cannot be read: an attribute is not as its type sends it ({problem})"
        ) from None


def _text(body: bytes | bytearray) -> str:
    return body.decode()


def _array(body: bytes | bytearray) -> tuple[Any, ...]:
    """Return the elements of an array of texts or whole numbers; of several dimensions one after the other."""
    axes, _, element = struct.unpack_from(">iiI", body)
    if not 0 <= axes <= 6:
        raise ValueError(f"{axes} dimensions")
    count, at = 1 if axes else 0, 12
    for _ in range(axes):
        (length,) = struct.unpack_from(">i", body, at)
        count, at = count * length, at + 8
    out: list[Any] = []
    is_text = element not in (20, 21, 23)  # int8, int2, int4
    for _ in range(count):
        (length,) = struct.unpack_from(">i", body, at)
        at += 4
        if length < 0:
            out.append(None)
            continue
        part = body[at : at + length]
        if len(part) != length:
            raise ValueError("it ends too early")
        out.append(part.decode() if is_text else struct.unpack(_INTEGERS.get(length, ">q"), part)[0])
        at += length
    return tuple(out)
