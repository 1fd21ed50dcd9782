"""Values of PostgreSQL types in their text and binary forms, both ways."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from decimal import Decimal, InvalidOperation
from typing import Final

import numpy as np

from ruvector.bridge import oids
from ruvector.bridge.backend import Value
from ruvector.bridge.codec import decode_text
from ruvector.errors import InvalidParameter, InvalidText, ProtocolViolation, UnsupportedStatement
from ruvector.limits import ARRAY_DEPTH_MAX

Encoder = Callable[[object], bytes]

TEXT_FORMAT: Final = 0
BINARY_FORMAT: Final = 1

_INT_FORMATS: Final = {
    oids.INT2: struct.Struct("!h"),
    oids.INT4: struct.Struct("!i"),
    oids.INT8: struct.Struct("!q"),
    oids.OID: struct.Struct("!I"),
}
_FLOAT_FORMATS: Final = {oids.FLOAT4: struct.Struct("!f"), oids.FLOAT8: struct.Struct("!d")}
_NUMBERS: Final = {**_INT_FORMATS, **_FLOAT_FORMATS}
_TEXTS: Final = frozenset({oids.TEXT, oids.VARCHAR, oids.NAME, oids.UNKNOWN, oids.JSON})
_TRUE_WORDS: Final = frozenset({"t", "true", "y", "yes", "on", "1"})
_FALSE_WORDS: Final = frozenset({"f", "false", "n", "no", "off", "0"})
SPECIAL_FLOATS: Final = {"inf": "Infinity", "-inf": "-Infinity", "nan": "NaN"}
_ARRAY_HEADER = struct.Struct("!iiI")
_ARRAY_DIMENSION = struct.Struct("!ii")
_NULL_LENGTH = b"\xff\xff\xff\xff"


# Python to wire --------------------------------------------------------------------------------------------------


def float8_text(value: float) -> str:
    """Return the shortest text that reads back as the same number; infinities as PostgreSQL writes them."""
    text = float.__repr__(value)  # repr() of a numpy float names its type
    return SPECIAL_FLOATS[text] if text[-1] in "fn" else text


def float4_text(value: float) -> str:
    """Return the shortest text that reads back as the same single-precision number."""
    text = str(np.float32(value))
    return SPECIAL_FLOATS[text] if text[-1] in "fn" else text


def encoder(type_oid: int, *, binary: bool) -> Encoder:
    """Return the function that encodes one value that is not None; bytes pass as finished text."""
    if type_oid == oids.BYTEA:
        return _bytea_binary if binary else _bytea_text
    if type_oid in oids.ELEMENT_OF:
        element = oids.ELEMENT_OF[type_oid]
        return _array_binary_encoder(element) if binary else _array_text_encoder(element)
    if binary:
        return _binary_encoder(type_oid)
    return _text_encoder(type_oid)


def _text_encoder(type_oid: int) -> Encoder:
    as_text: Callable[[object], str]
    if type_oid == oids.BOOL:
        as_text = _bool_text
    elif type_oid == oids.FLOAT8:
        as_text = _float8_object_text
    elif type_oid == oids.FLOAT4:
        as_text = _float4_object_text
    elif type_oid in (oids.JSON, oids.JSONB):
        as_text = json_text
    else:
        as_text = str

    def encode(value: object) -> bytes:
        return value if isinstance(value, bytes) else as_text(value).encode()

    return encode


def _binary_encoder(type_oid: int) -> Encoder:
    if type_oid in _NUMBERS:
        pack = _NUMBERS[type_oid].pack
        convert: Callable[[object], object] = _as_float if type_oid in _FLOAT_FORMATS else _as_int

        def encode_number(value: object) -> bytes:
            try:
                return pack(convert(value))
            except (struct.error, OverflowError):
                raise InvalidParameter(f"{value!r} is out of range for type {_type_name(type_oid)}") from None

        return encode_number
    if type_oid == oids.BOOL:
        return _bool_binary
    if type_oid == oids.NUMERIC:
        raise UnsupportedStatement(
            "numeric results have no binary form here", hint="Ask for text results of numeric columns."
        )
    text = _text_encoder(type_oid)
    if type_oid == oids.JSONB:
        return lambda value: b"\x01" + text(value)
    return text


def json_text(value: object) -> str:
    """Return a value as JSON; text is taken as JSON that is already written."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _bool_text(value: object) -> str:
    return "t" if value else "f"


