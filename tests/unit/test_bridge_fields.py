import math
import struct

import numpy as np
import pytest

from ruvector.bridge import oids
from ruvector.bridge.fields import convert_text, decode, encoder
from ruvector.errors import InvalidEncoding, InvalidParameter, InvalidText, ProtocolViolation, UnsupportedStatement


@pytest.mark.parametrize(
    ("type_oid", "value", "text"),
    [
        (oids.BOOL, True, b"t"),
        (oids.BOOL, False, b"f"),
        (oids.INT4, -5, b"-5"),
        (oids.FLOAT8, 0.1, b"0.1"),
        (oids.FLOAT8, np.float64(0.1), b"0.1"),
        (oids.FLOAT8, math.inf, b"Infinity"),
        (oids.FLOAT8, -math.inf, b"-Infinity"),
        (oids.FLOAT8, math.nan, b"NaN"),
        (oids.FLOAT4, 0.1, b"0.1"),
        (oids.FLOAT4, float(np.float32(0.1)), b"0.1"),
        (oids.FLOAT4, math.inf, b"Infinity"),
        (oids.TEXT, "ü", "ü".encode()),
        (oids.TEXT, b"finished", b"finished"),
        (oids.JSONB, {"a": [1, None]}, b'{"a": [1, null]}'),
        (oids.JSONB, '{"a":1}', b'{"a":1}'),
        (oids.BYTEA, b"\0\xff", b"\\x00ff"),
        (oids.TEXT_ARRAY, ["a", None, 'q"\\', ""], b'{"a",NULL,"q\\"\\\\",""}'),
        (oids.FLOAT4_ARRAY, [0.5, 0.1, None], b"{0.5,0.1,NULL}"),
        (oids.INT4_ARRAY, [], b"{}"),
        (oids.INT4_ARRAY, [[1, 2], [3, 4]], b"{{1,2},{3,4}}"),
        (oids.BOOL_ARRAY, [True, False], b"{t,f}"),
    ],
)
def test_value_is_encoded_as_text(type_oid, value, text):
    assert encoder(type_oid, binary=False)(value) == text


@pytest.mark.parametrize(
    ("type_oid", "value", "data"),
    [
        (oids.BOOL, True, b"\x01"),
        (oids.INT2, -2, b"\xff\xfe"),
        (oids.INT4, 5, b"\0\0\0\x05"),
        (oids.INT4, b"5", b"\0\0\0\x05"),
        (oids.INT8, 5, b"\0\0\0\0\0\0\0\x05"),
        (oids.FLOAT4, 0.5, struct.pack("!f", 0.5)),
        (oids.FLOAT8, b"0.25", struct.pack("!d", 0.25)),
        (oids.TEXT, "ü", "ü".encode()),
        (oids.JSONB, [1], b"\x01[1]"),
        (oids.BYTEA, b"\0", b"\0"),
        (oids.INT4_ARRAY, [], struct.pack("!iiI", 0, 0, oids.INT4)),
        (
            oids.INT4_ARRAY,
            [7, None],
            struct.pack("!iiIii", 1, 1, oids.INT4, 2, 1) + struct.pack("!ii", 4, 7) + b"\xff" * 4,
        ),
    ],
)
def test_value_is_encoded_as_binary(type_oid, value, data):
    assert encoder(type_oid, binary=True)(value) == data


def test_numbers_outside_their_binary_type_are_refused():
    with pytest.raises(InvalidParameter, match="out of range"):
        encoder(oids.INT2, binary=True)(40_000)
    with pytest.raises(UnsupportedStatement, match="no binary form"):
        encoder(oids.NUMERIC, binary=True)


@pytest.mark.parametrize(
    ("type_oid", "text", "value"),
    [
        (oids.INT4, "5", 5),
        (oids.INT8, "-9223372036854775808", -(2**63)),
        (oids.FLOAT8, "1e3", 1000.0),
        (oids.FLOAT4, "-Infinity", -math.inf),
        (oids.NUMERIC, "5", 5),
        (oids.NUMERIC, "5.5", 5.5),
        (oids.NUMERIC, "1e100", 1e100),
        (oids.BOOL, "on", True),
        (oids.BOOL, "F", False),
        (oids.JSONB, '{"a": 1}', '{"a": 1}'),
        (oids.UNKNOWN_TYPE, "[1,2]", "[1,2]"),
        (oids.BYTEA, "\\x00ff", b"\0\xff"),
        (oids.FLOAT8_ARRAY, "{1,2.5}", [1.0, 2.5]),
        (oids.FLOAT8_ARRAY, "{1,NULL}", [1.0, None]),
        (oids.FLOAT8_ARRAY, "{}", []),
        (oids.INT4_ARRAY, " { 1 , 2 } ", [1, 2]),
        (oids.INT4_ARRAY, "{{1},{2}}", [[1], [2]]),
        (oids.TEXT_ARRAY, r'{a b,"c,d","e\"f",null,"null"}', ["a b", "c,d", 'e"f', None, "null"]),
    ],
)
def test_text_parameter_is_read(type_oid, text, value):
    assert decode(text.encode(), type_oid=type_oid, binary=False) == value


