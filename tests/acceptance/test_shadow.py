"""Shadow traffic compares real searches in the background; a guard rolls a ramp back by itself."""

import json
import time

import numpy as np
import pytest
from fix_sidecar import RunningSidecar
from psycopg.conninfo import make_conninfo
from table_kit import VectorTable, assert_nearest, notices_of, refused

ROWS, DIMS = 600, 8
ITEMS = VectorTable("shadow_items", dims=DIMS, columns="id bigint PRIMARY KEY, c int", options={"columns": ["c"]})
QUERIES = ITEMS.random_vectors(40, seed=801)
ENOUGH_SECONDS = 30.0


@pytest.fixture
def items(database, sidecar):
    with database.connect() as connection:
        ITEMS.create(connection)
        ITEMS.insert(connection, ITEMS.random_vectors(ROWS, seed=802), c=[n % 3 for n in range(ROWS)])
        connection.execute("CREATE INDEX shadow_pg ON shadow_items USING hnsw (embedding vector_l2_ops)")
        ITEMS.attach(connection)
        sidecar.wait_live(ITEMS.name)
        yield connection


def report(connection, since=None):
    return connection.execute("SELECT ruvector_shadow_report(%s, %s)", (ITEMS.name, since)).fetchone()[0]


def search_until(connection, is_done, **more):
    """Search on, each answer in full, until something holds."""
    deadline = time.monotonic() + ENOUGH_SECONDS
    while not (found := is_done()):
        assert time.monotonic() < deadline, report(connection)
        for query in QUERIES:
            assert len(ITEMS.search(connection, query, **more)) == 10
        time.sleep(0.01)
    return found


def shadow(connection, rate=1.0):
    assert connection.execute("SELECT ruvector_shadow_start(%s, %s::real)", (ITEMS.name, rate)).fetchone()[0] is True


def lose_half(sidecar):
    """Make the index one that never finds every other row."""
    index = sidecar.mirror(ITEMS.name).index
    assert index.delete(np.arange(2, ROWS + 1, 2)) == ROWS // 2


def state_of(connection):
    return connection.execute("SELECT state, reason FROM ruvector_cutover_status(%s)", (ITEMS.name,)).fetchone()


def test_shadow_answers_with_pgvector_and_compares_in_the_background(items):
    shadow(items)
    notices = notices_of(items)
    assert {row[3] for query in QUERIES for row in ITEMS.search(items, query)} == {"pgvector"}
    assert ITEMS.explain(items, QUERIES[0])["reason"] == "the cutover is in shadow"
    search_until(items, lambda: report(items)["n"] >= 60)
    found = report(items)
    assert notices == []
    assert (found["state"], found["breaches"], found["errors"], found["mismatches"]) == ("shadow", [], {}, 0)
    assert found["compared"] == found["n"]
    assert found["recall_at_k"]["ruvector"] == {"mean": 1, "low": 1, "high": 1, "min": 1}
    assert found["recall_at_k"]["exact"] > 0
    assert found["overlap_at_k"]["mean"] == found["rank_correlation"] == 1
    assert found["distance_error"] == 0
    for name in ("p50", "p95", "p99"):
        for engine in ("ruvector", "pgvector"):
            assert found["latency_ms"][name][engine]["low"] <= found["latency_ms"][name][engine]["value"]
    kept = items.execute("SELECT count(*), bool_or(is_filtered) FROM ruvector.shadow_pair").fetchone()
    assert kept[0] >= 60
    assert kept[1] is False
    search_until(
        items,
        lambda: items.execute("SELECT bool_or(is_filtered) FROM ruvector.shadow_pair").fetchone()[0],
        filter_={"c": 1},
    )


def test_what_was_compared_counts_from_the_latest_step(items):
    shadow(items)
    search_until(items, lambda: report(items)["n"] >= 20)
    items.execute("SELECT ruvector_cutover(%s, 0)", (ITEMS.name,))
    assert report(items, "2020-01-01T00:00:00Z")["n"] >= 20
    assert report(items)["n"] < 20


