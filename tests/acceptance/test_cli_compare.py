"""compare: the truth is exact SQL's, every engine is judged by it, nothing is changed."""

import numpy as np
import pytest

from ruvector.client.compare import _Contestant, _judge


@pytest.fixture
def compared(rv, items, database, sidecar_process, wait_live):
    """A live collection of 300 rows, and a pgvector index on the same column."""
    with database.connect() as connection:
        connection.execute("CREATE INDEX items_hnsw ON items USING hnsw (embedding vector_l2_ops) WITH (m = 8)")
    rv.json("attach", items, "--columns", "category")
    sidecar_process.start()
    wait_live("items_embedding")
    return "items_embedding"


def test_every_engine_is_asked_and_judged(rv, compared):
    found = rv.json("compare", compared, "--queries", "20", "--ef", "5,100")
    engines = [(each["engine"], each["setting"]) for each in found["engines"]]
    assert engines == [
        ("exact", "scan"),
        ("pgvector hnsw", "ef_search 5"),
        ("pgvector hnsw", "ef_search 100"),
        ("ruvector", "ef_search 5"),
        ("ruvector", "ef_search 100"),
    ]
    by_name = dict(zip(engines, found["engines"], strict=True))
    assert by_name["exact", "scan"]["recall_mean"] == 1
    # Five candidates cannot hold ten rows: what pgvector then leaves out counts against it.
    assert by_name["pgvector hnsw", "ef_search 5"]["recall_mean"] < 0.8
    assert by_name["pgvector hnsw", "ef_search 5"]["rows_mean"] < 10
    assert by_name["pgvector hnsw", "ef_search 100"]["recall_mean"] > 0.9
    assert by_name["ruvector", "ef_search 100"]["recall_mean"] > 0.98
    for each in found["engines"]:
        assert each["recall_min"] <= each["recall_p5"] <= 1
        assert 0 < each["p50_ms"] <= each["p95_ms"] <= each["p99_ms"]
    assert by_name["ruvector", "ef_search 5"]["index_bytes"] > 0
    assert found["queries"] == 20
    assert "finds itself" in found["query_source"]


def test_filter_is_the_same_for_all(rv, compared):
    found = rv.json("compare", compared, "--queries", "5", "--ef", "200", "--filter", '{"category": "a"}')
    assert {each["engine"]: each["recall_mean"] for each in found["engines"]}["ruvector"] == 1
    assert found["filter"] == {"category": "a"}


def test_given_queries(rv, compared):
    np.save(rv.folder / "queries.npy", np.eye(8, dtype=np.float32)[:3])
    found = rv.json("compare", compared, "--queries-file", "queries.npy", "--ef", "100", "-k", "3")
    assert (found["queries"], found["query_source"], found["k"]) == (3, "given", 3)


def test_plot_and_page(rv, compared):
    answer = rv("compare", compared, "--queries", "3", "--ef", "50", "--plot", "a.png", "--report", "a.html")
    assert answer.code == 0, answer.err
    assert (rv.folder / "a.png").read_bytes().startswith(b"\x89PNG")
    page = (rv.folder / "a.html").read_text()
    assert "items_embedding" in page
    assert "data:image/png;base64," in page
    assert "pgvector hnsw" in answer.out
    assert "http" not in page


def test_threshold_decides_the_exit_code(rv, compared, database):
    options = ("compare", compared, "--queries", "5", "--ef", "100", "--min-recall", "0.9")
    assert rv(*options).code == 0
    with database.connect() as connection, connection.transaction():
        connection.execute("UPDATE items i SET embedding = o.embedding FROM items o WHERE o.id = 301 - i.id")
        connection.execute("DELETE FROM ruvector.changelog_1")  # as if the changes had never been captured
    answer = rv(*options)
    assert answer.code == 3
    assert "less than 0.9" in answer.err


def test_without_index_or_sidecar_it_says_so(rv, items):
    rv.json("attach", items)
    found = rv.json("compare", "items_embedding", "--queries", "3", "--ef", "40")
    assert [each["engine"] for each in found["engines"]] == ["exact", "ruvector"]
    assert any("no pgvector index" in remark for remark in found["remarks"])
    assert any("database itself" in remark for remark in found["remarks"])


def test_column_of_bits(rv, database):
    with database.connect() as connection:
        connection.execute("CREATE TABLE codes (id int PRIMARY KEY, code bit(16))")
        connection.execute("INSERT INTO codes SELECT n, (n * 37)::bit(16) FROM generate_series(1, 200) n")
        connection.execute("CREATE INDEX ON codes USING hnsw (code bit_hamming_ops)")
    rv.json("attach", "public.codes.code")
    found = rv.json("compare", "codes_code", "--queries", "5", "--ef", "100")
    assert {each["engine"]: each["recall_mean"] for each in found["engines"]}["ruvector"] == 1


@pytest.mark.parametrize(
    ("options", "code"),
    [
        (["--ef", "a,b"], 1),
        (["--ef", "0"], 1),
        (["-k", "0"], 2),
        (["-k", "100000"], 1),
        (["--queries", "0"], 2),
        (["--queries-file", "missing.npy"], 1),
        (["--filter", "[1]"], 1),
        (["--plot", "a.exe", "--queries", "1", "--ef", "40"], 1),
    ],
)
def test_wrong_options(rv, items, options, code):
    rv.json("attach", items)
    answer = rv("compare", "items_embedding", *options)
    assert (answer.code, answer.out) == (code, "")


def test_empty_table(rv, database):
    with database.connect() as connection:
        connection.execute("CREATE TABLE none (id int PRIMARY KEY, e vector(3))")
    rv.json("attach", "public.none.e")
    answer = rv("compare", "none_e")
    assert answer.code == 1
    assert "--queries-file" in answer.err


def contestant(*answers):
    return _Contestant("e", "s", None, {}, {}, None, [1.0, 2.0], list(answers))


def test_ties_count_and_missing_rows_do_not():
    truth = contestant([0.0, 1.0, 1.0], [2.0])
    # Another row at the distance of the last one is as good; a row too far and a missing one are not.
    judged = _judge(contestant([0.0, 1.0, 1.0000001], []), truth, k=3)
    assert (judged.recall_mean, judged.recall_min) == (0.5, 0.0)
    assert _judge(contestant([0.0, 1.0, 1.1], [2.0]), truth, k=3).recall_mean == pytest.approx((2 / 3 + 1) / 2)
    assert _judge(contestant([], []), contestant([], []), k=3).recall_mean == 1
