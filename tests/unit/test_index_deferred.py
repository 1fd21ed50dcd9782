"""Rows that are stored but not linked yet: found like all others, linked by `build`, whatever happens in between."""

import threading

import numpy as np
import pytest
from index_cases import check_answer, clustered, flat_twin, hnsw, recall, unreached, vectors

from ruvector import kernels, limits
from ruvector.index import Index, KeyedIndex
from ruvector.values import KeyKind, Metric

pytestmark = pytest.mark.skipif(not kernels.IS_COMPILED, reason="the numpy engine defers nothing")

DIMS = 48
ROWS = 4500  # enough for a build of all at once
METRICS = [Metric.L2, Metric.COSINE, Metric.IP, Metric.L1]  # the last one is linked one block after the other


def check(index, rows, *, least=0.9, ef=200):
    """Compare an index with the rows (key to vector) it should hold."""
    metric = index.options.metric
    assert len(index) == len(rows)
    assert sorted(index.keys()) == sorted(rows)
    truth = flat_twin(index)
    truth.upsert(range(len(rows)), np.array(list(rows.values())))  # the keys may be texts
    asked = vectors(30, index.options.dims, seed=77)
    answers = index.search_many(asked, 10, ef=ef)
    for query, answer in zip(asked, answers, strict=True):
        assert len(answer[0]) == min(10, len(rows))
        check_answer(answer, query, rows, metric=metric)
    assert recall(answers, truth.search_many(asked, 10)) >= least


def deferred(count=ROWS, *, linked=0, dims=DIMS, **more):
    """An index of which the first rows are linked and the others are not."""
    index = hnsw(dims, **more)
    rows = vectors(count, dims)
    if linked:
        index.upsert(range(linked), rows[:linked])
    index.upsert(range(linked, count), rows[linked:], defer=True)
    assert index.stats()["loose"] == count - linked
    return index, dict(enumerate(rows))


@pytest.mark.parametrize(
    ("metric", "linked"), [*((metric, 2000) for metric in METRICS), (Metric.L2, 0), (Metric.L2, 1), (Metric.IP, 0)]
)
def test_deferred_rows_are_found_before_and_after_the_build(metric, linked):
    index, rows = deferred(5000, linked=linked, metric=metric, threads=2)
    check(index, rows)
    index.build()
    assert index.stats()["loose"] == 0
    assert len(unreached(index.sections())) == 0
    check(index, rows)
    index.build()


@pytest.mark.parametrize("dims", [16, DIMS])  # without and with codes
def test_deferred_rows_do_not_hide_the_linked_ones(dims):
    index, _ = deferred(4000, linked=2000, dims=dims)
    asked = vectors(100, dims, seed=3)
    alone = hnsw(dims)
    alone.upsert(range(2000), vectors(4000, dims)[:2000])
    # What is found of the linked rows is what is found where there are no others.
    whole = [set(keys.tolist()) for keys, _ in index.search_many(asked, 20, ef=40)]
    part = [keys[:8].tolist() for keys, _ in alone.search_many(asked, 20, ef=40)]
    nearer = sum(len(set(keys) & found) for keys, found in zip(part, whole, strict=True))
    assert nearer >= 0.85 * 8 * len(part)


