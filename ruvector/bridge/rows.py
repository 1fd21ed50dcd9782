"""Turn rows of Python values into DataRow messages, one encoder for each shape of answer."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from functools import lru_cache
from typing import Final

from ruvector.bridge import oids
from ruvector.bridge.backend import Column
from ruvector.bridge.codec import row_description
from ruvector.bridge.fields import encoder
from ruvector.errors import ProtocolViolation, ensure

_ASCII_LENGTHS: Final = tuple(f"\0\0\0{chr(length)}" for length in range(128))
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
            except (IndexError, TypeError, UnicodeEncodeError):
                pass  # a NULL, finished text, a long or a foreign key, infinity: the general way
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
    """Encode (text, text, float) rows as text: the answer of every search, so with as few operations as possible.

    Everything is built as one text and encoded once. That needs ASCII only, fields so short that their lengths are
    ASCII too, and finite distances; anything else raises, and the general way is taken.
    """
    lengths, number_text = _ASCII_LENGTHS, float.__repr__
    pieces: list[str] = []
    for kind, key, distance in rows:
        text = number_text(distance)  # what is no float raises TypeError
        if text[-1] in "fn":
            raise TypeError
        kind_size, key_size, text_size = len(kind), len(key), len(text)  # type: ignore[arg-type]
        size = kind_size + key_size + text_size + _HIT_OVERHEAD
        pieces += (
            "D",
            lengths[size],
            "\0\x03",
            lengths[kind_size],
            kind,
            lengths[key_size],
            key,
            lengths[text_size],
            text,
        )  # type: ignore[arg-type]  # join refuses what is no text
    return "".join(pieces).encode("ascii")


@lru_cache(maxsize=256)
def row_encoder(columns: tuple[Column, ...], formats: tuple[int, ...]) -> RowEncoder:
    """Return the encoder of a shape; ``formats`` is empty for all text, one code for all, or one per column."""
    if len(formats) not in (0, 1, len(columns)):
        raise ProtocolViolation(f"{len(formats)} result formats for {len(columns)} columns")
    if len(formats) != len(columns):
        formats = (formats[0] if formats else 0,) * len(columns)
    return RowEncoder(columns, formats)