@pytest.mark.parametrize(
    ("type_oid", "text"),
    [
        (oids.INT4, "1.5"),
        (oids.INT4, "1_000"),
        (oids.INT4, "٣"),
        (oids.INT4, "9" * 5_000),
        (oids.FLOAT8, "1_0"),
        (oids.FLOAT8, "one"),
        (oids.BOOL, "perhaps"),
        (oids.NUMERIC, "x"),
        (oids.BYTEA, "00"),
        (oids.BYTEA, "\\xzz"),
        (oids.INT4_ARRAY, "1,2"),
        (oids.INT4_ARRAY, "{1,2"),
        (oids.INT4_ARRAY, "{1,,2}"),
        (oids.INT4_ARRAY, "{1}{2}"),
        (oids.INT4_ARRAY, "{1}x"),
        (oids.INT4_ARRAY, "x{1}"),
        (oids.TEXT_ARRAY, '{"a}'),
        (oids.TEXT_ARRAY, '{a"b}'),
        (oids.TEXT_ARRAY, "{" * 10 + "}" * 10),
        (oids.TEXT, "zero\0"),
    ],
)
def test_text_that_does_not_fit_is_refused(type_oid, text):
    with pytest.raises(InvalidText):
        decode(text.encode(), type_oid=type_oid, binary=False)


def test_number_outside_its_type_is_refused():
    with pytest.raises(InvalidParameter, match="out of range"):
        convert_text("3000000000", type_oid=oids.INT4)


def test_text_must_be_utf8():
    with pytest.raises(InvalidEncoding):
        decode(b"\xff", type_oid=oids.TEXT, binary=False)
    with pytest.raises(InvalidEncoding):
        decode(b"\xff", type_oid=oids.TEXT, binary=True)


@pytest.mark.parametrize(
    ("type_oid", "value"),
    [
        (oids.BOOL, True),
        (oids.INT2, -3),
        (oids.INT4, 70_000),
        (oids.INT8, 2**40),
        (oids.FLOAT4, 0.5),
        (oids.FLOAT8, 1 / 3),
        (oids.TEXT, "ü"),
        (oids.JSON, "{}"),
        (oids.JSONB, "[1, 2]"),
        (oids.BYTEA, b"\0\x01"),
        (oids.FLOAT8_ARRAY, [0.5, 1 / 3]),
        (oids.FLOAT4_ARRAY, [0.5, None, 2.0]),
        (oids.INT2_ARRAY, [1, 2, None]),
        (oids.TEXT_ARRAY, ["a", "", None]),
        (oids.INT8_ARRAY, []),
    ],
)
def test_binary_parameter_is_read(type_oid, value):
    assert decode(encoder(type_oid, binary=True)(value), type_oid=type_oid, binary=True) == value


@pytest.mark.parametrize(
    ("type_oid", "data"),
    [
        (oids.INT4, b"\0\0\0"),
        (oids.FLOAT8, b"\0" * 9),
        (oids.BOOL, b""),
        (oids.JSONB, b"\x02{}"),
        (oids.FLOAT8_ARRAY, b"\0" * 11),
        (oids.FLOAT8_ARRAY, struct.pack("!iiIii", 1, 0, oids.FLOAT8, 2**31 - 1, 1)),
        (oids.FLOAT8_ARRAY, struct.pack("!iiIii", 1, 0, oids.FLOAT8, -1, 1)),
        (oids.FLOAT8_ARRAY, struct.pack("!iiIiii", 1, 0, oids.FLOAT8, 1, 1, 9)),
        (oids.FLOAT8_ARRAY, struct.pack("!iiIiii", 1, 0, oids.FLOAT8, 1, 1, -7)),
        (oids.FLOAT8_ARRAY, struct.pack("!iiIiii", 1, 0, oids.FLOAT8_ARRAY, 1, 1, 0)),
        (oids.INT4_ARRAY, struct.pack("!iiIiii", 1, 0, oids.INT4, 1, 1, -1) + b"x"),
    ],
)
def test_malformed_binary_parameter_is_refused(type_oid, data):
    with pytest.raises(ProtocolViolation):
        decode(data, type_oid=type_oid, binary=True)


def test_unknown_binary_types_are_refused_with_a_hint():
    with pytest.raises(UnsupportedStatement) as raised:
        decode(b"\0", type_oid=600, binary=True)
    assert "as text" in raised.value.hint
    with pytest.raises(UnsupportedStatement, match="nested"):
        decode(struct.pack("!iiI", 2, 0, oids.INT4), type_oid=oids.INT4_ARRAY, binary=True)


def test_null_is_none():
    assert decode(None, type_oid=oids.INT4, binary=True) is None