@pytest.mark.parametrize("count", [40, ROWS])
def test_deferred_rows_can_go_and_change(count):
    index, rows = deferred(count)
    rng = np.random.default_rng(0)
    fresh = vectors(2 * count, DIMS, seed=9)
    for round_number in range(3):
        gone = rng.choice(sorted(rows), count // 5, replace=False).tolist()
        assert index.delete(gone) == len(gone)
        for key in gone:
            del rows[key]
        changed = rng.choice(sorted(rows), count // 5, replace=False)
        index.upsert(changed, fresh[changed], defer=True)
        rows |= dict(zip(changed.tolist(), fresh[changed], strict=True))
        check(index, rows)
        if round_number == 1:
            index.build()
            assert index.stats()["loose"] == 0
            check(index, rows)
    index.build()
    index.compact()
    check(index, rows)
    assert len(unreached(index.sections())) == 0
    index.delete(sorted(rows))
    assert len(index) == index.stats()["slots"] == 0


def test_room_of_deleted_deferred_rows_is_used_again():
    index, rows = deferred(2000)
    for _ in range(5):
        index.delete(range(1000))
        index.upsert(range(1000), [rows[key] for key in range(1000)], defer=True)
    assert index.stats()["slots"] == 2000
    assert index.stats()["dead"] == 0
    check(index, rows)


@pytest.mark.parametrize("built", ["never", "before", "between"])
@pytest.mark.parametrize("first", ["head", "twin"])
def test_twins_of_deferred_rows_outlive_each_other(first, built):
    index, rows = deferred(6000)
    twins = {key + 10_000: rows[key] for key in range(300)}
    index.upsert(list(twins), list(twins.values()), defer=True)
    rows |= twins
    assert index.stats()["twins"] == 300
    check(index, rows)
    one, other = (range(300), list(twins)) if first == "head" else (list(twins), range(300))
    for step, gone in enumerate((one, other)):
        if built == ("before", "between")[step]:
            index.build()
        index.delete(gone)
        rows = {key: row for key, row in rows.items() if key not in set(gone)}
        check(index, rows)
    assert index.stats()["twins"] == 0
    index.build()
    check(index, rows)


def test_build_by_inner_product_is_as_good_as_insertion():
    rng = np.random.default_rng(11)
    values = clustered(6000, DIMS) * np.exp(rng.normal(size=(6000, 1)) * 0.7).astype(np.float32)
    asked = clustered(200, DIMS, seed=4)
    at_once, one_by_one = (hnsw(DIMS, metric=Metric.IP, threads=2) for _ in range(2))
    at_once.upsert(range(6000), values)
    for part in np.array_split(np.arange(6000), 12):
        one_by_one.upsert(part, values[part])
    truth = flat_twin(at_once)
    truth.upsert(range(6000), values)
    wanted = truth.search_many(asked, 10)
    built, inserted = (recall(index.search_many(asked, 10, ef=20), wanted) for index in (at_once, one_by_one))
    assert built >= inserted - 0.03  # what insertion itself varies by with the size of its calls is 0.02
    assert inserted > 0.9


@pytest.mark.parametrize("linked", [0, 1000])
def test_build_stores_neighbours_side_by_side(linked):
    labels = np.random.default_rng(3).integers(0, 12, size=6000)
    values = np.eye(12, DIMS, dtype=np.float32)[labels] * 8 + vectors(6000, DIMS, seed=5)
    index, rows = hnsw(DIMS, threads=2), dict(enumerate(values))
    index.upsert(range(linked), values[:linked])
    index.upsert(range(linked, 6000), values[linked:], defer=True)
    twins = {key + 10_000: rows[key] for key in range(5000, 5300)}
    index.upsert(list(twins), list(twins.values()), defer=True)
    index.delete(range(5000, 5100))  # nodes without a row of their own, kept for their twins
    rows = {key: row for key, row in (rows | twins).items() if not 5000 <= key < 5100}
    check(index, rows)
    before = index.keys()
    index.build()
    after = index.keys()
    assert before[:linked].tolist() == after[:linked].tolist()  # lists lead to them
    side_by_side = labels[after[after < 10_000]]
    assert (side_by_side[1:] == side_by_side[:-1])[linked:].mean() > 0.5
    stored, found = index.vectors_of(list(rows))
    assert found.all()
    np.testing.assert_array_equal(stored, list(rows.values()))
    check(index, rows)
    index.delete(range(6000))
    check(index, twins)


@pytest.mark.parametrize("built", [False, True])
@pytest.mark.parametrize("defer", [False, True])
def test_rows_of_one_call_may_take_each_others_vectors(built, defer):
    # The row that takes the vector hangs on the one that had it, which the same call replaces.
    index, rows = deferred(3000)
    if built:
        index.build()
    order = np.roll(np.arange(100), 1)
    index.upsert(range(100), [rows[key] for key in order], defer=defer)
    rows |= {at: rows[key] for at, key in enumerate(order.tolist())}
    check(index, rows)
    for key in range(100):
        assert index.search(rows[key], 1)[0].tolist() == [key]
    index.build()
    index.compact()
    check(index, rows)
    assert index.delete(range(100)) == 100
    check(index, {key: row for key, row in rows.items() if key >= 100})


@pytest.mark.parametrize("key_kind", list(KeyKind))
@pytest.mark.parametrize("linked", [0, 2500])
def test_deferred_rows_survive_their_sections(linked, key_kind):
    index, rows = deferred(3000, linked=linked)
    if key_kind is KeyKind.TEXT:
        index = hnsw(DIMS, key_kind=key_kind)
        rows = {f"row {key}": row for key, row in rows.items()}
        index.upsert(list(rows)[:linked], list(rows.values())[:linked])
        index.upsert(list(rows)[linked:], list(rows.values())[linked:], defer=True)
    gone = list(rows)[linked : linked + 100]
    index.delete(gone)
    rows = {key: row for key, row in rows.items() if key not in set(gone)}
    restored = KeyedIndex.from_sections(index.options, index.sections(), threads=1)
    again = restored.sections()
    for name, section in index.sections().items():
        assert (section == again[name]).all(), name
    assert restored.stats()["loose"] == index.stats()["loose"] == 2900 - linked
    check(restored, rows)
    restored.delete(list(rows)[::3])
    rows = dict(item for at, item in enumerate(rows.items()) if at % 3)
    check(restored, rows)
    restored.build()
    check(restored, rows)


def test_saved_index_keeps_what_was_deferred(tmp_path):
    index = Index(DIMS, "cosine")
    rows = vectors(6000, DIMS)
    assert index.add(range(6000), rows, defer=True) == 6000
    index.save(tmp_path / "saved")
    opened = Index.open(tmp_path / "saved")
    assert opened.stats()["loose"] == 6000
    assert opened.search(rows[5], 1)[0].tolist() == [5]
    opened.build()
    assert opened.stats()["loose"] == 0
    assert opened.search(rows[5], 1)[0].tolist() == [5]


@pytest.mark.parametrize("dims", [16, DIMS])  # without and with codes
@pytest.mark.parametrize("linked", [0, 1, 1500])
def test_upsert_without_defer_links_its_own_rows_alone(linked, dims):
    index, rows = deferred(3000, linked=linked, dims=dims)
    fresh = vectors(300, dims, seed=5)
    index.upsert(range(100), fresh[:100])  # replaces some
    index.upsert(range(3000, 3200), fresh[100:])
    rows |= dict(enumerate(fresh[:100])) | dict(zip(range(3000, 3200), fresh[100:], strict=True))
    assert index.stats()["loose"] == 3000 - max(linked, 100)
    check(index, rows)
    restored = KeyedIndex.from_sections(index.options, index.sections(), threads=1)
    for one in (index, restored):
        assert one.stats()["loose"] == 3000 - max(linked, 100)
        one.build()
        assert one.stats()["loose"] == 0
        one.compact()
        assert len(unreached(one.sections())) == 0
        check(one, rows)


def test_progress_rises_from_nothing_to_all(monkeypatch):
    monkeypatch.setattr(limits, "BUILD_PROGRESS_SECONDS", 0.001)
    for metric in (Metric.L2, Metric.IP):
        index, rows = deferred(metric=metric, threads=2)
        seen = []
        index.build(on_progress=seen.append)
        shares = [progress.share for progress in seen]
        assert len(set(shares)) > 3
        assert shares == sorted(shares)
        assert shares[0] < 0.3
        assert shares[-1] == 1.0
        assert seen[-1].eta_seconds == 0
        assert all(progress.eta_seconds is None or progress.eta_seconds >= 0 for progress in seen)
        seconds = [progress.seconds for progress in seen]
        assert seconds == sorted(seconds)
        check(index, rows)


class Stopped(Exception):
    pass


@pytest.mark.parametrize(
    ("metric", "linked", "share"),
    [(Metric.L2, 700, 0.0), (Metric.L2, 700, 0.2), (Metric.L2, 0, 0.6), (Metric.IP, 0, 0.4)],
)
def test_build_that_is_stopped_leaves_a_whole_index(share, linked, metric, monkeypatch):
    monkeypatch.setattr(limits, "BUILD_PROGRESS_SECONDS", 0.0005)
    index, rows = deferred(4900, linked=linked, metric=metric)

    def stop(progress):
        if progress.share >= share:
            raise Stopped

    with pytest.raises(Stopped):
        index.build(on_progress=stop)
    check(index, rows, least=0.8)
    restored = KeyedIndex.from_sections(index.options, index.sections(), threads=1)
    for one in (index, restored):
        left = dict(rows)
        gone = range(0, 4900, 3)
        assert one.delete(gone) == len(gone)
        for key in gone:
            del left[key]
        fresh = vectors(500, DIMS, seed=5)
        one.upsert(range(0, 1500, 3), fresh, defer=True)
        left |= dict(zip(range(0, 1500, 3), fresh, strict=True))
        check(one, left, least=0.8)
        one.build()
        assert one.stats()["loose"] == 0
        check(one, left)
        assert len(unreached(one.sections())) == 0


@pytest.mark.parametrize("linked", [0, 2000])
@pytest.mark.parametrize("metric", [Metric.L2, Metric.IP])
def test_searches_during_a_build_see_the_rows_as_they_are(linked, metric):
    index, rows = deferred(linked=linked, metric=metric, threads=2)
    index.delete(range(0, ROWS, 10))
    rows = {key: row for key, row in rows.items() if key % 10}
    truth = flat_twin(index)
    truth.upsert(list(rows), np.array(list(rows.values())))
    done, failures, found = threading.Event(), [], []

    def search(seed):
        rng = np.random.default_rng(seed)
        try:
            while not done.is_set() or len(found) < 20:
                query = rng.normal(size=DIMS).astype(np.float32)
                answer = index.search(query, 10, ef=100)
                check_answer(answer, query, rows, metric=metric)
                assert len(answer[0]) == 10
                found.append(recall([answer], [truth.search(query, 10)]))
                key = int(rng.integers(0, ROWS))
                assert index.contains(key) == (key % 10 != 0)
        except BaseException as failure:  # noqa: BLE001 - raised again below
            failures.append(failure)

    threads = [threading.Thread(target=search, args=(seed,)) for seed in range(2)]
    for thread in threads:
        thread.start()
    index.build()
    done.set()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]
    assert np.mean(found) >= 0.85
    check(index, rows)
