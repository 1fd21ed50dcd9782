"""The numpy twin of the compiled kernels: same names, same checks, sums in double precision."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ruvector.kernels import checks
from ruvector.kernels.reference_copy import decode, decode_vector, page_crcs
from ruvector.limits import REFERENCE_CHUNK_BYTES
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
    """Return the distance of query[dims] to each of rows[n, dims] as float32[n]; see kernels.compiled.distances."""
    metric = checks.metric_of(metric)
    rows = checks.rows_of(rows, metric=metric)
    query = checks.query_of(query, rows, metric=metric)
    out = checks.out_of(out, rows)
    if not metric.is_binary:
        check_finite(query)
        query = query.astype(np.float64)
    pair = _bit_distances if metric.is_binary else _float_distances
    step = max(1, REFERENCE_CHUNK_BYTES // (rows.shape[1] * 8))
    # Values beyond float32 become infinite and a zero vector under cosine NaN, silently, as in C.
    with np.errstate(all="ignore"):
        for start in range(0, len(rows), step):
            chunk = rows[start : start + step]
            out[start : start + step] = pair(query, chunk, metric)
    return out


def _float_distances(query: NDArray[np.float64], rows: NDArray[Any], metric: Metric) -> NDArray[np.float64]:
    wide = rows.astype(np.float64)
    if metric is Metric.L2:
        # A difference, not |q|^2 - 2qr + |r|^2: that would lose the digits of close neighbours.
        wide -= query
        return np.asarray(np.sqrt(np.einsum("ij,ij->i", wide, wide)))
    if metric is Metric.L1:
        wide -= query
        return np.asarray(np.abs(wide, out=wide).sum(axis=1))
    products = np.einsum("ij,j->i", wide, query)
    if metric is Metric.IP:
        return np.asarray(-products)
    lengths = np.sqrt(np.einsum("ij,ij->i", wide, wide)) * np.sqrt(query @ query)
    return np.asarray(1 - np.clip(products / lengths, -1, 1))


def _bit_distances(query: NDArray[np.uint8], rows: NDArray[np.uint8], metric: Metric) -> NDArray[np.float64]:
    if metric is Metric.HAMMING:
        return _popcount(rows ^ query)
    common = _popcount(rows & query)
    either = _popcount(rows | query)
    return np.asarray(1 - np.divide(common, either, out=np.zeros_like(common), where=either > 0))


def _popcount(rows: NDArray[np.uint8]) -> NDArray[np.float64]:
    return np.asarray(np.unpackbits(rows, axis=1).sum(axis=1, dtype=np.float64))


def check_finite(vectors: NDArray[Any]) -> None:
    """Raise InvalidVector naming the first of vectors[n, dims], or [dims], that holds NaN or infinity."""
    rows = checks.float_rows_of(np.atleast_2d(vectors))
    bad = np.flatnonzero(~np.isfinite(rows).all(axis=1))
    if len(bad):
        row = int(bad[0])
        checks.refuse_nonfinite(rows[row], row=None if vectors.ndim == 1 else row)


def norms(rows: NDArray[Any]) -> NDArray[np.float32]:
    """Return the length of each of rows[n, dims] as float32[n], summed in double precision."""
    lengths = _norms_double(checks.float_rows_of(rows))
    # Lengths beyond float32 become infinite, silently, as in C.
    with np.errstate(over="ignore"):
        return lengths.astype(np.float32)


def normalize(rows: NDArray[Any]) -> NDArray[np.float32]:
    """Return a float32 copy of rows[n, dims] with rows of length 1; InvalidVector names a row without direction."""
    rows = checks.float_rows_of(rows)
    lengths = _norms_double(rows)
    bad = np.flatnonzero(~((lengths > 0) & np.isfinite(lengths)))
    if len(bad):
        checks.refuse_directionless(int(bad[0]))
    return (rows.astype(np.float64) / lengths[:, np.newaxis]).astype(np.float32)


def _norms_double(rows: NDArray[Any]) -> NDArray[np.float64]:
    wide = rows.astype(np.float64)
    with np.errstate(all="ignore"):
        return np.asarray(np.sqrt(np.einsum("ij,ij->i", wide, wide)))


def simd_name() -> str:
    """Return "numpy"."""
    return "numpy"


def simd_info() -> str:
    """Return one line naming the kernels in use."""
    return "kernels numpy (RUVECTOR_KERNELS=numpy); cpu features unused"
