"""Sparse rows and exact answers shared by the tests of sparse vectors."""

from types import SimpleNamespace

import numpy as np
from index_cases import FLOAT_METRICS, exact

from ruvector import SparseVectors
from ruvector.index import KeyedIndex
from ruvector.values import ElementType, IndexKind, IndexOptions, Metric

SPARSE_METRICS = FLOAT_METRICS


def sparse_options(dims=50, metric=Metric.L2, **more):
    return IndexOptions(dims=dims, metric=metric, kind=IndexKind.INVERTED, element=ElementType.SPARSE, **more)


def sparse_index(dims=50, metric=Metric.L2, **more):
    return KeyedIndex(sparse_options(dims, metric, **more), threads=1)


def packed(rows):
    """SparseVectors of a dense table."""
    rows = np.asarray(rows, dtype=np.float32)
    ends = np.cumsum([0, *(rows != 0).sum(axis=1)])
    return SparseVectors(ends, np.nonzero(rows)[1], rows[rows != 0], rows.shape[1])


def dense(vectors):
    out = np.zeros((len(vectors), vectors.dims), dtype=np.float32)
    out[np.repeat(np.arange(len(vectors)), vectors.lengths), vectors.indices] = vectors.values
    return out


def csr(vectors):
    """What of a scipy matrix counts."""
    return SimpleNamespace(
        indptr=vectors.indptr, indices=vectors.indices, data=vectors.values, shape=(len(vectors), vectors.dims)
    )


def sparse_table(rows, dims=50, *, seed=0, share=0.1, whole=False):
    """A dense table with few elements; no row is all zeros."""
    rng = np.random.default_rng(seed)
    values = rng.integers(-3, 4, (rows, dims)) if whole else rng.normal(size=(rows, dims))
    table = np.where(rng.random((rows, dims)) < share, values, 0).astype(np.float32)
    table[~table.any(axis=1), rng.integers(0, dims)] = 1
    return table


def right(query, table, metric):
    """Distances in float64 from the definition; cosine clipped as the product clips it."""
    found = exact(query, table, metric)
    return np.clip(found, 0, 2) if metric is Metric.COSINE else found
