"""Turn rows of Python values into DataRow messages, one encoder for each shape of answer."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from functools import lru_cache
from typing import Final

from ruvector.bridge.backend import Column
from ruvector.bridge.codec import row_description
from ruvector.bridge.fields import encoder
from ruvector.errors import ProtocolViolation, ensure

_ROW_START: Final = struct.Struct("!cih")
_LENGTH: Final = struct.Struct("!i")
_NULL: Final = b"\xff\xff\xff\xff"


class RowEncoder:
    """Encodes the rows of one shape: its columns, each as text or binary."""

    def __init__(self, columns: tuple[Column, ...], formats: tuple[int, ...]) -> None:
        self.description = row_description(columns, formats)
        self._encoders = [
            encoder(column.type_oid, binary=code == 1) for column, code in zip(columns, formats, strict=True)
        ]

    def encode(self, rows: Sequence[Sequence[object]]) -> bytes:
        """Return the DataRow messages of these rows."""
        parts: list[bytes] = []
        width = len(self._encoders)
        for row in rows:
            ensure(len(row) == width, "a row has another number of values than its answer has columns")
            fields: list[bytes] = []
            for value, encode in zip(row, self._encoders, strict=True):
                if value is None:
                    fields.append(_NULL)
                else:
                    data = encode(value)
                    fields += (_LENGTH.pack(len(data)), data)
            body = b"".join(fields)
            parts += (_ROW_START.pack(b"D", len(body) + 6, width), body)
        return b"".join(parts)


@lru_cache(maxsize=256)
def row_encoder(columns: tuple[Column, ...], formats: tuple[int, ...]) -> RowEncoder:
    """Return the encoder of a shape; ``formats`` is empty for all text, one code for all, or one per column."""
    if len(formats) not in (0, 1, len(columns)):
        raise ProtocolViolation(f"{len(formats)} result formats for {len(columns)} columns")
    if len(formats) != len(columns):
        formats = (formats[0] if formats else 0,) * len(columns)
    return RowEncoder(columns, formats)
