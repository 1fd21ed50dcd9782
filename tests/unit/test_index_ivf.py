"""Inverted lists: near answers with exact distances, through every kind of change."""

import itertools
import os
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from index_cases import COMBINATIONS, exact, flat_twin, ivf, recall, shared_data, vectors

from ruvector import kernels
from ruvector.errors import Cancelled, StoreFormat
from ruvector.index import Index, KeyedIndex
from ruvector.index.reference_lists import ReferenceLists
from ruvector.values import ElementType, IndexKind, KeyKind, Metric

ROWS = 4000
DIMS = 48
LISTED = (Metric.L2, Metric.IP, Metric.COSINE)
compiled_only = pytest.mark.skipif(not kernels.IS_COMPILED, reason="the numpy twin has no lists")


def clustered(rows, dims=DIMS, *, seed=0, element=ElementType.F32):
    """Rows around a hundred places, as real ones are."""
    places = np.random.default_rng(7).normal(size=(100, dims)) * 2
    rng = np.random.default_rng(seed)
    values = (places[rng.integers(0, 100, rows)] + rng.normal(size=(rows, dims))).astype(np.float32)
    return values.astype(np.float16) if element is ElementType.F16 else values


def filled(metric=Metric.L2, *, rows=ROWS, element=ElementType.F32, **more):
    index = ivf(DIMS, metric, element=element, **more)
    data = clustered(rows, element=element)
    index.upsert(np.arange(rows), data)
    return index, data


def check_against(index, rows, *, least=0.95, ef=400):
    """Compare an index with the rows (key to vector) it should hold."""
    assert len(index) == len(rows)
    assert sorted(index.keys()) == sorted(rows)
    truth = flat_twin(index)
    truth.upsert(list(rows), np.array(list(rows.values())))
    asked = clustered(30, index.options.dims, seed=77)
    answers = index.search_many(asked, 10, ef=ef)
    assert all(key in rows for keys, _ in answers for key in keys.tolist())
    assert recall(answers, truth.search_many(asked, 10)) >= least
    everything = index.search(asked[0], len(rows) + 5)[0]
    assert sorted(everything) == sorted(rows)


