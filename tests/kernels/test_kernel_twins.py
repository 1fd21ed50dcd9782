"""The compiled kernels and their numpy twins give the same answers and refuse the same input."""

import inspect
import random
import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from ruvector.errors import ProtocolViolation, RuvectorError
from ruvector.kernels import compiled, reference
from ruvector.values import Metric

FLOAT_METRICS = [Metric.L2, Metric.IP, Metric.COSINE, Metric.L1]


def outcome(function, *arguments, **options):
    """Return what a call gave, or the class and words of its refusal."""
    try:
        return function(*arguments, **options)
    except RuvectorError as error:
        return type(error), str(error)


def test_twins_have_the_same_names_and_arguments():
    assert sorted(compiled.__all__) == sorted(reference.__all__)
    for name in ("distances", "check_finite", "norms", "normalize"):
        assert inspect.signature(getattr(compiled, name)) == inspect.signature(getattr(reference, name))


@settings(max_examples=300, deadline=None)
@given(
    st.data(),
    st.integers(1, 40),
    st.integers(0, 6),
    st.sampled_from([np.float32, np.float16]),
    st.sampled_from(FLOAT_METRICS),
)
def test_twins_agree_on_floats(data, dims, rows, dtype, metric):
    elements = st.floats(-100, 100, width=16)
    query = data.draw(arrays.arrays(np.float32, dims, elements=elements))
    table = data.draw(arrays.arrays(dtype, (rows, dims), elements=elements))
    got = compiled.distances(query, table, metric=metric)
    want = reference.distances(query, table, metric=metric)
    scale = np.abs(query.astype(np.float64)) @ np.abs(table.astype(np.float64)).T if metric is Metric.IP else 1.0
    np.testing.assert_array_equal(np.isnan(got), np.isnan(want))
    assert np.all(np.nan_to_num(np.abs(got - want)) <= 1e-5 * np.nan_to_num(np.abs(want)) + 2e-6 * scale)


@settings(max_examples=200, deadline=None)
@given(st.data(), st.integers(1, 150), st.integers(0, 5), st.sampled_from([Metric.HAMMING, Metric.JACCARD]))
def test_twins_agree_on_bits(data, size, rows, metric):
    query = data.draw(arrays.arrays(np.uint8, size))
    table = data.draw(arrays.arrays(np.uint8, (rows, size)))
    got = compiled.distances(query, table, metric=metric)
    np.testing.assert_array_equal(got, reference.distances(query, table, metric=metric))


@settings(max_examples=200, deadline=None)
@given(arrays.arrays(np.float32, st.tuples(st.integers(0, 4), st.integers(1, 9)), elements=st.floats(width=32)))
def test_twins_refuse_the_same_vectors(rows):
    assert outcome(compiled.check_finite, rows) == outcome(reference.check_finite, rows)
    got, want = outcome(compiled.normalize, rows), outcome(reference.normalize, rows)
    assert type(got) is type(want)
    if isinstance(got, tuple):
        assert got == want
    else:
        np.testing.assert_allclose(got, want, rtol=1e-6, atol=1e-45)
    np.testing.assert_allclose(compiled.norms(rows), reference.norms(rows), rtol=1e-6)


def frames(rng, *, element, dims, text):
    """Make the data of one COPY with missing and wrong vectors, and hurt it in half of the cases."""
    parts = [b"PGCOPY\n\xff\r\n\x00" + struct.pack(">II", rng.choice([0, 0, 0, 7, 1 << 16]), 3) + b"ext"]
    for _ in range(rng.randrange(6)):
        key = (
            rng.randbytes(rng.choice([2, 4, 8, 8, 8, 3]))
            if not text
            else rng.choice(["", "a", "ä€", "x" * 99]).encode()
        )
        own = rng.choice([dims, dims, dims, dims + 1])
        size = (own + 7) // 8 if element == "bit" else own * (4 if element == "f32" else 2)
        header = struct.pack(">i", own) if element == "bit" else struct.pack(">hh", own, 0)
        vector = struct.pack(">i", 4 + size) + header + rng.randbytes(size)
        if element == "bit" and own % 8 and rng.random() < 0.9:
            vector = vector[:-1] + bytes([vector[-1] & (0xFF00 >> (own % 8)) & 0xFF])
        if rng.random() < 0.2:
            vector = struct.pack(">i", -1)
        parts.append(struct.pack(">hi", 2, len(key)) + key + vector)
    data = bytearray(b"".join(parts) + b"\xff\xff")
    damage = rng.randrange(8)
    if damage == 0:
        data[rng.randrange(len(data))] = rng.randrange(256)
    elif damage == 1:
        del data[rng.randrange(len(data)) :]
    elif damage == 2:
        data[rng.randrange(len(data)) :] = rng.randbytes(rng.randrange(60))
    elif damage == 3:
        data[rng.randrange(len(data)) : 0] = struct.pack(">i", rng.choice([-2, -1, 0, 2**31 - 1, -(2**31), 4]))
    return bytes(data)


@pytest.mark.parametrize("element", ["f32", "f16", "bit"])
@pytest.mark.parametrize("key_kind", ["int64", "text"])
def test_twins_decode_the_same_rows_and_refuse_the_same_bytes(element, key_kind):
    refused = 0
    for seed in range(1500):
        rng = random.Random(seed)
        dims = rng.choice([1, 3, 8, 13])
        data = frames(rng, element=element, dims=dims, text=key_kind == "text")
        options = {"key_kind": key_kind, "element": element, "dims": dims}
        got, want = outcome(compiled.decode, data, **options), outcome(reference.decode, data, **options)
        if isinstance(want, tuple):
            refused += 1
            assert want[0] is ProtocolViolation, seed
            assert isinstance(got, tuple), (seed, want)
            assert got[0] is ProtocolViolation, seed
            continue
        assert not isinstance(got, tuple), (seed, got)
        assert got.vectors.dtype == want.vectors.dtype
        assert got.vectors.tobytes() == want.vectors.tobytes(), seed
        assert got.vectors.shape == want.vectors.shape, seed
        assert got.last_key == want.last_key, seed
        for name in ("keys", "missing_keys", "wrong_keys"):
            assert list(getattr(got, name)) == list(getattr(want, name)), seed
    assert 100 < refused < 1400


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=80), st.integers(0, 12))
def test_twins_agree_on_any_bytes(garbage, dims):
    vector = struct.pack(">hh", dims, 0) + garbage[: dims * 4]
    for payload in (garbage, vector):
        got, want = outcome(compiled.decode_vector, payload), outcome(reference.decode_vector, payload)
        assert type(got) is type(want)
        if not isinstance(got, tuple):
            assert got.tobytes() == want.tobytes()
    for data in (garbage, b"PGCOPY\n\xff\r\n\x00" + bytes(8) + garbage):
        options = {"key_kind": "int64", "element": "f32", "dims": 1}
        assert type(outcome(compiled.decode, data, **options)) is type(outcome(reference.decode, data, **options))
