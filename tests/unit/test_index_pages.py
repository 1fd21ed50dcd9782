"""Searches that go on: pages without repeats, in order, to the last row, while rows come and go; and max_distance."""

import threading

import numpy as np
import pytest
from index_cases import clustered, exact, flat, hnsw, ivf, scaled, vectors
from sparse_cases import packed, sparse_index, sparse_table

from ruvector.errors import Cancelled, DimensionMismatch, InvalidParameter, InvalidVector
from ruvector.index import Index, Plan
from ruvector.kernels import IS_COMPILED
from ruvector.values import ElementType, Metric

SIZES = (1, 10, 7, 100, 600)


def all_pages(pages, sizes=SIZES):
    """Turn pages until one is short; keys and distances of each."""
    out = []
    while True:
        size = sizes[min(len(out), len(sizes) - 1)]
        keys, distances = pages.next(size)
        assert len(keys) == len(distances) <= size
        assert (np.diff(distances) >= 0).all()
        out.append((list(keys), distances))
        if len(keys) < size:
            return out


def recalls(pages, truth):
    """For every page the share of the nearest rows that were given by then."""
    given = []
    for keys, _ in pages:
        given += keys
        yield len(set(given) & set(truth[: len(given)])) / len(given) if given else 1.0


@pytest.mark.parametrize(
    ("make", "metric", "element"),
    [
        (hnsw, "l2", "f32"), (hnsw, "ip", "f32"), (hnsw, "cosine", "f16"), (hnsw, "l1", "f32"),
        (hnsw, "hamming", "bit"), (ivf, "l2", "f32"), (flat, "cosine", "f32"),
    ],
)  # fmt: skip
def test_pages_hold_every_row_once_nearest_first(make, metric, element):
    count = scaled(4000)
    element = ElementType(element)
    rows = vectors(count, 40, element=element) if element is ElementType.BIT else clustered(count, 40)
    index = make(40, Metric(metric), element=element)
    index.upsert(np.arange(count), rows)
    held = index.vectors_of(np.arange(count))[0]
    for seed in range(3):
        query = vectors(1, 40, element=element, seed=50 + seed)[0] if element is ElementType.BIT else clustered(
            1, 40, seed=50 + seed
        )[0]  # fmt: skip
        apart = exact(query, held, Metric(metric))
        with index.pages(query) as pages:
            given = all_pages(pages)
        keys = [key for page, _ in given for key in page]
        assert len(keys) == len(set(keys)) == count
        np.testing.assert_allclose(np.concatenate([each for _, each in given]), apart[keys], rtol=2e-3, atol=2e-3)
        so_far = 0
        for page, _ in given:
            so_far += len(page)
            limit = np.sort(apart)[so_far - 1]
            near = (apart[keys[:so_far]] <= limit + abs(limit) * 1e-3).mean()
            assert near >= (0.9 if so_far > 10 else 0.6)


@pytest.mark.skipif(not IS_COMPILED, reason="the numpy engine starts again")
def test_a_walk_goes_on_instead_of_starting_again():
    index = hnsw(32)
    index.upsert(np.arange(20_000), clustered(20_000, 32))
    query = clustered(1, 32, seed=9)[0]

    def compared(work):
        before = index.stats()["compared"]
        work()
        return index.stats()["compared"] - before

    def paged():
        with index.pages(query) as pages:
            for _ in range(20):
                pages.next(50)

    again = compared(lambda: [index.search(query, k) for k in range(50, 1001, 50)])
    once = compared(lambda: index.search(query, 1000))
    went_on = compared(paged)
    assert went_on < 1.3 * once
    assert went_on < again / 5


def test_pages_under_filters_and_keys():
    count = scaled(6000)
    index = Index(24, m=8, ef_construction=60)
    rows = clustered(count, 24)
    number = np.arange(count) % 100
    index.add(np.arange(count), rows, attributes={"number": number})
    query = clustered(1, 24, seed=5)[0]
    apart = exact(query, rows, Metric.L2)
    for condition, passing in (
        ({"number": {"$lt": 90}}, number < 90), ({"number": {"$lt": 40}}, number < 40), ({"number": 3}, number == 3),
        ({"number": -1}, number < 0), ({}, number >= 0), ({"$not": {"number": 3}}, number != 3),
    ):  # fmt: skip
        for plan in ("auto", "scan", "hop", "walk"):
            with index.pages(query, filter=condition, plan=plan) as pages:
                given = all_pages(pages)
            keys = [key for page, _ in given for key in page]
            assert len(keys) == len(set(keys))
            assert set(keys) == set(np.flatnonzero(passing).tolist())
            truth = np.flatnonzero(passing)[np.argsort(apart[passing])].tolist()
            assert np.mean(list(recalls(given, truth))) >= 0.93
    members = np.arange(0, count, 3)
    with index.pages(query, keys=members, filter={"number": {"$lt": 50}}) as pages:
        keys = [key for page, _ in all_pages(pages) for key in page]
    assert sorted(keys) == [key for key in members.tolist() if number[key] < 50]


