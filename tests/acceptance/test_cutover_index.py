"""A completed cutover may drop pgvector's index; a rollback answers at once, and builds it again."""

import pytest
from fix_sidecar import wait_until
from table_kit import VectorTable, assert_nearest, refused

from ruvector.capture.indexes import pending_indexes, rebuild_indexes

ROWS, DIMS = 500, 6
ITEMS = VectorTable("drop_items", dims=DIMS)
QUERY = ITEMS.random_vectors(1, seed=901)[0]
INDEXES = """
    SELECT i.relname::text, pg_get_indexdef(i.oid), x.indisvalid FROM pg_index x JOIN pg_class i ON i.oid = x.indexrelid
    JOIN pg_am m ON m.oid = i.relam WHERE m.amname IN ('hnsw', 'ivfflat') ORDER BY 1
"""
COMPLETE = "SELECT ruvector_cutover_complete(%s, true)"


def make(connection, *, table=ITEMS, partition_by=""):
    table.create(connection, partition_by=partition_by)
    if partition_by:
        for part in (0, 1):
            connection.execute(f"CREATE TABLE {table.name}_{part} PARTITION OF {table.name}"
                               f" FOR VALUES WITH (MODULUS 2, REMAINDER {part})")  # fmt: skip
    table.insert(connection, table.random_vectors(ROWS, seed=902))
    connection.execute(f"CREATE INDEX drop_l2 ON {table.name} USING hnsw (embedding vector_l2_ops) WITH (m = 8)")
    table.attach(connection)


@pytest.fixture
def items(database):
    with database.connect() as connection:
        make(connection)
        connection.execute("CREATE INDEX drop_cosine ON drop_items USING hnsw (embedding vector_cosine_ops)")
        yield connection


def rollback(connection):
    return connection.execute("SELECT ruvector_rollback(%s)", (ITEMS.name,)).fetchone()[0]


def tier(connection):
    """Check one search against exact SQL; return who answered."""
    rows = ITEMS.search(connection, QUERY)
    assert_nearest(rows, ITEMS.distances(connection, QUERY), 10)
    return rows[0][3]


def test_the_index_is_dropped_and_comes_back_by_itself(items, sidecar):
    sidecar.wait_live(ITEMS.name)
    before = items.execute(INDEXES).fetchall()
    size = items.execute("SELECT pg_relation_size('drop_l2')").fetchone()[0]
    (dropped,) = items.execute(COMPLETE, (ITEMS.name,)).fetchone()[0]["dropped"]
    assert (dropped["index"], dropped["bytes"]) == ("public.drop_l2", size)
    assert [row[0] for row in items.execute(INDEXES).fetchall()] == ["drop_cosine"]
    assert tier(items) == "hot"
    assert items.execute("SELECT indexes_dropped FROM ruvector_cutover_status()").fetchone() == (1,)
    assert pending_indexes(items) == []
    rollback(items)
    assert tier(items) == "pgvector"
    wait_until(lambda: items.execute(INDEXES).fetchall() == before and not pending_indexes(items), "the index")
    assert tier(items) == "pgvector"
    assert items.execute("SELECT indexes_dropped FROM ruvector_cutover_status()").fetchone() == (0,)


def test_a_build_that_was_interrupted_is_begun_anew(database, items):
    before = items.execute(INDEXES).fetchall()
    items.execute(COMPLETE, (ITEMS.name,))
    assert rebuild_indexes(items) == []
    rollback(items)
    with database.connect() as other:
        other.execute("BEGIN")
        other.execute("INSERT INTO drop_items VALUES (100000, %s)", (str([0.0] * DIMS),))
        items.execute("SET statement_timeout = '500ms'")
        with pytest.raises(Exception, match="statement timeout"):
            rebuild_indexes(items)
        items.execute("RESET statement_timeout")
        assert [row[2] for row in items.execute(INDEXES).fetchall() if row[0] == "drop_l2"] == [False]
        other.execute("ROLLBACK")
    assert rebuild_indexes(items) == ["public.drop_l2"]
    assert items.execute(INDEXES).fetchall() == before
    assert rebuild_indexes(items) == []


def test_one_builds_at_a_time(database, items):
    items.execute(COMPLETE, (ITEMS.name,))
    rollback(items)
    with database.connect() as other:
        other.execute("SELECT pg_advisory_lock(hashtextextended('ruvector builds dropped indexes', 0))")
        assert rebuild_indexes(items) is None
    wait_until(lambda: rebuild_indexes(items) == ["public.drop_l2"], "the lock")


def test_indexes_of_partitioned_tables_come_back_with_those_of_the_partitions(database):
    with database.connect() as connection:
        make(connection, partition_by="PARTITION BY HASH (id)")
        before = connection.execute(INDEXES).fetchall()
        assert len(before) == 3
        (dropped,) = connection.execute(COMPLETE, (ITEMS.name,)).fetchone()[0]["dropped"]
        assert dropped["bytes"] > 0
        assert connection.execute(INDEXES).fetchall() == []
        rollback(connection)
        assert rebuild_indexes(connection) == ["public.drop_l2"]
        assert connection.execute(INDEXES).fetchall() == before


def test_a_locked_table_takes_the_whole_step_back(database, items):
    rollback(items)
    items.execute("SELECT ruvector_cutover(%s, 0)", (ITEMS.name,))
    items.execute("UPDATE ruvector.collection SET cutover_percent = 100")
    with database.connect() as other:
        other.execute("BEGIN")
        other.execute("SELECT FROM drop_items LIMIT 1")
        assert refused(items, COMPLETE, (ITEMS.name,)).code == "55P03"
        other.execute("ROLLBACK")
    assert items.execute("SELECT state, indexes_dropped FROM ruvector_cutover_status()").fetchone() == ("ramp", 0)
    assert len(items.execute(INDEXES).fetchall()) == 2


def test_detaching_tells_what_is_not_built_again(items):
    definition = dict(row[:2] for row in items.execute(INDEXES).fetchall())["drop_l2"]
    items.execute(COMPLETE, (ITEMS.name,))
    told = []
    items.add_notice_handler(lambda diagnosis: told.append((diagnosis.message_primary, diagnosis.message_hint)))
    items.execute("SELECT ruvector_unregister_collection(%s)", (ITEMS.name,))
    assert [message.split(" was ")[0] for message, _ in told] == ['index "drop_l2"']
    items.execute(told[0][1])
    assert dict(row[:2] for row in items.execute(INDEXES).fetchall())["drop_l2"] == definition


def test_the_command_drops_and_builds_again(cli, database, items):
    done = cli("cutover", ITEMS.name, "complete", "--drop-pgvector-index", "-d", database.dsn)
    assert done.code == 0
    assert "public.drop_l2 dropped: " in done.out
    back = cli("cutover", ITEMS.name, "rollback", "-d", database.dsn)
    assert back.code == 0
    assert f"ruvector cutover {ITEMS.name} rebuild" in back.err
    built = cli("cutover", ITEMS.name, "rebuild", "-d", database.dsn, "--format", "json")
    assert built.document["built"] == ["public.drop_l2"]
    assert cli("cutover", ITEMS.name, "rollback", "--drop-pgvector-index", "-d", database.dsn).code == 2
