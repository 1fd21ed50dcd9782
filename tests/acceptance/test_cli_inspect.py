"""inspect: reads only, finds every vector column, says what stops an attach."""

import numpy as np
import pytest
from fix_postgres import TEST_SETTINGS
from psycopg import sql

from ruvector.cli.probe import summary
from ruvector.embedded import EmbeddedPostgres


@pytest.fixture
def shop(bare_database):
    with bare_database.connect() as connection:
        connection.execute(
            """
            CREATE TABLE good (id bigint PRIMARY KEY, embedding vector(3), small halfvec(4), code bit(16));
            CREATE INDEX good_cosine ON good USING hnsw (embedding vector_cosine_ops) WITH (m = 8);
            CREATE TABLE keyless (embedding vector(3));
            CREATE TABLE wide_key (key real PRIMARY KEY, embedding vector(3));
            CREATE UNLOGGED TABLE fleeting (id int PRIMARY KEY, embedding vector(3));
            CREATE TABLE loose (id uuid PRIMARY KEY, embedding vector);
            CREATE TABLE sparse (id int PRIMARY KEY, embedding sparsevec(9));
            CREATE TABLE parted (id int PRIMARY KEY, embedding vector(3)) PARTITION BY RANGE (id);
            CREATE TABLE parted_1 PARTITION OF parted FOR VALUES FROM (0) TO (9);
            CREATE MATERIALIZED VIEW copied AS SELECT * FROM good;
            CREATE TABLE "We""ird.T" ("Id" text PRIMARY KEY, "e.m b" vector(3));
            INSERT INTO good SELECT n, ARRAY[n, 1, 1]::vector FROM generate_series(1, 50) n;
            ANALYZE good;
            """
        )
    return bare_database


def columns(document):
    return {(column["table"], column["column"]): column for column in document["columns"]}


def test_inspect_finds_columns_and_indexes(cli, shop):
    document = cli.json("inspect", dsn=shop.dsn)
    found = columns(document)
    assert found["good", "embedding"]["dims"] == 3
    assert found["good", "embedding"]["rows"] == 50
    assert found["good", "embedding"]["key_columns"] == ["id"]
    assert found["good", "embedding"]["indexes"] == ["good_cosine"]
    assert found["good", "small"]["type"] == "halfvec"
    assert found["sparse", "embedding"]["blockers"] == []
    assert found["parted", "embedding"]["kind"] == "partitioned table"
    assert ("parted_1", "embedding") not in found
    assert found['We"ird.T', "e.m b"]["name"] == 'public."We""ird.T"."e.m b"'
    index = document["indexes"][0]
    assert (index["method"], index["operator_class"], index["options"]) == ("hnsw", "vector_cosine_ops", ["m=8"])
    assert document["ruvector"] == {"installed": False, "version": None}
    assert document["extensions"]["vector"]["installed"]


@pytest.mark.parametrize(
    ("table", "problem", "fix"),
    [
        ("keyless", "no primary key", "ADD COLUMN id bigint"),
        ("wide_key", "its key has type real", ""),
        ("fleeting", "its table is unlogged", "SET LOGGED"),
        ("copied", "materialized view", "Attach the table behind it"),
    ],
)
def test_inspect_says_what_stops_an_attach(cli, shop, table, problem, fix):
    document = cli.json("inspect", dsn=shop.dsn)
    blockers = next(column["blockers"] for column in document["columns"] if column["table"] == table)
    assert any(problem in blocker["problem"] and fix in blocker["fix"] for blocker in blockers)


def test_inspect_prints_the_command(cli, shop):
    answer = cli("inspect", dsn=shop.dsn)
    assert answer.code == 0
    assert "ruvector attach 'public.good.embedding'" in answer.out
    assert "ruvector attach 'public.loose.embedding' --dims N" in answer.out
    assert "good_cosine" in answer.out


def test_inspect_without_pgvector(cli, new_database):
    empty = new_database("empty")
    document = cli.json("inspect", dsn=empty.dsn)
    assert document["columns"] == []
    blocker = next(each for each in document["blockers"] if each["problem"] == "extension vector is not installed here")
    assert (blocker["severity"], blocker["fix"]) == ("error", "CREATE EXTENSION vector;")


def test_inspect_knows_what_is_attached(rv, items):
    rv.json("attach", items)
    assert columns(rv.json("inspect"))["items", "embedding"]["attached_as"] == "items_embedding"


@pytest.fixture
def watched(short_path):
    """A server that keeps statistics of its queries."""
    settings = {**TEST_SETTINGS, "shared_preload_libraries": "pg_stat_statements"}
    with EmbeddedPostgres(short_path / "watched", settings=settings) as server:
        yield server.dsn()