def test_a_bad_index_is_seen_in_shadow_and_rolled_back_in_a_ramp(cli, database, items, sidecar):
    lose_half(sidecar)
    shadow(items)
    search_until(items, lambda: report(items)["breaches"])
    assert "below min_recall 0.95" in report(items)["breaches"][0]
    assert state_of(items)[0] == "shadow"

    items.execute("SELECT ruvector_cutover(%s, 50, %s)", (ITEMS.name, json.dumps({"min_recall": 0.9})))
    _, reason = search_until(items, lambda: (found := state_of(items))[0] == "off" and found)
    assert reason.startswith("guard: recall 0.")
    kind, detail = items.execute("SELECT kind, detail FROM ruvector.event ORDER BY id DESC LIMIT 1").fetchone()
    assert (kind, detail["percent"], detail["guard"]) == ("guard", 50, {"min_recall": 0.9})
    assert 0.3 < detail["statistics"]["recall_at_k"]["ruvector"]["mean"] < 0.7
    assert detail["breaches"] == [reason.removeprefix("guard: ")]
    told = cli("doctor", dsn=database.dsn)
    assert told.code == 3
    assert "its guard rolled the cutover back" in told.out
    items.execute("SELECT ruvector_shadow_start(%s, 0.05)", (ITEMS.name,))
    assert "shadow: pgvector answers" in cli("doctor", dsn=database.dsn).out
    items.execute("SELECT ruvector_rollback(%s)", (ITEMS.name,))
    for query in QUERIES[:5]:
        rows = ITEMS.search(items, query)
        assert rows[0][3] == "pgvector"
        assert_nearest(rows, ITEMS.distances(items, query), 10)


def test_a_ramp_without_a_guard_goes_on_and_a_good_index_holds_its_guard(items, sidecar):
    items.execute("SELECT ruvector_shadow_start(%s, 1)", (ITEMS.name,))
    items.execute("SELECT ruvector_cutover(%s, 100)", (ITEMS.name,))
    search_until(items, lambda: report(items)["n"] >= 60)
    assert items.execute("SELECT ruvector.check_guard(id) FROM ruvector.collection").fetchone() == (None,)
    assert state_of(items)[0] == "ramp"
    lose_half(sidecar)
    items.execute("SELECT ruvector_cutover(%s, 90, '{}')", (ITEMS.name,))
    search_until(items, lambda: report(items)["n"] >= 60)
    assert (state_of(items)[0], report(items)["breaches"]) == ("ramp", [])


def test_searches_that_fail_count_and_break_the_guard(items, sidecar):
    shadow(items)
    mirror = items.execute("SELECT id FROM ruvector.collection").fetchone()[0]
    items.execute("DELETE FROM ruvector.live WHERE mirror_id = %s", (mirror,))
    search_until(items, lambda: report(items)["breaches"])
    found = report(items)
    assert found["compared"] < found["n"]
    assert "above max_error_rate 0.01" in found["breaches"][0]


def test_searches_go_on_when_nobody_takes_the_samples(items, sidecar):
    shadow(items)
    ITEMS.search(items, QUERIES[0])
    sidecar.stop()
    for query in QUERIES:
        assert_nearest(ITEMS.search(items, query), ITEMS.distances(items, query), 10)
    sidecar.start().wait_live(ITEMS.name)
    before = report(items)["n"]
    search_until(items, lambda: report(items)["n"] > before)


def test_a_sample_that_is_no_search_is_left_out(items, caplog):
    shadow(items)
    search_until(items, lambda: report(items)["n"] >= 2)
    mirror = items.execute("SELECT id FROM ruvector.collection").fetchone()[0]
    wrong = [("nonsense", 10, None), ("[1,2]", 10, None), (str([0.0] * DIMS), 0, None),
             (str([0.0] * DIMS), 10, '{"no_such": 1}'), (str([0.0] * DIMS), 10, '{"c": "x"}')]  # fmt: skip
    for query, k, filter_ in wrong:
        items.execute("SELECT ruvector.sample(%s, %s, %s, NULL, %s)", (mirror, query, k, filter_))
        time.sleep(0.05)
    before = report(items)["n"]
    search_until(items, lambda: report(items)["n"] >= before + 5)
    found = report(items)
    assert (found["errors"], found["missed"]) == ({}, 0)
    assert "cannot be compared" not in caplog.text


