"""Filters and keys of the index without a database: every kind, every plan, the same rows as comparing them all."""

import datetime
import threading
import uuid
from decimal import Decimal

import numpy as np
import pytest
from index_cases import exact, scaled, vectors
from sparse_cases import packed

from ruvector import limits
from ruvector.errors import InvalidParameter, LimitExceeded, StoreDamaged, StoreFormat
from ruvector.index import Index
from ruvector.store import open_generation, write_generation
from ruvector.values import ElementType, Metric

DIMS = 24
KINDS = [
    ("hnsw", "l2", None), ("hnsw", "cosine", "f16"), ("hnsw", "ip", None), ("hnsw", "hamming", None),
    ("ivf", "l2", None), ("ivf", "cosine", None), ("flat", "l2", None), ("flat", "jaccard", None),
]  # fmt: skip
PLANS = ["auto", "scan", "hop", "walk"]
# share of rows that pass, and the filter
FILTERS = {
    "none": ({"number": -1}, lambda number, _: number < 0),
    "one": ({"number": 7}, lambda number, _: number == 7),
    "few": ({"number": {"$lt": 30}}, lambda number, _: number < 30),
    "tenth": ({"word": ["w3"]}, lambda _, word: word == "w3"),
    "most": ({"$not": {"word": "w3"}}, lambda _, word: (word != "w3") & (word != "")),
    "all": ({}, lambda number, _: number >= 0),
    "NULL": ({"word": None}, lambda _, word: word == ""),
}  # fmt: skip


def rows_of(metric, dtype, count, seed=0):
    element = ElementType.BIT if metric in ("hamming", "jaccard") else ElementType.F32
    return vectors(count, DIMS, element=element, seed=seed).astype(
        np.uint8 if element is ElementType.BIT else np.float32
    )


class Case:
    """An index, its rows by key, and what of them passes a filter."""

    def __init__(self, kind, metric, dtype, count):
        self.metric = Metric(metric)
        self.index = Index(DIMS, metric, kind=kind, dtype=dtype, m=8, ef_construction=60)
        self.rows = {}
        self.numbers = {}
        self.words = {}
        self.add(np.arange(count), rows_of(metric, dtype, count), seed=1)

    def add(self, keys, rows, *, seed):
        choose = np.random.default_rng(seed)
        numbers = choose.permutation(len(keys))
        words = [f"w{n}" if n else None for n in choose.integers(0, 10, len(keys)).tolist()]
        self.index.add(keys, rows, attributes={"number": numbers, "word": words})
        stored = rows.astype(np.float16).astype(np.float32) if self.index.options.element is ElementType.F16 else rows
        for key, row, number, word in zip(keys.tolist(), stored, numbers.tolist(), words, strict=True):
            self.rows[key], self.numbers[key], self.words[key] = row, number, word or ""

    def delete(self, keys):
        self.index.delete(keys)
        for key in keys:
            del self.rows[key], self.numbers[key], self.words[key]

    def passing(self, test):
        keys = np.array(list(self.rows))
        numbers = np.array([self.numbers[key] for key in self.rows])
        words = np.array([self.words[key] for key in self.rows])
        return keys[test(numbers, words)]

    def check(self, *, k=10, plan="auto", index=None, queries=3):
        """Every filter: min(k, passing) rows, all of which pass, nearly the nearest of them; returns the recall."""
        good = total = 0
        for filter_, test in FILTERS.values():
            passing = self.passing(test)
            for query in rows_of(str(self.metric), None, queries, seed=9):
                found, distances = (index or self.index).search(query, k, filter=filter_, plan=plan)
                found = found[found >= 0]
                assert len(found) == len(set(found.tolist())) == min(k, len(passing)), (filter_, plan)
                assert set(found.tolist()) <= set(passing.tolist()), (filter_, plan)
                if not len(found):
                    continue
                wanted = np.sort(exact(query, np.array([self.rows[key] for key in passing.tolist()]), self.metric))
                of_found = exact(query, np.array([self.rows[key] for key in found.tolist()]), self.metric)
                np.testing.assert_allclose(distances[: len(found)], of_found, rtol=2e-3, atol=2e-3)
                limit = wanted[len(found) - 1]
                good += int((of_found <= limit + abs(limit) * 1e-3 + 1e-5).sum())
                total += len(found)
        return good / total


@pytest.fixture(scope="module", params=KINDS, ids=["-".join(filter(None, each)) for each in KINDS])
def case(request):
    return Case(*request.param, scaled(3000))


@pytest.mark.parametrize("plan", PLANS)
def test_rows_that_pass_are_found(case, plan):
    assert case.check(plan=plan) >= (1.0 if plan == "scan" or case.index.options.kind == "flat" else 0.95)