@pytest.mark.parametrize("dims", [1, 7, 16, 31, 32, 100])
@pytest.mark.parametrize(("metric", "element"), COMBINATIONS)
def test_few_rows_are_compared_one_by_one(metric, element, dims):
    rows = vectors(60, dims, element=element, seed=dims)
    index = ivf(dims, metric, element=element)
    index.upsert(np.arange(60) * 3, rows)
    query = vectors(1, dims, element=element if element is ElementType.BIT else ElementType.F32, seed=99)[0]
    keys, distances = index.search(query, 60)
    assert sorted(keys.tolist()) == [row * 3 for row in range(60)]
    np.testing.assert_allclose(distances, exact(query, rows, metric)[keys // 3], rtol=2e-5, atol=2e-6)
    assert (np.diff(distances) >= 0).all()
    assert index.stats()["lists"] == 0


@pytest.mark.parametrize("element", [ElementType.F32, ElementType.F16])
@pytest.mark.parametrize("metric", LISTED)
def test_lists_find_nearly_all_neighbours_with_exact_distances(metric, element):
    index, rows = filled(metric, element=element)
    truth = flat_twin(index)
    truth.upsert(np.arange(ROWS), rows)
    queries = clustered(50, seed=5)
    right = truth.search_many(queries, 10)
    found = [index.search_many(queries, 10, ef=ef) for ef in (10, 40, 160, 640)]
    recalls = [recall(answers, right) for answers in found]
    assert recalls[-1] >= 0.99
    assert all(more >= less - 0.01 for less, more in itertools.pairwise(recalls))
    for query, (keys, distances) in zip(queries, found[1], strict=True):
        np.testing.assert_allclose(distances, exact(query, rows, metric)[keys], rtol=1e-4, atol=1e-5)
        assert (np.diff(distances) >= 0).all()


@pytest.mark.parametrize(("metric", "element"), [pair for pair in COMBINATIONS if pair[0] not in LISTED])
def test_metrics_without_codes_are_exact(metric, element):
    dims = 64
    rows = vectors(3000, dims, element=element)
    index = ivf(dims, metric, element=element)
    index.upsert(np.arange(3000), rows)
    query = vectors(1, dims, element=ElementType.BIT if element is ElementType.BIT else ElementType.F32, seed=5)[0]
    np.testing.assert_allclose(
        index.search(query, 10, ef=10)[1], np.sort(exact(query, rows, metric))[:10], rtol=1e-4, atol=1e-5
    )


@compiled_only
def test_stats_tell_lists_and_sizes():
    stats = filled()[0].stats()
    assert stats["kind"] == "ivf"
    assert stats["lists"] > 50
    assert stats["trained_rows"] == ROWS
    assert stats["loose"] == 0
    assert 0 < stats["code_bytes"] < stats["row_bytes"]
    assert stats["bytes"] > stats["code_bytes"] + stats["row_bytes"]


@pytest.mark.parametrize("k", [1, 9, 1999, 2000, 2001, 5000])
def test_fewer_rows_come_back_only_when_there_are_no_more(k):
    index, rows = filled(rows=3999)
    keys, distances = index.search(rows[0], k, ef=1)
    assert len(keys) == len(distances) == len(set(keys.tolist())) == min(k, 3999)


def test_few_rows_are_scanned_and_exact():
    index, rows = filled(rows=2500, scan_factor=10)
    keys, _ = index.search(rows[3] * 0.9, 10, ef=250)
    assert keys.tolist() == np.argsort(exact(rows[3] * 0.9, rows, Metric.L2), kind="stable")[:10].tolist()


def test_empty_index_answers_nothing():
    for kind in KeyKind:
        keys, distances = ivf(DIMS, key_kind=kind).search(np.zeros(DIMS), 5)
        assert len(keys) == len(distances) == 0


def test_many_queries_answer_like_one_by_one():
    index, _ = filled()
    queries = clustered(31, seed=8)
    for threads in (1, 3):
        for query, (keys, distances) in zip(queries, index.search_many(queries, 7, threads=threads), strict=True):
            alone = index.search(query, 7)
            assert keys.tolist() == alone[0].tolist()
            assert distances.tolist() == alone[1].tolist()


def test_upsert_counts_only_what_changes():
    index, rows = filled()
    assert index.upsert(range(ROWS), rows) == 0
    assert index.upsert([3, 3, ROWS], [rows[4], rows[5], rows[6]]) == 2
    assert index.vectors_of([3])[0][0].tolist() == rows[5].tolist()
    check_against(index, dict(enumerate(rows)) | {3: rows[5], ROWS: rows[6]})


def test_replaced_vector_is_never_found_again():
    index, rows = filled()
    index.upsert(range(1000), rows[:1000] + 100)
    for at in range(0, 1000, 50):
        assert index.search(rows[at], 1)[0][0] >= 1000
        keys, distances = index.search(rows[at] + 100, 1, ef=200)
        assert keys[0] == at
        assert distances[0] == pytest.approx(0, abs=1e-3)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.95])
def test_deleted_rows_are_never_returned(share):
    index, rows = filled()
    order = np.random.default_rng(1).permutation(ROWS)
    gone = int(ROWS * share)
    for part in np.array_split(order[:gone], 7):
        assert index.delete(part) == len(part)
        assert index.delete(part) == 0
    left = {int(key): rows[key] for key in order[gone:]}
    check_against(index, left)
    index.compact()
    check_against(index, left)
    assert index.stats()["lists"] == 0 or share < 0.95


def test_every_row_can_go_and_come_back():
    index, rows = filled(rows=2600)
    for _ in range(2):
        assert index.delete(range(2600)) == 2600
        assert len(index) == len(index.search(rows[0], 5)[0]) == 0
        index.upsert(range(2600), rows)
    check_against(index, dict(enumerate(rows)))
    index.clear()
    assert len(index) == 0
    index.upsert([1], rows[:1])
    assert index.search(rows[0], 3)[0].tolist() == [1]


def test_room_of_deleted_rows_is_used_again():
    index, _ = filled(rows=2600)
    for seed in range(1, 12):
        index.upsert(range(2600), clustered(2600, seed=seed))
        assert len(index) == 2600
    assert index.stats()["slots"] <= 2 * 2600
    check_against(index, dict(enumerate(clustered(2600, seed=11))))


def test_rows_that_come_later_join_the_lists():
    index, rows = filled(rows=3000)
    trainings = index.stats()["trainings"]
    more = clustered(16_000, seed=3)
    held = dict(enumerate(rows))
    for part in np.array_split(np.arange(16_000), 20):
        index.upsert(3000 + part, more[part])
        held.update(zip((3000 + part).tolist(), more[part], strict=True))
    check_against(index, held)
    if kernels.IS_COMPILED:
        assert index.stats()["trainings"] == trainings + 1
        assert index.stats()["loose"] == 0


