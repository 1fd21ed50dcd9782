"""Vectors, metrics and exact answers shared by the tests of the index."""

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ruvector import kernels
from ruvector.index import KeyedIndex
from ruvector.values import ElementType, IndexKind, IndexOptions, KeyKind, Metric

FLOAT_METRICS = (Metric.L2, Metric.IP, Metric.COSINE, Metric.L1)
BIT_METRICS = (Metric.HAMMING, Metric.JACCARD)
COMBINATIONS = [
    *((metric, element) for metric in FLOAT_METRICS for element in (ElementType.F32, ElementType.F16)),
    *((metric, ElementType.BIT) for metric in BIT_METRICS),
]


def scaled(rows):
    """So many rows, or a quarter of them for the numpy engine, which is no faster than it needs to be."""
    return rows if kernels.IS_COMPILED else rows // 4


def options(dims=16, metric=Metric.L2, **more):
    return IndexOptions(dims=dims, metric=metric, **more)


def hnsw(dims=16, metric=Metric.L2, *, scan_factor=0, threads=1, **more):
    """A graph index that walks whenever it can, also where a scan would be cheaper."""
    return KeyedIndex(options(dims, metric, **more), threads=threads, scan_factor=scan_factor)


def ivf(dims=16, metric=Metric.L2, *, scan_factor=0, threads=1, **more):
    """Inverted lists that are searched whenever there are any, also where comparing all rows would be cheaper."""
    return KeyedIndex(options(dims, metric, kind=IndexKind.IVF, **more), threads=threads, scan_factor=scan_factor)


def flat(dims=16, metric=Metric.L2, **more):
    return KeyedIndex(options(dims, metric, kind=IndexKind.FLAT, **more))


def flat_twin(index):
    """An exact index with the same options."""
    return KeyedIndex(replace(index.options, kind=IndexKind.FLAT, key_kind=KeyKind.INT64))


def vectors(rows, dims, *, element=ElementType.F32, seed=0):
    rng = np.random.default_rng(seed)
    if element is ElementType.BIT:
        return np.packbits(rng.random((rows, dims)) < 0.4, axis=1)
    values = rng.normal(size=(rows, dims)).astype(np.float32)
    return values.astype(np.float16) if element is ElementType.F16 else values


def exact(query, rows, metric):
    """Distances in float64 straight from the definition, with pgvector's signs."""
    if metric in BIT_METRICS:
        left, right = np.unpackbits(query).astype(bool), np.unpackbits(rows, axis=1).astype(bool)
        if metric is Metric.HAMMING:
            return (left ^ right).sum(axis=1).astype(np.float64)
        either = (left | right).sum(axis=1)
        return np.where(either > 0, 1 - (left & right).sum(axis=1) / np.maximum(either, 1), 1.0)
    query, rows = query.astype(np.float64), rows.astype(np.float64)
    if metric is Metric.L2:
        return np.sqrt(((rows - query) ** 2).sum(axis=1))
    if metric is Metric.L1:
        return np.abs(rows - query).sum(axis=1)
    if metric is Metric.IP:
        return -(rows @ query)
    return 1 - (rows @ query) / np.linalg.norm(rows, axis=1) / np.linalg.norm(query)


def recall(answers, truth):
    """Share of the answers that are as near as the k-th true one: ties count, whichever of them was returned."""
    good = total = 0
    for (_, found), (_, right) in zip(answers, truth, strict=True):
        limit = right[-1] + abs(right[-1]) * 1e-5 + 1e-6
        good += int((found <= limit).sum())
        total += len(right)
    return good / total


def shared_data(name):
    """The folder of a data set that is not part of the project; skips the test when it is not there."""
    root = Path(__file__).resolve().parents[1]
    folder = Path(os.environ.get("RUVECTOR_SHARED_DATA", root.parent / "shared" / "data")) / name
    if not folder.is_dir():
        pytest.skip(f"the data set {name} is not here: set RUVECTOR_SHARED_DATA")
    return folder


def unit(rows):
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def clustered(rows, dims, *, clusters=60, seed=0, spread=0.35):
    """Rows around a few centres, as embeddings of documents lie."""
    rng = np.random.default_rng(seed)
    centers = np.random.default_rng(1234).normal(size=(clusters, dims))
    values = centers[rng.integers(0, clusters, rows)] + spread * rng.normal(size=(rows, dims))
    return values.astype(np.float32)


def check_answer(answer, query, rows, *, metric=Metric.L2):
    """An answer may name every row (key to vector) once, with its distance, nearest first."""
    keys, distances = answer
    keys = list(keys)
    assert len(keys) == len(set(keys)) == len(distances)
    assert (np.diff(distances) >= 0).all()
    if keys:
        wanted = exact(query, np.array([rows[key] for key in keys]), metric)
        np.testing.assert_allclose(distances, wanted, rtol=1e-4, atol=1e-4)


def unreached(sections):
    """The slots of nodes with rows that no way along the lowest level leads to, from where searches begin."""
    links, states = sections["links"], sections["states"]
    alive = states == 1
    alive[sections["twin_heads"][states == 3]] = True
    seen = np.zeros(len(states), dtype=bool)
    entry = int(sections["head"][0])
    front = np.array([entry] if entry >= 0 else [], dtype=np.int64)
    while len(front):
        seen[front] = True
        around = np.unique(links[front])
        around = around[around < len(states)]
        front = around[~seen[around]]
    return np.flatnonzero(alive & ~seen)
