"""attach and detach: names of every kind, defaults, refusals with the next step."""

import threading
import time

import pytest

HOSTILE = 'a"";drop table x;--'  # as SQL quotes it


def test_attach_and_detach(rv, database, items):
    document = rv.json(
        "attach", items, "--metric", "cosine", "--columns", "category", "--m", "8", "--ef-construction", 50
    )
    assert (document["name"], document["metric"], document["dims"]) == ("items_embedding", "cosine", 8)
    assert document["options"] == {"m": 8, "ef_construction": 50, "columns": ["category"]}
    assert rv.json("status")["collections"][0]["state"] == "new"
    assert rv.json("detach", "items_embedding", "--yes")["name"] == "items_embedding"
    assert rv.json("status")["collections"] == []
    with database.connect() as connection:
        assert connection.execute("SELECT count(*) FROM items").fetchone() == (300,)


def test_attach_dry_run_changes_nothing(rv, items):
    document = rv.json("attach", items, "--dry-run")
    assert (document["dry_run"], document["id"], document["dims"]) == (True, None, 8)
    assert rv.json("status")["collections"] == []


def test_detach_needs_yes(rv, items):
    rv.json("attach", items)
    assert rv("detach", "items_embedding").code == 2
    assert rv("detach", "items_embedding", "--dry-run").code == 0
    assert len(rv.json("status")["collections"]) == 1


@pytest.mark.parametrize(
    ("operators", "metric"),
    [
        (["vector_cosine_ops"], "cosine"),
        (["vector_ip_ops"], "ip"),
        (["vector_l2_ops", "vector_l2_ops"], "l2"),
        ([], "l2"),
    ],
)
def test_default_metric_is_that_of_the_index(rv, database, items, operators, metric):
    with database.connect() as connection:
        for operator in operators:
            connection.execute(f"CREATE INDEX ON items USING hnsw (embedding {operator})")
    assert rv.json("attach", items)["metric"] == metric


def test_indexes_of_two_metrics_need_a_choice(rv, database, items):
    with database.connect() as connection:
        connection.execute("CREATE INDEX ON items USING hnsw (embedding vector_cosine_ops)")
        connection.execute("CREATE INDEX ON items USING hnsw (embedding vector_l2_ops)")
    answer = rv("attach", items)
    assert (answer.code, "cosine, l2" in answer.err, "--metric" in answer.err) == (1, True, True)
    assert rv("attach", items, "--metric", "l2").code == 0


def test_default_metric_of_bits_is_hamming(rv, database):
    with database.connect() as connection:
        connection.execute("CREATE TABLE codes (id int PRIMARY KEY, code bit(16))")
    assert rv.json("attach", "public.codes.code")["metric"] == "hamming"


@pytest.mark.parametrize(
    ("schema", "table", "column"),
    [
        ("public", '"We""ird.T.x"', '"emb"'),
        ('"Sch.ema"', '"Upper"', '"Col umn"'),
        ("public", f'"{HOSTILE}"', "\"b''c\""),
        ("public", f'"{"t" * 63}"', "embedding"),
        ("public", "items_ä", "größe"),
        ("public", '"select"', '"table"'),
        ("public", '"{x}"', '"%s"'),
    ],
)
def test_hostile_identifiers(rv, database, schema, table, column):
    with database.connect() as connection:
        if schema != "public":
            connection.execute(f"CREATE SCHEMA {schema}")
        statement = f"CREATE TABLE {schema}.{table} (id int PRIMARY KEY, {column} vector(3))"
        connection.execute(statement)
        connection.execute(f"INSERT INTO {schema}.{table} VALUES (1, '[1,2,3]')")
    document = rv.json("attach", f"{schema}.{table}.{column}", "--name", "weird")
    assert document["dims"] == 3
    answer = rv.json("search", "weird", "--vector", "[1,2,3]")
    assert [hit["id"] for hit in answer["hits"]] == ["1"]
    assert rv.json("search", "weird", "--id", "1")["hits"][0]["distance"] == 0
    assert rv("detach", "weird", "--yes").code == 0


def test_unquoted_names_are_folded(rv, items):
    assert rv.json("attach", "Public.ITEMS.Embedding")["name"] == "items_embedding"


@pytest.mark.parametrize(
    "name",
    ["items.embedding", "a.b.c.d", "public.items.", "public..embedding", 'public."items.embedding', "a b.c.d", ""],
)
def test_unreadable_column_is_refused(rv, name):
    answer = rv("attach", name)
    assert answer.code == 1
    assert "hint: Write names as SQL does" in answer.err


@pytest.mark.parametrize(
    ("ddl", "column", "message", "hint"),
    [
        ("CREATE TABLE t (e vector(3))", "public.t.e", "has no primary key", "ADD COLUMN id bigint"),
        (
            "CREATE TABLE t (id int PRIMARY KEY, e real[])",
            "public.t.e",
            "not vector, halfvec, sparsevec or bit",
            "ALTER COLUMN",
        ),
        (
            "CREATE TABLE t (id int PRIMARY KEY, e vector)",
            "public.t.e",
            "does not declare its dimensions",
            "Give them",
        ),
        ("CREATE UNLOGGED TABLE t (id int PRIMARY KEY, e vector(3))", "public.t.e", "unlogged", "SET LOGGED"),
        ("CREATE TABLE t (id int PRIMARY KEY, e vector(3))", "public.t.f", "has no column f", "case-sensitive"),
        ("CREATE TABLE t (id int PRIMARY KEY, e vector(3))", "public.u.e", "public.u does not exist", "case-sensitive"),
    ],
)
def test_refused_columns_say_what_to_do(rv, database, ddl, column, message, hint):
    with database.connect() as connection:
        connection.execute(ddl)
    for option in ("--yes", "--dry-run"):
        answer = rv("attach", column, option)
        assert answer.code == 1, (option, answer)
        assert message in answer.err
        assert hint in answer.err.partition("hint:")[2]
    assert rv.json("status")["collections"] == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--metric", "manhattan"], 'unknown metric "manhattan"'),
        (["--metric", "hamming"], "does not work on a vector column"),
        (["--columns", "ghost"], "ghost"),
        (["--dims", "9"], "has 8 dimensions, not 9"),
        (["--name", "n" * 64], "1 to 63 bytes"),
    ],
)
def test_wrong_options(rv, items, options, message):
    answer = rv("attach", items, *options)
    assert (answer.code, message in answer.err) == (1, True), answer.err


def test_attach_twice(rv, items):
    rv.json("attach", items)
    assert 'collection "items_embedding" exists already' in rv("attach", items).err
    answer = rv("attach", items, "--name", "other")
    assert (answer.code, "is attached already" in answer.err) == (1, True)


def test_default_name_that_is_too_long(rv, database):
    with database.connect() as connection:
        connection.execute(f"CREATE TABLE {'t' * 60} (id int PRIMARY KEY, embedding vector(3))")
    answer = rv("attach", f"public.{'t' * 60}.embedding")
    assert (answer.code, "--name" in answer.err) == (1, True)


@pytest.mark.slow
def test_attach_waits_for_a_locked_table(rv, database, items):
    with database.connect(autocommit=False) as holder:
        holder.execute("INSERT INTO items VALUES (1000, 'a', '[1,0,0,0,0,0,0,0]')")
        answers = []
        waiting = threading.Thread(target=lambda: answers.append(rv.process("attach", items)))
        waiting.start()
        time.sleep(3.5)  # longer than one try
        holder.commit()
        waiting.join()
    assert answers[0].code == 0, answers[0].err
    assert "locked by another session" in answers[0].err
