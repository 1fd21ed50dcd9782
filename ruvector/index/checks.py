"""What users give, checked and turned into the bytes an engine holds."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import numpy.typing as npt

from ruvector import kernels, limits
from ruvector.errors import DimensionMismatch, InvalidParameter, InvalidVector
from ruvector.index.protocol import Bytes, Rows, Vectors, VectorsIn
from ruvector.sparse import SparseVectors
from ruvector.values import ElementType, IndexKind, IndexOptions, KeyKind, Metric

DTYPES: dict[ElementType, type[np.generic]] = {
    ElementType.F32: np.float32,
    ElementType.F16: np.float16,
    ElementType.BIT: np.uint8,
}
_DIMS_MAX = {
    ElementType.F32: limits.DIMS_MAX,
    ElementType.F16: limits.DIMS_MAX,
    ElementType.BIT: limits.BITS_MAX,
    ElementType.SPARSE: limits.SPARSE_DIMS_MAX,
}


def check_options(options: IndexOptions) -> None:
    """Raise InvalidParameter when an index cannot be made with these options."""
    _one_of("metric", options.metric, Metric)
    _one_of("index kind", options.kind, IndexKind)
    _one_of("element type", options.element, ElementType)
    _one_of("key kind", options.key_kind, KeyKind)
    is_bit, is_sparse = options.element is ElementType.BIT, options.element is ElementType.SPARSE
    if options.metric.is_binary != is_bit:
        raise InvalidParameter(
            f"metric {options.metric} does not compare {options.element} vectors",
            hint="hamming and jaccard compare bit vectors; l2, ip, cosine and l1 compare all others.",
        )
    if is_sparse != (options.kind is IndexKind.INVERTED):
        raise InvalidParameter(
            f"an index of kind {options.kind} does not hold {options.element} vectors",
            hint="Sparse vectors need kind inverted; f32, f16 and bit vectors need hnsw or flat.",
        )
    check_range("dims", options.dims, low=1, high=_DIMS_MAX[options.element])
    check_range("m", options.m, low=limits.M_MIN, high=limits.M_MAX)
    check_range("ef_construction", options.ef_construction, low=1, high=limits.EF_CONSTRUCTION_MAX)
    check_range("ef_search", options.ef_search, low=1, high=limits.EF_MAX)
    check_range("seed", options.seed, low=0, high=2**64 - 1)


def _one_of(name: str, value: object, kinds: type[Metric | IndexKind | ElementType | KeyKind]) -> None:
    if not isinstance(value, kinds):
        raise InvalidParameter(f'unknown {name} "{value}"', hint="Use one of " + ", ".join(kinds) + ".")


def check_range(name: str, value: int, *, low: int, high: int) -> int:
    """Return the whole number or raise InvalidParameter when it is none or outside its range."""
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, (int, np.integer)):
        raise InvalidParameter(f"{name} must be a whole number, it is {value!r}")
    if not low <= value <= high:
        raise InvalidParameter(f"{name} is {value}", hint=f"Give a number from {low} to {high}.")
    return int(value)


def worker_count(threads: int) -> int:
    """Return the number of workers; 0 means the cores this process may use."""
    check_range("threads", threads, low=0, high=limits.THREADS_MAX)
    if threads:
        return threads
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(cores, limits.THREADS_MAX)


def usable_rows(vectors: Vectors, *, metric: Metric) -> npt.NDArray[np.bool_]:
    """Tell which rows of [n, dims] an index takes: finite, and under cosine not zero; bool [n]."""
    if isinstance(vectors, SparseVectors):
        return np.asarray(vectors.lengths > 0) if metric is Metric.COSINE else np.ones(len(vectors), dtype=np.bool_)
    if metric.is_binary:
        return np.ones(len(vectors), dtype=np.bool_)
    good = np.asarray(np.isfinite(vectors).all(axis=1))
    return good & vectors.any(axis=1) if metric is Metric.COSINE else good


def rows_differ(left: Vectors, right: Vectors) -> npt.NDArray[np.bool_]:
    """Tell which rows are not equal to the row in the same place; both of one element type and width."""
    if isinstance(left, SparseVectors) and isinstance(right, SparseVectors):
        return left.differ(right)
    return np.asarray((np.asarray(left) != np.asarray(right)).any(axis=1))


def row_bytes(vectors: VectorsIn, *, options: IndexOptions, count: int) -> Rows:
    """Return ``count`` vectors as an engine stores them: uint8 [n, row bytes], or SparseVectors.

    Raises:
        InvalidParameter: not two axes, or another number of rows than ``count``.
        DimensionMismatch, InvalidVector: see the errors.
    """
    is_sparse = options.element is ElementType.SPARSE
    rows = _sparse(vectors, options) if is_sparse else _matrix(vectors, options=options, dtype=DTYPES[options.element])
    if len(rows) != count:
        raise InvalidParameter(f"there are {count} keys and {len(rows)} vectors")
    return rows if isinstance(rows, SparseVectors) else _as_bytes(rows)


def query_bytes(queries: VectorsIn, *, options: IndexOptions) -> Rows:
    """Return queries [q, dims] as an engine compares them: f32 for all numbers, packed bits for bits; SparseVectors."""
    if options.element is ElementType.SPARSE:
        return _sparse(queries, options)
    is_bit = options.element is ElementType.BIT
    return _as_bytes(_matrix(queries, options=options, dtype=np.uint8 if is_bit else np.float32))


def one_query(query: VectorsIn, *, options: IndexOptions) -> Vectors:
    """Return one query as queries: [dims] as [1, dims]; sparse vectors are a table already and must be one row."""
    if options.element is ElementType.SPARSE:
        rows = _sparse(query, options)
        if len(rows) != 1:
            raise InvalidParameter(f"one query is needed, these are {len(rows)}")
        return rows
    given = np.asarray(query)
    if given.ndim != 1:
        raise InvalidParameter(f"a query must have one axis, this one has {given.ndim}")
    return given[np.newaxis]


def _sparse(vectors: VectorsIn, options: IndexOptions) -> SparseVectors:
    rows = SparseVectors.of(vectors, dims=options.dims)
    if options.metric is Metric.COSINE and not (directed := rows.lengths > 0).all():
        raise InvalidVector(f"vector {int(np.argmin(directed))} is all zeros and has no direction")
    return rows


def _as_bytes(rows: npt.NDArray[Any]) -> Bytes:
    out: Bytes = np.ascontiguousarray(rows).view(np.uint8).reshape(len(rows), rows.shape[1] * rows.itemsize)
    return out


def _matrix(vectors: VectorsIn, *, options: IndexOptions, dtype: type[np.generic]) -> npt.NDArray[Any]:
    try:
        given = np.asarray(vectors)
    except ValueError as error:
        raise InvalidVector(f"the vectors do not form a table: {error}") from None
    if given.ndim != 2 and given.size == 0:
        given = np.zeros((0, _columns(options)), dtype=dtype)
    if given.ndim != 2:
        raise InvalidParameter(f"vectors must have two axes, these have {given.ndim}")
    if given.shape[1] != _columns(options):
        bits = 8 if options.element is ElementType.BIT else 1
        raise DimensionMismatch(expected=options.dims, got=given.shape[1] * bits)
    if options.element is ElementType.BIT:
        return _bits(given, options=options)
    if given.dtype.kind not in "fiu":
        raise InvalidVector(f"vectors must be numbers, these are {given.dtype}")
    rows = given
    if given.dtype != dtype:
        with np.errstate(over="ignore"):
            rows = given.astype(dtype)  # a number too large becomes infinite and is refused next
    kernels.check_finite(rows)
    if options.metric is Metric.COSINE and not (directed := rows.any(axis=1)).all():
        raise InvalidVector(f"vector {int(np.argmin(directed))} is all zeros and has no direction")
    return rows


def _columns(options: IndexOptions) -> int:
    return (options.dims + 7) // 8 if options.element is ElementType.BIT else options.dims


def _bits(rows: npt.NDArray[Any], *, options: IndexOptions) -> npt.NDArray[np.uint8]:
    if rows.dtype != np.uint8:
        raise InvalidVector(f"bit vectors must be packed into uint8, these are {rows.dtype}")
    spare = -options.dims % 8
    if spare and (rows[:, -1] & ((1 << spare) - 1)).any():
        raise InvalidVector(
            f"bits past bit {options.dims} are set",
            hint="numpy.packbits leaves them zero; the first bit is the highest.",
        )
    return rows
