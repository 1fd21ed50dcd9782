"""COPY BINARY data decoded, and refused when it is not what PostgreSQL sends; runs compiled and in numpy."""

import struct
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ruvector.errors import InternalError, InvalidParameter, ProtocolViolation
from ruvector.kernels.copyformat import decode, decode_vector, page_crcs

HEADER = b"PGCOPY\n\xff\r\n\x00" + struct.pack(">II", 0, 0)
END = b"\xff\xff"
NULL = struct.pack(">i", -1)


def field(body):
    return struct.pack(">i", len(body)) + body


def row(key, vector):
    """Make a tuple of another number of fields; None is NULL."""
    return struct.pack(">h", 2) + b"".join(NULL if body is None else field(body) for body in (key, vector))


def vector(values, code=">f4"):
    values = np.asarray(values)
    return struct.pack(">hh", len(values), 0) + values.astype(code).tobytes()


def bits(text):
    padded = text.ljust((len(text) + 7) // 8 * 8, "0")
    return struct.pack(">i", len(text)) + int(padded or "0", 2).to_bytes(len(padded) // 8, "big")


def sparse(dims, indices, values, *, unused=0):
    head = struct.pack(">iii", dims, len(indices), unused)
    return head + np.asarray(indices, dtype=">i4").tobytes() + np.asarray(values, dtype=">f4").tobytes()


def int8(value):
    return struct.pack(">q", value)


def test_rows_of_every_integer_key_are_decoded():
    keys = [(b"\xff\xfe", -2), (struct.pack(">i", 7), 7), (int8(2**63 - 1), 2**63 - 1), (int8(-(2**63)), -(2**63))]
    vectors = np.random.default_rng(1).standard_normal((len(keys), 5)).astype(np.float32)
    data = HEADER + b"".join(row(key, vector(v)) for (key, _), v in zip(keys, vectors, strict=True)) + END
    decoded = decode(data, key_kind="int64", element="f32", dims=5)
    assert decoded.keys.dtype == np.int64
    assert decoded.keys.tolist() == [value for _, value in keys]
    np.testing.assert_array_equal(decoded.vectors, vectors)
    assert decoded.vectors.dtype == np.float32
    assert len(decoded.missing_keys) == len(decoded.wrong_keys) == 0


def test_text_keys_are_decoded():
    names = ["", "a", "0195f2c0-7c1e-7000-8000-000000000000", "größe ✓", "x" * 5000]
    data = HEADER + b"".join(row(name.encode(), vector([1, 2])) for name in names) + END
    decoded = decode(data, key_kind="text", element="f32", dims=2)
    assert decoded.keys == names
    assert decoded.vectors.tolist() == [[1, 2]] * len(names)
    assert decoded.missing_keys == decoded.wrong_keys == []


def test_halves_and_bits_are_decoded():
    data = HEADER + row(int8(1), vector([0.5, -2, 65504], ">f2")) + END
    decoded = decode(data, key_kind="int64", element="f16", dims=3)
    assert decoded.vectors.dtype == np.float16
    assert decoded.vectors.tolist() == [[0.5, -2, 65504]]
    data = HEADER + row(int8(1), bits("10110000111")) + row(int8(2), bits("00000000001")) + END
    decoded = decode(data, key_kind="int64", element="bit", dims=11)
    assert decoded.vectors.dtype == np.uint8
    assert decoded.vectors.tolist() == [[0b10110000, 0b11100000], [0, 0b00100000]]


def test_sparse_rows_are_decoded():
    rows = [
        row(int8(1), sparse(1_000_000_000, [0, 999_999_999], [0.5, -2])),
        row(int8(2), sparse(1_000_000_000, [], [])),
        row(int8(3), sparse(9, [0], [1])),
        row(int8(4), None),
        row(int8(5), sparse(1_000_000_000, [7], [3e38])),
    ]
    decoded = decode(HEADER + b"".join(rows) + END, key_kind="int64", element="sparse", dims=1_000_000_000)
    assert decoded.keys.tolist() == [1, 2, 5]
    assert (decoded.wrong_keys.tolist(), decoded.missing_keys.tolist(), decoded.row_count) == ([3], [4], 5)
    assert decoded.vectors.indptr.tolist() == [0, 2, 2, 3]
    assert decoded.vectors.indices.tolist() == [0, 999_999_999, 7]
    assert decoded.vectors.values.tolist() == np.float32([0.5, -2, 3e38]).tolist()
    assert decoded.vectors.dims == 1_000_000_000
    none = decode(HEADER + END, key_kind="text", element="sparse", dims=4)
    assert (len(none.vectors), none.vectors.dims) == (0, 4)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "length does not fit"),
        (sparse(5, [0], [1])[:11], "length does not fit"),
        (sparse(5, [0], [1])[:-4], "length does not fit"),
        (sparse(5, [0], [1]) + bytes(8), "length does not fit"),
        (sparse(-5, [0], [1]), "impossible header"),
        (sparse(5, [0], [1], unused=1), "impossible header"),
        (struct.pack(">iii", 5, -1, 0), "impossible header"),
        (struct.pack(">iii", 20_000, 16_001, 0) + bytes(8 * 16_001), "impossible header"),
        (struct.pack(">iii", 5, 2**31 - 1, 0), "impossible header"),
        (sparse(5, [5], [1]), "do not ascend within"),
        (sparse(5, [-1], [1]), "do not ascend within"),
        (sparse(5, [2, 1], [1, 1]), "do not ascend within"),
        (sparse(5, [2, 2], [1, 1]), "do not ascend within"),
        (sparse(9, [5, 6], [1, np.nan]), "NaN or infinity"),
        (sparse(9, [5], [-np.inf]), "NaN or infinity"),
    ],
    ids=range(15),
)
def test_impossible_sparse_vectors_are_refused(body, message):
    data = HEADER + row(int8(1), sparse(5, [1], [1])) + row(int8(2), body) + END
    with pytest.raises(ProtocolViolation, match=message):
        decode(data, key_kind="int64", element="sparse", dims=5)


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=60), st.integers(0, 4), st.integers(0, 6))
def test_any_sparse_bytes_are_decoded_or_refused(garbage, count, dims):
    for body in (garbage, struct.pack(">iii", dims, count, 0) + garbage[: 8 * count]):
        try:
            decoded = decode(HEADER + row(int8(1), body) + END, key_kind="int64", element="sparse", dims=5)
        except ProtocolViolation:
            continue
        assert decoded.row_count == 1


