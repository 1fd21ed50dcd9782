"""ruvector cutover."""

import time

import pytest


@pytest.fixture
def attached(rv, items):
    assert rv("attach", items).code == 0
    return rv


def test_steps_are_taken_shown_and_only_tried(attached):
    status = ("cutover", "items_embedding", "status")
    assert attached.json(*status)["state"] == "complete"
    tried = attached.json("cutover", "items_embedding", "rollback", "--dry-run")
    assert (tried["dry_run"], tried["state"]) == (True, "off")
    assert attached.json(*status)["state"] == "complete"
    done = attached("cutover", "items_embedding", "rollback", "--reason", "too slow")
    assert (done.code, done.out) == (0, "items_embedding: from complete (100 %) to off (0 %)\n")
    found = attached.json(*status)
    assert (found["state"], found["percent"], found["reason"]) == ("off", 0, "too slow")
    assert found["changed_at"].endswith("Z")
    assert "too slow" in attached(*status).out


def test_refusals_say_what_to_do(attached):
    refused = attached("cutover", "items_embedding", "ramp", "10")
    assert refused.code == 1
    assert 'the index of collection "items_embedding" cannot answer yet' in refused.err
    assert "hint: " in refused.err
    assert attached("cutover", "items_embedding", "rollback").code == 0
    refused = attached("cutover", "items_embedding", "complete")
    assert refused.code == 1
    assert "is off, not at 100 %" in refused.err


def test_shadow_is_started_and_reported(attached, database, sidecar):
    sidecar.wait_live("items_embedding")
    started = attached("cutover", "items_embedding", "shadow", "--sample-rate", "1")
    assert (started.code, started.out) == (0, "items_embedding: from complete (100 %) to shadow (0 %)\n")
    with database.connect() as connection:
        for _ in range(30):
            connection.execute(
                "SELECT * FROM ruvector_search('items_embedding', (SELECT embedding FROM items LIMIT 1))"
            ).fetchall()
            if connection.execute("SELECT count(*) FROM ruvector.shadow_pair").fetchone()[0]:
                break
            time.sleep(0.05)
    report = ("cutover", "items_embedding", "report")
    found = attached.json(*report)
    assert found["n"] >= 1
    assert found["breaches"] == []
    shown = attached(*report).out
    assert "recall@k ruvector" in shown
    assert "nothing" in shown
    with database.connect() as connection:
        connection.execute(
            "INSERT INTO ruvector.shadow_pair (mirror_id, k, is_filtered, missed, problem, pgvector_ms)"
            " SELECT id, 10, false, 0, 'no answer', 1 FROM ruvector.collection, generate_series(1, 40)"
        )
    broken = attached(*report)
    assert broken.code == 3
    assert "no answer" in broken.out


def test_options_belong_to_their_actions(attached):
    for wrong in (
        ["status", "--sample-rate", "1"],
        ["ramp"],
        ["complete", "--guard", "{}"],
        ["shadow", "--since", "x"],
    ):
        assert attached("cutover", "items_embedding", *wrong).code == 2
    for guard in ("no", "[]"):
        assert attached("cutover", "items_embedding", "ramp", "5", "--guard", guard).code == 2


def attach_another(database, name):
    with database.connect() as connection:
        connection.execute("ALTER TABLE items ADD COLUMN second vector(3)")
        connection.execute("SELECT ruvector_register_collection(%s, 'public', 'items', 'second')", (name,))


def test_all_collections_in_turn(attached, database):
    attach_another(database, "another")
    assert attached("cutover", "--all", "rollback", "--reason", "night").out.splitlines() == [
        "another: from complete (100 %) to off (0 %)",
        "items_embedding: from complete (100 %) to off (0 %)",
    ]
    found = attached.json("cutover", "--all", "status")["collections"]
    assert [(row["collection"], row["state"], row["reason"]) for row in found] == [
        ("another", "off", "night"), ("items_embedding", "off", "night")
    ]  # fmt: skip
    with database.connect() as connection:
        connection.execute("UPDATE ruvector.collection SET cutover_state = 'ramp', cutover_percent = 100")
    done = attached.json("cutover", "--all", "complete", "--drop-pgvector-index")["collections"]
    assert [(step["from_percent"], step["state"], step["dropped"]) for step in done] == [(100, "complete", [])] * 2
    for wrong in (["--all"], ["--all", "ramp"], ["--all", "items_embedding", "status"], ["items_embedding"],
                  ["items_embedding", "ramp", "ten"], ["items_embedding", "ramp", "101"]):  # fmt: skip
        assert attached("cutover", *wrong).code == 2


def test_all_stops_at_the_first_refusal(attached, database):
    attach_another(database, "zebra")
    assert attached("cutover", "--all", "rollback").code == 0
    refused = attached("cutover", "--all", "ramp", "10")
    assert refused.code == 1
    assert 'the index of collection "items_embedding" cannot answer yet' in refused.err
    assert attached.json("cutover", "zebra", "status")["state"] == "off"
