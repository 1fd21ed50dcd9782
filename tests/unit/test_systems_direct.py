"""Calls that reach the sidecar past the database: what the declared functions pass on and refuse."""

import numpy as np
import pytest

from ruvector import limits, systems
from ruvector.errors import InvalidParameter, InvalidVector, PermissionDenied, UnsupportedStatement, UserError
from ruvector.surface import registry
from ruvector.surface.rows import CollectionRow, ConsistencyRow
from ruvector.values import Hit, Restriction

systems.load()
VECTOR = "[1,2]"


class FixedContext:
    """Answers with fixed rows and remembers how it was asked."""

    def __init__(self):
        self.asked = self.among = None

    def version(self):
        return "1.2.3"

    def simd_info(self):
        return "scalar"

    def memory(self):
        return {"resident_bytes": 1}

    def collections(self):
        return [CollectionRow(1, "items", "public.items.embedding", 2, "l2", "hnsw", 3)]

    def stats(self, name):
        return {"collection": name}

    def consistency(self, name):
        return [ConsistencyRow(name or "all", "live", *[None] * 10)]

    def search(self, collection, query, *, k, ef, among):
        self.asked, self.among = (collection, query.tolist(), k, ef), among
        return [Hit("7", 0.5, 0.25, "hot", is_exact=True)]

    def search_bits(self, collection, packed, *, bits, k, ef, among):
        self.asked, self.among = (collection, packed.tolist(), bits, k, ef), among
        return [Hit("7", 1.0, 0.5, "hot", is_exact=True)]

    def search_sparse(self, collection, query, *, k, ef, among):
        self.asked, self.among = (collection, query.texts(), k, ef), among
        return [Hit("7", 1.0, 0.5, "hot", is_exact=True)]

    def search_batch(self, collection, queries, *, k):
        return [[Hit(str(place), float(k), 0.0, "hot", is_exact=True)] for place, _ in enumerate(queries)]

    def wait_applied(self, name, snapshot, timeout_ms):
        self.asked = (name, snapshot, timeout_ms)
        return True

    def verify(self, name, *, sample, full, repair):
        return {"sample": sample, "full": full, "repair": repair}


def call(name, *args, access="user", **kwargs):
    context = FixedContext()
    _, rows = registry.invoke(name, context, args, kwargs, access=access)
    return rows, context.asked


def test_search_passes_its_arguments_on():
    rows, asked = call("ruvector_search", "items", VECTOR, k="3", ef_search=50)
    assert rows == [("7", 0.5, 0.25, "hot", True)]
    assert asked == ("items", [1.0, 2.0], 3, 50)


def test_search_takes_an_array_as_query():
    assert call("ruvector_search", "items", np.array([1, 2], dtype=np.float32))[1] == ("items", [1.0, 2.0], 10, None)


def test_search_bits_passes_its_arguments_on():
    rows, asked = call("ruvector_search_bits", "items", "101", 3)
    assert rows == [("7", 1.0, 0.5, "hot", True)]
    assert asked == ("items", [0b10100000], 3, 3, None)


def test_search_sparse_passes_its_arguments_on():
    rows, asked = call("ruvector_search_sparse", "items", "{1:1, 3:0.5}/9", 3)
    assert rows == [("7", 1.0, 0.5, "hot", True)]
    assert asked == ("items", ["{1:1.0,3:0.5}/9"], 3, None)
    for wrong in ("[1,2]", "{0:1}/9", 7):
        with pytest.raises(UserError):
            call("ruvector_search_sparse", "items", wrong)


def test_batch_numbers_its_queries_from_zero():
    assert call("ruvector_search_batch", "items", [VECTOR, VECTOR], 4)[0] == [(0, "0", 4.0), (1, "1", 4.0)]


