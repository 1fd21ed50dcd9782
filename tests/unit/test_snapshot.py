"""Snapshots as sets of transactions."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ruvector.errors import InvalidParameter
from ruvector.snapshot import Snapshot


def snapshots():
    @st.composite
    def draw_one(draw):
        xmax = draw(st.integers(3, 30))
        xip = draw(st.frozensets(st.integers(3, xmax - 1), max_size=6)) if xmax > 3 else frozenset()
        return Snapshot(min(xip, default=xmax), xmax, xip)

    return draw_one()


@pytest.mark.parametrize(
    ("text", "xid", "seen"),
    [
        ("10:20:10,14", 9, True),
        ("10:20:10,14", 10, False),
        ("10:20:10,14", 11, True),
        ("10:20:10,14", 14, False),
        ("10:20:10,14", 19, True),
        ("10:20:10,14", 20, False),
        ("7:7:", 6, True),
        ("7:7:", 7, False),
    ],
)
def test_snapshot_sees_what_postgresql_sees(text, xid, seen):
    assert Snapshot.parse(text).sees(xid) is seen
    assert str(Snapshot.parse(text)) == text


@pytest.mark.parametrize("text", ["", "1:2", "a:b:", "9:3:", "1:2:3:4", "1:2:x"])
def test_snapshot_refuses_other_text(text):
    with pytest.raises(InvalidParameter):
        Snapshot.parse(text)


@given(snapshots(), snapshots())
def test_covers_means_that_every_visible_transaction_is_visible(position, other):
    visible = {xid for xid in range(40) if other.sees(xid)}
    assert position.covers(other) is all(position.sees(xid) for xid in visible)
