"""Search as applications use it: transactions, parameters, settings, batches, and what the status functions report."""

import numpy as np
import pytest
from fix_sidecar import wait_until
from psycopg import IsolationLevel
from psycopg.rows import dict_row
from table_kit import SEARCH, VectorTable, gaussian, notices_of, refused, text_of

DIMS, ROWS = 8, 600
TABLE = VectorTable(
    "items", columns="id bigint PRIMARY KEY, category int", dims=DIMS, options={"columns": ["category"], "m": 8}
)
QUERY = gaussian(1, DIMS, seed=31)[0]
LEVELS = [IsolationLevel.READ_COMMITTED, IsolationLevel.REPEATABLE_READ, IsolationLevel.SERIALIZABLE]


@pytest.fixture(scope="module")
def module_database(shared_sidecar, shared_database):
    with shared_database.connect() as connection:
        TABLE.create(connection)
        TABLE.insert(connection, gaussian(ROWS, DIMS, seed=30), category=[number % 3 for number in range(ROWS)])
        TABLE.attach(connection)
        shared_sidecar.wait_live(TABLE.name)
    return shared_database


@pytest.fixture
def connection(module_database):
    with module_database.connect() as opened:
        yield opened


@pytest.fixture
def other(module_database):
    with module_database.connect() as opened:
        yield opened


# ---- what a transaction sees ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("level", LEVELS, ids=lambda level: level.name.lower())
def test_transaction_sees_its_own_changes_and_nobody_elses(connection, other, level):
    connection.isolation_level = level
    with connection.transaction(force_rollback=True):
        connection.execute("INSERT INTO items VALUES (1000, 1, %s)", (text_of(QUERY),))
        connection.execute("UPDATE items SET embedding = %s WHERE id = 1", (text_of(QUERY + 1),))
        nearest = TABLE.search(other, QUERY, k=1)[0][0]
        connection.execute("DELETE FROM items WHERE id = %s", (int(nearest),))
        connection.execute("UPDATE items SET id = 2002 WHERE id = 2")
        found = TABLE.check(connection, QUERY, k=50)
        assert found[0][:2] == ("1000", 0.0)
        TABLE.check(other, QUERY, k=50)
        explained = TABLE.explain(connection, QUERY)
        assert (explained["engine"], explained["overlay_rows"]) == ("ruvector", 5)
    TABLE.check(connection, QUERY, k=50)


@pytest.mark.parametrize("level", LEVELS, ids=lambda level: level.name.lower())
def test_snapshot_holds_still_or_moves_as_the_level_says(connection, other, shared_sidecar, level):
    connection.isolation_level = level
    with connection.transaction(force_rollback=True):
        before = TABLE.check(connection, QUERY, k=5)
        other.execute("INSERT INTO items VALUES (3000, 1, %s)", (text_of(QUERY),))
        shared_sidecar.wait_applied(TABLE.name)
        after = TABLE.check(connection, QUERY, k=5)
        if level is IsolationLevel.READ_COMMITTED:
            assert after[0][0] == "3000"
        else:
            assert after == before
        other.execute("DELETE FROM items WHERE id = 3000")
        shared_sidecar.wait_applied(TABLE.name)
        assert TABLE.check(connection, QUERY, k=5) == before


def test_read_only_transaction_may_search(connection):
    connection.read_only = True
    with connection.transaction():
        TABLE.check(connection, QUERY)
        TABLE.check(connection, QUERY, filter_={"category": 1}, where="t.category = 1")
        assert TABLE.explain(connection, QUERY)["engine"] == "ruvector"
        assert connection.execute("SELECT ruvector_wait_applied('items')").fetchone() == (True,)


def test_long_transaction_is_still_answered_by_the_index(connection):
    with connection.transaction():
        connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        search = "SELECT tier FROM ruvector_search('items', %s, 1)"
        assert connection.execute(search, [text_of(QUERY)]).fetchone() == ("hot",)
        connection.execute("SELECT pg_sleep(5)")  # longer than a sidecar may be silent
        assert connection.execute(search, [text_of(QUERY)]).fetchone() == ("hot",)