def test_missing_and_wrong_vectors_are_set_apart_in_order():
    rows = [
        row(int8(1), vector([1, 2])),
        row(int8(2), None),
        row(int8(3), vector([1, 2, 3])),
        row(int8(4), vector([3, 4])),
        row(int8(5), vector([])),
        row(int8(6), None),
    ]
    decoded = decode(HEADER + b"".join(rows) + END, key_kind="int64", element="f32", dims=2)
    assert decoded.keys.tolist() == [1, 4]
    assert decoded.vectors.tolist() == [[1, 2], [3, 4]]
    assert decoded.missing_keys.tolist() == [2, 6]
    assert decoded.wrong_keys.tolist() == [3, 5]


@pytest.mark.parametrize("body", [vector([1, 2]), None, vector([1])])
def test_last_key_is_that_of_the_last_row_sent(body):
    data = HEADER + row(int8(5), vector([3, 4])) + row(int8(-12), body) + END
    assert decode(data, key_kind="int64", element="f32", dims=2).last_key == "-12"
    data = HEADER + row(b"a", vector([3, 4])) + row("ä".encode(), body) + END
    decoded = decode(data, key_kind="text", element="f32", dims=2)
    assert decoded.last_key == "ä"
    assert decoded.row_count == 2
    assert decode(HEADER + END, key_kind="text", element="f32", dims=2).last_key is None


@pytest.mark.parametrize("key_kind", ["int64", "text"])
@pytest.mark.parametrize(("element", "width"), [("f32", 12), ("f16", 12), ("bit", 2)])
def test_no_rows_give_empty_arrays(element, width, key_kind):
    decoded = decode(HEADER + END, key_kind=key_kind, element=element, dims=12)
    assert decoded.vectors.shape == (0, width)
    assert len(decoded.keys) == 0


