import numpy as np
import pytest
from index_cases import flat, flat_twin, hnsw, recall, scaled, vectors

from ruvector.values import ElementType, KeyKind, Metric


def check_against(index, rows, *, queries=20, least=0.95):
    """Compare an index with the rows (key to vector) it should hold."""
    assert len(index) == len(rows)
    assert sorted(index.keys()) == sorted(rows)
    truth = flat_twin(index)
    truth.upsert(list(rows), np.array(list(rows.values())))
    asked = vectors(queries, index.options.dims, seed=77)
    answers = index.search_many(asked, 10, ef=100)
    assert all(key in rows for keys, _ in answers for key in keys.tolist())
    assert recall(answers, truth.search_many(asked, 10)) >= least
    everything = index.search(asked[0], len(rows) + 5)[0]
    assert sorted(everything) == sorted(rows)


@pytest.mark.parametrize("make", [flat, hnsw])
def test_upsert_counts_only_what_changes(make):
    index = make(8)
    rows = vectors(20, 8)
    assert index.upsert(range(20), rows) == 20
    assert index.upsert(range(20), rows) == 0
    rows[3] += 1
    assert index.upsert(range(20), rows) == 1
    assert index.vectors_of([3])[0][0].tolist() == rows[3].tolist()


@pytest.mark.parametrize("make", [flat, hnsw])
def test_last_vector_of_a_repeated_key_counts(make):
    index = make(2)
    assert index.upsert([5, 6, 5, 5], [[1, 1], [2, 2], [3, 3], [4, 4]]) == 2
    assert index.vectors_of([5, 6])[0].tolist() == [[4, 4], [2, 2]]
    keys = np.arange(1000) % 10
    index.upsert(keys, np.repeat(np.arange(1000.0)[:, np.newaxis], 2, axis=1))
    assert index.vectors_of(range(10))[0][:, 0].tolist() == list(range(990, 1000))


@pytest.mark.parametrize("make", [flat, hnsw])
def test_replaced_vector_is_never_found_again(make):
    index = make(8)
    rows = vectors(1000, 8)
    index.upsert(range(1000), rows)
    index.upsert(range(500), rows[:500] + 100)
    for at in range(0, 500, 25):
        keys, distances = index.search(rows[at], 1)
        assert keys[0] >= 500
        keys, distances = index.search(rows[at] + 100, 1)
        assert distances[0] == pytest.approx(0, abs=1e-4)
        assert keys[0] == at


@pytest.mark.parametrize("make", [flat, hnsw])
def test_deleted_rows_are_never_returned(make):
    index = make(8)
    rows = vectors(1500, 8)
    index.upsert(range(1500), rows)
    gone = set(range(0, 1500, 3))
    assert index.delete(list(gone)) == 500
    assert index.delete(list(gone)) == 0
    assert not any(index.contains(key) for key in gone)
    for at in range(0, 300, 3):
        assert gone.isdisjoint(index.search(rows[at], 10)[0].tolist())


def test_delete_ignores_unknown_and_repeated_keys():
    index = hnsw(2)
    index.upsert([1, 2], [[1, 2], [3, 4]])
    assert index.delete([2, 2, 99, -1]) == 1
    assert index.keys().tolist() == [1]


def test_every_row_can_go_and_come_back():
    index = hnsw(8)
    rows = vectors(700, 8)
    for _ in range(3):
        index.upsert(range(700), rows)
        assert index.delete(range(700)) == 700
        assert len(index) == len(index.search(rows[0], 5)[0]) == 0
    index.upsert(range(700), rows)
    check_against(index, dict(enumerate(rows)))


def test_deleting_from_the_top_keeps_the_rest_reachable():
    index = hnsw(8, m=4)
    rows = vectors(1200, 8)
    index.upsert(range(1200), rows)
    kept = dict(enumerate(rows))
    while len(kept) > 100:
        sections = index.sections()
        live = np.flatnonzero(sections["states"] == 1)
        highest = live[np.argsort(-sections["levels"][live].astype(int), kind="stable")[:60]]
        for key in sections["keys"][highest].tolist():
            del kept[key]
            assert index.delete([key]) == 1
        index.compact()
        assert index.stats()["dead"] == 0
    check_against(index, kept)


