"""Distances against double precision, for every dimension, layout and element type; runs at any SIMD level."""

import threading

import numpy as np
import pytest

from ruvector import kernels
from ruvector.errors import DimensionMismatch, InvalidParameter, InvalidVector
from ruvector.values import Metric

DIMS = [1, 2, 3, 7, 8, 15, 16, 17, 31, 32, 33, 63, 64, 65, 100, 384, 768, 1024, 1536, 2000, 4096, 16_000]
FLOAT_METRICS = [Metric.L2, Metric.IP, Metric.COSINE, Metric.L1]
BIT_METRICS = [Metric.HAMMING, Metric.JACCARD]
FLOAT_TYPES = [np.float32, np.float16]


def exact(query, rows, metric):
    """Return the distances in double precision, written without a thought for speed."""
    left, right = np.asarray(query, np.float64), np.asarray(rows, np.float64)
    if metric is Metric.L2:
        return np.sqrt(((left - right) ** 2).sum(axis=1))
    if metric is Metric.L1:
        return np.abs(left - right).sum(axis=1)
    if metric is Metric.IP:
        return -(left * right).sum(axis=1)
    lengths = np.sqrt((left**2).sum()) * np.sqrt((right**2).sum(axis=1))
    return 1 - np.clip((left * right).sum(axis=1) / lengths, -1, 1)


def exact_bits(query, rows, metric):
    left = np.unpackbits(query).astype(bool)
    right = np.unpackbits(rows, axis=1).astype(bool)
    if metric is Metric.HAMMING:
        return (left != right).sum(axis=1).astype(np.float64)
    both, either = (left & right).sum(axis=1), (left | right).sum(axis=1)
    return np.array([1.0 if b == 0 else 1 - b / e for b, e in zip(both, either, strict=True)])


def assert_close(got, query, rows, metric):
    """Compare with double precision; the error allowed is that of float sums, relative to what was added up."""
    assert got.dtype == np.float32
    want = exact(query, rows, metric)
    scale = np.abs(want)
    if metric is Metric.IP:
        scale = (np.abs(np.asarray(query, np.float64)) * np.abs(np.asarray(rows, np.float64))).sum(axis=1)
    if metric is Metric.COSINE:
        scale = np.ones_like(want)
    assert np.all(np.abs(got - want) <= 2e-6 * scale + 1e-12), (metric, np.abs(got - want).max())


def random_rows(dims, dtype=np.float32, rows=9):
    rng = np.random.default_rng(dims)
    query = rng.standard_normal(dims).astype(np.float32)
    return query, rng.standard_normal((rows, dims)).astype(dtype)


def misaligned(rows, shift=1):
    """Copy rows to an address that is not a multiple of their element size."""
    room = np.zeros(rows.nbytes + shift, np.uint8)
    moved = room[shift:].view(np.uint8)[: rows.nbytes].view(rows.dtype).reshape(rows.shape)
    moved[...] = rows
    return moved


@pytest.mark.parametrize("metric", FLOAT_METRICS)
@pytest.mark.parametrize("dtype", FLOAT_TYPES)
@pytest.mark.parametrize("dims", DIMS)
def test_distances_equal_double_precision(dims, dtype, metric):
    query, rows = random_rows(dims, dtype)
    assert_close(kernels.distances(query, rows, metric=metric), query, rows, metric)


@pytest.mark.parametrize("metric", BIT_METRICS)
@pytest.mark.parametrize("size", [1, 2, 7, 8, 9, 15, 16, 31, 32, 33, 48, 63, 64, 65, 127, 128, 192, 1000, 8000])
def test_bit_distances_are_exact(size, metric):
    rng = np.random.default_rng(size)
    rows = rng.integers(0, 256, (9, size), dtype=np.uint8)
    rows[1], rows[2] = 0, 255
    for query in (rows[0], rows[1], rows[2], misaligned(rows)[3]):
        got = kernels.distances(query, misaligned(rows), metric=metric)
        np.testing.assert_array_equal(got, exact_bits(query, rows, metric).astype(np.float32))