def test_any_buffer_is_accepted_at_any_address():
    data = HEADER + row(int8(1), vector([1.5])) + END
    for shift in range(1, 9):
        room = bytearray(shift) + data
        for buffer in (memoryview(room)[shift:], np.frombuffer(room, np.uint8)[shift:]):
            assert decode(buffer, key_kind="int64", element="f32", dims=1).vectors.tolist() == [[1.5]]


def test_header_extension_and_harmless_flags_are_skipped():
    header = b"PGCOPY\n\xff\r\n\x00" + struct.pack(">II", 0xFFFF, 5) + b"extra"
    decoded = decode(header + row(int8(1), vector([1])) + END, key_kind="int64", element="f32", dims=1)
    assert decoded.keys.tolist() == [1]


GOOD = row(int8(1), vector([1, 2]))


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (b"", "ends too early"),
        (HEADER, "ends too early"),
        (HEADER + GOOD, "ends too early"),
        (b"x" + HEADER[1:] + END, "signature"),
        (HEADER[:11] + struct.pack(">II", 1 << 16, 0) + END, "flag"),
        (HEADER[:11] + struct.pack(">II", 0, 1) + b"", "ends too early"),
        (HEADER[:11] + struct.pack(">II", 0, 2**32 - 1) + END, "ends too early"),
        (HEADER + END + b"\x00", "follow the end"),
        (HEADER + struct.pack(">h", 3) + GOOD[2:] + END, "another number of fields"),
        (HEADER + struct.pack(">h", -2) + END, "another number of fields"),
        (HEADER + row(None, vector([1, 2])) + END, "key is NULL"),
        (HEADER + row(b"abc", vector([1, 2])) + END, "2, 4 or 8 bytes"),
        (HEADER + row(b"", vector([1, 2])) + END, "2, 4 or 8 bytes"),
        (HEADER + struct.pack(">hi", 2, -2) + END, "negative length"),
        (HEADER + struct.pack(">hi", 2, -(2**31)) + END, "negative length"),
        (HEADER + struct.pack(">hi", 2, 2**31 - 1) + END, "ends too early"),
        (HEADER + row(int8(1), b"") + END, "does not fit"),
        (HEADER + row(int8(1), b"\x00\x02\x00") + END, "does not fit"),
        (HEADER + row(int8(1), vector([1, 2])[:-1]) + END, "does not fit"),
        (HEADER + row(int8(1), vector([1, 2]) + b"\x00") + END, "does not fit"),
        (HEADER + row(int8(1), struct.pack(">hh", -1, 0)) + END, "impossible header"),
        (HEADER + row(int8(1), struct.pack(">hhf", 1, 1, 0)) + END, "impossible header"),
    ],
)
def test_malformed_data_is_refused(data, problem):
    with pytest.raises(ProtocolViolation, match=problem):
        decode(data, key_kind="int64", element="f32", dims=2)


@pytest.mark.parametrize(
    ("payload", "problem"),
    [
        (bits("1") + b"\x00", "does not fit"),
        (struct.pack(">i", -8) + b"\x00", "impossible header"),
        (struct.pack(">i", 2**31 - 1) + b"\x00", "does not fit"),
        (struct.pack(">i", 7) + b"\x01", "behind the end"),
    ],
)
def test_malformed_bits_are_refused(payload, problem):
    with pytest.raises(ProtocolViolation, match=problem):
        decode(HEADER + row(int8(1), payload) + END, key_kind="int64", element="bit", dims=7)


@pytest.mark.parametrize(("key", "problem"), [(b"\xff\xfe", "not UTF-8"), (b"a\x00b", "zero byte")])
def test_malformed_text_keys_are_refused(key, problem):
    for body in (vector([1]), None, vector([1, 2])):
        with pytest.raises(ProtocolViolation, match=problem):
            decode(HEADER + row(key, body) + END, key_kind="text", element="f32", dims=1)


@pytest.mark.parametrize("key_kind", ["int64", "text"])
def test_every_truncation_is_refused(key_kind):
    data = HEADER + GOOD + row(b"12345678", None) + row(int8(3).replace(b"\x00", b"0"), vector([1, 2, 3])) + END
    if key_kind == "text":
        data = data.replace(int8(1), b"abcdefgh")
    decode(data, key_kind=key_kind, element="f32", dims=2)
    for size in range(len(data)):
        with pytest.raises(ProtocolViolation):
            decode(data[:size], key_kind=key_kind, element="f32", dims=2)