def test_deleted_and_replaced_rows_pass_by_what_they_are_now(case):
    keys = sorted(case.rows)
    case.delete(keys[::7])
    again = np.array([*keys[:50:7], *range(10_000, 10_040), *keys[1:200:7]])
    case.add(again, rows_of(str(case.metric), None, len(again), seed=3), seed=4)
    for plan in PLANS:
        assert case.check(plan=plan) >= 0.93


def test_saved_index_filters_alike(case, tmp_path):
    case.index.save(tmp_path / "saved")
    opened = Index.open(tmp_path / "saved")
    assert opened.stats()["attributes"] == ["number", "word"]
    for filter_, _ in FILTERS.values():
        for query in rows_of(str(case.metric), None, 3, seed=5):
            for plan in set(PLANS) - {"auto"}:  # which is chosen by what each copy measured
                for mine, theirs in zip(
                    case.index.search(query, 20, filter=filter_, plan=plan),
                    opened.search(query, 20, filter=filter_, plan=plan),
                    strict=True,
                ):
                    np.testing.assert_array_equal(mine, theirs)
    # and it goes on
    opened.add([77_777], rows_of(str(case.metric), None, 1, seed=6), attributes={"number": [-5], "word": ["new"]})
    assert opened.search(rows_of(str(case.metric), None, 1, seed=6)[0], 5, filter={"number": -5})[0].tolist() == [
        77_777, -1, -1, -1, -1
    ]  # fmt: skip


@pytest.mark.parametrize("plan", PLANS)
@pytest.mark.parametrize("share", [0.0, 0.001, 0.02, 0.5, 1.0])
def test_search_among_keys(case, plan, share):
    keys = np.array(sorted(case.rows))
    members = keys[np.random.default_rng(7).random(len(keys)) < share]
    given = np.concatenate((members, members[:3], [123_456_789, -1]))  # twice, and unknown
    query = rows_of(str(case.metric), None, 1, seed=8)[0]
    found, distances = case.index.search(query, 10, keys=given, plan=plan)
    there = found >= 0
    assert there.sum() == min(10, len(members))
    assert set(found[there].tolist()) <= set(members.tolist())
    assert np.isinf(distances[~there]).all()
    if len(members) and len(members) <= 60:
        wanted = np.sort(exact(query, np.array([case.rows[key] for key in members.tolist()]), case.metric))[:10]
        np.testing.assert_allclose(distances[there], wanted, rtol=2e-3, atol=2e-3)


def test_keys_and_filter_together_pass_what_both_pass(case):
    passing = case.passing(FILTERS["tenth"][1])
    query = rows_of(str(case.metric), None, 1, seed=8)[0]
    members = np.array(sorted(case.rows))[::2]
    both = np.intersect1d(passing, members)
    for plan in PLANS:
        found, _ = case.index.search(query, 10, filter=FILTERS["tenth"][0], keys=members, plan=plan)
        found = found[found >= 0]
        assert len(found) == min(10, len(both))
        assert set(found.tolist()) <= set(both.tolist())


def test_rows_of_sparse_vectors_are_filtered():
    index = Index(50, "ip", dtype="sparse")
    choose = np.random.default_rng(11)
    dense = np.where(choose.random((300, 50)) < 0.1, choose.random((300, 50)), 0).astype(np.float32)
    dense[:, 0] = 1
    table = packed(dense)
    index.add(np.arange(300), table, attributes={"part": np.arange(300) % 10})
    (found,), (distances,) = index.search(packed(dense[:1]), 10, filter={"part": [3, 4]})
    wanted = np.sort(-(dense @ dense[0])[np.isin(np.arange(300) % 10, [3, 4])])[:10]
    np.testing.assert_allclose(distances, wanted, rtol=1e-5)
    assert np.isin(found % 10, [3, 4]).all()


def test_text_keys_with_filter_and_keys():
    index = Index(4)
    index.add(["a", "b", "c"], vectors(3, 4), attributes={"n": [1, 2, None]})
    assert index.search(vectors(1, 4)[0], 3, filter={"n": {"$gte": 1}})[0].tolist()[2] is None
    assert set(index.search(vectors(1, 4)[0], 2, keys=["a", "c", "ä"])[0].tolist()) == {"a", "c"}
    assert index.search(vectors(1, 4)[0], 2, keys=[], filter={"n": 1})[0].tolist() == [None, None]