@pytest.mark.parametrize("metric", FLOAT_METRICS)
@pytest.mark.parametrize("dtype", FLOAT_TYPES)
@pytest.mark.parametrize("dims", [1, 7, 16, 33, 100])
def test_layout_does_not_change_a_single_bit(dims, dtype, metric):
    query, rows = random_rows(dims, dtype, rows=12)
    want = kernels.distances(query, rows, metric=metric)
    wide = np.zeros((12, dims + 5), dtype)
    wide[:, 2 : dims + 2] = rows
    layouts = {
        "every second": (rows[::2], want[::2]),
        "backwards": (rows[::-1], want[::-1]),
        "inside a wider table": (wide[:, 2 : dims + 2], want),
        "by column": (np.asfortranarray(rows), want),
        "gaps between elements": (np.repeat(rows, 2, axis=1)[:, ::2], want),
        "one row repeated": (np.broadcast_to(rows[3], (4, dims)), np.repeat(want[3], 4)),
        "read only": (np.frombuffer(rows.tobytes(), dtype).reshape(rows.shape), want),
    }
    for shift in (1, 2, 3):
        layouts[f"{shift} bytes off"] = (misaligned(rows, shift), want)
    for name, (view, expected) in layouts.items():
        got = kernels.distances(misaligned(query), view, metric=metric)
        np.testing.assert_array_equal(got, expected, err_msg=name)


