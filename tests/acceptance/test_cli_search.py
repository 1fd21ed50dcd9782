"""search, status, doctor and verify while no sidecar runs: the database answers, and everything says so."""

import numpy as np
import pytest

QUERY = "[1,0,0,0,0,0,0,0]"


@pytest.fixture
def attached(rv, items):
    rv.json("attach", items, "--columns", "category")
    return "items_embedding"


def test_search_answers_without_a_sidecar(rv, database, attached):
    answer = rv("search", attached, "--vector", QUERY, "-k", "5", "--format", "json")
    assert answer.code == 0
    assert "notice: ruvector: collection items_embedding was searched by the database itself" in answer.err
    with database.connect() as connection:
        exact = connection.execute(
            "SELECT id::text, embedding <-> %s FROM items ORDER BY 2 LIMIT 5", (QUERY,)
        ).fetchall()
    hits = answer.document["hits"]
    assert [hit["id"] for hit in hits] == [key for key, _ in exact]
    assert [hit["distance"] for hit in hits] == pytest.approx([distance for _, distance in exact], rel=1e-6)


def test_search_by_id_and_by_file(rv, database, attached):
    assert rv.json("search", attached, "--id", "7", "-k", "1")["hits"][0]["id"] == "7"
    np.save(rv.folder / "query.npy", np.array([1, 0, 0, 0, 0, 0, 0, 0], dtype=np.float32))
    by_file = rv.json("search", attached, "--file", "query.npy")
    assert by_file["hits"] == rv.json("search", attached, "--vector", QUERY)["hits"]


def test_search_by_composite_key(rv, database):
    with database.connect() as connection:
        connection.execute("CREATE TABLE pairs (a int, b text, e vector(2), PRIMARY KEY (a, b))")
        connection.execute("INSERT INTO pairs VALUES (1, 'x', '[1,0]'), (1, 'y', '[0,1]')")
    rv.json("attach", "public.pairs.e")
    assert rv.json("search", "pairs_e", "--id", '[1, "y"]')["hits"][0]["id"] == '[1, "y"]'
    assert "JSON array" in rv("search", "pairs_e", "--id", "1").err


def test_search_with_a_filter(rv, database, attached):
    hits = rv.json("search", attached, "--vector", QUERY, "--filter", '{"category": "a"}')["hits"]
    assert len(hits) == 10
    assert all(int(hit["id"]) % 3 == 0 for hit in hits)


def test_search_bits(rv, database):
    with database.connect() as connection:
        connection.execute("CREATE TABLE codes (id int PRIMARY KEY, code bit(4))")
        connection.execute("INSERT INTO codes VALUES (1, B'0000'), (2, B'0111')")
    rv.json("attach", "public.codes.code")
    hits = rv.json("search", "codes_code", "--vector", "0110")["hits"]
    assert [(hit["id"], hit["distance"]) for hit in hits] == [("2", 1), ("1", 2)]


def test_explain(rv, attached):
    report = rv.json("search", attached, "--vector", QUERY, "--explain")["explain"]
    assert (report["engine"], bool(report["reason"])) == ("pgvector", True)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--vector", "[1,2]"], "dimensions"),
        (["--vector", "[1,0,0,0,0,0,0,1e400]"], "not a finite number"),
        (["--vector", "[NaN,0,0,0,0,0,0,0]"], "not a finite number"),
        (["--vector", "{}"], "must be a JSON array"),
        (["--vector", '["a"]'], "array of numbers"),
        (["--vector", "1,2"], "not JSON"),
        (["--vector", QUERY, "-k", "0"], "k must be between 1 and 10000"),
        (["--vector", QUERY, "-k", "-5"], "k must be between 1 and 10000"),
        (["--vector", QUERY, "-k", "10000000"], "k must be between 1 and 10000"),
        (["--vector", QUERY, "--ef", "0"], "ef_search must be between"),
        (["--vector", QUERY, "--filter", '{"ghost": 1}'], "is not a filter column"),
        (["--vector", QUERY, "--filter", "[]"], "--filter must be a JSON object"),
        (["--id", "4711"], "has no row with key 4711"),
        (["--file", "ghost.npy"], "ghost.npy cannot be read"),
    ],
)
def test_bad_input_is_one_clear_error(rv, attached, options, message):
    answer = rv("search", attached, *options)
    assert answer.code == 1
    assert answer.err.startswith("error: ")
    assert message in answer.err
    assert answer.out == ""


def test_file_of_objects_is_refused(rv, attached):
    np.save(rv.folder / "query.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    answer = rv("search", attached, "--file", "query.npy")
    assert (answer.code, "cannot be read" in answer.err) == (1, True)


def test_status_doctor_and_verify_say_that_the_sidecar_is_down(rv, attached):
    status = rv.json("status")
    assert not status["sidecar"]["reachable"]
    assert status["collections"][0]["state"] == "new"
    doctor = rv("doctor", "--format", "json")
    assert doctor.code == 3
    failed = {check["name"] for check in doctor.document["checks"] if not check["ok"]}
    assert failed == {"sidecar", "collection items_embedding"}
    verify = rv("verify", attached)
    assert (verify.code, "hint: Start it with: ruvector run" in verify.err) == (5, True)