def test_many_replaced_rows_do_not_stay_outside_the_lists():
    index, _ = filled(rows=3000)
    for seed in range(4):
        rows = clustered(9000, seed=seed)[np.arange(9000) % 3000]
        index.upsert(np.arange(9000) % 3000, rows)
    check_against(index, dict(enumerate(rows[:3000])))
    assert index.stats()["loose"] == 0


def test_deferred_rows_are_found_and_built():
    index = ivf(DIMS)
    rows = clustered(ROWS)
    for part in np.array_split(np.arange(ROWS), 5):
        index.upsert(part, rows[part], defer=True)
    check_against(index, dict(enumerate(rows)), least=1)
    assert index.stats()["lists"] == 0
    seen = []
    index.build(on_progress=seen.append)
    assert seen[-1].share == 1
    assert index.stats()["loose"] == 0
    check_against(index, dict(enumerate(rows)))


@compiled_only
def test_build_that_is_stopped_leaves_the_rows():
    class Enough(Exception):
        pass

    def stop(_):
        raise Enough

    index = ivf(DIMS)
    rows = clustered(60_000)
    index.upsert(np.arange(60_000), rows, defer=True)
    with pytest.raises(Enough):
        index.build(on_progress=stop)
    assert len(index) == 60_000
    assert index.search(rows[9], 1)[0][0] == 9


@pytest.mark.parametrize("metric", LISTED)
def test_equal_rows_are_all_found(metric):
    index = ivf(DIMS, metric)
    rows = clustered(3000)
    rows[:1000] = rows[0]
    index.upsert(range(3000), rows)
    if metric is not Metric.IP:
        assert set(range(1000)) == set(index.search(rows[0], 1000, ef=1)[0].tolist())
    check_against(index, dict(enumerate(rows)))


@pytest.mark.parametrize("metric", LISTED)
@pytest.mark.parametrize("value", [1e16, 1e30, 3e38])
def test_rows_too_long_for_codes_are_compared_themselves(metric, value):
    rows = clustered(3000)
    rows[:50] = np.where(rows[:50] > 0, value, -value)
    index = ivf(DIMS, metric)
    index.upsert(range(3000), rows)
    index.upsert(range(3000, 3010), rows[:10])
    for query in (rows[0], rows[2999]):
        keys, distances = index.search(query, 3010)
        assert len(set(keys.tolist())) == 3010
        assert not np.isnan(distances).any()
        keys, distances = index.search(query, 5)
        assert len(set(keys.tolist())) == 5
        assert not np.isnan(distances).any()


def test_every_row_equal_is_no_trouble():
    index = ivf(DIMS, Metric.COSINE)
    index.upsert(range(3000), np.ones((3000, DIMS)))
    keys, distances = index.search(np.ones(DIMS), 20)
    assert len(set(keys.tolist())) == 20
    assert distances == pytest.approx(0, abs=1e-6)


@compiled_only
@pytest.mark.parametrize("threads", [2, 5])
@pytest.mark.parametrize("metric", LISTED)
def test_build_does_not_depend_on_threads(metric, threads):
    def build(workers):
        index, _ = filled(metric, threads=workers)
        index.upsert(range(ROWS, ROWS + 500), clustered(500, seed=4))
        index.delete(range(0, ROWS, 4))
        return index.sections()

    alone, many = build(1), build(threads)
    assert alone.keys() == many.keys()
    for name, section in alone.items():
        assert section.tobytes() == many[name].tobytes(), name


def changed_index(metric=Metric.L2, element=ElementType.F32, **more):
    index, rows = filled(metric, element=element, **more)
    index.delete(range(0, 900, 2))
    index.upsert(range(ROWS, ROWS + 20), rows[:20])
    return index, rows