def test_savepoint_rollback_takes_its_changes_out_of_the_answer(connection):
    with connection.transaction(force_rollback=True):
        connection.execute("INSERT INTO items VALUES (4000, 1, %s)", (text_of(QUERY),))
        with connection.transaction(force_rollback=True):
            connection.execute("INSERT INTO items VALUES (4001, 1, %s)", (text_of(QUERY),))
            connection.execute("DELETE FROM items WHERE id = 4000")
            assert TABLE.check(connection, QUERY)[0][0] == "4001"
        assert TABLE.check(connection, QUERY)[0][0] == "4000"


def test_truncate_inside_a_transaction_empties_the_answer(connection):
    with connection.transaction(force_rollback=True):
        connection.execute("TRUNCATE items")
        assert TABLE.check(connection, QUERY) == []
        connection.execute("INSERT INTO items VALUES (1, 1, %s)", (text_of(QUERY),))
        assert [row[0] for row in TABLE.check(connection, QUERY)] == ["1"]
    assert len(TABLE.check(connection, QUERY)) == 10


def test_prepared_transaction_is_seen_when_it_is_committed(connection, other):
    if connection.execute("SHOW max_prepared_transactions").fetchone() == ("0",):
        pytest.skip("max_prepared_transactions is 0")
    with connection.transaction():
        connection.execute("INSERT INTO items VALUES (4500, 1, %s)", (text_of(QUERY),))
        connection.execute("PREPARE TRANSACTION 'pending'")
    before = TABLE.check(other, QUERY)
    assert before[0][0] != "4500"
    other.execute("COMMIT PREPARED 'pending'")
    assert TABLE.check(other, QUERY)[0][0] == "4500"
    other.execute("DELETE FROM items WHERE id = 4500")


def test_search_goes_on_after_an_error_in_the_transaction(connection):
    with connection.transaction(force_rollback=True):
        problem = refused(connection, SEARCH, ("nothing", text_of(QUERY), 5, None, None))
        assert problem.code == "42704"
        TABLE.check(connection, QUERY)


def test_cursor_and_join_and_subquery(connection):
    with connection.transaction():
        cursor = connection.cursor(name="held")
        cursor.execute("SELECT id FROM ruvector_search('items', %s, 20)", (text_of(QUERY),))
        held = cursor.fetchmany(5) + cursor.fetchall()
    assert [row[0] for row in held] == [row[0] for row in TABLE.search(connection, QUERY, k=20)]
    joined = connection.execute(
        "SELECT i.id::text, s.distance FROM ruvector_search('items', %s, 7) s JOIN items i ON i.id = s.id::bigint"
        " WHERE (i.embedding <-> %s)::real = s.distance ORDER BY s.distance",
        (text_of(QUERY), text_of(QUERY)),
    ).fetchall()
    assert joined == [row[:2] for row in TABLE.search(connection, QUERY, k=7)]
    lateral = connection.execute(
        "SELECT q.id, s.id::bigint FROM items q, LATERAL ruvector_search('items', q.embedding, 1) s WHERE q.id <= 20"
    ).fetchall()
    assert lateral == [(number, number) for number in range(1, 21)]


def test_forced_parallel_plans_work(connection):
    name = "debug_parallel_query" if connection.info.server_version >= 160000 else "force_parallel_mode"
    connection.execute(f"SET {name} = on")
    for setting in ("parallel_setup_cost", "parallel_tuple_cost", "min_parallel_table_scan_size"):
        connection.execute(f"SET {setting} = 0")
    TABLE.check(connection, QUERY)
    found = connection.execute(
        "SELECT count(*), max(s.distance) FROM items i JOIN ruvector_search('items', %s, 5) s ON s.id = i.id::text",
        (text_of(QUERY),),
    ).fetchone()
    assert found[0] == 5
    assert connection.execute("SELECT count(*) FROM items, ruvector_simd_info()").fetchone() == (ROWS,)