def test_pages_of_text_keys_and_sparse_rows():
    index = Index(8)
    rows = vectors(300, 8)
    index.add([f"row {at}" for at in range(300)], rows)
    with index.pages(rows[5]) as pages:
        first = pages.next(1)[0]
        index.delete([f"row {at}" for at in range(100)])
        rest = [key for page, _ in all_pages(pages) for key in page]
    assert first == ["row 5"]
    assert {f"row {at}" for at in range(100, 300)} <= set(rest)
    sparse = sparse_index()
    table = sparse_table(200)
    sparse.upsert(np.arange(200), packed(table))
    with sparse.pages(packed(table[:1])) as pages:
        keys = [key for page, _ in all_pages(pages) for key in page]
    assert sorted(keys) == list(range(200))


@pytest.mark.skipif(not IS_COMPILED, reason="the numpy engine links equal rows like others, and misses some")
def test_equal_rows_come_all():
    """Twins hang on one node and are given together."""
    count = scaled(3000)
    index = hnsw(16)
    rows = vectors(count, 16)
    rows[500:1200] = rows[7]
    index.upsert(np.arange(count), rows)
    with index.pages(rows[7]) as pages:
        given = all_pages(pages, (300, 5, 300, 95, 1, 700))
    keys = [key for page, _ in given for key in page]
    assert len(keys) == len(set(keys)) == count
    assert set(keys[:701]) == {7, *range(500, 1200)}


