"""Turn rows of Python values into DataRow messages, one encoder for each shape of answer."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from functools import lru_cache
from typing import Final

from ruvector.bridge import oids
from ruvector.bridge.backend import Column
from ruvector.bridge.codec import row_description
from ruvector.bridge.fields import SPECIAL_FLOATS, encoder
from ruvector.errors import ProtocolViolation, ensure

# Lengths as the wire has them, a character for each byte.
_LENGTHS: Final = tuple(struct.pack("!i", length).decode("latin-1") for length in range(1_024))
_NULL_LENGTH: Final = "\xff\xff\xff\xff"
_ROW_START: Final = struct.Struct("!cih")
_LENGTH: Final = struct.Struct("!i")
_NULL: Final = b"\xff\xff\xff\xff"
_HIT_TYPES: Final = (oids.TEXT, oids.TEXT, oids.FLOAT8)
_HIT_OVERHEAD: Final = 4 + 2 + 3 * 4  # length, count of fields, three lengths of fields


class RowEncoder:
    """Encodes the rows of one shape: its columns, each as text or binary."""

    def __init__(self, columns: tuple[Column, ...], formats: tuple[int, ...]) -> None:
        self.description = row_description(columns, formats)
        self._encoders = [
            encoder(column.type_oid, binary=code == 1) for column, code in zip(columns, formats, strict=True)
        ]
        types = tuple(column.type_oid for column in columns)
        self._is_hits = types == _HIT_TYPES and not any(formats)

    def encode(self, rows: Sequence[Sequence[object]]) -> bytes:
        """Return the DataRow messages of these rows."""
        if self._is_hits:
            try:
                return _encode_hits(rows)
            except (AttributeError, IndexError, TypeError):
                pass  # a NULL text, finished text, a very long or a foreign key: the general way
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


def _encode_hits(rows: Sequence[Sequence[object]]) -> bytes:
    """Encode (text, text, float or None) rows as text: the answer of every search, so with few operations.

    Everything is built as one text and encoded once, a character for each byte. That needs texts of ASCII and lengths
    below the table's; anything else raises, and the general way is taken.
    """
    lengths, number_text = _LENGTHS, float.__repr__
    pieces: list[str] = []
    for row in rows:
        kind: str = row[0]  # type: ignore[assignment]  # what is no text raises below, in isascii or join
        key: str = row[1]  # type: ignore[assignment]
        distance = row[2]
        if not (kind.isascii() and key.isascii()):
            raise TypeError
        if distance is None:
            text, text_length = "", _NULL_LENGTH
        else:
            text = number_text(distance)  # what is no float raises TypeError
            if text[-1] in "fn":
                text = SPECIAL_FLOATS[text]
            text_length = lengths[len(text)]
        kind_size, key_size = len(kind), len(key)
        size = lengths[kind_size + key_size + len(text) + _HIT_OVERHEAD]
        pieces += ("D", size, "\0\x03", lengths[kind_size], kind, lengths[key_size], key, text_length, text)
    return "".join(pieces).encode("latin-1")


@lru_cache(maxsize=256)
def row_encoder(columns: tuple[Column, ...], formats: tuple[int, ...]) -> RowEncoder:
    """Return the encoder of a shape; ``formats`` is empty for all text, one code for all, or one per column."""
    if len(formats) not in (0, 1, len(columns)):
        raise ProtocolViolation(f"{len(formats)} result formats for {len(columns)} columns")
    if len(formats) != len(columns):
        formats = (formats[0] if formats else 0,) * len(columns)
    return RowEncoder(columns, formats)
