"""Several sidecars over one database: one answers, others stand by and take over; a stale one has no effect."""

import threading
import time

import pytest
from fix_process import SidecarProcess, wait_for_state
from fix_sidecar import running_sidecar, wait_until
from table_kit import VectorTable, gaussian, text_of

from ruvector.errors import StaleOwner
from ruvector.mirror.state import MirrorState

DIMS = 4
QUERY = gaussian(1, DIMS, seed=81)[0]
TABLE = VectorTable("items", dims=DIMS)


@pytest.fixture
def filled(database):
    with database.connect() as connection:
        TABLE.create(connection)
        TABLE.insert(connection, gaussian(50, DIMS, seed=82))
        TABLE.attach(connection)
    return database


def wait_follows(sidecar, name):
    wait_until(lambda: sidecar.mirror(name).state is MirrorState.STANDBY, f"{name} to stand by")


def test_second_sidecar_follows_and_takes_over_at_once_after_an_orderly_stop(filled, tmp_path):
    with (
        running_sidecar(filled, tmp_path / "a", name="a") as first,
        running_sidecar(filled, tmp_path / "b", name="b") as second,
        filled.connect() as connection,
    ):
        first.wait_live("items")
        wait_follows(second, "items")
        TABLE.insert(connection, [QUERY], first=500)
        assert TABLE.check(connection, QUERY)[0][0] == "500"
        wait_until(lambda: second.mirror("items").index.contains(500), "the second to follow")
        gate = connection.execute("SELECT port FROM ruvector.gate").fetchone()[0]
        assert gate == first.address().port
        before = connection.execute("SELECT epoch FROM ruvector.lease").fetchone()[0]
        first.stop()
        second.wait_live("items")
        assert connection.execute("SELECT epoch FROM ruvector.lease").fetchone()[0] == before + 1
        assert connection.execute("SELECT port FROM ruvector.gate").fetchone()[0] == second.address().port
        assert TABLE.check(connection, QUERY)[0][0] == "500", "the session that was linked to the first"
        # and the first stands by when it comes back
        first.start()
        wait_follows(first, "items")
        TABLE.check(connection, QUERY)


def test_frozen_holder_is_replaced_and_its_effects_match_no_row(filled, tmp_path):
    """SIGSTOP: links stay open and the lease runs out; who wakes later is not asked, and changes nothing."""
    stale = SidecarProcess(filled.dsn, tmp_path / "stale")
    try:
        stale.start("--name", "stale")
        wait_for_state(filled, "items", "live", process=stale)
        with running_sidecar(filled, tmp_path / "hot", name="hot") as hot, filled.connect() as connection:
            wait_follows(hot, "items")
            TABLE.check(connection, QUERY)
            stale.freeze()
            started = time.monotonic()
            wait_until(lambda: hot.mirror("items").state is MirrorState.LIVE, "the takeover")
            print(f"took over after {time.monotonic() - started:.1f} s")  # noqa: T201
            hot.wait_live("items")
            TABLE.insert(connection, [QUERY], first=600)
            assert TABLE.check(connection, QUERY)[0][0] == "600", "the link to the frozen one must not be used"
            row = "SELECT l.holder, l.epoch, g.port, t.token FROM ruvector.lease l, ruvector.gate g, ruvector.live t"
            before = connection.execute(row).fetchone()
            stale.thaw()
            wait_until(lambda: "lost the lease" in stale.output(), "the stale one to notice")
            TABLE.insert(connection, [QUERY], first=601)
            hot.wait_applied("items")
            assert connection.execute(row).fetchone() == before
            TABLE.check(connection, QUERY)
            state = connection.execute("SELECT state FROM ruvector_consistency_status()").fetchone()[0]
            assert state == "live"
    finally:
        stale.close()


def test_twin_of_the_same_name_waits_without_touching_its_checkpoints(filled, tmp_path):
    with (
        running_sidecar(filled, tmp_path / "a") as first,
        filled.connect() as connection,
    ):
        first.wait_live("items")
        with running_sidecar(filled, tmp_path / "b") as twin:
            epoch = connection.execute("SELECT epoch FROM ruvector.consumer").fetchone()
            time.sleep(1.5)  # three looks at the registrations
            assert twin.sidecar.workers.all() == []
            assert connection.execute("SELECT epoch FROM ruvector.consumer").fetchone() == epoch
            TABLE.check(connection, QUERY)
            first.stop()
            twin.wait_live("items")
            TABLE.check(connection, QUERY)


def test_data_directory_belongs_to_one_process(filled, tmp_path):
    with (
        running_sidecar(filled, tmp_path / "a", name="a"),
        pytest.raises(StaleOwner, match="another sidecar runs over"),
        running_sidecar(filled, tmp_path / "a", name="b"),
    ):
        pass  # pragma: no cover


def test_no_search_is_wrong_while_the_lease_moves(filled, tmp_path):
    """Writers and readers go on while two sidecars hand the lease to each other; every answer is the exact one."""
    ended = threading.Event()
    problems, tiers = [], []

    def search(number):
        with filled.connect() as connection:
            while not ended.is_set():
                try:
                    connection.execute(
                        "UPDATE items SET embedding = %s WHERE id = %s",
                        (text_of(gaussian(1, DIMS, seed=number)[0]), number % 50 + 1),
                    )
                    found = connection.execute(
                        "WITH answer AS MATERIALIZED (SELECT * FROM ruvector_search('items', %(q)s, 5))"
                        " SELECT (SELECT array_agg(distance ORDER BY distance) FROM answer),"
                        " (SELECT array_agg(d::real ORDER BY d) FROM (SELECT (embedding <-> %(q)s::vector) + 0 AS d"
                        " FROM items ORDER BY 1 LIMIT 5) e), (SELECT min(tier) FROM answer)",
                        {"q": text_of(QUERY)},
                    ).fetchone()
                    tiers.append(found[2])
                    if found[0] != found[1]:
                        problems.append(found)
                except Exception as error:  # noqa: BLE001 - shown by the test
                    problems.append(error)
                    return
                number += 7

    with (
        running_sidecar(filled, tmp_path / "a", name="a") as first,
        running_sidecar(filled, tmp_path / "b", name="b") as second,
    ):
        first.wait_live("items")
        wait_follows(second, "items")
        threads = [threading.Thread(target=search, args=(number,)) for number in range(3)]
        for thread in threads:
            thread.start()
        for leaving, coming in ((first, second), (second, first)):
            leaving.stop()
            coming.wait_live("items")
            leaving.start()
            wait_follows(leaving, "items")
        ended.set()
        for thread in threads:
            thread.join(30)
    assert problems == []
    assert tiers.count("hot") > 20
