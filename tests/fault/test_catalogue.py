"""Faults of docs/guarantees.md that need neither a kill nor a server of their own."""

import psycopg
import pytest
from fix_sidecar import running_sidecar, wait_until
from table_kit import VectorTable, gaussian, text_of

pytestmark = pytest.mark.fault

DIMS, ROWS = 4, 200
TABLE = VectorTable("items", dims=DIMS, options={"index_kind": "flat"})
QUERY = gaussian(1, DIMS, seed=31)[0]
NEAR = text_of(QUERY)


@pytest.fixture
def running(database, tmp_path):
    with database.connect() as connection, running_sidecar(database, tmp_path / "data", checkpoint_seconds=0.1) as it:
        TABLE.create(connection)
        TABLE.insert(connection, gaussian(ROWS, DIMS, seed=32))
        TABLE.attach(connection)
        it.wait_live("items")
        yield connection, it


def write_until_trimmed(connection, done):
    """Commit small changes, each followed by a checkpoint sooner or later, until a condition holds."""

    def step():
        connection.execute("UPDATE items SET embedding = (embedding + '[1,0,0,0]')::vector WHERE id = 1")
        return done()

    wait_until(step, "the changelog to be trimmed")


def test_old_transaction_holds_up_the_trim_and_nothing_else(database, running):
    connection, sidecar = running
    with database.connect(autocommit=False) as holder:
        xid = holder.execute("SELECT pg_current_xact_id()::text::bigint").fetchone()[0]
        connection.execute("INSERT INTO items VALUES (9001, %s)", (NEAR,))
        sidecar.wait_applied("items")  # not held up
        assert TABLE.check(connection, QUERY)[0][0] == "9001"

        def has_passed():
            limits = "SELECT min(pg_snapshot_xmax(previous_checkpoint)::text::bigint) FROM ruvector.consumer"
            return (connection.execute(limits).fetchone()[0] or 0) > xid + 5

        write_until_trimmed(connection, has_passed)
        newest = connection.execute("SELECT count(*) FROM ruvector.changelog_1 WHERE key_1 = 9001").fetchone()[0]
        assert newest == 1, "its transaction ran beside the old one, which no checkpoint has finished"
        holder.rollback()
    write_until_trimmed(
        connection,
        lambda: not connection.execute("SELECT count(*) FROM ruvector.changelog_1 WHERE key_1 = 9001").fetchone()[0],
    )


def test_publication_of_all_tables_does_not_stop_the_trim(running):
    connection, _ = running
    connection.execute("CREATE PUBLICATION everything FOR ALL TABLES")
    connection.execute("INSERT INTO items SELECT n, '[1,2,3,4]' FROM generate_series(5001, 5050) n")
    write_until_trimmed(
        connection,
        lambda: not connection.execute("SELECT count(*) FROM ruvector.changelog_1 WHERE key_1 > 5000").fetchone()[0],
    )


def test_large_transaction_is_applied_in_parts(database, running):
    """More rows than one part holds; a snapshot from before keeps its answer or lets the database give it."""
    connection, sidecar = running
    connection.execute(
        "INSERT INTO items SELECT n, ARRAY[n, 1, 1, 1]::real[]::vector FROM generate_series(1000, 9999) n"
    )
    sidecar.wait_applied("items")
    with database.connect(autocommit=False) as reader:
        reader.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        before = [row[0] for row in TABLE.check(reader, QUERY)]
        connection.execute("UPDATE items SET embedding = (embedding + '[0.5,0,0,0]')::vector")
        TABLE.check(connection, QUERY)
        sidecar.wait_applied("items")
        TABLE.check(connection, QUERY)
        answer = reader.execute("SELECT id FROM ruvector_search('items', %s, %s)", (NEAR, len(before))).fetchall()
        assert [row[0] for row in answer] == before
    assert sidecar.worker("items").verify(sample=1, full=True, repair=False)["differences"] == 0


def test_replica_role_is_captured(running):
    connection, sidecar = running
    connection.execute("SET session_replication_role = replica")
    connection.execute("INSERT INTO items VALUES (9001, %s)", (NEAR,))
    connection.execute("DELETE FROM items WHERE id = 2")
    connection.execute("RESET session_replication_role")
    assert TABLE.check(connection, QUERY)[0][0] == "9001"
    sidecar.wait_applied("items")
    assert TABLE.check(connection, QUERY)[0][0] == "9001"
    assert len(sidecar.mirror("items").index) == ROWS


def test_limits_of_the_application_do_not_meet_capture(running):
    """Capture writes no temporary file and waits for no lock."""
    connection, sidecar = running
    connection.execute("SET temp_file_limit = 0")
    connection.execute("SET lock_timeout = '1ms'")
    connection.execute("SET idle_in_transaction_session_timeout = '1s'")
    connection.execute(
        "INSERT INTO items SELECT n, ARRAY[n, 1, 1, 1]::real[]::vector FROM generate_series(1000, 20999) n"
    )
    connection.execute("UPDATE items SET embedding = '[1,1,1,1]' WHERE id >= 1000")
    connection.execute("RESET ALL")
    sidecar.wait_applied("items").wait_live(
        "items"
    )  # both statements read at once are a flood: the table is read again
    TABLE.check(connection, QUERY)


def test_serializable_transactions_get_right_answers(database, running):
    _, sidecar = running
    compared = failed = 0
    with database.connect(autocommit=False) as left, database.connect(autocommit=False) as right:
        for each in (left, right):
            each.isolation_level = psycopg.IsolationLevel.SERIALIZABLE
        for number in range(30):
            try:
                for each in (left, right):
                    TABLE.check(each, QUERY)
                    key = 7000 + 2 * number + (each is right)
                    each.execute("INSERT INTO items VALUES (%s, %s)", (key, text_of(gaussian(1, DIMS, seed=number)[0])))
                    TABLE.check(each, QUERY)
                    compared += 2
                left.commit()
                right.commit()
            except psycopg.errors.SerializationFailure:
                failed += 1
                left.rollback()
                right.rollback()
    print(f"{compared} answers compared, {failed} of 30 pairs failed with 40001")  # noqa: T201
    assert compared > 30
    sidecar.wait_applied("items")
    assert sidecar.worker("items").verify(sample=1, full=True, repair=False)["differences"] == 0


def test_sidecar_without_the_right_to_read_says_so(database, tmp_path):
    """Never a partial mirror: the reading connection sees every row or fails."""
    with database.connect() as connection:
        TABLE.create(connection)
        TABLE.insert(connection, gaussian(ROWS, DIMS, seed=32))
        TABLE.attach(connection)
        connection.execute("CREATE ROLE weak LOGIN IN ROLE ruvector_sidecar")
        try:
            weak = type("Weak", (), {"dsn": f"{database.dsn} user=weak", "connect": database.connect})()
            with running_sidecar(weak, tmp_path / "data", checkpoint_seconds=0.1) as sidecar:
                connection.execute("GRANT SELECT ON items TO ruvector_sidecar")
                sidecar.wait_live("items")
                connection.execute("REVOKE SELECT ON items FROM ruvector_sidecar")
                connection.execute("INSERT INTO items VALUES (9001, %s)", (NEAR,))
                wait_until(lambda: "permission denied" in sidecar.mirror("items").reason, "the reason")
                assert TABLE.check(connection, QUERY, tier="pgvector")[0][0] == "9001"
                connection.execute("GRANT SELECT ON items TO ruvector_sidecar")
                sidecar.wait_live("items")
                assert TABLE.check(connection, QUERY)[0][0] == "9001"
        finally:
            connection.execute("DROP OWNED BY weak; DROP ROLE weak")