@pytest.mark.parametrize("in_place", [False, True])
@pytest.mark.parametrize("element", [ElementType.F32, ElementType.F16])
@pytest.mark.parametrize("metric", LISTED)
def test_restored_index_is_the_same(metric, element, in_place):
    index, rows = changed_index(metric, element)
    restored = KeyedIndex.from_sections(index.options, index.sections(), threads=1, in_place=in_place)
    again = restored.sections()
    for name, section in index.sections().items():
        assert section.tobytes() == again[name].tobytes(), name
    queries = rows[:20].astype(np.float32)
    for _ in range(2):
        for query in queries:
            left, right = (one.search(query, 20, ef=20) for one in (index, KeyedIndex.from_sections(
                index.options, restored.sections(), threads=1)))  # fmt: skip
            assert left[1].tolist() == right[1].tolist()
        for one in (index, restored):
            one.upsert(range(5000, 5300), clustered(300, element=element, seed=6))
            one.delete(range(1000, 1500))


def test_saved_index_opens_with_the_same_answers(tmp_path):
    index = Index(DIMS, kind="ivf")
    rows = clustered(ROWS)
    index.add([f"row {at}" for at in range(ROWS)], rows)
    index.save(tmp_path / "saved")
    opened = Index.open(tmp_path / "saved")
    assert opened.options == index.options
    assert opened.options.kind is IndexKind.IVF
    left, right = index.search(rows[:20], ef=20), opened.search(rows[:20], ef=20)
    assert left[0].tolist() == right[0].tolist()
    assert left[1].tolist() == right[1].tolist()


def _slot_twice(sections):
    sections["blocks"].view(np.uint32)[0, 96] = sections["blocks"].view(np.uint32)[1, 96]


def _slot_out_of_range(sections):
    sections["blocks"].view(np.uint32)[0, 96] = len(sections["states"])


def _slot_of_a_deleted_row(sections):
    sections["blocks"].view(np.uint32)[0, 96] = np.flatnonzero(sections["states"] == 0)[0]


def _block_with_a_gap(sections):
    sections["blocks"].view(np.uint32)[0, 96] = 0xFFFFFFFF


def _factor_is_nan(sections):
    sections["blocks"].view(np.float32)[0, 32] = np.nan


def _block_of_no_list(sections):
    sections["block_lists"][3] = len(sections["centroids"])


def _blocks_missing(sections):
    sections["blocks"] = sections["blocks"][:-1]


def _centroid_is_nan(sections):
    sections["centroids"][1, 2] = np.nan


def _center_missing(sections):
    sections["center"] = sections["center"][:0]


def _lists_missing(sections):
    sections["centroids"] = sections["centroids"][:0]


def _key_twice(sections):
    sections["keys"][np.flatnonzero(sections["states"])[:2]] = 5


def _unknown_state(sections):
    sections["states"][3] = 2


def _another_count(sections):
    sections["head"][0] += 1


def _scale_is_nan(sections):
    sections["scales"][0] = np.nan


def _short_rows(sections):
    sections["rows"] = sections["rows"][:-1]


def _other_type(sections):
    sections["block_lists"] = sections["block_lists"].astype(np.int64)


def _missing(sections):
    del sections["keys"]


@compiled_only
@pytest.mark.parametrize(
    "damage",
    [
        _slot_twice,
        _slot_out_of_range,
        _slot_of_a_deleted_row,
        _block_with_a_gap,
        _factor_is_nan,
        _block_of_no_list,
        _blocks_missing,
        _centroid_is_nan,
        _center_missing,
        _lists_missing,
        _key_twice,
        _unknown_state,
        _another_count,
        _scale_is_nan,
        _short_rows,
        _other_type,
        _missing,
    ],
)
def test_sections_that_do_not_fit_are_refused(damage):
    index, _ = changed_index()
    sections = index.sections()
    damage(sections)
    with pytest.raises(StoreFormat):
        KeyedIndex.from_sections(index.options, sections)


@compiled_only
@pytest.mark.parametrize("seed", range(20))
def test_random_damage_is_refused_or_harmless(seed):
    index, rows = changed_index()
    sections = index.sections()
    rng = np.random.default_rng(seed)
    for name in ("block_lists", "states", "keys", "head", "blocks", "centroids"):
        flat_bytes = sections[name].view(np.uint8).reshape(-1)
        flat_bytes[rng.integers(0, len(flat_bytes), 2)] ^= rng.integers(1, 256, 2).astype(np.uint8)
    try:
        restored = KeyedIndex.from_sections(index.options, sections)
    except StoreFormat:
        return
    assert len(restored.search(rows[0], 10)[0]) == 10
    restored.delete(range(900))
    restored.upsert(range(9000, 9300), rows[:300])


