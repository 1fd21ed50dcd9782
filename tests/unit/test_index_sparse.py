import threading

import numpy as np
import pytest
from index_cases import scaled, shared_data
from sparse_cases import SPARSE_METRICS, csr, dense, packed, right, sparse_index, sparse_options, sparse_table

from ruvector import Index, SparseVectors, kernels
from ruvector.errors import (
    Cancelled,
    DimensionMismatch,
    InvalidParameter,
    InvalidVector,
    StoreDamaged,
    StoreFormat,
)
from ruvector.index import KeyedIndex
from ruvector.values import ElementType, IndexKind, KeyKind, Metric


def check(index, query, rows, metric, k):
    """The k nearest of a dictionary of dense rows, ties in any order."""
    keys, distances = index.search(packed([query]), k)
    apart = dict(zip(rows, right(query, np.array(list(rows.values())), metric), strict=True))
    assert len(set(keys.tolist())) == len(keys) == min(k, len(rows))
    np.testing.assert_allclose(distances, [apart[key] for key in keys.tolist()], rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(distances, np.sort(list(apart.values()))[:k], rtol=1e-6, atol=1e-6)
    assert (np.diff(distances) >= 0).all()


@pytest.mark.parametrize("share", [0.01, 0.1, 0.6])
@pytest.mark.parametrize("metric", SPARSE_METRICS)
def test_answers_are_exact(metric, share):
    table = sparse_table(scaled(1200), 60, share=share)
    index = sparse_index(60, metric)
    assert index.upsert(range(len(table)), packed(table)) == len(table)
    for query in sparse_table(6, 60, seed=1, share=share):
        for k in (1, 10, len(table), len(table) + 5):
            check(index, query, dict(enumerate(table)), metric, k)


@pytest.mark.parametrize("metric", SPARSE_METRICS)
def test_rows_that_share_no_dimension_are_ranked_too(metric):
    table = np.zeros((scaled(1600), 40), dtype=np.float32)
    rng = np.random.default_rng(3)
    table[:, 20:] = rng.normal(size=(len(table), 20)) * (rng.random((len(table), 20)) < 0.2)
    table[:, 39] += np.exp(rng.normal(size=len(table)) * 3)  # weights of all sizes
    table[::97, 0] = rng.normal(size=len(table[::97]))  # few rows meet the query, some on the wrong side
    index = sparse_index(40, metric)
    index.upsert(range(len(table)), packed(table))
    query = np.zeros(40, dtype=np.float32)
    query[[0, 5]] = 2, 1
    alone = np.zeros(40, dtype=np.float32)
    alone[7] = 1
    for probe in (query, alone):
        for k in (1, 9, 30, len(table)):
            check(index, probe, dict(enumerate(table)), metric, k)


@pytest.mark.parametrize("metric", [Metric.L2, Metric.IP, Metric.L1])
def test_empty_rows_and_queries_have_distances(metric):
    table = sparse_table(50, 12)
    table[7] = 0
    index = sparse_index(12, metric)
    index.upsert(range(50), packed(table))
    check(index, np.zeros(12, dtype=np.float32), dict(enumerate(table)), metric, 50)
    check(index, table[3], dict(enumerate(table)), metric, 50)


def test_small_distances_between_large_vectors_are_right():
    """The sums of l2 cancel here: 1e6 squared leaves no digit for what differs."""
    table = np.zeros((400, 30), dtype=np.float32)
    table[:, 0] = 1e6
    rng = np.random.default_rng(5)
    table[:, 1:] = rng.normal(size=(400, 29)) * 1e-4
    for metric in (Metric.L2, Metric.L1):
        index = sparse_index(30, metric)
        index.upsert(range(400), packed(table))
        for query in table[:5]:
            expected = right(query, table, metric)
            keys, distances = index.search(packed([query]), 20)
            np.testing.assert_allclose(distances, np.sort(expected)[:20], rtol=1e-6, atol=1e-12)
            if kernels.IS_COMPILED:
                assert expected[keys].tolist() == sorted(expected[keys].tolist())


def test_numbers_of_any_size_stay_in_order():
    table = np.zeros((6, 3), dtype=np.float32)
    table[:, 1] = [1e-44, 1e-30, 1, 1e20, 3e38, -3e38]
    for metric in SPARSE_METRICS:
        index = sparse_index(3, metric)
        index.upsert(range(6), packed(table))
        keys, distances = index.search(packed([[0, 3e38, 0]]), 6)
        assert sorted(keys.tolist()) == list(range(6))
        assert not np.isnan(distances).any()
        assert (distances[1:] >= distances[:-1]).all()


def test_dims_may_be_a_thousand_million():
    rows = SparseVectors([0, 2, 3], [0, 999_999_999, 999_999_998], [1, 2, 3], 1_000_000_000)
    index = sparse_index(1_000_000_000, Metric.IP)
    index.upsert([1, 2], rows)
    keys, distances = index.search(SparseVectors([0, 1], [999_999_999], [2], 1_000_000_000), 2)
    assert (keys.tolist(), distances.tolist()) == ([1, 2], [-4, 0])


def test_deferred_rows_are_in_their_lists_already():
    index = Index(50, "ip", dtype="sparse")
    table = sparse_table(30)
    index.add(range(30), packed(table), defer=True)
    shares = []
    index.build(on_progress=lambda progress: shares.append(progress.share))
    assert (shares[-1], index.stats()["loose"]) == (1.0, 0)
    assert index.search(packed(table[:1]), 30)[1].shape == (1, 30)


def test_rows_are_replaced_and_repeats_change_nothing():
    index = sparse_index(10)
    table = sparse_table(6, 10, whole=True)
    assert index.upsert([1, 2, 1], packed(table[:3])) == 2
    assert index.upsert([1, 2], packed(table[[2, 1]])) == 0
    assert index.upsert([2], packed(table[[3]])) == 1
    stored, found = index.vectors_of([2, 5, 1])
    assert found.tolist() == [True, False, True]
    assert (dense(stored) == [table[3], np.zeros(10), table[2]]).all()
    check(index, table[0], {1: table[2], 2: table[3]}, Metric.L2, 5)
    assert index.delete([1, 1, 9]) == 1
    assert index.keys().tolist() == [2]
    assert not index.contains(1)
    index.clear()
    assert len(index) == 0
    assert index.search(packed(table[:1]), 3)[0].tolist() == []


@pytest.mark.skipif(not kernels.IS_COMPILED, reason="the numpy engine holds nothing of deleted rows")
def test_deleted_rows_give_their_space_back():
    table = sparse_table(3000, 50)
    index = sparse_index(50)
    index.upsert(range(3000), packed(table))
    full = index.stats()
    index.delete(range(1000, 3000))
    assert index.stats()["dead"] == 2000
    index.compact()
    left = index.stats()
    assert (left["dead"], left["slots"], left["rows"]) == (0, 1000, 1000)
    assert left["postings"] == (table[:1000] != 0).sum()
    assert left["row_bytes"] + left["link_bytes"] < 0.4 * (full["row_bytes"] + full["link_bytes"])
    index.delete(range(900))
    index.compact()
    index.upsert(range(5000, 5900), packed(table[:900]))
    assert index.stats()["slots"] == 1000  # free slots are used again
    check(index, table[3], dict(enumerate(table[900:1000], 900)) | dict(enumerate(table[:900], 5000)), Metric.L2, 20)
    for _ in range(30):  # compaction comes by itself
        index.upsert(range(5000, 5900), packed(sparse_table(900, 50, seed=int(index.stats()["repairs"]))))
        index.upsert(range(5000, 5900), packed(table[:900]))
    assert index.stats()["repairs"] > 2
    assert index.stats()["postings"] < 60_000
    index.delete(index.keys())
    assert index.stats()["bytes"] == 0


@pytest.mark.parametrize("metric", SPARSE_METRICS)
@pytest.mark.parametrize("key_kind", list(KeyKind))
def test_restored_index_is_the_same(metric, key_kind):
    index = sparse_index(50, metric, key_kind=key_kind)
    name = str if key_kind is KeyKind.TEXT else int
    table = sparse_table(500, 50)
    index.upsert([name(at) for at in range(500)], packed(table))
    index.delete([name(at) for at in range(0, 500, 3)])
    restored = KeyedIndex.from_sections(index.options, index.sections(), threads=1)
    for query in sparse_table(5, 50, seed=2):
        assert index.search(packed([query]), 40)[1].tolist() == restored.search(packed([query]), 40)[1].tolist()
    assert sorted(restored.keys()) == sorted(index.keys())
    for one in (index, restored):
        one.upsert([name(7), name(900)], packed(table[:2]))
        one.delete([name(4)])
    again = restored.sections()
    for section, array in index.sections().items():
        if not section.startswith("text"):
            assert sorted(array.tolist()) == sorted(again[section].tolist()), section


def test_folder_keeps_the_index(tmp_path):
    table = sparse_table(300, 70)
    index = Index(70, "ip", dtype="sparse")
    assert index.add([f"row {at}" for at in range(300)], csr(packed(table))) == 300
    index.save(tmp_path / "saved")
    opened = Index.open(tmp_path / "saved")
    assert opened.options == index.options
    assert (opened.stats()["kind"], opened.stats()["element"]) == ("inverted", "sparse")
    queries = packed(sparse_table(4, 70, seed=1))
    for left, again in zip(index.search(queries, 5), opened.search(queries, 5), strict=True):
        assert left.shape == (4, 5)
        assert (left == again).all()
    victim = tmp_path / "saved" / "values.section"
    data = bytearray(victim.read_bytes())
    data[4100] ^= 1
    victim.write_bytes(data)
    with pytest.raises(StoreDamaged):
        Index.open(tmp_path / "saved")


def test_fewer_rows_than_asked_leave_places_empty():
    index = Index(9, "l2", dtype="sparse")
    index.add([4], SparseVectors.from_texts(["{1:1}/9"]))
    keys, distances = index.search(SparseVectors.from_texts(["{}/9"]), k=3)
    assert keys.tolist() == [[4, -1, -1]]
    assert distances.tolist() == [[1, np.inf, np.inf]]


def _starts_late(sections):
    sections["starts"][0] = 1


def _row_backwards(sections):
    sections["starts"][3] = sections["starts"][4] + 1


def _end_outside(sections):
    sections["starts"][-1] += 5


def _index_outside(sections):
    sections["dims"][sections["starts"][5] - 1] = 50


def _index_twice(sections):
    at = np.flatnonzero(np.diff(sections["starts"]) > 1)[0]
    first = sections["starts"][at]
    sections["dims"][first + 1] = sections["dims"][first]


def _value_is_nan(sections):
    sections["values"][2] = np.nan


def _value_is_zero(sections):
    sections["values"][2] = 0


def _key_twice(sections):
    sections["keys"][1] = sections["keys"][0]


def _other_dims(sections):
    sections["head"][1] = 51


def _other_count(sections):
    sections["head"][0] -= 1


def _short_head(sections):
    sections["head"] = sections["head"][:1]


def _key_missing(sections):
    sections["keys"] = sections["keys"][:-1]
    sections["head"][0] -= 1


def _other_type(sections):
    sections["dims"] = sections["dims"].astype(np.int64)


def _row_of_zeros(sections):
    sections["starts"][1] = 0
    sections["dims"][0] = 0
    for at in range(1, int(sections["starts"][2])):
        sections["dims"][at] = at


def _missing(sections):
    del sections["starts"]


@pytest.mark.parametrize(
    "damage",
    [
        _starts_late,
        _row_backwards,
        _end_outside,
        _index_outside,
        _index_twice,
        _value_is_nan,
        _value_is_zero,
        _key_twice,
        _other_dims,
        _other_count,
        _short_head,
        _key_missing,
        _other_type,
        _row_of_zeros,
        _missing,
    ],
)
def test_sections_that_do_not_fit_are_refused(damage):
    index = sparse_index(50, Metric.COSINE)
    index.upsert(range(40), packed(sparse_table(40)))
    sections = index.sections()
    damage(sections)
    with pytest.raises(StoreFormat):
        KeyedIndex.from_sections(index.options, sections)


@pytest.mark.parametrize("seed", range(20))
def test_random_damage_is_refused_or_harmless(seed):
    index = sparse_index(50)
    index.upsert(range(200), packed(sparse_table(200)))
    sections = index.sections()
    rng = np.random.default_rng(seed)
    for name in ("keys", "starts", "dims", "head"):
        flat_bytes = sections[name].view(np.uint8)
        flat_bytes[rng.integers(0, len(flat_bytes))] ^= np.uint8(rng.integers(0, 2) * rng.integers(1, 256))
    try:
        restored = KeyedIndex.from_sections(index.options, sections)
    except StoreFormat:
        return
    restored.search(packed(sparse_table(1)), 10)
    restored.delete(range(100))


def test_bad_input_is_refused_before_anything_changes():
    index = sparse_index(50, Metric.COSINE)
    rows = packed(sparse_table(3))
    empty = packed(np.vstack([sparse_table(1), np.zeros((1, 50))]))
    for keys, vectors, error in [
        ([1, 2], empty, InvalidVector),
        ([1, 2], rows, InvalidParameter),
        ([1], packed(sparse_table(1, 51)), DimensionMismatch),
        ([1], sparse_table(1), InvalidParameter),
        (["a", "b", "c"], rows, InvalidParameter),
    ]:
        with pytest.raises(error):
            index.upsert(keys, vectors)
    assert len(index) == 0
    with pytest.raises(InvalidVector, match="vector 0 is all zeros"):
        index.search(empty[1:], 1)
    with pytest.raises(InvalidParameter, match="one query is needed, these are 3"):
        index.search(rows, 1)
    with pytest.raises(DimensionMismatch):
        index.search(packed(sparse_table(1, 51)), 1)
    with pytest.raises(InvalidParameter):
        index.search(sparse_table(1)[0], 1)


def test_dense_index_refuses_sparse_vectors():
    with pytest.raises((InvalidParameter, InvalidVector)):
        Index(50).add([1, 2, 3], packed(sparse_table(3)))


@pytest.mark.parametrize(
    "wrong",
    [
        {"kind": IndexKind.HNSW},
        {"kind": IndexKind.FLAT},
        {"element": ElementType.F32},
        {"metric": Metric.HAMMING},
        {"dims": 0},
        {"dims": 1_000_000_001},
    ],
)
def test_options_that_do_not_fit_are_refused(wrong):
    given = {"dims": 5, "metric": Metric.IP, "kind": IndexKind.INVERTED, "element": ElementType.SPARSE} | wrong
    with pytest.raises(InvalidParameter):
        KeyedIndex(type(sparse_options())(**given))
    with pytest.raises(InvalidParameter):
        Index(5, "ip", kind="hnsw", dtype="sparse")


def test_engine_refuses_arrays_that_would_lead_it_astray():
    """The engine follows what row starts say, so it looks at them itself."""
    if not kernels.IS_COMPILED:
        pytest.skip("only the compiled engine reads memory")
    from types import SimpleNamespace

    from ruvector._ext.inverted import Inverted

    engine = Inverted(metric=0, dims=5)
    for starts, dims, values in [
        ([0, 3], [0, 1], [1, 1]),
        ([0, -1], [0, 1], [1, 1]),
        ([0, 2], [0, 9], [1, 1]),
        ([0, 2], [1, 1], [1, 1]),
        ([0, 1], [0, 1], [1, 1]),
        ([0, 2], [0, 1], [1]),
        ([0], [0, 1], [1, 1]),
    ]:
        rows = SimpleNamespace(
            indptr=np.array(starts, dtype=np.int64),
            indices=np.array(dims, dtype=np.uint32),
            values=np.array(values, dtype=np.float32),
        )
        with pytest.raises(ValueError, match=r"row|index|indices"):
            engine.upsert(np.array([1]), rows, loose=False, threads=1)


def test_set_flag_cancels_a_search():
    index = sparse_index()
    index.upsert(range(2000), packed(sparse_table(2000)))
    flag = np.zeros(1, dtype=np.uint8)
    query = packed(sparse_table(1))
    assert len(index.search(query, 5, cancel=flag)[0]) == 5
    flag[0] = 1
    with pytest.raises(Cancelled):
        index.search(query, 5, cancel=flag)
    with pytest.raises(Cancelled):
        index.search_many(packed(sparse_table(50)), 5, cancel=flag, threads=2)


def test_readers_see_whole_rows_while_a_writer_changes_them():
    """Every row of key x holds x times a power of ten at its own dimension and at dimension 0."""
    index = sparse_index(1001, Metric.L2)
    keys = np.arange(1, 1001)

    def rows_of(part, factor):
        starts = np.arange(0, 2 * len(part) + 1, 2)
        places = np.stack([np.zeros_like(part), part], axis=1).reshape(-1)
        return SparseVectors(starts, places, np.repeat(part * factor, 2), 1001)

    index.upsert(keys, rows_of(keys, 1))
    failures, stop, rounds = [], threading.Event(), [0]

    def read(seed):
        rng = np.random.default_rng(seed)
        try:
            while not stop.is_set():
                key = int(rng.integers(1, 901))  # never deleted
                found, distances = index.search(rows_of(np.array([key]), 1), 5)
                assert len(set(found.tolist())) == 5
                if distances[0] == 0:
                    assert found[0] == key
                stored, _ = index.vectors_of([key])
                assert stored.values.tolist() in ([key, key], [10 * key, 10 * key])
                rounds[0] += 1
        except BaseException as failure:  # noqa: BLE001 - raised again by the test's thread
            failures.append(failure)

    readers = [threading.Thread(target=read, args=(seed,)) for seed in range(3)]
    for reader in readers:
        reader.start()
    rng = np.random.default_rng(9)
    for _ in range(scaled(60)):
        part = np.unique(rng.integers(1, 1001, 300))
        index.upsert(part, rows_of(part, int(rng.choice([1, 10]))))
        index.delete(rng.integers(901, 1001, 40))
        index.compact()
        index.sections()
    stop.set()
    for reader in readers:
        reader.join()
    assert not failures, failures
    assert rounds[0] > 0


@pytest.mark.parametrize("threads", [1, 2])
def test_answers_do_not_depend_on_threads_or_history(threads):
    table = sparse_table(800, 50, whole=True)
    first, second = sparse_index(50, Metric.IP), sparse_index(50, Metric.IP)
    first.upsert(range(800), packed(table))
    second.upsert(range(800), packed(table[::-1]))
    second.upsert(range(800), packed(table))
    queries = packed(sparse_table(40, 50, seed=1))
    one = first.search_many(queries, 20)
    other = second.search_many(queries, 20, threads=threads)
    for (_, left), (_, again) in zip(one, other, strict=True):
        assert left.tolist() == again.tolist()


@pytest.mark.slow
def test_bm25_answers_equal_the_stored_truth():
    data = np.load(shared_data("debian-25k-384") / "bm25_sparse.npz")
    rows, dims = (int(length) for length in data["shape"])
    index = Index(dims, "ip", dtype="sparse")
    index.add(np.arange(rows), SparseVectors(data["indptr"], data["indices"], data["data"], dims))
    asked = scaled(1000) if kernels.IS_COMPILED else 20
    queries = SparseVectors(data["q_indptr"], data["q_indices"], data["q_data"], dims)[:asked]
    keys, distances = index.search(queries, 100, threads=0)
    scores = data["score"][:asked]
    np.testing.assert_allclose(-distances, scores, rtol=1e-6)
    # Ties at the last place may be resolved otherwise; nearer rows must all be there.
    for found, ids, score in zip(keys, data["ids"][:asked], scores, strict=True):
        surely = score > score[-1] * (1 + 1e-6)
        assert set(ids[surely].tolist()) <= set(found.tolist())


def test_bm25_distances_of_other_metrics_are_exact():
    data = np.load(shared_data("debian-25k-384") / "bm25_sparse.npz")
    rows, dims = 2000, int(data["shape"][1])
    part = slice(0, data["indptr"][rows])
    vectors = SparseVectors(data["indptr"][: rows + 1], data["indices"][part], data["data"][part], dims)
    queries = SparseVectors(data["q_indptr"], data["q_indices"], data["q_data"], dims)[:3]
    table, probes = dense(vectors), dense(queries)
    for metric in (Metric.L2, Metric.COSINE, Metric.L1):
        index = sparse_index(dims, metric)
        index.upsert(np.arange(rows), vectors)
        for at, probe in enumerate(probes):
            distances = index.search(queries[at : at + 1], 50)[1]
            np.testing.assert_allclose(distances, np.sort(right(probe, table, metric))[:50], rtol=1e-6, atol=1e-6)