def fill(connection, *, rows=2000, dims=24, lists=100):
    """A table that ivfflat with one probe finds little in."""
    vectors = np.random.default_rng(5).standard_normal((rows, dims)).astype(np.float32)
    connection.execute(f"CREATE TABLE things (id bigint PRIMARY KEY, embedding vector({dims}))")
    with connection.cursor().copy("COPY things FROM STDIN") as copy:
        for number, vector in enumerate(vectors):
            copy.write_row((number, str(vector.tolist())))
    connection.execute(
        f"CREATE INDEX things_ivf ON things USING ivfflat (embedding vector_l2_ops) WITH (lists = {lists})"
    )
    connection.execute("CREATE INDEX things_hnsw ON things USING hnsw (embedding vector_cosine_ops)")
    connection.execute("ANALYZE things")
    return vectors


def test_recall_of_each_index_is_measured(cli, bare_database):
    with bare_database.connect() as connection:
        vectors = fill(connection)
        document = cli.json("inspect", "--queries", "40", dsn=bare_database.dsn)
        indexes = {index["index"]: index for index in document["indexes"]}
        poor, good = indexes["things_ivf"]["recall"], indexes["things_hnsw"]["recall"]
        assert (poor["queries"], poor["k"], poor["ivfflat.probes"]) == (40, 10, "1")
        # The same, counted by hand over all rows.
        truth = []
        for query in vectors[:100]:
            exact = np.sort(((vectors - query) ** 2).sum(axis=1))[1:11]
            statement = sql.SQL("SELECT id FROM things ORDER BY embedding <-> {} LIMIT 11")
            connection.execute("SET enable_seqscan = off")
            found = connection.execute(statement.format(sql.Literal(str(query.tolist())))).fetchall()
            near = ((vectors[[row[0] for row in found]] - query) ** 2).sum(axis=1)
            truth.append((near[1:] <= exact[-1] * 1.0001).mean() if len(near) > 1 else 0.0)
        assert poor["low"] - 0.1 <= np.mean(truth) <= poor["high"] + 0.1
        assert poor["min"] <= poor["p5"] <= poor["mean"] < 0.7
        assert good["mean"] > 0.95
        advice = next(each for each in indexes["things_ivf"]["advice"] if "misses" in each["problem"])
        assert (advice["severity"], advice["fix"]) == ("warning", "SET ivfflat.probes = 2;")
        assert not [each for each in indexes["things_hnsw"]["advice"] if "misses" in each["problem"]]
        assert cli.json("inspect", "--queries", "0", dsn=bare_database.dsn)["indexes"][0]["recall"] is None


def test_unused_indexes_and_dead_rows_are_told(cli, bare_database):
    with bare_database.connect() as connection:
        fill(connection)
        connection.execute("ALTER TABLE things SET (autovacuum_enabled = off)")
        connection.execute("UPDATE things SET id = -id - 1")
        connection.execute("SELECT pg_stat_force_next_flush()")
    document = cli.json("inspect", "--queries", "0", dsn=bare_database.dsn)
    unused = next(index for index in document["indexes"] if index["index"] == "things_hnsw")
    assert any("no query has used" in each["problem"] and "0 scans" in each["evidence"] for each in unused["advice"])
    dead = next(each for each in document["columns"][0]["advice"] if "dead rows" in each["problem"])
    assert (dead["severity"], dead["fix"]) == ("warning", "VACUUM (ANALYZE) public.things;")


def test_queries_that_cannot_use_an_index_are_named_with_the_reason(cli, watched):
    import psycopg

    with psycopg.connect(watched, autocommit=True) as connection:
        connection.execute("CREATE EXTENSION vector; CREATE EXTENSION pg_stat_statements")
        fill(connection, rows=500, dims=3, lists=5)
        for query in (
            "SELECT id FROM things ORDER BY embedding <-> '[1,2,3]' LIMIT 3",
            "SELECT id FROM things ORDER BY embedding <-> '[1,2,3]' DESC LIMIT 3",
            "SELECT id, 1 - (embedding <=> '[1,2,3]') AS score FROM things ORDER BY score DESC LIMIT 3",
            "SELECT id FROM things ORDER BY embedding <+> '[1,2,3]' LIMIT 3",
            "SELECT id FROM things ORDER BY embedding <=> '[1,2,3]'",
        ):
            connection.execute(query).fetchall()
    found = cli.json("inspect", "--queries", "0", dsn=watched)["queries"]
    problems = {" ".join(query["query"].split()): [each["problem"] for each in query["advice"]] for query in found}
    assert len(problems) == 4
    assert not any("<-> $1 LIMIT" in text for text in problems)
    by_word = {
        word: text for word in ("<-> $1 DESC", "score DESC", "<+>", "<=> $1") for text in problems if word in text
    }
    assert "DESC" in problems[by_word["<-> $1 DESC"]][0]
    assert any("expression" in each for each in problems[by_word["score DESC"]])
    assert "vector_l1_ops" in problems[by_word["<+>"]][0]
    shown = cli("inspect", dsn=watched)
    assert "there is no LIMIT" in shown.out


def test_summary_is_that_of_the_textbook():
    shares = [1.0] * 19 + [0.5]
    found = summary(shares)
    half = 1.96 * np.std(shares, ddof=1) / np.sqrt(20)
    assert found == pytest.approx(
        {"mean": 0.975, "low": 0.975 - half, "high": min(1, 0.975 + half), "p5": 0.5, "min": 0.5}
    )
