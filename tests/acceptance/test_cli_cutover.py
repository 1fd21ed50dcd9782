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
