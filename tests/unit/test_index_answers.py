import itertools

import numpy as np
import pytest
from index_cases import COMBINATIONS, exact, flat, flat_twin, hnsw, recall, scaled, vectors

from ruvector.values import ElementType, KeyKind, Metric

DIMS = [1, 2, 3, 7, 8, 15, 16, 17, 100]


@pytest.mark.parametrize("dims", DIMS)
@pytest.mark.parametrize(("metric", "element"), COMBINATIONS)
@pytest.mark.parametrize("make", [flat, hnsw])
def test_small_index_answers_as_the_definition(make, metric, element, dims):
    rows = vectors(60, dims, element=element, seed=dims)
    index = make(dims, metric, element=element)
    index.upsert(np.arange(60) * 3, rows)
    query = vectors(1, dims, element=element if element is ElementType.BIT else ElementType.F32, seed=99)[0]
    keys, distances = index.search(query, 60)
    right = exact(query, rows, metric)
    assert sorted(keys.tolist()) == [row * 3 for row in range(60)]
    np.testing.assert_allclose(distances, right[keys // 3], rtol=2e-5, atol=2e-6)
    assert (np.diff(distances) >= 0).all()


@pytest.mark.parametrize("dims", [4096, 16_000])
@pytest.mark.parametrize("element", [ElementType.F32, ElementType.F16])
def test_wide_vectors_are_indexed(dims, element):
    rows = vectors(40, dims, element=element)
    index = hnsw(dims, Metric.COSINE, element=element, ef_construction=40)
    index.upsert(range(40), rows)
    keys, distances = index.search(rows[11].astype(np.float32), 3)
    assert keys[0] == 11
    assert distances[0] == pytest.approx(0, abs=1e-5)


def test_64000_bits_are_indexed():
    rows = vectors(30, 64_000, element=ElementType.BIT)
    index = hnsw(64_000, Metric.HAMMING, element=ElementType.BIT)
    index.upsert(range(30), rows)
    keys, distances = index.search(rows[4], 2)
    assert keys[0] == 4
    assert distances[0] == 0
    assert distances[1] == exact(rows[4], rows, Metric.HAMMING)[keys[1]]


@pytest.mark.parametrize(("metric", "element"), COMBINATIONS)
def test_graph_finds_nearly_all_neighbours(metric, element):
    dims = 64 if element is ElementType.BIT else 24
    count = scaled(3000)
    rows = vectors(count, dims, element=element)
    queries = vectors(50, dims, element=ElementType.BIT if element is ElementType.BIT else ElementType.F32, seed=5)
    index = hnsw(dims, metric, element=element)
    index.upsert(np.arange(count), rows)
    truth = flat_twin(index)
    truth.upsert(np.arange(count), rows)
    assert recall(index.search_many(queries, 10, ef=120), truth.search_many(queries, 10)) >= 0.97


@pytest.mark.parametrize("k", [1, 9, 499, 500, 501, 5000])
@pytest.mark.parametrize("make", [flat, hnsw])
def test_fewer_rows_come_back_only_when_there_are_no_more(make, k):
    index = make(8)
    index.upsert(range(500), vectors(500, 8))
    keys, distances = index.search(np.zeros(8), k, ef=1)
    assert len(keys) == len(distances) == len(set(keys.tolist())) == min(k, 500)


def test_few_rows_are_scanned_and_exact():
    index = hnsw(32, scan_factor=10, m=2, ef_construction=2)
    rows = vectors(900, 32)
    index.upsert(range(900), rows)
    keys, _ = index.search(rows[3] * 0.9, 10, ef=90)
    assert keys.tolist() == np.argsort(exact(rows[3] * 0.9, rows, Metric.L2))[:10].tolist()


def test_wider_beam_never_finds_much_less():
    count = scaled(4000)
    rows = vectors(count, 32)
    index = hnsw(32)
    index.upsert(range(count), rows)
    truth = flat(32)
    truth.upsert(range(count), rows)
    queries = vectors(40, 32, seed=3)
    right = truth.search_many(queries, 10)
    found = [recall(index.search_many(queries, 10, ef=ef), right) for ef in (10, 40, 160, 1500)]
    assert found[-1] >= 0.999
    assert all(wider >= narrower - 0.01 for narrower, wider in itertools.pairwise(found))


@pytest.mark.parametrize("make", [flat, hnsw])
def test_empty_index_answers_nothing(make):
    for kind in KeyKind:
        keys, distances = make(3, key_kind=kind).search([1, 2, 3], 5)
        assert len(keys) == len(distances) == 0


def test_many_queries_answer_like_one_by_one():
    index = hnsw(12)
    index.upsert(range(2000), vectors(2000, 12))
    queries = vectors(30, 12, seed=8)
    for threads in (1, 3):
        for query, (keys, distances) in zip(queries, index.search_many(queries, 7, threads=threads), strict=True):
            alone = index.search(query, 7)
            assert keys.tolist() == alone[0].tolist()
            assert distances.tolist() == alone[1].tolist()


@pytest.mark.parametrize("value", [1e30, 3e38])
@pytest.mark.parametrize("metric", [Metric.L2, Metric.IP, Metric.COSINE, Metric.L1])
def test_overflow_is_infinite_and_never_nan(metric, value):
    rows = vectors(400, 4)
    rows[:50] = np.where(rows[:50] > 0, value, -value)
    index = hnsw(4, metric)
    index.upsert(range(400), rows)
    for query in (rows[0], rows[399]):
        keys, distances = index.search(query, 400)
        assert len(set(keys.tolist())) == 400
        assert not np.isnan(distances).any()


def test_strided_and_foreign_layouts_are_taken():
    rows = vectors(50, 6)
    index = flat(6)
    index.upsert(np.arange(100)[::2], np.asfortranarray(rows))
    index.upsert(np.arange(1, 101, 2), np.repeat(rows, 2, axis=1)[:, ::2].astype(np.float64))
    stored, found = index.vectors_of([0, 1, 7])
    assert found.all()
    assert (stored == rows[[0, 0, 3]]).all()