DAY = datetime.date(2024, 2, 29)
UTC = datetime.datetime(2024, 2, 29, 12, tzinfo=datetime.UTC)
UUID = uuid.UUID(int=5)
TYPES = {
    "bools": ([True, False, None, True], {"$eq": False}, [1]),
    "ints": (np.array([5, 6, 7, 8]), {"$gt": 6}, [2, 3]),
    "masked": (np.ma.masked_array([1.5, 2.5, 3.5, 4.5], [0, 1, 0, 0]), {"$lte": 3.5}, [0, 2]),
    "mixed": ([1, 2.5, None, 3], {"$lt": 3}, [0, 1]),
    "texts": (["b", "a", None, "ä"], {"$gte": "b"}, [0, 3]),
    "days": ([DAY, None, DAY + datetime.timedelta(1), DAY], {"$eq": DAY}, [0, 3]),
    "numpy days": (np.array(["2024-02-29", "NaT", "2023-01-01", "2025-01-01"], "datetime64[D]"), {"$lt": DAY}, [2]),
    "times": ([UTC, UTC, None, UTC + datetime.timedelta(microseconds=1)], {"$gt": UTC}, [3]),
    "local": (np.array(["2024-02-29T12:00", "NaT", "2024-03-01", "2020"], "datetime64[us]"),
              {"$lt": "2024-02-29T12:00:00.000001"}, [0, 3]),
    "ids": ([UUID, uuid.UUID(int=6), None, UUID], {"$in": [UUID, str(uuid.UUID(int=7))]}, [0, 3]),
    "labels": ([["a", "b"], [], None, ("b", None)], {"$eq": "b"}, [0, 3]),
    "sets": ([{"a"}, {"b"}, set(), None], {"$nin": ["b"]}, [0, 2]),
    "lists": (np.array([[1, 2], [2, 3], [3, 4], [4, 5]]), {"$in": [2, 5]}, [0, 1, 3]),
    "numpy texts": (np.array(["x", "y", "x", "z"]), ["x", "z"], [0, 2, 3]),
    "big": ([2**62, -(2**62), 0, None], {"$ne": 0}, [0, 1]),
}  # fmt: skip


@pytest.mark.parametrize("name", TYPES)
def test_values_of_programs_are_attributes(name, tmp_path):
    values, condition, expected = TYPES[name]
    index = Index(3)
    index.add(np.arange(4), vectors(4, 3), attributes={name: values})
    index.save(tmp_path / "saved")
    for each in (index, Index.open(tmp_path / "saved")):
        found, _ = each.search(vectors(1, 3)[0], 4, filter={name: condition})
        assert sorted(found[found >= 0].tolist()) == expected


def test_decimals_are_compared_with_floats():
    index = Index(2)
    index.add([1, 2], [[0, 0], [1, 1]], attributes={"price": [1.5, 2.5]})
    assert index.search([0, 0], 2, filter={"price": {"$lt": Decimal("2.5")}})[0].tolist() == [1, -1]


@pytest.fixture
def small():
    index = Index(2)
    index.add([1, 2, 3], [[0, 0], [1, 1], [2, 2]], attributes={"n": [1, 2, None], "word": ["a", None, "b"]})
    return index


@pytest.mark.parametrize(
    ("filter_", "message"),
    [
        ({"other": 1}, "column 'other' is not a filter column"),
        ({"n": "x"}, "'x' is not a value of type bigint"),
        ({"n": 1.5}, "1.5 is not a value of type bigint"),
        ({"n": True}, "True is not a value of type bigint"),
        ({"n": 2**63}, "is not a value of type bigint"),
        ({"n": {"$in": [1, 2**70]}}, "is not a value of type bigint"),
        ({"word": 5}, "5 is not a value of type text"),
        ({"n": {"$like": 5}}, "unknown operator '$like'"),
        ({"$or": []}, "$or expects a list of filters"),
        ({"$and": {"n": 1}}, "$and expects a list of filters"),
        ({"n": {"$in": 5}}, "a list is expected, not 5"),
        ({"n": {"$exists": 1}}, "$exists expects true or false"),
        ([1], "a filter must be an object"),
    ],
)  # fmt: skip
def test_filters_that_say_nothing_are_refused(small, filter_, message):
    with pytest.raises(InvalidParameter) as refused:
        small.search([0, 0], 2, filter=filter_)
    assert message in str(refused.value)


def test_filters_are_bounded(small):
    values = list(range(limits.FILTER_VALUES_MAX))
    assert small.search([0, 0], 3, filter={"n": {"$in": values}})[0].tolist() == [1, 2, -1]
    with pytest.raises(LimitExceeded, match="100001 values"):
        small.search([0, 0], 3, filter={"n": {"$in": [*values, -1]}})
    nested = {"n": 1}
    for _ in range(limits.FILTER_DEPTH_MAX):
        nested = {"$not": nested}
    assert small.search([0, 0], 3, filter=nested)[0].tolist() == [1, -1, -1]
    with pytest.raises(LimitExceeded, match="deeper than"):
        small.search([0, 0], 3, filter={"$not": nested})


