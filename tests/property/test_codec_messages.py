"""Frames, messages and values survive every input: what is valid comes back, what is not is refused by name."""

import contextlib
import math
import struct

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from ruvector.bridge import codec, oids
from ruvector.bridge.backend import CALL_COLUMNS, Column
from ruvector.bridge.codec import BodyReader, FrameReader
from ruvector.bridge.fields import decode, encoder
from ruvector.bridge.grammar import parse
from ruvector.bridge.rows import row_encoder
from ruvector.errors import RuvectorError

TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"))
PIECES = (
    "SELECT * FROM f ( ) , ' '' \" $1 $$ :: int [ ] ARRAY CAST AS LIMIT => := ; BEGIN SET TO = - 1 1.5 e E' \\ -- "
    "/* */ null true . ROLLBACK SAVEPOINT SHOW x ü version current_user"
)
SQL_PIECES = st.sampled_from([*PIECES.split(), " ", "\n"])


@contextlib.contextmanager
def refused_only_with(*codes):
    """Let errors of these codes pass; every other one fails the test."""
    try:
        yield
    except RuvectorError as error:
        if error.sqlstate not in codes:
            raise


@given(st.lists(st.tuples(st.integers(0, 255), st.binary(max_size=200)), max_size=20), st.data())
def test_messages_come_out_as_they_went_in_however_they_are_cut(messages, data):
    stream = b"".join(codec.message(bytes([kind]), body) for kind, body in messages)
    reader = FrameReader()
    found = []
    position = 0
    while position < len(stream):
        size = data.draw(st.integers(1, len(stream) - position))
        reader.feed(stream[position : position + size])
        position += size
        message = reader.next()
        while message is not None:
            found.append(message)
            message = reader.next()
    assert found == messages


@given(st.binary(max_size=300))
def test_any_bytes_are_frames_or_refused(data):
    for step in (FrameReader.next, FrameReader.next_startup):
        reader = FrameReader()
        reader.feed(data)
        with refused_only_with("08P01"):
            for _ in range(len(data) + 1):
                if step(reader) is None:
                    break


@given(st.binary(max_size=300), st.integers(0, 8))
def test_any_body_is_a_message_or_refused(body, code_place):
    codes = [b"", *(struct.pack("!i", code) for code in (196608, codec.CANCEL_REQUEST, codec.SSL_REQUEST))]
    body = codes[code_place % len(codes)] + body
    for read in (
        codec.parse_startup,
        codec.parse_query,
        codec.parse_parse,
        codec.parse_bind,
        codec.parse_named,
        codec.parse_execute,
        codec.parse_sasl_initial,
    ):
        with refused_only_with("08P01", "22021"):
            read(body)


@given(
    TEXT,
    TEXT,
    st.lists(st.integers(0, 1), max_size=1),
    st.lists(st.none() | st.binary(max_size=20), max_size=10),
    st.lists(st.integers(0, 1), max_size=5),
)
def test_bind_comes_back(portal, statement, formats, values, result_formats):
    body = portal.encode() + b"\0" + statement.encode() + b"\0"
    body += struct.pack(f"!h{len(formats)}h", len(formats), *formats) + struct.pack("!h", len(values))
    for value in values:
        body += struct.pack("!i", -1) if value is None else struct.pack("!i", len(value)) + value
    body += struct.pack(f"!h{len(result_formats)}h", len(result_formats), *result_formats)
    assert codec.parse_bind(body) == codec.Bind(portal, statement, tuple(formats), tuple(values), tuple(result_formats))


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["hit", "miss"]) | st.none() | TEXT,
            TEXT | st.integers().map(str) | st.text("k", min_size=100, max_size=300),
            st.floats() | st.none(),
        ),
        max_size=20,
    )
)
def test_call_rows_come_back(rows):
    reader = FrameReader(bytes_max=1 << 20)
    reader.feed(row_encoder(CALL_COLUMNS, ()).encode(rows))
    for kind, key, distance in rows:
        _, body = reader.next()
        fields = BodyReader(body)
        kind_data, key_data, distance_data = fields.values()
        fields.finish()
        assert decode(kind_data, type_oid=oids.TEXT, binary=False) == kind
        assert decode(key_data, type_oid=oids.TEXT, binary=False) == key
        found = decode(distance_data, type_oid=oids.FLOAT8, binary=False)
        assert found == distance or (math.isnan(distance) and math.isnan(found))
    assert reader.next() is None


