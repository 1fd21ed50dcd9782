"""ruvector cutover."""

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
