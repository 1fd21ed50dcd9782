"""The fields that COPY BINARY sends behind key and vector: where they lie, and what is refused."""

import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ruvector.errors import InvalidParameter, ProtocolViolation
from ruvector.kernels import copyformat, reference_copy
from ruvector.limits import COPY_FIELDS_MAX

HEADER = b"PGCOPY\n\xff\r\n\x00" + struct.pack(">II", 0, 0)
END = b"\xff\xff"
LAYOUT = {"key_kind": "int64", "element": "f32", "dims": 2}
BOTH = pytest.mark.parametrize("decode", [copyformat.decode, reference_copy.decode], ids=["kernel", "twin"])


def field(body):
    return struct.pack(">i", -1) if body is None else struct.pack(">i", len(body)) + body


def vector(*values):
    return struct.pack(f">hh{len(values)}f", len(values), 0, *values)


def row(key, body, *fields):
    bodies = (key if isinstance(key, bytes) else struct.pack(">q", key), body, *fields)
    return struct.pack(">h", len(bodies)) + b"".join(map(field, bodies))


def bodies_of(data, spans):
    """Return what the spans of each row point at; None for NULL."""
    return [
        [None if length < 0 else bytes(data[offset : offset + length]) for offset, length in each]
        for each in spans.tolist()
    ]


@BOTH
def test_fields_are_told_by_group(decode):
    rows = [
        row(1, vector(1, 2), b"one", None, b""),
        row(2, None, b"two", b"x", None),
        row(3, vector(1), b"of a row that no index takes", b"y", b"z"),
        row(4, vector(3, 4), b"", b"four", b"4"),
    ]
    data = HEADER + b"".join(rows) + END
    decoded = decode(data, **LAYOUT, fields=3)
    assert (decoded.keys.tolist(), decoded.missing_keys.tolist(), decoded.wrong_keys.tolist()) == ([1, 4], [2], [3])
    assert decoded.vectors.tolist() == [[1, 2], [3, 4]]
    assert bodies_of(data, decoded.spans) == [[b"one", None, b""], [b"", b"four", b"4"]]
    assert bodies_of(data, decoded.missing_spans) == [[b"two", b"x", None]]


@BOTH
def test_without_fields_nothing_is_told(decode):
    decoded = decode(HEADER + row(1, vector(1, 2)) + END, **LAYOUT)
    assert decoded.spans is decoded.missing_spans is None
    empty = decode(HEADER + END, **LAYOUT, fields=2)
    assert empty.spans.shape == empty.missing_spans.shape == (0, 2, 2)
    assert empty.spans.dtype == np.int64


@BOTH
@pytest.mark.parametrize("key_kind", ["int64", "text"])
@pytest.mark.parametrize(
    ("element", "body"),
    [("f32", vector(1, 2)), ("f16", struct.pack(">hh2e", 2, 0, 1, 2)), ("bit", struct.pack(">iB", 2, 0x40)),
     ("sparse", struct.pack(">iiiif", 2, 1, 0, 1, 5))],
)  # fmt: skip
def test_fields_of_every_layout(decode, key_kind, element, body):
    data = HEADER + row(b"12345678", body, b"a", b"bc") + row(b"23456789", None, None, b"d") + END
    decoded = decode(data, key_kind=key_kind, element=element, dims=2, fields=2)
    assert bodies_of(data, decoded.spans) == [[b"a", b"bc"]]
    assert bodies_of(data, decoded.missing_spans) == [[None, b"d"]]


@BOTH
@pytest.mark.parametrize("sent", [0, 1, 3])
def test_another_number_of_fields_is_refused(decode, sent):
    data = HEADER + row(1, vector(1, 2), *[b"x"] * sent) + END
    with pytest.raises(ProtocolViolation, match="another number of fields"):
        decode(data, **LAYOUT, fields=2)


@BOTH
@pytest.mark.parametrize(
    ("last", "problem"),
    [
        (struct.pack(">i", -2), "negative length"),
        (struct.pack(">i", 2**31 - 1), "ends too early"),
        (struct.pack(">i", 3) + b"ab", "ends too early"),
        (b"\x00\x00", "ends too early"),
    ],
)
@pytest.mark.parametrize("body", [vector(1, 2), None, vector(1)])
def test_malformed_fields_are_refused_in_every_group(decode, body, last, problem):
    whole = row(1, body, b"a", b"")
    with pytest.raises(ProtocolViolation, match=problem):
        decode(HEADER + whole[:-4] + last, **LAYOUT, fields=2)


@BOTH
@pytest.mark.parametrize("fields", [-1, COPY_FIELDS_MAX + 1])
def test_impossible_numbers_of_fields_are_refused(decode, fields):
    with pytest.raises(InvalidParameter):
        decode(HEADER + END, **LAYOUT, fields=fields)


@BOTH
def test_every_truncation_is_refused(decode):
    data = HEADER + row(1, vector(1, 2), b"abc", None) + row(2, None, b"", b"d") + END
    decode(data, **LAYOUT, fields=2)
    for size in range(len(data)):
        with pytest.raises(ProtocolViolation):
            decode(data[:size], **LAYOUT, fields=2)


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_kernel_and_twin_say_the_same_of_damaged_data(data):
    bodies = st.one_of(st.none(), st.binary(max_size=5))
    rows = data.draw(
        st.lists(st.tuples(st.sampled_from([vector(1, 2), vector(1), None]), st.lists(bodies, min_size=2, max_size=2)))
    )
    whole = bytearray(HEADER + b"".join(row(at, body, *fields) for at, (body, fields) in enumerate(rows)) + END)
    for _ in range(data.draw(st.integers(0, 2))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    said = []
    for decode in (copyformat.decode, reference_copy.decode):
        try:
            decoded = decode(whole, **LAYOUT, fields=2)
        except ProtocolViolation as problem:
            said.append(problem.message.split(", at byte")[0])
            continue
        spans = (bodies_of(whole, decoded.spans), bodies_of(whole, decoded.missing_spans))
        said.append((decoded.keys.tolist(), decoded.missing_keys.tolist(), decoded.wrong_keys.tolist(), spans))
    assert said[0] == said[1]
