"""The memory of recent changes against a plain list of everything that happened."""

from hypothesis import given
from hypothesis import strategies as st

from ruvector.mirror.recent import RecentChanges
from ruvector.snapshot import Snapshot

changes = st.lists(st.tuples(st.integers(3, 40), st.sampled_from("abcdef")), max_size=8)


@given(
    batches=st.lists(changes, max_size=12),
    changes_max=st.integers(1, 60),
    xmax=st.integers(3, 45),
    running=st.frozensets(st.integers(3, 44), max_size=5),
)
def test_touched_keys_are_those_with_an_invisible_change(batches, changes_max, xmax, running):
    xip = frozenset(xid for xid in running if xid < xmax)
    snapshot = Snapshot(min(xip, default=xmax), xmax, xip)
    recent = RecentChanges(horizon=2, changes_max=changes_max)
    happened = []
    for batch in batches:
        recent.extend(batch)
        happened += batch
    assert len(recent) <= changes_max
    if recent.knows(snapshot):
        assert recent.not_visible_in(snapshot) == {key for xid, key in happened if not snapshot.sees(xid)}
    else:
        # Refusing is only right when something was forgotten that this snapshot may not see.
        assert len(recent) < len(happened)
        assert any(not snapshot.sees(xid) or xid >= snapshot.xmin for xid, _ in happened)


def test_forgetting_raises_the_horizon_to_the_largest_forgotten_transaction():
    recent = RecentChanges(horizon=0, changes_max=2)
    recent.extend([(5, "a"), (9, "b")])
    recent.extend([(6, "c")])
    assert recent.horizon == 9
    assert not recent.knows(Snapshot.parse("9:12:"))
    assert recent.knows(Snapshot.parse("10:12:"))