@pytest.mark.parametrize("metric", [*FLOAT_METRICS, *BIT_METRICS])
def test_chunks_and_threads_do_not_change_a_single_bit(metric):
    query, rows = random_rows(130, rows=5000)
    if metric.is_binary:
        query, rows = query.view(np.uint8), rows.view(np.uint8)
    want = kernels.distances(query, rows, metric=metric)
    got = np.empty_like(want)

    def work(start, step):
        for begin in range(start, len(rows), 2 * step):
            kernels.distances(query, rows[begin : begin + step], metric=metric, out=got[begin : begin + step])

    threads = [threading.Thread(target=work, args=(start, 37)) for start in (0, 37)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    np.testing.assert_array_equal(got, want)


def test_every_half_number_is_read_exactly():
    halves = np.arange(65_536, dtype=np.uint16).view(np.float16).reshape(-1, 1)
    halves = halves[np.isfinite(halves[:, 0])]
    got = kernels.distances(np.ones(1, np.float32), halves, metric="ip")
    np.testing.assert_array_equal(-got, halves[:, 0].astype(np.float32))


def test_halves_inside_full_vectors_are_read_exactly():
    # 64 lanes of one value among zeros: every position of the wide loop and of its tail.
    for dims in (64, 79):
        halves = np.eye(dims, dtype=np.float16) * np.float16(2**-24)
        got = kernels.distances(np.ones(dims, np.float32), halves, metric="ip")
        np.testing.assert_array_equal(-got, np.full(dims, 2**-24, np.float32))


def test_out_receives_the_distances():
    query, rows = random_rows(17)
    out = np.full(len(rows), -7, np.float32)
    assert kernels.distances(query, rows, metric="l2", out=out) is out
    np.testing.assert_array_equal(out, kernels.distances(query, rows, metric="l2"))


@pytest.mark.parametrize("metric", [*FLOAT_METRICS, *BIT_METRICS])
def test_no_rows_give_no_distances(metric):
    dtype = np.uint8 if metric.is_binary else np.float32
    assert kernels.distances(np.ones(3, dtype), np.empty((0, 3), dtype), metric=metric).shape == (0,)


def test_signs_are_those_of_pgvector():
    rows = np.array([[1, 0], [0, 2], [-3, 0]], np.float32)
    query = np.array([1, 0], np.float32)
    assert kernels.distances(query, rows, metric="l2").tolist() == [0, np.float32(5**0.5), 4]
    assert kernels.distances(query, rows, metric="ip").tolist() == [-1, 0, 3]
    assert kernels.distances(query, rows, metric="cosine").tolist() == [0, 1, 2]
    assert kernels.distances(query, rows, metric="l1").tolist() == [0, 3, 4]
    bits = np.array([[0b1100_0000], [0b0000_0000], [0b0110_0000]], np.uint8)
    assert kernels.distances(bits[0], bits, metric="hamming").tolist() == [0, 2, 2]
    assert kernels.distances(bits[0], bits, metric="jaccard").tolist() == [0, 1, np.float32(1 - 1 / 3)]
    assert kernels.distances(bits[1], bits, metric="jaccard").tolist() == [1, 1, 1]


@pytest.mark.parametrize("dims", [3, 16, 100, 1000])
def test_cosine_stays_within_its_range(dims):
    query, rows = random_rows(dims)
    both = np.vstack([query * 3, query * -0.1, rows])
    got = kernels.distances(query, both, metric="cosine")
    assert got.min() >= 0
    assert got.max() <= 2
    assert got[0] <= 3e-7
    assert got[1] >= 2 - 3e-7


def test_zero_vector_under_cosine_is_nan_as_in_pgvector():
    rows = np.array([[0, 0, 0], [1, 2, 3]], np.float32)
    assert np.isnan(kernels.distances(rows[1], rows, metric="cosine")).tolist() == [True, False]
    assert np.isnan(kernels.distances(rows[0], rows, metric="cosine")).tolist() == [True, True]
    assert np.isnan(kernels.distances(rows[1], rows.astype(np.float16), metric="cosine")).tolist() == [True, False]


@pytest.mark.parametrize("scale", [1e-30, 1e-22, 1e18, 1e25, 3e37])
def test_squares_outside_the_range_of_a_float_do_not_spoil_distances(scale):
    query, rows = random_rows(40)
    query, rows = query * np.float32(scale), rows * np.float32(scale)
    got = kernels.distances(query, rows, metric="cosine")
    np.testing.assert_allclose(got, exact(query, rows, Metric.COSINE), atol=1e-6)
    if scale > 1:
        got = kernels.distances(query, rows, metric="l2")
        np.testing.assert_allclose(got, exact(query, rows, Metric.L2), rtol=1e-6)


@pytest.mark.parametrize("dims", [1, 8, 17, 100])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_query_with_nan_or_infinity_is_refused(dims, bad):
    for at in {0, dims // 2, dims - 1}:
        query, rows = random_rows(dims)
        query[at] = bad
        with pytest.raises(InvalidVector, match=f"holds {bad} at dimension {at + 1}$"):
            kernels.distances(query, rows, metric="l2")


def test_query_too_large_for_float32_is_refused():
    with pytest.raises(InvalidVector):
        kernels.distances([1e300, 0], np.zeros((1, 2), np.float32), metric="l2")


@pytest.mark.parametrize("dtype", FLOAT_TYPES)
@pytest.mark.parametrize("dims", [1, 2, 7, 8, 15, 16, 17, 100])
def test_check_finite_finds_every_position(dims, dtype):
    rows = np.ones((3, dims), dtype)
    rows[0] = np.finfo(dtype).max
    rows[1] = -np.finfo(dtype).smallest_subnormal
    kernels.check_finite(rows)
    kernels.check_finite(rows[0])
    for bad in (np.nan, np.inf, -np.inf):
        for at in range(dims):
            spoiled = misaligned(rows)
            spoiled[2, at] = bad
            with pytest.raises(InvalidVector, match=rf"vector 2 holds {bad} at dimension {at + 1}$"):
                kernels.check_finite(spoiled)
    with pytest.raises(InvalidVector, match=r"the vector holds"):
        kernels.check_finite(spoiled[2])


def test_check_finite_names_the_first_bad_row():
    rows = np.ones((5, 4), np.float32)
    rows[4, 0] = rows[2, 3] = np.nan
    with pytest.raises(InvalidVector, match="vector 2 holds nan at dimension 4"):
        kernels.check_finite(rows)
    kernels.check_finite(np.empty((0, 4), np.float32))


@pytest.mark.parametrize("dtype", FLOAT_TYPES)
@pytest.mark.parametrize("dims", [1, 2, 3, 17, 384, 4096])
def test_norms_and_normalized_rows(dims, dtype):
    _, rows = random_rows(dims, dtype)
    lengths = np.sqrt((rows.astype(np.float64) ** 2).sum(axis=1))
    np.testing.assert_allclose(kernels.norms(misaligned(rows)), lengths, rtol=1e-7)
    normalized = kernels.normalize(rows[::-1])
    assert normalized.dtype == np.float32
    np.testing.assert_allclose(normalized, (rows / lengths[:, np.newaxis])[::-1], rtol=1e-6, atol=1e-7)


def test_normalize_reaches_the_ends_of_the_range():
    rows = np.array([[1e-40, 0], [0, -3e38], [3e38, 3e38]], np.float32)
    np.testing.assert_allclose(kernels.normalize(rows), [[1, 0], [0, -1], [0.5**0.5, 0.5**0.5]], rtol=1e-6)
    assert kernels.normalize(np.empty((0, 3), np.float32)).shape == (0, 3)


def test_results_beyond_float32_are_infinite():
    rows = np.full((1, 4), 3e38, np.float32)
    assert kernels.norms(rows).tolist() == [np.inf]
    assert kernels.distances(rows[0], rows, metric="ip").tolist() == [-np.inf]
    assert kernels.distances(rows[0], -rows, metric="l2").tolist() == [np.inf]
    assert kernels.distances(rows[0], -rows, metric="l1").tolist() == [np.inf]
    assert kernels.distances(rows[0], -rows, metric="cosine").tolist() == [2]


@pytest.mark.parametrize("bad", [0, np.nan, np.inf])
def test_normalize_refuses_rows_without_direction(bad):
    rows = np.ones((4, 3), np.float32)
    rows[2] = bad
    with pytest.raises(InvalidVector, match="vector 2 has no direction"):
        kernels.normalize(rows)


@pytest.mark.parametrize(("expected", "got"), [(3, 2), (3, 4), (1, 16_000)])
def test_other_dimensions_are_refused(expected, got):
    with pytest.raises(DimensionMismatch, match=f"has {got} dimensions, the collection has {expected}"):
        kernels.distances(np.ones(got, np.float32), np.ones((2, expected), np.float32), metric="l2")
    with pytest.raises(DimensionMismatch, match=f"has {got * 8} dimensions"):
        kernels.distances(np.ones(got, np.uint8), np.ones((2, expected), np.uint8), metric="hamming")


F32 = np.ones((2, 3), np.float32)
BITS = np.ones((2, 3), np.uint8)


@pytest.mark.parametrize(
    ("query", "rows", "metric", "out"),
    [
        (F32[0], F32, "euclid", None),
        (F32[0], F32, "hamming", None),
        (F32[0], BITS, "hamming", None),
        (BITS[0], BITS, "l2", None),
        (F32[0], F32.astype(np.float64), "l2", None),
        (F32[0], F32.astype(">f4"), "l2", None),
        (F32[0], F32[0], "l2", None),
        (F32, F32, "l2", None),
        (F32[0, :0], F32[:, :0], "l2", None),
        (F32[0], F32, "l2", np.empty(3, np.float32)),
        (F32[0], F32, "l2", np.empty(2, np.float64)),
        (F32[0], F32, "l2", np.empty(4, np.float32)[::2]),
        (F32[0], F32, "l2", np.broadcast_to(np.float32(0), 2)),
    ],
)
def test_wrong_arguments_are_refused(query, rows, metric, out):
    with pytest.raises(InvalidParameter):
        kernels.distances(query, rows, metric=metric, out=out)


def test_kernels_name_themselves():
    assert kernels.simd_name() in ("avx512", "avx2", "neon", "scalar", "numpy")
    assert kernels.simd_name() in kernels.simd_info()
    assert "\n" not in kernels.simd_info()
