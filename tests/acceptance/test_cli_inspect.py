"""inspect: reads only, finds every vector column, says what stops an attach."""

import pytest


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
    assert {"problem": "extension vector is not installed here", "fix": "CREATE EXTENSION vector;"} in document[
        "blockers"
    ]


def test_inspect_knows_what_is_attached(rv, items):
    rv.json("attach", items)
    assert columns(rv.json("inspect"))["items", "embedding"]["attached_as"] == "items_embedding"
