"""What the database asks of the sidecar, as text and as values."""

import contextlib
import hashlib
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ruvector.errors import InvalidParameter, PermissionDenied
from ruvector.index import Plan
from ruvector.sidecar.answers import SearchRequest, Secrets, counted, knows_columns, sieved
from ruvector.snapshot import Snapshot
from ruvector.values import Attribute

FIELDS = b"7 18 0 2000 0 1764.25 16384 0123abcd 10:20:11,12"


def test_request_is_read():
    request = SearchRequest.parse(FIELDS, b"query")
    assert request == (7, 18, None, 2000, False, ("1764.25", 16384), "0123abcd", Snapshot.parse("10:20:11,12"),
                       b"query", None, None, Plan.AUTO, {}, None)  # fmt: skip
    assert SearchRequest.parse(FIELDS.replace(b" 0 2000 0", b" 64 50 1"), b"")[2:5] == (64, 50, True)


@pytest.mark.parametrize(
    ("sieve", "read"),
    [
        ('{"plan" : "scan", "filter" : {"a b": {"$in": ["ü ", null]}}, "members" : null}',
         ({"a b": {"$in": ["ü ", None]}}, None, Plan.SCAN)),
        ('{"plan": "auto", "filter": null, "members": ["7", " 8", "[1, \\"x\\"]"]}',
         (None, ["7", " 8", '[1, "x"]'], Plan.AUTO)),
        ('{"plan": "hop", "filter": {}, "members": []}', ({}, [], Plan.HOP)),
        ('{"plan": "walk"}', (None, None, Plan.WALK)),
    ],
)  # fmt: skip
def test_filter_and_keys_are_read(sieve, read):
    request = SearchRequest.parse(FIELDS + b" " + sieve.encode(), b"query")
    assert request[:9] == SearchRequest.parse(FIELDS, b"query")[:9]
    assert (request.filter, request.members, request.plan) == read


@pytest.mark.parametrize(("given", "read"), [("0.25", 0.25), ("-1e30", -1e30), ("-Infinity", -math.inf), ("7", 7.0)])
def test_distance_is_read(given, read):
    request = SearchRequest.parse(FIELDS + b' {"plan": "auto", "max_distance": "%s"}' % given.encode(), b"query")
    assert request.max_distance == read


@pytest.mark.parametrize(
    "sieve",
    [b"{", b"[]", b"7", b"null", b"{}", b'{"plan": "guess"}', b'{"plan": ["scan"]}', b'{"plan": "SCAN"}',
     b'{"plan": "auto", "filter": []}', b'{"plan": "auto", "filter": "x"}', b'{"plan": "auto", "members": {}}',
     b'{"plan": "auto", "members": [7]}', b'{"plan": "auto", "versions": 7}',
     b'{"plan": "auto", "max_distance": "NaN"}',
     b'{"plan": "auto", "max_distance": "near"}', b'{"plan": "auto", "max_distance": 7}',
     b'{"plan": "auto", "members": "7"}', b'{"plan": "auto"} x',
     b'{"plan": "auto", "filter": ' + b'{"$not": ' * 100_000, b'{"plan": "\xff"}'],
)  # fmt: skip
def test_malformed_filter_is_refused(sieve):
    with pytest.raises(InvalidParameter):
        SearchRequest.parse(FIELDS + b" " + sieve, b"query")


@pytest.mark.parametrize(
    "fields", [b"", b"7", FIELDS + b" x", FIELDS + b" ", FIELDS.replace(b"18", b"x"),
             FIELDS.replace(b"10:20:", b"20:10:"), FIELDS.replace(b"1764", b"\xff"), b"{}"],
)  # fmt: skip
def test_malformed_request_is_refused(fields):
    with pytest.raises(InvalidParameter):
        SearchRequest.parse(fields, b"")


@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(body):
    with contextlib.suppress(InvalidParameter):
        assert SearchRequest.parse(body, b"q").query == b"q"


