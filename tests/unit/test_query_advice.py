"""Why a query by distance cannot use an index."""

import pytest

from ruvector.cli.query_advice import asks_by_distance, reasons

INDEX = {"table": "items", "table_name": "public.items", "column": "embedding", "operator_class": "vector_l2_ops",
         "definition": "CREATE INDEX i ON public.items USING hnsw (embedding vector_l2_ops)", "is_valid": True,
         "name": "public.i"}  # fmt: skip
GOOD = [
    "SELECT id FROM items ORDER BY embedding <-> $1 LIMIT $2",
    "select i.id, i.embedding <-> $1 as d from items i where c = $3 order by i.embedding <-> $1::vector(3) limit 5",
    "SELECT id, embedding <-> $1 AS distance FROM items ORDER BY distance LIMIT $2",
    "SELECT id FROM items ORDER BY ($1 <-> embedding) ASC NULLS LAST FETCH FIRST 5 ROWS ONLY",
    "SELECT id FROM items ORDER BY embedding OPERATOR(public.<->) $1 LIMIT 3",
    "SELECT id FROM items ORDER BY embedding <-> (SELECT embedding FROM items WHERE id = $1) LIMIT 5",
    'SELECT id FROM items ORDER BY "embedding" <-> $1, id LIMIT 5',
    "WITH near AS (SELECT id FROM items ORDER BY embedding <-> $1 LIMIT 50) SELECT * FROM near ORDER BY id",
]
BAD = [
    ("SELECT id FROM items ORDER BY embedding <-> $1 DESC LIMIT 5", "DESC", "ascending"),
    ("SELECT id FROM items ORDER BY embedding <-> $1", "no LIMIT", "LIMIT k"),
    ("SELECT id FROM items ORDER BY $3 - (embedding <=> $1) DESC LIMIT 5", "an expression", "SELECT list"),
    (
        "SELECT id, $2 - (embedding <-> $1) AS score FROM items ORDER BY score DESC LIMIT 5",
        "an expression",
        "SELECT list",
    ),
    ("SELECT id FROM items ORDER BY embedding::halfvec(3) <-> $1 LIMIT 5", "is cast", "over the expression"),
    ("SELECT id FROM items ORDER BY (embedding::halfvec(3)) <-> $1 LIMIT 5", "is cast", "over the expression"),
    (
        "SELECT id FROM items ORDER BY embedding <=> $1 LIMIT 5",
        "needs an index of vector_cosine_ops",
        "vector_cosine_ops",
    ),
    ("SELECT id FROM items ORDER BY other <-> $1 LIMIT 5", "column other has no index", "USING hnsw (other"),
    ("SELECT id FROM items WHERE embedding <-> $1 < $2", "without ORDER BY", "LIMIT k"),
]


@pytest.mark.parametrize("text", GOOD)
def test_queries_that_an_index_answers_are_left_alone(text):
    assert asks_by_distance(text)
    assert reasons(text, [INDEX]) == []


@pytest.mark.parametrize(("text", "problem", "fix"), BAD)
def test_the_reason_is_found(text, problem, fix):
    assert asks_by_distance(text)
    found = reasons(text, [INDEX])
    assert any(problem in each["problem"] and fix in each["fix"] for each in found), found


def test_reasons_come_together():
    assert len(reasons("SELECT id FROM items ORDER BY embedding <=> $1 DESC", [INDEX])) == 3


def test_an_invalid_index_and_one_over_an_expression():
    query = "SELECT id FROM items ORDER BY embedding <-> $1 LIMIT 5"
    assert "REINDEX" in reasons(query, [{**INDEX, "is_valid": False}])[0]["fix"]
    cast = {**INDEX, "column": None, "definition": "... USING hnsw (((embedding)::halfvec(3)) halfvec_l2_ops)"}
    assert reasons("SELECT id FROM items ORDER BY embedding::halfvec(3) <-> $1 LIMIT 5", [cast]) == []


@pytest.mark.parametrize("text", ["SELECT 1", "INSERT INTO t SELECT a <-> b FROM c", "SELECT a < b", ""])
def test_other_statements_are_nobodys_business(text):
    assert not asks_by_distance(text)