@pytest.mark.parametrize("make", [hnsw, ivf, flat])
@pytest.mark.parametrize("change", ["insert", "delete", "update", "replace all", "clear", "compact", "many"])
def test_rows_that_change_between_pages(make, change):
    count = scaled(4000)
    rows = clustered(count, 16, seed=3)
    index = make(16)
    index.upsert(np.arange(count), rows)
    choose = np.random.default_rng(4)
    gone = set()
    changed = set()
    with index.pages(rows[11]) as pages:
        given = pages.next(50)[0].tolist()
        if change == "insert":
            index.upsert(np.arange(count, count + 500), clustered(500, 16, seed=5))
        elif change in ("delete", "compact"):
            gone = set(choose.choice(count, count // 2, replace=False).tolist())
            index.delete(np.array(sorted(gone)))
            if change == "compact":
                index.compact()
                index.upsert(np.arange(count, count + 300), clustered(300, 16, seed=6))  # in the same slots
        elif change == "update":
            changed = set(choose.choice(count, 300, replace=False).tolist())
            index.upsert(np.array(sorted(changed)), clustered(300, 16, seed=7))
        elif change == "replace all":
            changed = set(range(count))
            index.upsert(np.arange(count), clustered(count, 16, seed=8))
        elif change == "many":
            index.upsert(np.arange(count, 3 * count), clustered(2 * count, 16, seed=9), defer=True)
            index.build()
        else:
            index.clear()
            gone = set(range(count))
        given += [key for page, _ in all_pages(pages, (50, 200, 1000)) for key in page]
    assert len(given) == len(set(given))
    assert set(given) >= set(range(count)) - gone - changed
    assert set(given[50:]).isdisjoint(gone)


def test_pages_while_others_write():
    count = scaled(4000)
    index = hnsw(16)
    index.upsert(np.arange(count), clustered(count, 16))
    stay = set(range(0, count, 2))
    stop = threading.Event()

    def churn():
        choose = np.random.default_rng(31)
        while not stop.is_set():
            keys = choose.choice(np.arange(1, count, 2), 30, replace=False)
            index.delete(keys)
            index.upsert(keys, clustered(30, 16, seed=int(keys[0])))

    thread = threading.Thread(target=churn)
    thread.start()
    try:
        for seed in range(6):
            with index.pages(clustered(1, 16, seed=seed)[0]) as pages:
                keys = [key for page, _ in all_pages(pages, (10, 90, 400)) for key in page]
            assert len(keys) == len(set(keys))
            assert stay <= set(keys)
    finally:
        stop.set()
        thread.join()


def test_pages_that_were_cancelled_go_on():
    index = hnsw(16)
    index.upsert(np.arange(3000), clustered(3000, 16))
    cancel = np.ones(1, dtype=np.uint8)
    with index.pages(clustered(1, 16)[0]) as pages:
        first = pages.next(10)[0].tolist()
        try:
            first += pages.next(2500, cancel=cancel)[0].tolist()
        except Cancelled:
            cancel[0] = 0
        cancel[0] = 0
        first += [key for page, _ in all_pages(pages) for key in page]
    assert sorted(first) == list(range(3000))


@pytest.mark.skipif(not IS_COMPILED, reason="the numpy engine does not walk on")
def test_a_page_that_was_cancelled_half_way_loses_no_row():
    rows = clustered(12_000, 16)
    index = hnsw(16)
    index.upsert(np.arange(12_000), rows)
    query = clustered(1, 16, seed=3)[0]
    truth = np.argsort(exact(query, rows, Metric.L2))[:900].tolist()
    with index.pages(query) as pages:
        given = pages.next(50)[0].tolist()
        with pytest.raises(Cancelled):  # a walk looks at the flag only now and then
            pages.next(800, cancel=np.ones(1, dtype=np.uint8))
        given += pages.next(850)[0].tolist()
    assert len(given) == len(set(given)) == 900
    assert len(set(given) & set(truth)) >= 0.98 * 900


def test_bad_pages_are_refused():
    index = Index(4)
    index.add([1, 2], vectors(2, 4))
    pages = index.pages(vectors(1, 4)[0])
    with pytest.raises(InvalidParameter, match="at least one row, not 0"):
        pages.next(0)
    assert len(pages.next(5)[0]) == 2
    assert len(pages.next(5)[0]) == 0
    pages.close()
    pages.close()
    with pytest.raises(InvalidParameter, match="closed"):
        pages.next(1)
    with pytest.raises(DimensionMismatch):
        index.pages([1, 2, 3])
    with pytest.raises(InvalidVector):
        index.pages([1, 2, 3, np.nan])
    with pytest.raises(InvalidParameter, match="one axis"):
        index.pages([[1, 2, 3, 4]])
    with pytest.raises(InvalidParameter, match="unknown plan"):
        index.pages([1, 2, 3, 4], plan="fast")
    with pytest.raises(InvalidParameter, match="max_distance is not a number"):
        index.search([1, 2, 3, 4], max_distance=float("nan"))
    empty = Index(4).pages([1, 2, 3, 4])
    assert len(empty.next(3)[0]) == 0


@pytest.mark.parametrize("kind", ["hnsw", "ivf", "flat"])
def test_rows_within_a_distance(kind):
    count = scaled(4000)
    rows = clustered(count, 24)
    index = Index(24, kind=kind)
    index.add(np.arange(count), rows, attributes={"even": np.arange(count) % 2 == 0})
    queries = clustered(4, 24, seed=6)
    for share in (0, 1, 40, 64, 65, 500, count):
        for k in (5, 100, count):
            for condition in (None, {"even": True}):
                apart = [exact(query, rows, Metric.L2)[:: 2 if condition else 1] for query in queries]
                ordered = np.sort(apart[0])
                most = ordered[0] / 2 if share == 0 else ordered[min(share, len(ordered)) - 1] * (1 + 1e-6)
                keys, distances = index.search(queries, k, max_distance=most, filter=condition, threads=2)
                assert keys.shape == distances.shape == (4, k)
                for at, within in enumerate(apart):
                    found = keys[at] >= 0
                    wanted = min(k, int((within <= most).sum()))
                    assert found.sum() <= wanted + 1
                    assert found.sum() >= 0.9 * wanted
                    assert (distances[at][found] <= most * (1 + 1e-6)).all()
                    assert np.isinf(distances[at][~found]).all()
    assert index.search(queries[0], 3, max_distance=-1)[0].tolist() == [-1] * 3
    assert (index.search(queries[0], 3, max_distance=np.inf)[0] >= 0).all()


def test_plan_of_pages_is_an_enum_below_the_facade():
    index = hnsw(8)
    index.upsert(np.arange(50), vectors(50, 8))
    with index.pages(vectors(1, 8)[0], members=np.arange(10), plan=Plan.SCAN) as pages:
        assert sorted(pages.next(20)[0].tolist()) == list(range(10))