def _bool_binary(value: object) -> bytes:
    return b"\x01" if (value in (b"t", b"true") if isinstance(value, bytes) else value) else b"\0"


def _float8_object_text(value: object) -> str:
    return float8_text(_as_float(value))


def _float4_object_text(value: object) -> str:
    return float4_text(_as_float(value))


def _as_float(value: object) -> float:
    return float(value)  # type: ignore[arg-type]  # anything with __float__, and finished text


def _as_int(value: object) -> int:
    return int(value)  # type: ignore[call-overload,no-any-return]  # anything with __int__, and finished text


def _bytea_text(value: object) -> bytes:
    return b"\\x" + bytes(value).hex().encode()  # type: ignore[call-overload,no-any-return]


def _bytea_binary(value: object) -> bytes:
    return bytes(value)  # type: ignore[call-overload,no-any-return]


def _array_text_encoder(element_oid: int) -> Encoder:
    element = _text_encoder(element_oid)
    is_quoted = element_oid in _TEXTS

    def one(value: object) -> str:
        if value is None:
            return "NULL"
        if isinstance(value, (list, tuple, np.ndarray)):
            return "{" + ",".join(map(one, value)) + "}"
        text = element(value).decode()
        if not is_quoted:
            return text
        return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'

    return lambda value: value if isinstance(value, bytes) else one(value).encode()


def _array_binary_encoder(element_oid: int) -> Encoder:
    element = _binary_encoder(element_oid)

    def encode(value: object) -> bytes:
        if isinstance(value, bytes):
            raise UnsupportedStatement("this array is only given as text", hint="Ask for text results.")
        values: list[object] = list(value)  # type: ignore[call-overload]
        if any(isinstance(each, (list, tuple, np.ndarray)) for each in values):
            raise UnsupportedStatement("nested arrays have no binary form here", hint="Ask for text results.")
        parts = [_ARRAY_HEADER.pack(1 if values else 0, int(any(each is None for each in values)), element_oid)]
        if values:
            parts.append(_ARRAY_DIMENSION.pack(len(values), 1))
        for each in values:
            if each is None:
                parts.append(_NULL_LENGTH)
            else:
                data = element(each)
                parts += (struct.pack("!i", len(data)), data)
        return b"".join(parts)

    return encode


# Wire to Python --------------------------------------------------------------------------------------------------


def decode(data: bytes | None, *, type_oid: int, binary: bool) -> Value:
    """Return the value of a parameter.

    Numbers, truth values, arrays and bytea become Python values; json and every unknown type stays text. Raises
    InvalidText for text that does not fit its type and ProtocolViolation for a binary form of the wrong size.
    """
    if data is None:
        return None
    if binary:
        return _decode_binary(data, type_oid)
    text = decode_text(data)
    if "\0" in text:
        raise InvalidText("text must not contain a zero byte")
    return convert_text(text, type_oid=type_oid)


def convert_text(text: str, *, type_oid: int) -> Value:
    """Return the value a text stands for; text of a type without a Python counterpart stays text."""
    try:
        if type_oid in _INT_FORMATS:
            return _int_of_text(text, type_oid)
        if type_oid in _FLOAT_FORMATS:
            return _float_of_text(text)
        if type_oid == oids.NUMERIC:
            return number_of(text)
        if type_oid == oids.BOOL:
            return _bool_of_text(text)
        if type_oid == oids.BYTEA:
            return _bytea_of_text(text)
    except (ValueError, InvalidOperation):
        raise InvalidText(f'invalid input syntax for type {_type_name(type_oid)}: "{text[:40]}"') from None
    if type_oid in oids.ELEMENT_OF:
        return parse_array(text, element_oid=oids.ELEMENT_OF[type_oid])
    return text


