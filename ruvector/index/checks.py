"""What users give, checked and turned into the bytes an engine holds."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import numpy.typing as npt

from ruvector import kernels, limits
from ruvector.errors import DimensionMismatch, InvalidParameter, InvalidVector
from ruvector.index.protocol import Bytes
from ruvector.values import ElementType, IndexKind, IndexOptions, KeyKind, Metric

DTYPES: dict[ElementType, type[np.generic]] = {
    ElementType.F32: np.float32,
    ElementType.F16: np.float16,
    ElementType.BIT: np.uint8,
}


def check_options(options: IndexOptions) -> None:
    """Raise InvalidParameter when an index cannot be made with these options."""
    _one_of("metric", options.metric, Metric)
    _one_of("index kind", options.kind, IndexKind)
    _one_of("element type", options.element, ElementType)
    _one_of("key kind", options.key_kind, KeyKind)
    is_bit = options.element is ElementType.BIT
    if options.metric.is_binary != is_bit:
        raise InvalidParameter(
            f"metric {options.metric} does not compare {options.element} vectors",
            hint="hamming and jaccard compare bit vectors; l2, ip, cosine and l1 compare f32 and f16 vectors.",
        )
    check_range("dims", options.dims, low=1, high=limits.BITS_MAX if is_bit else limits.DIMS_MAX)
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


def usable_rows(vectors: npt.NDArray[Any], *, metric: Metric) -> npt.NDArray[np.bool_]:
    """Tell which rows of [n, dims] an index takes: finite, and under cosine not zero; bool [n]."""
    if metric.is_binary:
        return np.ones(len(vectors), dtype=np.bool_)
    good: npt.NDArray[np.bool_] = np.isfinite(vectors).all(axis=1)
    return good & vectors.any(axis=1) if metric is Metric.COSINE else good


def row_bytes(vectors: npt.ArrayLike, *, options: IndexOptions, count: int) -> Bytes:
    """Return ``count`` vectors as the bytes an engine stores: uint8 [n, row bytes].

    Raises:
        InvalidParameter: not two axes, or another number of rows than ``count``.
        DimensionMismatch, InvalidVector: see the errors.
    """
    rows = _matrix(vectors, options=options, dtype=DTYPES[options.element])
    if len(rows) != count:
        raise InvalidParameter(f"there are {count} keys and {len(rows)} vectors")
    return _as_bytes(rows)


def query_bytes(queries: npt.ArrayLike, *, options: IndexOptions) -> Bytes:
    """Return queries [q, dims] as the bytes an engine compares: f32 for all numbers, packed bits for bits."""
    is_bit = options.element is ElementType.BIT
    return _as_bytes(_matrix(queries, options=options, dtype=np.uint8 if is_bit else np.float32))


def _as_bytes(rows: npt.NDArray[Any]) -> Bytes:
    out: Bytes = np.ascontiguousarray(rows).view(np.uint8).reshape(len(rows), rows.shape[1] * rows.itemsize)
    return out


def _matrix(vectors: npt.ArrayLike, *, options: IndexOptions, dtype: type[np.generic]) -> npt.NDArray[Any]:
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
    with np.errstate(over="ignore"):
        rows = given.astype(dtype, copy=False)  # a number too large becomes infinite and is refused next
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
