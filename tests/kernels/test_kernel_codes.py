"""Every kernel over quantized vectors, of every instruction set this CPU runs, gives the bits of its numpy twin."""

import numpy as np
import pytest

from ruvector._ext import codes
from ruvector._ext.distance import simd_levels
from ruvector.kernels import reference_codes as reference

DIMS = (64, 128, 192, 256, 320, 384, 448, 832, 960, 1024)
BYTE_LIMIT = 63


@pytest.fixture(params=simd_levels())
def level(request):
    return request.param


def same_bits(left, right):
    left, right = np.asarray(left), np.asarray(right)
    assert left.dtype == right.dtype
    assert left.shape == right.shape
    assert left.tobytes() == right.tobytes()


def rows_of_all_kinds(dims):
    """Rows as they come, and those where scales, limits and signs are at their ends."""
    rng = np.random.default_rng(dims)
    spike = np.zeros(dims, dtype=np.float32)
    spike[dims // 3] = -2.5
    yield from rng.normal(size=(3, dims)).astype(np.float32)
    yield from (rng.normal(size=(3, dims)) * [[1e-18], [1e-3], [1e12]]).astype(np.float32)
    yield rng.standard_cauchy(dims).astype(np.float32)
    yield spike
    yield np.ones(dims, dtype=np.float32)
    yield np.zeros(dims, dtype=np.float32)
    yield np.full(dims, -0.0, dtype=np.float32)


def test_levels_name_their_kernels(level):
    wanted = "avx2" if level == "avx512-table" else level
    assert codes.name_of(level) in (wanted, "avx2" if level == "avx512" else wanted)  # AVX-512 without VNNI


@pytest.mark.parametrize("dims", DIMS)
@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 8, 13, 33])
def test_nibble_dots(level, dims, count):
    rng = np.random.default_rng(count)
    rows = rng.integers(0, 256, (count, dims // 2), dtype=np.uint8)
    low, high = rng.integers(-127, 128, (2, dims // 2), dtype=np.int8)
    same_bits(codes.nibble_dots(rows, low, high, level=level), reference.nibble_dots(rows, low, high))


@pytest.mark.parametrize("dims", DIMS)
def test_nibble_dots_of_the_largest_values(level, dims):
    rows = np.full((5, dims // 2), 255, dtype=np.uint8)
    for value in (-127, 127):
        query = np.full(dims // 2, value, dtype=np.int8)
        same_bits(codes.nibble_dots(rows, query, query, level=level), np.full(5, value * 15 * dims, dtype=np.int32))


@pytest.mark.parametrize("dims", DIMS)
@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 8, 13])
def test_byte_dots(level, dims, count):
    rng = np.random.default_rng(count)
    left = rng.integers(0, 128, dims, dtype=np.uint8)
    rights = rng.integers(-BYTE_LIMIT, BYTE_LIMIT + 1, (count, dims), dtype=np.int8)
    same_bits(codes.byte_dots(left, rights, level=level), reference.byte_dots(left, rights))


@pytest.mark.parametrize("dims", DIMS)
def test_byte_tile(level, dims):
    rng = np.random.default_rng(dims)
    lefts = rng.integers(0, 128, (4, dims), dtype=np.uint8)
    rights = rng.integers(-BYTE_LIMIT, BYTE_LIMIT + 1, (4, dims), dtype=np.int8)
    same_bits(codes.byte_tile(lefts, rights, level=level), reference.byte_tile(lefts, rights))


@pytest.mark.parametrize("dims", DIMS)
@pytest.mark.parametrize("value", [-BYTE_LIMIT, BYTE_LIMIT])
def test_byte_products_of_the_largest_values(level, dims, value):
    lefts, rights = np.full((4, dims), 127, dtype=np.uint8), np.full((4, dims), value, dtype=np.int8)
    wanted = np.full((4, 4), 127 * value * dims, dtype=np.int32)
    same_bits(codes.byte_tile(lefts, rights, level=level), wanted)
    same_bits(codes.byte_dots(lefts[0], rights, level=level), wanted[0])


@pytest.mark.parametrize("groups", [4, 8, 12, 48, 208, 256])
def test_scan_block(level, groups):
    rng = np.random.default_rng(groups)
    block = rng.integers(0, 256, (groups, 16), dtype=np.uint8)
    for lut in (rng.integers(0, 256, (groups, 16), dtype=np.uint8), np.full((groups, 16), 255, dtype=np.uint8)):
        same_bits(codes.scan_block(block, lut, level=level), reference.scan_block(block, lut))


@pytest.mark.parametrize("groups", [4, 8, 12, 48, 208, 256])
def test_scan_near(level, groups):
    rng = np.random.default_rng(groups)
    for _ in range(20):
        block, lut = rng.integers(0, 256, (2, groups, 16), dtype=np.uint8)
        factors = rng.normal(size=(3, 32)).astype(np.float32) * np.float32([[5], [-1], [0.3]])
        factors[:, rng.integers(0, 32, 3)] = np.float32([[np.inf], [0], [0]])  # lanes without a row
        terms = np.float32([0.01, -1.2 * groups, rng.normal(), 2, rng.normal()])
        for limit in (terms[4], np.inf):  # infinite before there are enough rows
            terms[4] = limit
            wanted = reference.scan_near(block, lut, terms, factors)
            assert codes.scan_near(block, lut, terms, factors, level=level) == wanted


@pytest.mark.parametrize("count", [16, 32, 64, 128, 256, 512, 1024, 8192])
def test_hadamard(level, count):
    for row in rows_of_all_kinds(count):
        same_bits(codes.hadamard(row, level=level), reference.hadamard(row))


def test_hadamard_twice_is_the_row_times_its_length():
    row = np.random.default_rng(1).normal(size=512).astype(np.float32)
    np.testing.assert_allclose(reference.hadamard(reference.hadamard(row)) / 512, row, atol=1e-5)


@pytest.mark.parametrize("dims", [1, 16, 48, 77, 104, *DIMS])
def test_extent(level, dims):
    for row in rows_of_all_kinds(dims):
        for got, want in zip(codes.extent(row, level=level), reference.extent(row), strict=True):
            same_bits(got, want)
        assert reference.extent(row)[1] == pytest.approx(float((row.astype(np.float64) ** 2).sum()), rel=1e-5)


@pytest.mark.parametrize("dims", [8, 72, 104, 1000, *DIMS])
def test_fit_nibbles(level, dims):
    for row in rows_of_all_kinds(dims):
        code, fit = codes.fit_nibbles(row, level=level)
        wanted_code, wanted_fit = reference.fit_nibbles(row)
        same_bits(code, wanted_code)
        same_bits(fit, wanted_fit)


@pytest.mark.parametrize("dims", DIMS)
def test_nibbles_keep_the_direction(dims):
    row = np.random.default_rng(dims).normal(size=dims).astype(np.float32)
    code, (square, step, length, product) = reference.fit_nibbles(row)
    decoded = (np.concatenate([code & 15, code >> 4]) - 7.5) * float(step)
    assert length == pytest.approx(float(decoded @ decoded), rel=1e-4)
    assert product == pytest.approx(float(decoded @ row), rel=1e-4)
    assert product / np.sqrt(float(square) * float(length)) > 0.99


@pytest.mark.parametrize("dims", [*DIMS, 8, 17])
@pytest.mark.parametrize("limit", [63.0, 127.0])
def test_fit_bytes(level, dims, limit):
    for row in rows_of_all_kinds(dims):
        largest = np.abs(row).max()
        inverses = [0.0, 1.0] if largest == 0 else [np.float32(limit) / largest, np.float32(3 * limit) / largest]
        for inverse in map(float, inverses):
            code, total = codes.fit_bytes(row, inverse=inverse, limit=limit, level=level)
            wanted_code, wanted_total = reference.fit_bytes(row, inverse=inverse, limit=limit)
            same_bits(code, wanted_code)
            assert total == wanted_total
            assert np.abs(code.astype(int)).max() <= limit