def number_of(text: str) -> int | float:
    """Return a whole number as int, any other as float."""
    number = Decimal(text.strip())
    if number.is_finite() and number.adjusted() < 30 and number == number.to_integral_value():
        return int(number)
    return float(number)


def _float_of_text(text: str) -> float:
    if "_" in text:  # Python reads 1_000, PostgreSQL does not
        raise ValueError
    return float(text)


def _int_of_text(text: str, type_oid: int) -> int:
    if "_" in text or not text.isascii() or len(text) > 40:  # Python reads more forms than PostgreSQL
        raise ValueError
    value = int(text)
    try:
        _INT_FORMATS[type_oid].pack(value)
    except struct.error:
        raise InvalidParameter(f'value "{text[:40]}" is out of range for type {_type_name(type_oid)}') from None
    return value


def _bool_of_text(text: str) -> bool:
    word = text.strip().lower()
    if word in _TRUE_WORDS:
        return True
    if word in _FALSE_WORDS:
        return False
    raise ValueError


def _bytea_of_text(text: str) -> bytes:
    if not text.startswith("\\x"):
        raise ValueError
    return bytes.fromhex(text[2:])


def _decode_binary(data: bytes, type_oid: int) -> Value:
    if type_oid in _NUMBERS:
        number = _NUMBERS[type_oid]
        if len(data) != number.size:
            raise ProtocolViolation(f"{len(data)} bytes for a binary {_type_name(type_oid)}, expected {number.size}")
        value: int | float = number.unpack(data)[0]
        return value
    if type_oid == oids.BOOL:
        if len(data) != 1:
            raise ProtocolViolation(f"{len(data)} bytes for a binary bool, expected 1")
        return data != b"\0"
    if type_oid == oids.BYTEA:
        return data
    if type_oid == oids.JSONB:
        if data[:1] != b"\x01":
            raise ProtocolViolation("unsupported version of binary jsonb")
        return _text_of(data[1:])
    if type_oid in _TEXTS or type_oid == oids.UNKNOWN_TYPE:
        return _text_of(data)
    if type_oid in oids.ELEMENT_OF and oids.ELEMENT_OF[type_oid] != oids.NUMERIC:
        return _decode_binary_array(data)
    raise UnsupportedStatement(
        f"parameters of type {type_oid} have no binary form here", hint="Send this parameter as text."
    )


def _text_of(data: bytes) -> str:
    text = decode_text(data)
    if "\0" in text:
        raise InvalidText("text must not contain a zero byte")
    return text


def _decode_binary_array(data: bytes) -> Value:
    """Read array_send's form: dimensions, flags, element type, sizes and bounds, then each value with its length."""
    if len(data) < 12:
        raise ProtocolViolation("binary array is too short")
    depth, _has_nulls, element_oid = _ARRAY_HEADER.unpack_from(data)
    if depth == 0:
        return []
    if depth != 1:
        raise UnsupportedStatement("nested binary arrays are not read here", hint="Send this parameter as text.")
    if len(data) < 20:
        raise ProtocolViolation("binary array is too short")
    count, _bound = _ARRAY_DIMENSION.unpack_from(data, 12)
    if not 0 <= count <= (len(data) - 20) // 4:
        raise ProtocolViolation(f"binary array claims {count} values in {len(data)} bytes")
    if element_oid in oids.ELEMENT_OF:
        raise ProtocolViolation("binary array of arrays")
    if element_oid in _FLOAT_FORMATS and len(data) == 20 + count * (4 + _FLOAT_FORMATS[element_oid].size):
        floats = _float_array(data, count, size=_FLOAT_FORMATS[element_oid].size)
        if floats is not None:
            return floats
    values: list[Value] = []
    offset = 20
    for _ in range(count):
        if offset + 4 > len(data):
            raise ProtocolViolation("binary array is too short")
        length = int.from_bytes(data[offset : offset + 4], "big", signed=True)
        offset += 4
        if length < -1 or offset + max(length, 0) > len(data):
            raise ProtocolViolation("binary array is too short")
        values.append(None if length == -1 else _decode_binary(data[offset : offset + length], element_oid))
        offset += max(length, 0)
    if offset != len(data):
        raise ProtocolViolation("bytes left over after a binary array")
    return values