@settings(max_examples=400, deadline=None)
@given(st.data())
def test_damaged_data_is_decoded_or_refused_but_never_crashes(data):
    size = data.draw(st.integers(0, 5))
    whole = bytearray(HEADER + b"".join(row(int8(at), vector([at, 1, 2])) for at in range(size)) + END)
    for _ in range(data.draw(st.integers(1, 3))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    for element in ("f32", "f16", "bit"):
        for key_kind in ("int64", "text"):
            try:
                decoded = decode(whole, key_kind=key_kind, element=element, dims=3)
            except ProtocolViolation:
                continue
            assert len(decoded.keys) == len(decoded.vectors) <= size
            assert len(decoded.keys) + len(decoded.missing_keys) + len(decoded.wrong_keys) <= size


@settings(max_examples=200, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.integers(-(2**63), 2**63 - 1),
            st.one_of(st.none(), st.lists(st.floats(width=32, allow_nan=False), max_size=4)),
        )
    )
)
def test_decoding_gives_back_what_was_encoded(rows):
    data = HEADER + b"".join(row(int8(key), None if v is None else vector(v)) for key, v in rows) + END
    decoded = decode(data, key_kind="int64", element="f32", dims=2)
    assert decoded.keys.tolist() == [key for key, v in rows if v is not None and len(v) == 2]
    assert decoded.vectors.tolist() == [v for _, v in rows if v is not None and len(v) == 2]
    assert decoded.missing_keys.tolist() == [key for key, v in rows if v is None]
    assert decoded.wrong_keys.tolist() == [key for key, v in rows if v is not None and len(v) != 2]


@pytest.mark.parametrize(
    "options",
    [
        {"key_kind": "uuid", "element": "f32", "dims": 2},
        {"key_kind": "int64", "element": "f64", "dims": 2},
        {"key_kind": "int64", "element": "f32", "dims": 0},
        {"key_kind": "int64", "element": "f32", "dims": 16_001},
        {"key_kind": "int64", "element": "bit", "dims": 64_001},
        {"key_kind": "int64", "element": "f32", "dims": -1},
    ],
)
def test_unknown_layouts_are_refused(options):
    with pytest.raises(InvalidParameter):
        decode(HEADER + END, **options)


@pytest.mark.parametrize("dims", [1, 3, 384, 16_000])
def test_one_vector_is_decoded(dims):
    values = np.random.default_rng(dims).standard_normal(dims).astype(np.float32)
    np.testing.assert_array_equal(decode_vector(vector(values)), values)
    decoded = decode_vector(bytearray(vector(values)))
    assert decoded.dtype == np.float32
    assert decoded.flags.writeable


@pytest.mark.parametrize(
    "payload",
    [b"", b"\x00", b"\x00\x01\x00\x00", vector([]), vector([1])[:-1], vector([1]) + b"\x00", b"\x7f\xff\x00\x00"],
)
def test_malformed_vectors_are_refused(payload):
    with pytest.raises(ProtocolViolation):
        decode_vector(payload)


@pytest.mark.parametrize("page", [1, 15, 64, 100, 4096])
@pytest.mark.parametrize("size", [0, 1, 63, 64, 65, 1000, 9001])
def test_page_checksums_are_crc32(size, page):
    data = np.random.default_rng(size).integers(0, 256, size, dtype=np.uint8)
    sums = page_crcs(data, page)
    assert sums.dtype == np.uint32
    assert sums.tolist() == [zlib.crc32(data[start : start + page].tobytes()) for start in range(0, size, page)]
    assert page_crcs(data.tobytes(), page).tolist() == sums.tolist()


def test_page_checksums_accept_arrays_of_any_shape():
    table = np.arange(300, dtype=np.float32).reshape(20, 15)
    assert page_crcs(table, 256).tolist() == page_crcs(table.tobytes(), 256).tolist()
    assert page_crcs(np.empty((0, 4), np.float32), 256).shape == (0,)
    with pytest.raises(InternalError):
        page_crcs(b"abc", 0)