# ---- statements and parameters -------------------------------------------------------------------------------------


@pytest.mark.parametrize("binary", [False, True], ids=["text", "binary"])
@pytest.mark.parametrize("prepare", [False, True], ids=["unprepared", "prepared"])
def test_parameters_of_psycopg(connection, binary, prepare):
    statement = "SELECT id, distance FROM ruvector_search(%s, %s::vector, %s, ef_search => %s, filter => %s::jsonb)"
    expected = TABLE.search(connection, QUERY, k=5, filter_={"category": 2})
    cursor = connection.cursor(binary=binary)
    for _ in range(8):  # past the fifth execution PostgreSQL may take a generic plan
        rows = cursor.execute(
            statement, ("items", text_of(QUERY), 5, 50, '{"category": 2}'), prepare=prepare
        ).fetchall()
        # psycopg reads a binary float4 as a double
        assert [(key, np.float32(distance)) for key, distance in rows] == [row[:2] for row in expected]


def test_parameters_of_pgvector(connection):
    pgvector = pytest.importorskip("pgvector.psycopg")
    pgvector.register_vector(connection)
    rows = connection.execute("SELECT id FROM ruvector_search('items', %b, 3)", (QUERY,)).fetchall()
    assert rows == [row[:1] for row in TABLE.search(connection, QUERY, k=3)]


def test_prepared_statement_in_sql(connection):
    connection.execute("PREPARE nearest(vector, int) AS SELECT id FROM ruvector_search('items', $1, k => $2)")
    expected = TABLE.search(connection, QUERY, k=4)
    for _ in range(8):
        rows = connection.execute(f"EXECUTE nearest('{text_of(QUERY)}', 4)").fetchall()
        assert rows == [row[:1] for row in expected]


def test_function_of_the_application_may_search(connection):
    with connection.transaction(force_rollback=True):
        connection.execute(
            "CREATE FUNCTION nearest(query vector) RETURNS bigint LANGUAGE sql STABLE AS"
            " 'SELECT id::bigint FROM ruvector_search(''items'', query, 1)'"
        )
        rows = connection.execute("SELECT id, nearest(embedding) FROM items WHERE id < 5 ORDER BY id").fetchall()
        assert rows == [(number, number) for number in range(1, 5)]


# ---- settings ------------------------------------------------------------------------------------------------------


def test_settings_of_the_session(connection):
    assert TABLE.explain(connection, QUERY)["ef"] == 100
    connection.execute("SET ruvector.ef_search = 321")
    assert TABLE.explain(connection, QUERY)["ef"] == 321
    asked = connection.execute("SELECT ef FROM ruvector_explain('items', %s, ef_search => 55)", (text_of(QUERY),))
    assert asked.fetchone() == (55,)
    connection.execute("SET ruvector.exactness = 'exact'")
    TABLE.check(connection, QUERY, tier="exact")
    TABLE.check(connection, QUERY, tier="exact", filter_={"category": 1}, where="t.category = 1")
    explained = TABLE.explain(connection, QUERY)
    assert (explained["plan"], explained["engine"], explained["reason"]) == (
        "exact scan", "exact", "exactness exact was asked for",
    )  # fmt: skip
    # an argument wins over the setting
    row = connection.execute(
        "SELECT tier FROM ruvector_search('items', %s, 1, exactness => 'fast')", (text_of(QUERY),)
    ).fetchone()
    assert row == ("hot",)
    connection.execute("RESET ruvector.exactness")
    TABLE.check(connection, QUERY)


def test_exact_answers_carry_no_notice(connection):
    notices = notices_of(connection)
    connection.execute("SELECT * FROM ruvector_search('items', %s, 1, exactness => 'exact')", (text_of(QUERY),))
    assert notices == []


