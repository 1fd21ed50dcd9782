"""Rows no one would wish for, through every way into the graph: answers are as near as those of an exact index."""

import numpy as np
import pytest
from index_cases import flat_twin, hnsw, ivf, vectors

from ruvector import kernels
from ruvector.errors import InvalidVector
from ruvector.index import KeyedIndex
from ruvector.values import ElementType, Metric

pytestmark = pytest.mark.skipif(not kernels.IS_COMPILED, reason="the numpy engine has one way in, and needs minutes")

ROWS = 4200  # enough for codes and for a build of all at once


def bulk(index, rows):
    index.upsert(range(len(rows)), rows)


def incremental(index, rows):
    for part in np.array_split(np.arange(len(rows)), max(1, len(rows) // 500)):
        index.upsert(part, rows[part])


def deferred(index, rows):
    for part in np.array_split(np.arange(len(rows)), 3):
        index.upsert(part, rows[part], defer=True)
    index.build()


def loose(index, rows):
    index.upsert(range(len(rows)), rows, defer=True)


WAYS = [bulk, incremental, deferred, loose]


@pytest.fixture(params=WAYS)
def fill(request):
    return request.param


def compare(index, rows, queries, *, k=10, ef=100, least=0.95, metric=None):
    """Every answer is ordered, complete and without repeats, and nearly all are as near as the exact ones."""
    truth = flat_twin(index)
    truth.upsert(range(len(rows)), rows)
    good = total = 0
    wanted = truth.search_many(queries, k)
    for (keys, found), (_, right) in zip(index.search_many(queries, k, ef=ef), wanted, strict=True):
        assert len(set(keys.tolist())) == len(found) == len(right)
        with np.errstate(invalid="ignore"):
            assert not (np.diff(found) < 0).any()
        # Equal or nearer, beyond what rounding may do: large numbers cancel, and infinity equals itself.
        slack = 1e-5 * np.abs(right[np.isfinite(right)]).max(initial=0) + 1e-30
        good += int((found <= right[-1] + slack).sum())
        total += len(right)
    assert good >= least * total


def test_many_equal_rows(fill):
    index = hnsw(64)
    rows = np.full((100_000, 64), 0.25, dtype=np.float32)
    fill(index, rows)
    assert index.stats()["twins"] == 99_999
    for k in (1, 10, 500):
        keys, distances = index.search(rows[0] + 1, k)
        assert len(set(keys.tolist())) == k
        assert np.allclose(distances, 8.0)
    assert index.delete(range(99_995)) == 99_995
    assert sorted(index.search(rows[0], 10)[0].tolist()) == [99_995, 99_996, 99_997, 99_998, 99_999]


@pytest.mark.parametrize("metric", [Metric.L2, Metric.IP, Metric.COSINE])
def test_few_distinct_vectors(fill, metric):
    index = hnsw(64, metric)
    rows = vectors(3, 64)[np.random.default_rng(0).integers(0, 3, ROWS)]
    fill(index, rows)
    assert index.stats()["twins"] == ROWS - 3
    for k, ef in ((10, 100), (2000, 1), (ROWS, 10)):
        compare(index, rows, vectors(5, 64, seed=1), k=k, ef=ef, least=1)


@pytest.mark.parametrize("metric", [Metric.L2, Metric.IP])
def test_rows_of_zeros(fill, metric):
    index = hnsw(64, metric)
    rows = vectors(ROWS, 64)
    rows[::2] = 0
    fill(index, rows)
    assert index.stats()["twins"] == ROWS // 2 - 1
    compare(index, rows, np.vstack([vectors(20, 64, seed=1), np.zeros((1, 64))]), k=5, ef=200, least=0.9)
    only = hnsw(64, metric)
    fill(only, np.zeros((ROWS, 64)))
    compare(only, np.zeros((ROWS, 64), dtype=np.float32), vectors(3, 64), least=1)


def test_rows_of_zeros_are_refused_under_cosine(fill):
    index = hnsw(64, Metric.COSINE)
    with pytest.raises(InvalidVector):
        fill(index, np.zeros((1500, 64)))
    assert len(index) == 0


@pytest.mark.parametrize(("dims", "count"), [(1, ROWS), (33, ROWS), (16_000, 40)])
def test_narrow_and_wide_rows(dims, count, fill):
    index = hnsw(dims)
    rows = vectors(count, dims)
    fill(index, rows)
    compare(index, rows, vectors(10, dims, seed=1), ef=300, least=0.9)
    for at in range(0, count, count // 10):
        assert index.search(rows[at], 1)[1][0] == pytest.approx(0, abs=1e-3)


def test_one_row_none_and_all_again(fill):
    index = hnsw(64)
    rows = vectors(ROWS, 64)
    assert len(index.search(rows[0], 5)[0]) == 0
    index.build()
    fill(index, rows[:0])
    fill(index, rows[:1])
    assert index.search(rows[0], 5)[0].tolist() == [0]
    for _ in range(2):
        fill(index, rows)
        assert len(index) == ROWS
        assert index.delete(range(ROWS)) == ROWS
        assert len(index) == len(index.search(rows[0], 5)[0]) == 0
        index.build()
        index.compact()
    fill(index, rows)
    compare(index, rows, rows[:20] + 0.1, ef=200)


def test_width_below_k_and_above_all(fill):
    index = hnsw(64)
    rows = vectors(ROWS, 64)
    fill(index, rows)
    asked = rows[:3] + 0.05
    for k, ef in ((20, 1), (300, 3), (10, 10_000), (ROWS + 7, 1)):
        compare(index, rows, asked, k=k, ef=ef, least=0.5 if k == 20 else 0.9)


@pytest.mark.parametrize("metric", [Metric.L2, Metric.IP, Metric.COSINE])
@pytest.mark.parametrize("size", [1e-25, 1e-12, 1e18, 1e30])
def test_huge_and_tiny_values(fill, size, metric):
    index = hnsw(64, metric)
    rows = (vectors(ROWS, 64) * size).astype(np.float32)
    fill(index, rows)
    asked = (vectors(10, 64, seed=1) * size).astype(np.float32)
    # Where products of two rows are beyond what a float holds nothing tells near from far, but rows are found.
    least = 0.9 if metric is Metric.L2 or 1e-18 <= size <= 1e18 else 0
    compare(index, rows, asked, ef=400, least=least)
    compare(index, rows, vectors(10, 64, seed=1), ef=400, least=least)


@pytest.mark.parametrize("metric", [Metric.L2, Metric.IP, Metric.COSINE])
def test_mixed_magnitudes(fill, metric):
    index = hnsw(64, metric)
    sizes = 10.0 ** np.random.default_rng(2).integers(-1, 2, (ROWS, 1))
    rows = (vectors(ROWS, 64) * sizes).astype(np.float32)
    fill(index, rows)
    compare(index, rows, rows[:40] * 1.001, ef=400, least=0.8)


@pytest.mark.parametrize("metric", [Metric.L2, Metric.IP])
def test_a_few_rows_too_long_for_codes(fill, metric):
    index = hnsw(64, metric)
    rows = vectors(ROWS, 64)
    rows[::500] *= 1e16
    fill(index, rows)
    compare(index, rows, vectors(20, 64, seed=1), ef=400)
    compare(index, rows, vectors(20, 64, seed=2) * 1e16, ef=400)


@pytest.mark.parametrize("element", [ElementType.F32, ElementType.F16])
@pytest.mark.parametrize("metric", [Metric.L2, Metric.COSINE])
def test_rows_hardly_apart(fill, metric, element):
    index = hnsw(64, metric, element=element)
    apart = 1e-6 if element is ElementType.F32 else 1e-3
    rows = (vectors(1, 64) + apart * vectors(ROWS, 64, seed=3)).astype(index_dtype(element))
    fill(index, rows)
    compare(index, rows, rows[:20].astype(np.float32), ef=400, least=0.9)


def index_dtype(element):
    return np.float16 if element is ElementType.F16 else np.float32


# Deferred rows are chosen by their codes alone until they are linked: there it would be worse.
@pytest.mark.parametrize("way", [bulk, incremental, deferred, None])
@pytest.mark.parametrize("metric", [Metric.L2, Metric.COSINE])
@pytest.mark.parametrize("radius", [1e-3, 1e-2, 1e-1])
def test_clusters_whose_members_codes_cannot_tell_apart(way, metric, radius):
    index = (hnsw if way else ivf)(64, metric)
    centres = vectors(8, 64)
    rows = np.tile(centres, (ROWS // 8, 1)) + radius * vectors(ROWS // 8 * 8, 64, seed=3)
    (way or bulk)(index, rows)
    compare(index, rows, centres + radius * vectors(8, 64, seed=4), ef=100, least=0.9)


@pytest.mark.parametrize("way", [incremental, loose])
@pytest.mark.parametrize("saved", [False, True])
def test_codes_are_used_again_once_no_row_is_too_long_for_them(way, saved):
    index = hnsw(64)
    rows = vectors(ROWS, 64)
    rows[::500] *= 1e16
    way(index, rows)
    assert rows_read_again(index) == 0  # all are compared by their rows
    if saved:
        index = KeyedIndex.from_sections(index.options, index.sections(), threads=1)
    long = range(0, ROWS, 500)
    index.delete(long[1:])
    index.compact()
    assert rows_read_again(index) == 0
    index.upsert(long[:1], vectors(1, 64, seed=5))
    index.compact()
    assert rows_read_again(index) > 0


def rows_read_again(index):
    before = index.stats()["reranked"]
    index.search(vectors(1, 64, seed=1)[0], 10, ef=40)
    return index.stats()["reranked"] - before
