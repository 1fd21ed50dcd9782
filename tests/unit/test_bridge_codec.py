import struct

import numpy as np
import pytest

from ruvector.bridge import codec, oids
from ruvector.bridge.backend import CALL_COLUMNS, SEARCH_COLUMNS, Column
from ruvector.bridge.codec import BodyReader, FrameReader
from ruvector.bridge.rows import row_encoder
from ruvector.errors import CollectionNotFound, InternalError, InvalidEncoding, InvalidParameter, ProtocolViolation


def read_rows(data):
    """Return the values of DataRow messages as lists of bytes."""
    reader = FrameReader(bytes_max=1 << 30)
    reader.feed(data)
    rows = []
    message = reader.next()
    while message is not None:
        kind, body = message
        assert kind == ord("D")
        fields = BodyReader(body)
        rows.append(list(fields.values()))
        fields.finish()
        message = reader.next()
    return rows


def test_frame_reader_waits_for_a_whole_message():
    reader = FrameReader()
    data = codec.message(b"Q", b"text\0")
    for place in range(len(data)):
        assert reader.next() is None
        reader.feed(data[place : place + 1])
    assert reader.next() == (ord("Q"), b"text\0")
    assert reader.next() is None


def test_frame_reader_gives_messages_that_arrived_together():
    reader = FrameReader()
    reader.feed(codec.message(b"S", b"") + codec.message(b"H", b"") + b"X\0\0")
    assert [reader.next(), reader.next(), reader.next()] == [(ord("S"), b""), (ord("H"), b""), None]
    reader.feed(b"\0\x04")
    assert reader.next() == (ord("X"), b"")


@pytest.mark.parametrize("length", [-(2**31), -1, 0, 3, 4097, 2**31 - 1])
def test_frame_reader_refuses_lengths_outside_the_bound(length):
    reader = FrameReader(bytes_max=4096)
    reader.feed(b"Q" + struct.pack("!i", length))
    with pytest.raises(ProtocolViolation, match=str(length)):
        reader.next()


@pytest.mark.parametrize("length", [-1, 0, 7, 10_001])
def test_startup_packet_length_is_bounded(length):
    reader = FrameReader()
    reader.feed(struct.pack("!i", length))
    with pytest.raises(ProtocolViolation, match=str(length)):
        reader.next_startup()


def test_startup_packet_is_read():
    body = struct.pack("!i", 196608) + b"user\0me\0database\0d\0_pq_.x\0001\0\0"
    startup = codec.parse_startup(body)
    assert startup.parameters == {"user": "me", "database": "d", "_pq_.x": "1"}
    assert startup.unknown_options == ["_pq_.x"]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        struct.pack("!i", 196608),
        struct.pack("!i", 196608) + b"user\0",
        struct.pack("!i", 196608) + b"user\0me\0",
        struct.pack("!i", 196608) + b"user\0me\0\0more",
        struct.pack("!i", 131072) + b"\0",
        struct.pack("!i", codec.SSL_REQUEST) + b"x",
        struct.pack("!i", codec.CANCEL_REQUEST) + b"x",
    ],
)
def test_malformed_startup_packet_is_refused(body):
    with pytest.raises(ProtocolViolation):
        codec.parse_startup(body)


def test_bind_is_read():
    body = b"p\0s\0" + struct.pack("!hhh", 2, 0, 1) + struct.pack("!h", 2)
    body += struct.pack("!i", -1) + struct.pack("!i", 2) + b"ab" + struct.pack("!hh", 1, 1)
    bind = codec.parse_bind(body)
    assert bind == codec.Bind("p", "s", (0, 1), (None, b"ab"), (1,))


