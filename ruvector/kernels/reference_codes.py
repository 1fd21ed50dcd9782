"""The numpy twins of the kernels over quantized vectors: the same bits, sums in the same sixteen lanes."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_LANES = 16
_SCALES = (0.27, 0.31, 0.34, 0.38, 0.43)  # as in simd/codes_portable.h


def nibble_dots(rows: NDArray[np.uint8], low: NDArray[np.int8], high: NDArray[np.int8]) -> NDArray[np.int32]:
    """Return int32 [rows]: the sums of low nibbles times ``low`` and of high nibbles times ``high``."""
    wide = rows.astype(np.int32)
    return np.asarray((wide & 15) @ low.astype(np.int32) + (wide >> 4) @ high.astype(np.int32))


def byte_dots(left: NDArray[np.uint8], rights: NDArray[np.int8]) -> NDArray[np.int32]:
    """Return int32 [rights]: the inner products of ``left`` with each of ``rights``."""
    return np.asarray(rights.astype(np.int32) @ left.astype(np.int32))


def byte_tile(lefts: NDArray[np.uint8], rights: NDArray[np.int8]) -> NDArray[np.int32]:
    """Return int32 [4, 4]: the inner products of four with four."""
    return np.asarray(lefts.astype(np.int32) @ rights.astype(np.int32).T)


def scan_block(block: NDArray[np.uint8], lut: NDArray[np.uint8]) -> NDArray[np.uint16]:
    """Return uint16 [32]: for each code of a block [groups, 16] the sum of its entries in lut [groups, 16]."""
    codes = np.concatenate([block & 15, block >> 4], axis=1)
    return np.asarray(np.take_along_axis(lut, codes, axis=1).sum(axis=0, dtype=np.uint16))


def scan_near(
    block: NDArray[np.uint8], lut: NDArray[np.uint8], terms: NDArray[np.float32], factors: NDArray[np.float32]
) -> int:
    """Return 32 bits: which rows of a block may be nearer than a limit.

    terms: step, base, start, length and limit; factors [3, 32]: add, mul and error of each row.
    """
    step, base, start, length, limit = terms
    add, mul, error = factors
    product = step * scan_block(block, lut).astype(np.float32) + base
    least = ((start + add) + mul * product) - error * length
    return int((1 << np.flatnonzero(least < limit)).sum())


def hadamard(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the Walsh-Hadamard transform f32 [n] of values, not normalised; n is a power of two."""
    out = values.copy()
    half = 1
    while half < len(out):
        pairs = out.reshape(-1, 2, half)
        left, right = pairs[:, 0].copy(), pairs[:, 1].copy()
        pairs[:, 0], pairs[:, 1] = left + right, left - right
        half *= 2
    return out


def extent(values: NDArray[np.float32]) -> tuple[np.float32, np.float32]:
    """Return the largest absolute value and the sum of squares."""
    with np.errstate(over="ignore"):
        return np.abs(values).max(), _lane_sum(values * values)


def fit_nibbles(row: NDArray[np.float32]) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """Return the code uint8 [dims / 2] of a row and f32 square, step, length and product."""
    square = extent(row)[1]
    spread = np.sqrt(square / np.float32(len(row)))
    best, best_cosine = np.array([square, 0, 0, 0], dtype=np.float32), np.float32(-1)
    for scale in _SCALES:
        step = spread * np.float32(scale)
        if not step > 0:
            break
        numbers = _levels(row, np.float32(1) / step).astype(np.float32) - np.float32(7.5)
        product, length = _lane_sum(numbers * row), _lane_sum(numbers * numbers)
        cosine = product / np.sqrt(length)
        if cosine > best_cosine:
            best_cosine = cosine
            best = np.array([square, step, length * step * step, product * step], dtype=np.float32)
    levels = _levels(row, np.float32(1) / best[1] if best[1] > 0 else np.float32(0))
    low, high = levels.reshape(2, -1)
    return (low | high << 4).astype(np.uint8), best


def fit_bytes(row: NDArray[np.float32], *, inverse: float, limit: float) -> tuple[NDArray[np.int8], int]:
    """Return the code int8 [dims] of a row, which is row * inverse rounded and limited, and the sum of it."""
    offset, top = np.float32(limit) + np.float32(0.5), np.float32(2) * np.float32(limit) + np.float32(0.5)
    shifted = np.clip(row * np.float32(inverse) + offset, np.float32(0.5), top)
    code = shifted.astype(np.int32) - int(limit)
    return code.astype(np.int8), int(code.sum())


def _levels(row: NDArray[np.float32], inverse: np.float32) -> NDArray[np.int32]:
    return np.asarray(np.clip(row * inverse + np.float32(8), np.float32(0), np.float32(15)).astype(np.int32))


def _lane_sum(terms: NDArray[np.float32]) -> np.float32:
    """Add in sixteen lanes one after the other and the lanes pair by pair: floats depend on the order."""
    lanes = np.zeros(_LANES, dtype=np.float32)
    for part in np.pad(terms, (0, -len(terms) % _LANES)).reshape(-1, _LANES):
        lanes = lanes + part
    half = lanes[:8] + lanes[8:]
    quarter = half[:4] + half[4:]
    total: np.float32 = (quarter[0] + quarter[2]) + (quarter[1] + quarter[3])
    return total
