"""The compiled kernels behind checks of shape and value."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ruvector._ext import distance
from ruvector._ext.copyformat import decode, decode_vector, page_crcs
from ruvector.kernels import checks
from ruvector.values import Metric

__all__ = [
    "check_finite",
    "decode",
    "decode_vector",
    "distances",
    "normalize",
    "norms",
    "page_crcs",
    "simd_info",
    "simd_name",
]


def distances(
    query: ArrayLike, rows: NDArray[Any], *, metric: Metric | str, out: NDArray[np.float32] | None = None
) -> NDArray[np.float32]:
    """Return the distance of query[dims] to each of rows[n, dims] as float32[n], with pgvector's signs.

    Rows are float32 or float16, for hamming and jaccard uint8[n, bytes] of packed bits; they may lie at any address
    and any distance apart. A zero vector under cosine gives NaN, as in pgvector. The interpreter lock is released.
    Raises InvalidVector for NaN or infinity in the query, DimensionMismatch, InvalidParameter.
    """
    metric = checks.metric_of(metric)
    rows = checks.rows_of(rows, metric=metric)
    query = checks.query_of(query, rows, metric=metric)
    out = checks.out_of(out, rows)
    if metric.is_binary:
        if len(rows):
            distance.scan_bits(query, _bytes_of(rows), metric=metric.value, out=out)
        return out
    check_finite(query)
    if len(rows):
        half = rows.dtype == np.float16
        distance.scan_floats(query, _bytes_of(rows), metric=metric.value, half=half, out=out)
    return out


def check_finite(vectors: NDArray[Any]) -> None:
    """Raise InvalidVector naming the first of vectors[n, dims], or [dims], that holds NaN or infinity."""
    rows = checks.float_rows_of(np.atleast_2d(vectors))
    if not len(rows):
        return
    row = distance.first_nonfinite(_bytes_of(rows), half=rows.dtype == np.float16)
    if row >= 0:
        checks.refuse_nonfinite(rows[row], row=None if vectors.ndim == 1 else row)


def norms(rows: NDArray[Any]) -> NDArray[np.float32]:
    """Return the length of each of rows[n, dims] as float32[n], summed in double precision."""
    rows = checks.float_rows_of(rows)
    out = np.empty(len(rows), np.float32)
    if len(rows):
        distance.fill_norms(_bytes_of(rows), half=rows.dtype == np.float16, out=out)
    return out


def normalize(rows: NDArray[Any]) -> NDArray[np.float32]:
    """Return a float32 copy of rows[n, dims] with rows of length 1; InvalidVector names a row without direction."""
    rows = checks.float_rows_of(rows)
    out = np.empty(rows.shape, np.float32)
    if len(rows):
        row = distance.fill_normalized(_bytes_of(rows), half=rows.dtype == np.float16, out=out)
        if row >= 0:
            checks.refuse_directionless(row)
    return out


def simd_name() -> str:
    """Return the instruction set in use: avx512, avx2, neon or scalar."""
    return distance.simd_name()


def simd_info() -> str:
    """Return one line naming the kernels in use and what the CPU offers."""
    return f"kernels {distance.simd_name()}; cpu offers {distance.simd_features()}"


def _bytes_of(rows: NDArray[Any]) -> NDArray[np.uint8]:
    """View rows as bytes without a copy where each row is contiguous."""
    if rows.strides[1] != rows.itemsize:
        rows = rows.copy(order="C")
    return rows.view(np.uint8)