@pytest.mark.parametrize(
    "body",
    [
        b"p\0s\0" + struct.pack("!hh", 0, 1) + struct.pack("!i", 100) + b"ab" + struct.pack("!h", 0),
        b"p\0s\0" + struct.pack("!hh", 0, 1) + struct.pack("!i", -2) + struct.pack("!h", 0),
        b"p\0s\0" + struct.pack("!hhhh", 1, 2, 0, 0),
        b"p\0s\0" + struct.pack("!hhhhh", 2, 0, 0, 0, 0),
        b"p\0s\0" + struct.pack("!hhh", 0, 0, 0) + b"left over",
        b"p\0s\0" + struct.pack("!hh", 0, -1),
    ],
)
def test_malformed_bind_is_refused(body):
    with pytest.raises(ProtocolViolation):
        codec.parse_bind(body)


def test_text_must_be_utf8():
    with pytest.raises(InvalidEncoding, match="byte 1"):
        codec.parse_query(b"a\xff\0")


def test_error_response_has_the_fields_of_the_error():
    kind, body = codec.error_response(CollectionNotFound("c"))[:1], codec.error_response(CollectionNotFound("c"))[5:]
    fields = {part[:1]: part[1:].decode() for part in body.split(b"\0") if part}
    assert kind == b"E"
    assert fields == {
        b"S": "ERROR",
        b"V": "ERROR",
        b"C": "42704",
        b"M": 'collection "c" does not exist',
        b"H": "List them with SELECT * FROM ruvector_list_collections().",
    }


def test_error_response_survives_odd_characters():
    data = codec.error_response(InvalidParameter("zero \0 and half \ud800", detail="d"), severity="FATAL")
    reader = FrameReader()
    reader.feed(data)
    _, body = reader.next()
    assert b"Mzero  and half ?\0" in body
    assert body.endswith(b"\0\0")


def test_row_description_gives_names_types_and_formats():
    encoder = row_encoder((Column("n", oids.INT4), Column("t", oids.TEXT)), (1, 0))
    body = encoder.description[5:]
    assert body == struct.pack("!h", 2) + b"n\0" + struct.pack("!ihIhih", 0, 0, 23, 4, -1, 1) + b"t\0" + struct.pack(
        "!ihIhih", 0, 0, 25, -1, -1, 0
    )


@pytest.mark.parametrize(
    "rows",
    [
        [],
        [("hit", "1", 0.1)],
        [("hit", "1", 0.1), ("hit", "ü€😀", 1e300), ("", "", -0.0)],
        [("hit", "x" * 127, 1.0), ("hit", "x" * 128, 1.0), ("hit", "x" * 10_000, 1.0)],
        [("hit", "1", float("inf")), ("hit", "2", float("-inf")), ("hit", "3", float("nan"))],
        [("hit", None, 0.5), (None, "1", None), (b"hit", b"2", b"0.5"), ("hit", 3, 7)],
        [(f"k{size}", "y" * size, 1 / 3) for size in range(60, 130)],
        [("w", "7:7:", None), ("c", "1", 0.5), ("t", "ü", None), ("r", "{}" * 600, None)],
        [("w", "y" * size, None) for size in range(980, 1030)],
        [("ü", "1", 0.5), ("hit", "1", np.float32(0.5))],
    ],
)
def test_rows_are_encoded(rows):
    def text(value):
        if value is None or isinstance(value, bytes):
            return value
        if isinstance(value, (float, np.floating)):
            value = float(value)
            special = {"inf": "Infinity", "-inf": "-Infinity", "nan": "NaN"}
            return special.get(repr(value), repr(value)).encode()
        return str(value).encode()

    encoded = row_encoder(CALL_COLUMNS, ()).encode(rows)
    expected = [[text(kind), text(key), b"7.0" if distance == 7 else text(distance)] for kind, key, distance in rows]
    assert read_rows(encoded) == expected


def test_row_of_another_width_is_our_mistake():
    with pytest.raises(InternalError):
        row_encoder((Column("a", oids.TEXT),), ()).encode([("a", "b")])


def test_result_formats_must_fit_the_columns():
    with pytest.raises(ProtocolViolation, match="2 result formats for 6 columns"):
        row_encoder(SEARCH_COLUMNS, (0, 1))