def test_attributes_that_do_not_fit_change_nothing(small):
    for attributes, message in [
        ({"n": [1]}, "1 values for 2 rows"), ({"n": ["x", 1]}, "is bigint, not 'x'"),
        ({"m": [1, 2]}, 'no attribute "m"'),
        ({"n": "ab"}, "no list of values"), ({"word": [1, "a"]}, "is text, not 1"),
    ]:  # fmt: skip
        with pytest.raises(InvalidParameter, match=message):
            small.add([8, 9], [[5, 5], [6, 6]], attributes=attributes)
    assert len(small) == 3
    plain = Index(2)
    plain.add([1], [[0, 0]])
    with pytest.raises(InvalidParameter, match="have no attributes"):
        plain.add([2], [[1, 1]], attributes={"n": [1]})
    with pytest.raises(InvalidParameter, match="no attributes to filter by"):
        plain.search([0, 0], 1, filter={"n": 1})
    assert plain.search([0, 0], 1, keys=[1])[0].tolist() == [1]
    with pytest.raises(InvalidParameter, match='unknown plan "fast"'):
        plain.search([0, 0], 1, plan="fast")


def test_rows_without_attributes_have_null(small):
    small.add([4], [[3, 3]])
    assert sorted(small.search([0, 0], 4, filter={"n": None})[0].tolist()) == [-1, -1, 3, 4]


def test_damaged_attributes_are_refused(small, tmp_path):
    small.save(tmp_path / "saved")
    with open_generation(tmp_path / "saved") as generation:
        meta, sections = dict(generation.meta), {name: generation.section(name) for name in generation.names}
        for number, (name, change) in enumerate(
            [
                ("attribute_0_values", lambda each: each[:-1]), ("attribute_0_present", lambda each: each + 7),
                ("attribute_1_texts_count", lambda each: each * 0),
                ("attribute_1_texts", lambda each: each.astype(np.int16)),
                ("attribute_live", lambda each: each * 0),
                ("attribute_1_values", lambda each: each + 100), ("attribute_hashes", lambda each: each[:1]),
                ("attributes", lambda _: np.frombuffer(b"{}", np.uint8)), ("tags", lambda each: each[::-1] * 0),
            ]
        ):  # fmt: skip
            folder = tmp_path / str(number)
            write_generation(folder, sections | {name: change(np.array(sections[name]))}, meta=meta)
            with pytest.raises(StoreFormat):
                Index.open(folder)


@pytest.mark.parametrize("content", [b"[1, 2]", b'["a"]', b"{}", b'["a", "b"'])
def test_damaged_dictionary_is_noticed_when_it_is_needed(small, tmp_path, content):
    small.save(tmp_path / "saved")
    with open_generation(tmp_path / "saved") as generation:
        sections = {name: generation.section(name) for name in generation.names}
        changed = sections | {"attribute_1_texts": np.frombuffer(content, np.uint8)}
        write_generation(tmp_path / "damaged", changed, meta=dict(generation.meta))
    opened = Index.open(tmp_path / "damaged")
    assert opened.search([0, 0], 3, filter={"n": 1})[0].tolist() == [1, -1, -1]
    for _ in range(2):
        with pytest.raises(StoreDamaged):
            opened.search([0, 0], 3, filter={"word": "a"})


@pytest.mark.parametrize("kind", ["hnsw", "ivf", "flat"])
def test_searches_meet_no_row_that_never_passed_while_rows_come_and_go(kind):
    """Tags are used again: a sieve made before must not let a newer row pass for the sake of the old one."""
    index = Index(8, kind=kind, m=6, ef_construction=30)
    count = scaled(1200)
    index.add(np.arange(count), vectors(count, 8), attributes={"even": np.arange(count) % 2 == 0})
    stop, problems = threading.Event(), []

    def churn():
        choose = np.random.default_rng(21)
        turn = 0
        while not stop.is_set():
            turn += 1
            keys = choose.choice(count, 40, replace=False)
            index.delete(keys)
            # keys keep their parity, tags do not keep their keys
            index.add(keys, vectors(40, 8, seed=turn), attributes={"even": keys % 2 == 0})

    def search():
        choose = np.random.default_rng(22)
        while not stop.is_set():
            query = choose.normal(size=8)
            found, _ = index.search(query, 10, filter={"even": True}, plan=str(choose.choice(PLANS)))
            wrong = found[(found >= 0) & (found % 2 == 1)]
            if len(wrong) or (found >= 0).sum() < 10:
                problems.append(found.tolist())

    threads = [threading.Thread(target=each) for each in (churn, search, search)]
    for thread in threads:
        thread.start()
    threading.Event().wait(2)
    stop.set()
    for thread in threads:
        thread.join()
    assert problems == []