def test_clear_forgets_everything():
    index = hnsw(8, key_kind=KeyKind.TEXT)
    index.upsert(["a", "b"], vectors(2, 8))
    index.clear()
    assert len(index) == 0
    assert not index.contains("a")
    index.upsert(["b"], vectors(1, 8))
    assert index.search(np.zeros(8), 3)[0] == ["b"]


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_recall_stays_after_many_deletes(share):
    index = hnsw(16)
    count = scaled(4000)
    rows = vectors(count, 16)
    index.upsert(range(count), rows)
    order = np.random.default_rng(1).permutation(count)
    for part in np.array_split(order[: int(count * share)], 7):
        index.delete(part)
    check_against(index, {int(key): rows[key] for key in order[int(count * share) :]}, least=0.97)


def test_recall_stays_after_a_region_is_deleted():
    index = hnsw(16)
    count = scaled(4000)
    rows = vectors(count, 16)
    index.upsert(range(count), rows)
    near = np.argsort(np.linalg.norm(rows - rows[7], axis=1))
    index.delete(near[: count // 2])
    check_against(index, {int(key): rows[key] for key in near[count // 2 :]}, least=0.97)


def test_room_of_deleted_rows_is_used_again():
    index = hnsw(8)
    rng = np.random.default_rng(4)
    for round_number in range(scaled(30)):
        index.upsert(range(600), rng.normal(size=(600, 8)))
        assert len(index) == 600, round_number
    assert index.stats()["slots"] < 600 + 256 + 512
    index.compact()
    assert index.stats()["dead"] == 0


@pytest.mark.parametrize("metric", [Metric.L2, Metric.COSINE, Metric.IP, Metric.L1])
def test_equal_rows_are_all_found_and_hide_nobody(metric):
    index = hnsw(8, metric)
    rows = vectors(2000, 8)
    rows[:1000] = 0.5
    index.upsert(range(2000), rows)
    assert index.stats()["twins"] == 999
    found = index.search(np.full(8, 0.5), 1500, ef=1)[0] if metric is not Metric.IP else range(1000)
    assert set(range(1000)) <= set(map(int, found))
    check_against(index, dict(enumerate(rows)))
    index.delete(range(300))
    check_against(index, dict(enumerate(rows[300:], start=300)))
    index.upsert([1, 2], rows[:2])
    index.upsert([700, 1500], rows[1998:] + 1)
    changed = {1: rows[1], 2: rows[2]} | dict(enumerate(rows[300:], start=300))
    check_against(index, changed | {700: rows[1998] + 1, 1500: rows[1999] + 1})
    index.delete(range(1000))
    assert index.stats()["twins"] == 0


def test_row_that_alternates_takes_no_room():
    index = hnsw(4)
    rows = vectors(300, 4)
    index.upsert(range(300), rows)
    for _ in range(400):
        index.upsert([0], rows[:1] + 1)
        index.upsert([0], rows[:1])
    assert index.stats()["slots"] <= 310
    assert index.search(rows[0], 1)[0][0] == 0


def test_minus_zero_equals_zero():
    index = hnsw(2)
    index.upsert([1, 2], [[0.0, 1.0], [-0.0, 1.0]])
    assert index.stats()["twins"] == 1


@pytest.mark.parametrize("element", [ElementType.F32, ElementType.F16])
def test_parallel_rows_are_twins_under_cosine(element):
    index = hnsw(3, Metric.COSINE, element=element)
    index.upsert([1, 2, 3], [[1, 2, 3], [2, 4, 6], [3, 2, 1]])
    assert index.stats()["twins"] == 1
    assert index.vectors_of([2])[0].tolist() == [[2, 4, 6]]


@pytest.mark.parametrize("threads", [2, 5])
def test_build_does_not_depend_on_threads(threads):
    def build(workers):
        index = hnsw(12, threads=workers)
        for part in np.array_split(np.arange(scaled(3000)), 4):
            index.upsert(part, vectors(scaled(3000), 12)[part])
        index.delete(range(0, scaled(3000), 4))
        return index.sections()

    alone, many = build(1), build(threads)
    assert alone.keys() == many.keys()
    for name, section in alone.items():
        assert (section == many[name]).all(), name