def test_neither_users_nor_the_sidecar_need_more_than_their_roles(database, items, sidecar):
    role = f"{database.name}_shadow"
    items.execute(f"CREATE ROLE {role} LOGIN PASSWORD 'pw' IN ROLE ruvector_sidecar")
    items.execute("GRANT SELECT ON shadow_items TO ruvector_sidecar, ruvector_user")
    sidecar.stop()
    weak = RunningSidecar(database, sidecar.data_dir, dsn=make_conninfo(database.dsn, user=role, password="pw")).start()
    try:
        weak.wait_live(ITEMS.name)
        shadow(items)
        items.execute("SET ROLE ruvector_user")
        search_until(items, lambda: report(items)["compared"] >= 20)
        filtered = "SELECT count(*) FILTER (WHERE is_filtered) FROM ruvector.shadow_pair"
        search_until(items, lambda: items.execute(filtered).fetchone()[0], filter_={"c": 1})
        assert refused(items, "SELECT ruvector_shadow_start(%s)", (ITEMS.name,)).code == "42501"
        assert refused(items, "SELECT ruvector.check_guard(1)").code == "42501"
        items.execute("RESET ROLE")
        lose_half(weak)
        items.execute("SELECT ruvector_cutover(%s, 100)", (ITEMS.name,))
        search_until(items, lambda: state_of(items)[0] == "off")
        assert items.execute("SELECT changed_by FROM ruvector_cutover_status()").fetchone() == (role,)
    finally:
        weak.stop()
        items.execute(f"RESET ROLE; DROP OWNED BY {role}; DROP ROLE {role}")


def test_bad_steps_are_refused(items):
    for rate in ("0", "-0.1", "1.1", "'NaN'"):
        assert refused(items, f"SELECT ruvector_shadow_start('{ITEMS.name}', {rate})").code == "22023"
    for guard in ("[]", '{"recall": 1}', '{"min_recall": "a"}', '{"min_recall": 1.5}', '{"max_p99_ratio": -1}'):
        assert refused(items, "SELECT ruvector_cutover(%s, 5, %s::jsonb)", (ITEMS.name, guard)).code == "22023"
    assert refused(items, "SELECT ruvector_shadow_start('ghost')").code == "42704"
    assert refused(items, "SELECT ruvector_shadow_report('ghost')").code == "42704"
    shadow(items)
    assert refused(items, "SELECT ruvector_cutover_complete(%s)", (ITEMS.name,)).message.endswith(
        "in shadow, not at 100 %"
    )


def test_intervals_are_those_of_the_textbook(items):
    """Against values from statistics programs: Wilson's interval, and order statistics."""
    low, high = items.execute(
        "SELECT (r ->> 'low')::float8, (r ->> 'high')::float8 FROM ruvector.share_interval(10, 100) r"
    ).fetchone()
    assert (low, high) == (pytest.approx(0.05523, abs=1e-4), pytest.approx(0.17437, abs=1e-4))
    quantile = "SELECT ruvector.quantile_interval(array(SELECT generate_series(1, %s)::float8), %s)"
    assert items.execute(quantile, (1000, 0.5)).fetchone()[0] == {"value": 500, "low": 469, "high": 532}
    assert items.execute(quantile, (100, 0.99)).fetchone()[0] == {"value": 99, "low": 97, "high": None}
    # The interval covers the true median of a skewed distribution about as often as it says.
    covered = items.execute("""
        SELECT count(*) FROM generate_series(1, 400) g, LATERAL (
          SELECT ruvector.quantile_interval(array_agg(x ORDER BY x), 0.5)
          FROM (SELECT -ln(1 - random()) AS x FROM generate_series(1, 100 + g * 0)) d) q (i)
        WHERE (i ->> 'low')::float8 <= ln(2) AND (i ->> 'high')::float8 >= ln(2)""").fetchone()[0]
    assert covered >= 0.90 * 400