@given(st.binary(max_size=64), st.integers(0, 63), st.integers(1, 255))
def test_only_what_the_keys_signed_is_opened(body, place, change):
    secrets = Secrets(b"inner", b"outer")
    proof = hashlib.sha256(b"outer" + hashlib.sha256(b"inner" + body).digest()).hexdigest().encode()
    assert secrets.open(proof + body) == body
    forged = bytearray(proof)
    forged[place] ^= change
    for payload in (bytes(forged) + body, proof + body + b"x", proof[:place], body):
        with pytest.raises(PermissionDenied):
            secrets.open(payload)


def test_a_search_is_signed_with_the_bytes_of_its_query():
    secrets = Secrets(b"inner", b"outer")

    def signed(query, digits):
        body = FIELDS + b" " + query
        proof = hashlib.sha256(b"outer" + hashlib.sha256(b"inner" + body).digest()).hexdigest().encode()
        return proof + FIELDS + b" " + digits

    assert secrets.open_search(signed(b"\x00 q", b"002071")).query == b"\x00 q"
    assert secrets.open_search(signed(b"", b"")).query == b""
    sieve = b' {"plan": "auto", "filter": {"a": {"$eq": "1"}}}'
    payload = signed(b"\x00 q", b"002071")
    for forged in (payload.replace(FIELDS, FIELDS + sieve), payload.replace(b" 18 ", b" 19 ")):
        with pytest.raises(PermissionDenied):
            secrets.open_search(forged)
    for digits in (b"002072", b"0020", b""):
        with pytest.raises(PermissionDenied):
            secrets.open_search(signed(b"\x00 q", digits))
    for payload in (signed(b"q", b"7"), signed(b"q", b"zz"), b"", FIELDS):
        with pytest.raises(PermissionDenied):
            secrets.open_search(payload)


@pytest.mark.parametrize(
    ("filter_", "versions", "is_known"),
    [
        (None, {}, True),
        ({}, {}, True),
        ({"a": {"$eq": "1"}}, {"a": "1.2.3", "b": "9"}, True),
        ({"a": {"$eq": "1"}}, {"a": "1.2.4", "b": "1.3.3"}, False),
        ({"a": {"$eq": "1"}}, {}, False),
        ({"c": {"$eq": "1"}}, {"c": "1.2.3"}, False),
        ({"$and": [{"a": {}}, {"$not": {"$or": [{"b": {}}]}}]}, {"a": "1.2.3", "b": "1.3.3"}, True),
        ({"$and": [{"a": {}}, {"$not": {"$or": [{"b": {}}]}}]}, {"a": "1.2.3", "b": "1.3.4"}, False),
        ({"$and": [7, {"a": {}}], "$not": [[]], "$or": "x"}, {"a": "1.2.3"}, True),
    ],
)  # fmt: skip
def test_filter_is_applied_to_the_versions_of_its_columns_that_are_known(filter_, versions, is_known):
    attributes = [Attribute("a", "integer", version="1.2.3"), Attribute("b", "text", version="1.3.3")]
    request = SearchRequest.parse(FIELDS, b"")._replace(filter=filter_, versions=versions)
    assert knows_columns(attributes, request) is is_known


def test_counts_are_those_of_one_search_or_none():
    before = {"searches": 3, "compared": 100, "reranked": 10}
    after = {"searches": 4, "compared": 150, "reranked": 30}
    assert counted(before, after) == {"visited": 50, "reranked": 20}
    assert counted(before, after | {"searches": 5}) == {}
    assert counted({"rows": 1}, {"rows": 1}) == {}
    assert counted({}, {}) == {}


def test_counts_of_a_filter_are_those_of_one_search_or_none():
    before = {"searches": 3, "rows": 100, "sieve_scans": 1, "sieve_hops": 2, "sieve_walks": 3, "sieve_rows": 50}
    after = before | {"searches": 4, "sieve_hops": 3, "sieve_rows": 57}
    assert sieved(before, after) == {"plan": "hop", "matching": 7, "rows": 100}
    assert sieved(before, after | {"searches": 5}) == {"rows": 100}
    assert sieved({"searches": 3, "rows": 9}, {"searches": 4, "rows": 9}) == {"rows": 9, "matching": 9}  # no sieve
