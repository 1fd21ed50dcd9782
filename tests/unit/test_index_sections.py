import numpy as np
import pytest
from index_cases import COMBINATIONS, hnsw, options, vectors

from ruvector import kernels, limits
from ruvector.errors import StoreFormat
from ruvector.index import KeyedIndex, options_from_json, options_to_json
from ruvector.index.keys import TextKeys
from ruvector.index.reference import ReferenceGraph
from ruvector.values import ElementType, IndexKind, KeyKind, Metric

EMPTY = 0xFFFFFFFF


def changed_index(metric=Metric.L2, element=ElementType.F32, **more):
    """An index with deleted rows, free slots and twins."""
    index = hnsw(16, metric, element=element, **more)
    rows = vectors(900, 16, element=element)
    rows[100:160] = rows[100]
    index.upsert(range(900), rows)
    index.delete(range(0, 300, 2))
    index.compact()
    index.delete(range(301, 400, 2))
    index.upsert(range(1000, 1020), rows[:20])
    return index, rows


@pytest.mark.parametrize("in_place", [False, True])
@pytest.mark.parametrize(("metric", "element"), COMBINATIONS)
def test_restored_index_is_the_same(metric, element, in_place):
    index, rows = changed_index(metric, element)
    restored = KeyedIndex.from_sections(index.options, index.sections(), threads=1, in_place=in_place)
    again = restored.sections()
    for name, section in index.sections().items():
        assert (section == again[name]).all(), name
    for query in rows[:5]:
        assert index.search(query, 20)[1].tolist() == restored.search(query, 20)[1].tolist()
    for one in (index, restored):
        one.upsert(range(2000, 2300), vectors(300, 16, element=element, seed=6))
        one.delete(range(400, 900))
    assert index.search(rows[0], 30)[1].tolist() == restored.search(rows[0], 30)[1].tolist()


def test_sections_are_a_copy():
    index, rows = changed_index()
    before = index.sections()
    kept = {name: section.copy() for name, section in before.items()}
    index.upsert(range(900), rows[::-1])
    assert all((before[name] == kept[name]).all() for name in kept)


@pytest.mark.skipif(not kernels.IS_COMPILED, reason="the numpy engine always copies")
def test_rows_in_place_stay_in_their_array():
    options_here = options(256)
    index = KeyedIndex(options_here, threads=1)
    index.upsert(range(9000), vectors(9000, 256))  # several chunks of rows
    sections = index.sections()
    restored = KeyedIndex.from_sections(options_here, sections, in_place=True, threads=1)
    assert restored.stats()["chunk_bytes"] < index.stats()["chunk_bytes"]
    sections["rows"].setflags(write=False)
    copied = KeyedIndex.from_sections(options_here, sections, in_place=True, threads=1)
    assert copied.stats()["chunk_bytes"] == index.stats()["chunk_bytes"]
    for one in (restored, copied):
        assert one.upsert(range(9000, 9100), vectors(100, 256, seed=2)) == 100
        assert one.search(vectors(9000, 256)[77], 1)[0].tolist() == [77]


def _links_out_of_range(sections):
    sections["links"][5, 0] = len(sections["states"])


def _links_to_a_free_slot(sections):
    sections["links"][np.flatnonzero(sections["states"] == 1)[0], 0] = np.flatnonzero(sections["states"] == 0)[0]


def _link_to_a_lower_level(sections):
    sections["upper"][0] = np.flatnonzero((sections["levels"] == 0) & (sections["states"] == 1))[0]


def _key_twice(sections):
    live = np.flatnonzero(sections["states"] == 1)
    sections["keys"][live[0]] = sections["keys"][live[1]]


def _unknown_state(sections):
    sections["states"][3] = 9


def _level_without_links(sections):
    sections["levels"][np.flatnonzero(sections["states"] == 1)[0]] += 1


def _absurd_level(sections):
    sections["levels"][np.flatnonzero(sections["states"] == 1)[0]] = 200


def _twin_of_nobody(sections):
    sections["twin_heads"][np.flatnonzero(sections["states"] == 3)[0]] = len(sections["states"])


def _entry_out_of_range(sections):
    sections["head"][0] = 1 << 40


def _entry_of_another_level(sections):
    sections["head"][1] += 1


def _another_count(sections):
    sections["head"][4] += 1


def _scale_is_nan(sections):
    sections["scales"][0] = np.nan


def _short_rows(sections):
    sections["rows"] = sections["rows"][:-1]


def _other_type(sections):
    sections["links"] = sections["links"].astype(np.int64)


def _missing(sections):
    del sections["keys"]


@pytest.mark.parametrize(
    "damage",
    [
        _links_out_of_range,
        _links_to_a_free_slot,
        _link_to_a_lower_level,
        _key_twice,
        _unknown_state,
        _level_without_links,
        _absurd_level,
        _twin_of_nobody,
        _entry_out_of_range,
        _entry_of_another_level,
        _another_count,
        _scale_is_nan,
        _short_rows,
        _other_type,
        _missing,
    ],
)
def test_sections_that_do_not_fit_are_refused(damage):
    index, _ = changed_index(m=4)
    sections = index.sections()
    damage(sections)
    with pytest.raises(StoreFormat):
        KeyedIndex.from_sections(index.options, sections)


