"""What the database asks of the sidecar, as text and as values."""

import contextlib
import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ruvector.errors import InvalidParameter, PermissionDenied
from ruvector.sidecar.answers import SearchRequest, Secrets, counted
from ruvector.snapshot import Snapshot

BODY = b"7 18 0 2000 0 7301 16384 0123abcd 10:20:11,12 000300003f800000"


def test_request_is_read():
    request = SearchRequest.parse(BODY)
    assert request == (7, 18, None, 2000, False, ("7301", 16384), "0123abcd", Snapshot.parse("10:20:11,12"),
                       bytes.fromhex("000300003f800000"))  # fmt: skip
    assert SearchRequest.parse(BODY.replace(b" 0 2000 0", b" 64 50 1"))[2:5] == (64, 50, True)


@pytest.mark.parametrize(
    "body", [b"", b"7", BODY + b" x", BODY + b"0", BODY.replace(b"18", b"x"), BODY.replace(b"10:20:", b"20:10:"),
             BODY.replace(b"7301", b"\xff"), b"{}"],
)  # fmt: skip
def test_malformed_request_is_refused(body):
    with pytest.raises(InvalidParameter):
        SearchRequest.parse(body)


@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(body):
    with contextlib.suppress(InvalidParameter):
        assert len(SearchRequest.parse(body).query) * 2 == len(body.rsplit(b" ", 1)[1])


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


def test_counts_are_those_of_one_search_or_none():
    before = {"searches": 3, "compared": 100, "reranked": 10}
    after = {"searches": 4, "compared": 150, "reranked": 30}
    assert counted(before, after) == {"visited": 50, "reranked": 20}
    assert counted(before, after | {"searches": 5}) == {}
    assert counted({"rows": 1}, {"rows": 1}) == {}
    assert counted({}, {}) == {}