VALUES = st.one_of(
    st.tuples(st.just(oids.BOOL), st.booleans()),
    st.tuples(st.just(oids.INT2), st.integers(-(2**15), 2**15 - 1)),
    st.tuples(st.just(oids.INT4), st.integers(-(2**31), 2**31 - 1)),
    st.tuples(st.just(oids.INT8), st.integers(-(2**63), 2**63 - 1)),
    st.tuples(st.just(oids.FLOAT4), st.floats(width=32, allow_nan=False)),
    st.tuples(st.just(oids.FLOAT8), st.floats(allow_nan=False)),
    st.tuples(st.just(oids.TEXT), TEXT),
    st.tuples(st.just(oids.JSONB), TEXT),
    st.tuples(st.just(oids.BYTEA), st.binary()),
    st.tuples(st.just(oids.TEXT_ARRAY), st.lists(TEXT | st.none())),
    st.tuples(st.just(oids.INT4_ARRAY), st.lists(st.integers(-(2**31), 2**31 - 1) | st.none())),
    st.tuples(st.just(oids.FLOAT8_ARRAY), st.lists(st.floats(allow_nan=False) | st.none())),
    st.tuples(st.just(oids.FLOAT4_ARRAY), st.lists(st.floats(width=32, allow_nan=False))),
)


@given(VALUES, st.booleans())
def test_values_come_back(typed, binary):
    type_oid, value = typed
    column = encoder(type_oid, binary=binary)
    found = decode(column(value), type_oid=type_oid, binary=binary)
    if type_oid == oids.FLOAT4 and not binary:
        assert np.float32(found) == np.float32(value)
    elif type_oid == oids.FLOAT4_ARRAY and not binary:
        assert np.array_equal(np.array(found, dtype=np.float32), np.array(value, dtype=np.float32))
    else:
        assert found == value


@given(st.sampled_from(sorted([*oids.OID_OF_NAME.values(), *oids.ELEMENT_OF, 0, 600])), st.binary(), st.booleans())
def test_any_parameter_is_read_or_refused(type_oid, data, binary):
    with refused_only_with("08P01", "22P02", "22021", "22023", "0A000"):
        decode(data, type_oid=type_oid, binary=binary)


@given(st.lists(SQL_PIECES | TEXT, max_size=30))
def test_any_text_is_statements_or_refused(pieces):
    for text in (" ".join(pieces), "".join(pieces), "SELECT * FROM f(" + " ".join(pieces) + ")"):
        with refused_only_with("42601", "0A000", "54000"):
            parse(text)


@given(TEXT, st.integers(-(2**62), 2**62), st.floats(allow_nan=False, allow_infinity=False), TEXT)
def test_literals_come_back(text, whole, number, name):
    quoted = "'" + text.replace("'", "''") + "'"
    escaped = "E'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"
    label = '"' + (name or "x").replace('"', '""') + '"'
    (statement,) = parse(f"SELECT {quoted}, {escaped}, {whole}, {number!r}::float8 AS {label}")
    values = [expression for _, expression in statement.items]
    assert [values[0].value, values[1].value, values[2].value] == [text, text, whole]
    assert float(values[3].operand.value) == number
    assert statement.items[3][0] == (name or "x")


@given(st.lists(st.tuples(TEXT, st.sampled_from([0, 1])), max_size=5))
def test_any_column_name_is_described(columns):
    names = tuple(Column(name, oids.TEXT) for name, _ in columns)
    description = row_encoder(names, tuple(code for _, code in columns)).description
    reader = FrameReader(bytes_max=1 << 20)
    reader.feed(description)
    _, body = reader.next()
    fields = BodyReader(body)
    assert fields.int16() == len(columns)
    for name, code in columns:
        assert fields.text() == name
        assert fields.raw(18)[16:] == struct.pack("!h", code)
    fields.finish()