def test_sections_of_other_options_are_refused():
    index, _ = changed_index()
    for other in (options(17), options(32), options(16, m=8), options(16, kind=IndexKind.FLAT)):
        with pytest.raises(StoreFormat):
            KeyedIndex.from_sections(other, index.sections())


@pytest.mark.parametrize("seed", range(20))
def test_random_damage_is_refused_or_harmless(seed):
    index, rows = changed_index(m=4)
    sections = index.sections()
    rng = np.random.default_rng(seed)
    for name in ("links", "upper", "levels", "states", "twin_heads", "head", "keys"):
        flat_bytes = sections[name].view(np.uint8).reshape(-1)
        flat_bytes[rng.integers(0, len(flat_bytes), 2)] ^= rng.integers(1, 256, 2).astype(np.uint8)
    try:
        restored = KeyedIndex.from_sections(index.options, sections)
    except StoreFormat:
        return
    restored.search(rows[0], 10)
    restored.delete(range(900))


def test_options_survive_json():
    for given in (options(), options(8, Metric.JACCARD, element=ElementType.BIT, key_kind=KeyKind.TEXT, m=5)):
        assert options_from_json(options_to_json(given)) == given
    for wrong in (
        {},
        {"dims": 3, "metric": "nope"},
        {"dims": 3, "metric": "l2", "more": 1},
        {"dims": [], "metric": "l2"},
    ):
        with pytest.raises(StoreFormat):
            options_from_json(wrong)


def test_text_keys_survive_with_every_character():
    index = KeyedIndex(options(2, key_kind=KeyKind.TEXT))
    names = ["", "a", "äöü", "\N{PILE OF POO}", "with\x00zero", "a" * 1000]
    index.upsert(names, vectors(6, 2))
    index.delete(["a"])
    restored = KeyedIndex.from_sections(index.options, index.sections())
    assert sorted(restored.keys()) == sorted(set(names) - {"a"})
    restored.upsert(["new", "a"], vectors(2, 2, seed=4))
    assert len(restored) == 7


@pytest.mark.parametrize("name", ["text_ends", "text_numbers", "text_bytes"])
def test_text_sections_that_do_not_fit_are_refused(name):
    index = KeyedIndex(options(2, key_kind=KeyKind.TEXT))
    index.upsert(["a", "b", "c"], vectors(3, 2))
    for damage in (lambda section: section[:-1], lambda section: section * 0 + 200):
        sections = index.sections()
        sections[name] = damage(sections[name])
        with pytest.raises(StoreFormat):
            KeyedIndex.from_sections(index.options, sections)


def test_texts_of_deleted_rows_are_forgotten_in_one_go():
    keys = TextKeys()
    live = {f"k{at}" for at in range(50)}
    numbers = keys.for_write([f"k{at}" for at in range(limits.TEXT_KEYS_KEPT + 100)])

    def contains(asked):
        return np.isin(asked, numbers[:50])

    keys.forget(limits.TEXT_KEYS_KEPT, live=50, contains=contains)
    assert len(keys.names(numbers)) == len(numbers)
    keys.forget(50, live=50, contains=contains)
    assert keys.names(numbers) is None
    assert set(keys.names(numbers[:50])) == live
    assert keys.for_read(["k7", "k77"]).tolist() == [7, -1]
    assert keys.for_write(["k77"])[0] >= len(numbers)


@pytest.mark.skipif(not kernels.IS_COMPILED, reason="the numpy engine cannot be compared with itself")
@pytest.mark.parametrize(("metric", "element"), COMBINATIONS)
def test_compiled_and_numpy_engine_read_each_other(metric, element):
    dims, count = 16, 250
    given = {
        "metric": list(Metric).index(metric),
        "element": list(ElementType).index(element),
        "dims": dims,
        "m": 6,
        "ef_construction": 40,
        "seed": 42,
        "linked": True,
    }
    rows = vectors(count, dims, element=element)
    rows[50:60] = rows[50]
    compiled, numpy_twin = type(hnsw(4)._engine)(**given), ReferenceGraph(**given)
    data = np.ascontiguousarray(rows).view(np.uint8).reshape(count, -1)
    for engine in (compiled, numpy_twin):
        engine.upsert(np.arange(count), data, loose=False, threads=1)
        engine.delete(np.arange(0, 60, 2), threads=1)
    queries = rows[:9] if element is ElementType.BIT else rows[:9].astype(np.float32)
    asked = np.ascontiguousarray(queries).view(np.uint8).reshape(9, -1)
    for source, target in ((compiled, numpy_twin), (numpy_twin, compiled)):
        sections = source.dump()
        assert target.restore(sections, in_place=False, threads=1) is None
        again = target.dump()
        for name in sections:
            np.testing.assert_allclose(again[name], sections[name], rtol=1e-6, err_msg=name)
        for k, ef in ((5, 30), (300, 30)):
            left = source.search(asked, k=k, ef=ef, scan_rows=0, threads=1)
            right = target.search(asked, k=k, ef=ef, scan_rows=0, threads=1)
            assert left[2].tolist() == right[2].tolist()
            np.testing.assert_allclose(left[1], right[1], rtol=1e-4, atol=1e-5)