@pytest.mark.parametrize("name", ["ruvector_search", "ruvector_search_batch"])
@pytest.mark.parametrize("k", [0, -1, limits.K_MAX + 1, 10_000_000])
def test_k_out_of_range_is_refused(name, k):
    query = VECTOR if name == "ruvector_search" else [VECTOR]
    with pytest.raises(InvalidParameter, match=f"k is {k}"):
        call(name, "items", query, k)


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"ef_search": 0}, InvalidParameter),
        ({"ef_search": limits.EF_MAX + 1}, InvalidParameter),
        ({"exactness": "perfect"}, InvalidParameter),
        ({"exactness": "exact"}, UnsupportedStatement),
        ({"use_gnn": True}, UnsupportedStatement),
        ({"filter": "7"}, InvalidParameter),
        ({"max_distance": "NaN"}, InvalidParameter),
    ],
)
def test_option_the_sidecar_cannot_answer_is_refused(options, error):
    with pytest.raises(error) as caught:
        call("ruvector_search", "items", VECTOR, **options)
    assert caught.value.hint


def test_restriction_is_passed_on():
    for name, query in (
        ("ruvector_search", VECTOR),
        ("ruvector_search_bits", "01"),
        ("ruvector_search_sparse", "{}/2"),
    ):
        context, options = FixedContext(), {"filter": '{"a": 1}', "keys": "{7,NULL}", "max_distance": "0.5"}
        rows = list(registry.invoke(name, context, ["items", query], options, access="user")[1])
        assert context.among == Restriction({"a": 1}, ["7"], 0.5)
        assert len(rows) == (name == "ruvector_search")  # the others are 1.0 away


@pytest.mark.parametrize("query", ["[NaN,1]", "[1e39,1]", "[]"])
def test_impossible_query_is_refused(query):
    with pytest.raises((InvalidVector, InvalidParameter)) as caught:
        call("ruvector_search", "items", query)
    assert caught.value.sqlstate == "22023"


@pytest.mark.parametrize(
    ("name", "args"),
    [
        ("ruvector_register_collection", ["a", "b", "c", "d"]),
        ("ruvector_unregister_collection", ["a"]),
        ("ruvector_explain", ["items", VECTOR]),
    ],
)
def test_what_only_the_database_can_do_is_refused(name, args):
    with pytest.raises(UnsupportedStatement, match="database only"):
        call(name, *args, access="admin")


@pytest.mark.parametrize(
    ("name", "args", "expected"),
    [
        ("ruvector_version", [], [("1.2.3",)]),
        ("ruvector_simd_info", [], [("scalar",)]),
        ("ruvector_memory_stats", [], [({"resident_bytes": 1},)]),
        ("ruvector_index_stats", ["items"], [({"collection": "items"},)]),
        ("ruvector_list_collections", [], [(1, "items", "public.items.embedding", 2, "l2", "hnsw", 3)]),
        ("ruvector_consistency_status", [], [("all", "live", *[None] * 10)]),
        ("ruvector_consistency_status", ["items"], [("items", "live", *[None] * 10)]),
        ("ruvector_wait_applied", ["items", 5], [(True,)]),
    ],
)
def test_report_is_passed_on(name, args, expected):
    assert call(name, *args)[0] == expected


def test_database_passes_the_snapshot_of_its_caller():
    context = FixedContext()
    arguments = {"collection": "items", "snapshot": "1:5:", "timeout_ms": 100}
    assert registry.invoke_json("ruvector_wait_applied", context, arguments) == ["true"]
    assert context.asked == ("items", "1:5:", 100)


def test_verify_is_for_the_owner():
    with pytest.raises(PermissionDenied):
        call("ruvector_verify", "items")
    rows, _ = call("ruvector_verify", "items", full=True, access="admin")
    assert rows == [({"sample": 1000, "full": True, "repair": False},)]


@pytest.mark.parametrize(
    ("name", "kwargs"), [("ruvector_verify", {"sample": 0}), ("ruvector_wait_applied", {"timeout_ms": -1})]
)
def test_report_arguments_are_checked(name, kwargs):
    with pytest.raises(InvalidParameter):
        call(name, "items", access="admin", **kwargs)