def test_statement_timeout_leaves_search_alone_and_stops_waiting(connection):
    connection.execute("SET statement_timeout = '5s'")
    TABLE.check(connection, QUERY)
    with connection.transaction(force_rollback=True):
        connection.execute("INSERT INTO items VALUES (5000, 1, %s)", (text_of(QUERY),))
        TABLE.check(connection, QUERY)
    # a transaction still open somewhere is not waited for, so this is a wait for nothing: true at once
    assert connection.execute("SELECT ruvector_wait_applied('items', 60000)").fetchone() == (True,)


def test_wait_says_false_when_the_time_is_over_and_can_be_cancelled(connection, other):
    with other.transaction(force_rollback=True):
        # The mirror learns of a change and cannot read the row: a lock stands before the table.
        other.execute("LOCK TABLE items IN ACCESS EXCLUSIVE MODE")
        connection.execute("INSERT INTO ruvector.changelog_1 (key_1) VALUES (1)")
        assert connection.execute("SELECT ruvector_wait_applied('items', 0)").fetchone() == (False,)
        assert connection.execute("SELECT ruvector_wait_applied('items', 150)").fetchone() == (False,)
        status = connection.execute(
            "SELECT state, pending_changes > 0 FROM ruvector_consistency_status('items')"
        ).fetchone()
        assert status == ("live", True)
        connection.execute("SET statement_timeout = '300ms'")
        problem = refused(connection, "SELECT ruvector_wait_applied('items', 60000)")
        assert problem.code == "57014"
        connection.execute("RESET statement_timeout")
    assert connection.execute("SELECT ruvector_wait_applied('items', 60000)").fetchone() == (True,)
    assert connection.execute("SELECT ruvector_wait_applied('items', NULL)").fetchone() == (True,)


# ---- batches -------------------------------------------------------------------------------------------------------


def test_batch_equals_single_searches(connection):
    queries = gaussian(5, DIMS, seed=32)
    rows = connection.execute(
        "SELECT query_idx, id, distance FROM ruvector_search_batch('items', %s::vector[], 4)",
        ([text_of(query) for query in queries],),
    ).fetchall()
    assert rows == [
        (number, *row[:2]) for number, query in enumerate(queries) for row in TABLE.search(connection, query, k=4)
    ]


def test_batch_sees_uncommitted_rows_and_empty_batches_answer_nothing(connection):
    with connection.transaction(force_rollback=True):
        connection.execute("INSERT INTO items VALUES (7000, 1, %s)", (text_of(QUERY),))
        rows = connection.execute(
            "SELECT id FROM ruvector_search_batch('items', ARRAY[%s, %s]::vector[], 1)", (text_of(QUERY),) * 2
        ).fetchall()
        assert rows == [("7000",), ("7000",)]
    assert connection.execute("SELECT * FROM ruvector_search_batch('items', '{}')").fetchall() == []
    assert connection.execute("SELECT * FROM ruvector_search_batch('items', NULL)").fetchall() == []


# ---- what is reported ----------------------------------------------------------------------------------------------


def test_explain_of_a_plain_search(connection, shared_sidecar):
    shared_sidecar.wait_applied(TABLE.name)
    explained = TABLE.explain(connection, QUERY, k=10)
    assert explained["total_ms"] > 0
    assert explained["lag_ms"] >= 0
    assert explained["watermark"].count(":") == 2
    expected = {
        "plan": "index", "engine": "ruvector", "selectivity": None, "ef": 100, "candidates": 18,
        "tiers": {"hot": 18}, "overlay_rows": 0, "reason": None,
    }  # fmt: skip
    assert {key: explained[key] for key in expected} == expected
    # One search: at least what it returned, at most every row; so few rows are compared exactly at once.
    assert 18 <= explained["visited"] <= 1000
    assert explained["reranked"] == 0
    stages = explained["stages_ms"]
    assert set(stages) == {"prepare", "ask", "search", "overlay", "rank"}
    assert 0 < stages["search"] < stages["ask"] < explained["total_ms"]
    assert sum(stages.values()) - stages["search"] <= explained["total_ms"]


