"""What grows has an end: the changelog without a sidecar, a flood of changes, checkpoints nobody comes back to."""

import pytest
from fix_sidecar import running_sidecar, wait_until
from table_kit import VectorTable, gaussian

from ruvector import db, limits
from ruvector.mirror.ledger import Ledger
from ruvector.mirror.state import MirrorState

DIMS = 3
QUERY = gaussian(1, DIMS, seed=91)[0]
TABLE = VectorTable("items", dims=DIMS, options={"index_kind": "flat"})
FILL = "INSERT INTO items SELECT n, ARRAY[n, n %% 7, n %% 5]::real[]::vector FROM generate_series(%s::int, %s::int) n"


@pytest.fixture
def filled(database):
    with database.connect() as connection:
        TABLE.create(connection)
        connection.execute(FILL, (1, 1000))
        TABLE.attach(connection)
    return database


def test_flood_is_answered_by_the_table_and_the_mirror_is_built_again(filled, tmp_path):
    """More changes at once than are worth following: no read of them all, a new copy, right answers throughout."""
    with running_sidecar(filled, tmp_path / "data") as sidecar, filled.connect() as connection:
        sidecar.wait_live("items")
        mirror = sidecar.mirror("items")
        copied = mirror.progress.rows_copied
        connection.execute(FILL, (1001, 1000 + limits.DIRTY_KEYS_MAX + 1))
        expected = TABLE.distances(connection, QUERY)
        answers = []

        def ended():
            answers.append(TABLE.search(connection, QUERY, k=5))
            return mirror.progress.rows_copied > copied and mirror.state is MirrorState.LIVE

        wait_until(ended, "the rebuild")
        assert mirror.progress.rows_copied == 1000 + limits.DIRTY_KEYS_MAX + 1
        assert mirror.changes_applied < limits.DIRTY_KEYS_MAX
        nearest = sorted(expected.values())[:5]
        assert all([row[1] for row in answer] == nearest for answer in answers)
        sidecar.wait_applied("items")
        assert TABLE.search(connection, QUERY, k=5)[0][3] == "hot"
        # one change less is followed
        connection.execute("UPDATE items SET embedding = '[9,9,9]' WHERE id <= 10000")
        sidecar.wait_applied("items")
        assert mirror.changes_applied >= 10_000


def test_changelog_without_a_sidecar_says_how_it_grows_and_can_be_emptied(filled, tmp_path, rv):
    with filled.connect() as connection:
        with running_sidecar(filled, tmp_path / "data") as sidecar:
            sidecar.wait_live("items")
        connection.execute("UPDATE items SET embedding = '[1,2,3]' WHERE id <= 900")
        state, reason, pending = connection.execute(
            "SELECT state, reason, pending_changes FROM ruvector_consistency_status()"
        ).fetchone()
        assert (state, pending) == ("stopped", 900)
        assert "its changelog takes" in reason
        assert "more a day" in reason
        checks = {check["name"]: check for check in rv("doctor", "--format", "json").document["checks"]}
        assert "more a day" in checks["collection items"]["found"]
        if filled.server.embedded is not None:
            assert "the disk has room for" in checks["collection items"]["found"]
        assert connection.execute("SELECT ruvector.empty_changelogs()").fetchall() == []
        assert connection.execute("SELECT ruvector.empty_changelogs(10000)").fetchall() == [("items",)]
        assert connection.execute("SELECT count(*) FROM ruvector.changelog_1").fetchone() == (0,)
        assert connection.execute("SELECT state FROM ruvector_consistency_status()").fetchone() == ("needs_copy",)
        TABLE.check(connection, QUERY, k=5, tier="pgvector")
        with running_sidecar(filled, tmp_path / "data") as sidecar:
            sidecar.wait_live("items")
            TABLE.check(connection, QUERY, k=5)
            assert sidecar.worker("items").verify(sample=1, full=True, repair=False)["differences"] == 0


def test_changelog_is_trimmed_and_its_room_used_again(filled, tmp_path):
    with running_sidecar(filled, tmp_path / "data", checkpoint_seconds=0.05) as sidecar, filled.connect() as connection:
        sidecar.wait_live("items")
        sizes = []
        for number in range(4):
            connection.execute("UPDATE items SET embedding = %s WHERE id <= 500", (f"[{number},1,1]",))
            sidecar.wait_applied("items")

            def trimmed():
                # A checkpoint trims what the one before it holds, and is written only when something changed.
                connection.execute("UPDATE items SET embedding = embedding + '[0,1,0]' WHERE id = 1000")
                return connection.execute("SELECT count(*) < 600 FROM ruvector.changelog_1").fetchone()[0]

            wait_until(trimmed, "the trim")
            connection.execute("VACUUM ruvector.changelog_1")
            sizes.append(connection.execute("SELECT pg_total_relation_size('ruvector.changelog_1')").fetchone()[0])
        assert max(sizes) <= 2 * sizes[0], sizes


def test_checkpoint_of_a_sidecar_that_never_came_back_holds_up_the_trim_only_so_far(filled, tmp_path):
    with (
        running_sidecar(filled, tmp_path / "data", checkpoint_seconds=0.05) as sidecar,
        filled.connect() as connection,
    ):
        sidecar.wait_live("items")
        connection.execute(
            "INSERT INTO ruvector.consumer (mirror_id, name, checkpoint_id, checkpoint, previous_checkpoint)"
            " SELECT mirror_id, 'gone', gen_random_uuid(), checkpoint, checkpoint FROM ruvector.consumer"
        )
        before = connection.execute("SELECT below FROM ruvector.trimmed").fetchone()
        for _ in range(3):
            connection.execute("UPDATE items SET embedding = embedding + '[1,1,1]' WHERE id <= 300")
            sidecar.wait_applied("items")
        assert connection.execute("SELECT count(*) >= 900 FROM ruvector.changelog_1").fetchone() == (True,)
        ledger = Ledger(
            db.connect(filled.dsn, application_name="test"), sidecar.mirror("items").collection, name="main"
        )
        assert ledger.forget_absent() == "", "below 4 GiB everybody is waited for"
        assert ledger.forget_absent(bytes_max=1000) == "gone"
        ledger.close()

        def trimmed():
            connection.execute("UPDATE items SET embedding = embedding + '[0,1,0]' WHERE id = 1")
            return connection.execute("SELECT count(*) < 900 FROM ruvector.changelog_1").fetchone()[0]

        wait_until(trimmed, "the trim")
        assert connection.execute("SELECT below FROM ruvector.trimmed").fetchone() != before
        assert connection.execute("SELECT name FROM ruvector.consumer").fetchall() == [("main",)]


def test_sidecar_whose_checkpoints_were_dropped_compares_all_rows(filled, tmp_path):
    with (
        running_sidecar(filled, tmp_path / "data", checkpoint_seconds=0.05) as sidecar,
        filled.connect() as connection,
    ):
        sidecar.wait_live("items")
        assert connection.execute("SELECT ruvector.empty_changelogs(0)").fetchall() == [("items",)]
        connection.execute("UPDATE items SET embedding = '[1,1,1]' WHERE id = 5")
        TABLE.check(connection, QUERY, k=5, tier="pgvector")
        event = "SELECT count(*) FROM ruvector.event WHERE kind = 'reconciled'"
        wait_until(lambda: connection.execute(event).fetchone()[0] == 1, "the comparison")
        sidecar.wait_live("items").wait_applied("items")
        TABLE.check(connection, QUERY, k=5)
        assert sidecar.worker("items").verify(sample=1, full=True, repair=False)["differences"] == 0