def test_search_can_be_cancelled():
    index, rows = filled()
    flag = np.ones(1, dtype=np.uint8)
    with pytest.raises(Cancelled):
        index.search_many(np.repeat(rows[:100], 10, axis=0), 10, ef=1999, cancel=flag, threads=2)
    flag[0] = 0
    assert len(index.search(rows[0], 5, cancel=flag)[0]) == 5


def test_readers_see_whole_rows_while_lists_change():
    # A key tells which row it has, so a torn or misplaced row has a wrong distance.
    index, rows = filled(rows=3000, threads=2)
    stop, failures = threading.Event(), []

    def read(seed):
        rng = np.random.default_rng(seed)
        try:
            while not stop.is_set():
                query = rows[rng.integers(0, 2000)]
                keys, distances = index.search(query, 12, ef=60)
                assert len(keys) == len(set(keys.tolist())) == 12
                assert (np.diff(distances) >= 0).all()
                right = exact(query, rows[keys % 3000], Metric.L2)
                np.testing.assert_allclose(distances, right, rtol=1e-4, atol=1e-4)
        except BaseException as failure:  # noqa: BLE001 - raised again by the test's thread
            failures.append(failure)

    readers = [threading.Thread(target=read, args=(seed,)) for seed in range(3)]
    for reader in readers:
        reader.start()
    for turn in range(1, 6):  # the same rows under further keys, until there are new centroids, and away again
        index.upsert(np.arange(3000) + 3000 * turn, rows)
    for turn in range(5, 0, -1):
        index.delete(np.arange(3000) + 3000 * turn)
        index.compact()
    stop.set()
    for reader in readers:
        reader.join()
    if failures:
        raise failures[0]
    check_against(index, dict(enumerate(rows)))


@compiled_only
@pytest.mark.parametrize("metric", LISTED)
def test_numpy_twin_and_lists_read_each_other(metric):
    index, rows = changed_index(metric)
    twin = ReferenceLists(metric=list(Metric).index(metric), element=0, dims=DIMS, seed=42)
    assert twin.restore(index.sections(), in_place=False, threads=1) is None
    assert sorted(twin.keys().tolist()) == sorted(index.keys().tolist())
    back = KeyedIndex.from_sections(index.options, twin.dump(), threads=1)
    assert back.stats()["lists"] > 0
    held = dict(zip(index.keys().tolist(), index.vectors_of(index.keys())[0], strict=True))
    check_against(back, held)
    asked = np.ascontiguousarray(rows[:9]).view(np.uint8).reshape(9, -1)
    answers = twin.search(asked, k=10, ef=10, scan_rows=0, threads=1)
    assert recall(back.search_many(rows[:9], 10, ef=600), list(zip(answers[0], answers[1], strict=True))) >= 0.99


@compiled_only
def test_sections_do_not_depend_on_the_instruction_set():
    program = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "import hashlib, test_index_ivf as cases\n"
        "sections = cases.changed_index()[0].sections()\n"
        "print(hashlib.sha256(b''.join(sections[name].tobytes() for name in sorted(sections))).hexdigest())\n"
    )
    folder = Path(__file__).resolve().parent
    found = {
        subprocess.run(
            [sys.executable, "-c", program, str(folder)],
            env=os.environ | {"RUVECTOR_SIMD": name, "PYTHONPATH": str(folder.parent)},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for name in ("scalar", kernels.simd_name())
    }
    assert len(found) == 1


REAL = {"debian-25k-384": Metric.COSINE, "glove-100k-100": Metric.COSINE}


@pytest.mark.slow
@compiled_only
@pytest.mark.parametrize("name", REAL)
def test_recall_on_real_rows(name):
    folder = shared_data(name)
    base = np.load(folder / "base.f16.npy").astype(np.float32)
    packed = folder / "queries.npz"
    queries = np.load(packed)["queries"] if packed.exists() else np.load(folder / "queries.f16.npy")
    truth = np.load(packed if packed.exists() else folder / "truth.npz")["dist"]
    index = ivf(base.shape[1], REAL[name], threads=0)
    index.upsert(np.arange(len(base)), base)
    found = []
    for ef in (10, 40, 160, 640):
        answers = index.search_many(queries.astype(np.float32), 10, ef=ef)
        limit = truth[:, 9:10] * (1 + 1e-5) + 1e-6
        found.append(float((np.array([distances for _, distances in answers]) <= limit).mean()))
    assert found[0] >= 0.55
    assert found[-1] >= 0.99
    assert found == sorted(found)