def test_explain_of_a_filtered_search(connection, shared_sidecar):
    shared_sidecar.wait_applied(TABLE.name)
    explained = TABLE.explain(connection, QUERY, k=10, filter_={"category": [0, 1]})
    passing, rows = connection.execute("SELECT count(*) FILTER (WHERE category < 2), count(*) FROM items").fetchone()
    assert explained["selectivity"] == pytest.approx(passing / rows)
    assert (explained["plan"], explained["candidates"]) == ("index, filtered: scan", 18)
    assert explained["visited"] == passing
    nothing = TABLE.explain(connection, QUERY, k=10, filter_={"category": 99})
    assert (nothing["selectivity"], nothing["candidates"], nothing["engine"]) == (0.0, 0, "ruvector")


def test_consistency_status_of_a_live_mirror(connection, shared_sidecar):
    shared_sidecar.wait_applied(TABLE.name)
    cursor = connection.cursor(row_factory=dict_row)
    status = cursor.execute("SELECT * FROM ruvector_consistency_status('items')").fetchone()
    assert (status["collection"], status["state"], status["reason"]) == ("items", "live", None)
    assert status["changelog_bytes"] > 0
    assert status["checkpoint_age_ms"] > 0
    assert status["watermark"].count(":") == 2
    wait_until(
        lambda: cursor.execute("SELECT pending_changes p FROM ruvector_consistency_status()").fetchone()["p"] == 0,
        "no pending changes in the status",
    )
    status = cursor.execute("SELECT * FROM ruvector_consistency_status('items')").fetchone()
    assert (status["lag_bytes"], status["lag_ms"]) == (0, 0.0)
    assert cursor.execute("SELECT %s::pg_lsn >= %s::pg_lsn AS ahead",
                          (status["last_heap_lsn"], status["last_index_lsn"])).fetchone()["ahead"]  # fmt: skip


def test_list_and_statistics(connection, shared_sidecar):
    def listed():
        return connection.execute("SELECT * FROM ruvector_list_collections()").fetchall()

    wait_until(lambda: listed()[0][-1] == ROWS, f"{ROWS} rows in the list")
    assert listed() == [(1, "items", "public.items.embedding", DIMS, "l2", "hnsw", ROWS)]
    stats = connection.execute("SELECT ruvector_index_stats('items')").fetchone()[0]
    expected = {"collection": "items", "index_type": "hnsw", "dimensions": DIMS, "distance_metric": "l2", "m": 8,
                "ef_construction": 200, "ef_search": 100, "vector_count": ROWS, "state": "live", "rows": ROWS,
                "unindexed": {}}  # fmt: skip
    assert {key: stats[key] for key in expected} == expected
    memory = connection.execute("SELECT ruvector_memory_stats()").fetchone()[0]
    assert memory["resident_bytes"] > memory["indexes"]["items"]["bytes"] > ROWS * DIMS * 4
    assert (
        connection.execute("SELECT ruvector_version()").fetchone()
        == connection.execute("SELECT installed_version FROM ruvector.instance").fetchone()
    )
    assert connection.execute("SELECT ruvector_simd_info() <> ''").fetchone() == (True,)


# ---- verify --------------------------------------------------------------------------------------------------------


def verify(connection, arguments):
    return connection.execute(f"SELECT ruvector_verify('items', {arguments})").fetchone()[0]