def _float_array(data: bytes, count: int, *, size: int) -> list[Value] | None:
    """Read a dense array of floats at once; None when a length says it has NULLs."""
    cells = np.frombuffer(data, dtype=[("length", ">i4"), ("value", f">f{size}")], offset=20, count=count)
    if not (cells["length"] == size).all():
        return None
    values: list[Value] = cells["value"].tolist()
    return values


def parse_array(text: str, *, element_oid: int) -> Value:
    """Return the list an array literal stands for: ``{1,2}``, ``{"a, b",NULL}`` or nested braces."""
    if element_oid in _FLOAT_FORMATS and text[:1] == "{" and text[-1:] == "}":
        try:
            return [_float_of_text(word) for word in text[1:-1].split(",")]
        except ValueError:
            pass  # empty, nested, quoted or with NULL: the careful way
    values, end = _parse_array_level(text, text.find("{"), element_oid=element_oid, depth=1)
    if text[: text.find("{")].strip() or text[end:].strip():
        raise InvalidText("malformed array literal: text outside the braces")
    return values


def _parse_array_level(text: str, start: int, *, element_oid: int, depth: int) -> tuple[list[Value], int]:
    if start < 0 or depth > ARRAY_DEPTH_MAX:
        raise InvalidText(f"malformed array literal: braces expected, nested at most {ARRAY_DEPTH_MAX} deep")
    values: list[Value] = []
    position = _skip_spaces(text, start + 1)
    if text[position : position + 1] == "}":
        return values, position + 1
    while position < len(text):
        if text[position] == "{":
            inner, position = _parse_array_level(text, position, element_oid=element_oid, depth=depth + 1)
            values.append(inner)
        elif text[position] == '"':
            word, position = _quoted_element(text, position + 1)
            values.append(convert_text(word, type_oid=element_oid))
        else:
            end = _end_of_element(text, position)
            word = text[position:end].strip()
            if not word or '"' in word or "{" in word:
                raise InvalidText("malformed array literal: a value is missing or misquoted")
            values.append(None if word.upper() == "NULL" else convert_text(word, type_oid=element_oid))
            position = end
        position = _skip_spaces(text, position)
        if text[position : position + 1] == "}":
            return values, position + 1
        if text[position : position + 1] != ",":
            break
        position = _skip_spaces(text, position + 1)
    raise InvalidText("malformed array literal: a closing brace is missing")


def _end_of_element(text: str, position: int) -> int:
    """Return the place of the comma or brace that ends an unquoted element, or the end of the text."""
    comma = text.find(",", position)
    # The brace is looked for before the comma only: searching to the end each time would be quadratic.
    brace = text.find("}", position, comma if comma >= 0 else len(text))
    if brace >= 0:
        return brace
    return comma if comma >= 0 else len(text)


def _quoted_element(text: str, start: int) -> tuple[str, int]:
    """Return the value of a quoted element and the place after its closing quote."""
    parts: list[str] = []
    position = start
    while position < len(text):
        character = text[position]
        if character == '"':
            return "".join(parts), position + 1
        if character == "\\":
            position += 1
        parts.append(text[position : position + 1])
        position += 1
    raise InvalidText("malformed array literal: a quote is not closed")


def _skip_spaces(text: str, position: int) -> int:
    while position < len(text) and text[position].isspace():
        position += 1
    return position


def _type_name(type_oid: int) -> str:
    return next((name for name, oid in oids.OID_OF_NAME.items() if oid == type_oid), str(type_oid))