@pytest.mark.parametrize("arguments", ['"full" => true', "sample => 1000"])
def test_verify_finds_and_repairs_each_kind_of_difference(connection, shared_sidecar, arguments):
    shared_sidecar.wait_applied(TABLE.name)
    assert verify(connection, arguments)["differences"] == 0
    index = shared_sidecar.mirror(TABLE.name).index
    index.delete(np.array([11, 12], dtype=np.int64))
    index.upsert(np.array([13], dtype=np.int64), np.full((1, DIMS), 99, dtype=np.float32))
    index.upsert(np.array([900_001], dtype=np.int64), QUERY[None, :])
    report = verify(connection, arguments)
    counts = {key: report[key] for key in ("missing", "stale", "orphan", "differences", "repaired")}
    assert counts == {"missing": 2, "stale": 1, "orphan": 1, "differences": 4, "repaired": 0}
    assert {key: sorted(value) for key, value in report["keys"].items()} == {
        "missing": ["11", "12"], "stale": ["13"], "orphan": ["900001"],
    }  # fmt: skip
    # A row that is not in the table is never answered, damaged or not.
    assert "900001" not in {row[0] for row in TABLE.search(connection, QUERY, k=5)}
    repaired = verify(connection, arguments + ", repair => true")
    assert (repaired["differences"], repaired["repaired"]) == (4, 4)
    assert verify(connection, arguments)["differences"] == 0
    TABLE.check(connection, QUERY, k=ROWS)


def test_verify_leaves_rows_alone_that_cannot_be_indexed(connection, shared_sidecar):
    connection.execute("INSERT INTO items VALUES (8000, 1, NULL)")
    shared_sidecar.wait_applied(TABLE.name)
    report = verify(connection, '"full" => true, repair => true')
    assert (report["differences"], report["checked"]) == (0, ROWS)
    connection.execute("DELETE FROM items WHERE id = 8000")


def test_restart_of_the_sidecar_is_not_noticed_by_an_open_session(connection, shared_sidecar):
    """The session holds a link to the old process; it opens a new one, and the index is there again from its files."""
    TABLE.check(connection, QUERY)
    shared_sidecar.stop()
    TABLE.check(connection, QUERY, tier="pgvector")
    connection.execute("INSERT INTO items VALUES (9000, 1, %s)", (text_of(QUERY),))
    shared_sidecar.start().wait_live(TABLE.name)
    assert TABLE.check(connection, QUERY)[0][0] == "9000"
    connection.execute("DELETE FROM items WHERE id = 9000")
    TABLE.check(connection, QUERY)


@pytest.mark.parametrize("place", [0, 1], ids=["another server", "another database"])
def test_request_from_elsewhere_is_refused(connection, shared_sidecar, place):
    mirror, notices = shared_sidecar.mirror(TABLE.name), notices_of(connection)
    own = mirror.database
    try:
        mirror.database = ("1700000000.000001", own[1]) if place == 0 else (own[0], own[1] + 1)
        TABLE.check(connection, QUERY, tier="pgvector")
    finally:
        mirror.database = own
    assert "the request comes from another database" in notices.pop()
    TABLE.check(connection, QUERY)


def test_overlay_is_read_from_the_index_however_long_the_changelog_is(connection):
    """Old rows are not read, whatever the planner knew about the changelog when it planned."""
    reads = "SELECT seq_tup_read FROM pg_stat_xact_user_tables WHERE relid = 'ruvector.changelog_1'::regclass"
    TABLE.check(connection, QUERY)  # planned over an empty changelog
    with connection.transaction(force_rollback=True):
        connection.execute(
            "INSERT INTO ruvector.changelog_1 (xid, key_1) SELECT '5', g FROM generate_series(1, 30000) g"
        )
        for analyzed in (False, True):
            if analyzed:
                connection.execute("ANALYZE ruvector.changelog_1")
            before = connection.execute(reads).fetchone()
            for _ in range(8):
                TABLE.check(connection, QUERY)
            assert connection.execute(reads).fetchone() == before
            explained = TABLE.explain(connection, QUERY)
            assert (explained["engine"], explained["overlay_rows"]) == ("ruvector", 0)
