"""sparsevec columns through the whole product: triggers, overlay, restarts, verification, clients."""

import numpy as np
import psycopg
import pytest
from fix_sidecar import wait_until
from index_cases import shared_data
from psycopg.rows import dict_row
from table_kit import SEARCH_SPARSE, VectorTable, refused, sparse_texts

import ruvector
from ruvector import SparseVectors

DIMS, ROWS = 400, 250
WORDS = VectorTable("words", columns="id bigint PRIMARY KEY, kind text", dims=DIMS, metric="ip", element="sparsevec",
                    options={"columns": ["kind"]})  # fmt: skip
QUERY, OTHER = sparse_texts(2, DIMS, seed=91)


@pytest.fixture
def words(database, sidecar):
    with database.connect() as connection:
        WORDS.create(connection)
        kinds = ["a" if at % 3 else "b" for at in range(ROWS)]
        WORDS.insert(connection, sparse_texts(ROWS, DIMS, seed=90), kind=kinds)
        WORDS.attach(connection)
        sidecar.wait_live("words")
        yield connection


def test_uncommitted_changes_are_seen_and_rolled_back(words):
    before = WORDS.check(words, QUERY)
    with words.transaction(force_rollback=True):
        words.execute("INSERT INTO words VALUES (1001, 'a', %s), (1002, 'b', '{}/400')", (QUERY,))
        words.execute("UPDATE words SET embedding = %s WHERE id = %s", (OTHER, before[1][0]))
        words.execute("DELETE FROM words WHERE id = %s", (before[0][0],))
        assert WORDS.check(words, QUERY)[0] != before[0]
        WORDS.check(words, QUERY, k=ROWS + 5)
    assert WORDS.check(words, QUERY) == before


def test_filters_are_refilled(words):
    WORDS.check(words, QUERY, k=20, filter_={"kind": "b"}, where="t.kind = 'b'")


def test_changes_survive_a_restart(words, sidecar):
    words.execute("UPDATE words SET embedding = %s WHERE id %% 10 = 0", (OTHER,))
    words.execute("DELETE FROM words WHERE id % 10 = 1")
    sidecar.wait_applied("words")
    sidecar.stop()
    words.execute("INSERT INTO words VALUES (2001, 'a', %s)", (QUERY,))
    sidecar.start().wait_live("words")
    assert sidecar.mirror("words").progress.rows_copied == 0  # it loaded its files
    assert "2001" in {row[0] for row in WORDS.check(words, QUERY)}
    WORDS.check(words, OTHER, k=60)
    stats = words.execute("SELECT ruvector_index_stats('words')").fetchone()[0]
    assert (stats["kind"], stats["element"], stats["rows"]) == (
        "inverted",
        "sparse",
        len(sidecar.mirror("words").index),
    )


def test_verify_finds_and_repairs_what_differs(words, sidecar):
    index = sidecar.mirror("words").index
    index.delete([5])
    index.upsert([6, 7777], SparseVectors.from_texts([OTHER, OTHER]))
    report = words.execute("SELECT ruvector_verify('words', \"full\" => true, repair => true)").fetchone()[0]
    assert report["keys"] == {"missing": ["5"], "stale": ["6"], "orphan": ["7777"]}
    assert words.execute("SELECT ruvector_verify('words', \"full\" => true)").fetchone()[0]["differences"] == 0
    WORDS.check(words, QUERY, k=ROWS)


def test_rows_that_cannot_be_indexed_are_counted(database, sidecar):
    table = VectorTable("angles", dims=9, dims_given=9, metric="cosine", element="sparsevec", typed=False)
    with database.connect() as connection:
        table.create(connection)
        table.insert(connection, ["{1:1}/9", "{}/9", None])
        table.attach(connection)
        sidecar.wait_live("angles")
        table.insert(connection, ["{2:1,9:-3}/9", "{1:1}/8", "{}/9"], first=4)
        counts = {"null": 1, "zero": 2, "wrong_dims": 1}
        wait_until(lambda: sidecar.mirror("angles").unindexed.counts() == counts, "the counts")
        sidecar.wait_applied("angles")
        found = connection.execute(SEARCH_SPARSE, ("angles", "{9:1}/9", 5, None)).fetchall()
        assert [row[0] for row in found] == ["1", "4"]
        connection.execute("UPDATE angles SET embedding = '{3:1}/9' WHERE id < 7")
        wait_until(lambda: not sidecar.mirror("angles").unindexed.counts(), "all rows to be indexed")


def test_wrong_queries_are_refused(words):
    for query, code in [
        ("[1,2]", "22P02"),
        ("{401:1}/400", "22000"),
        ("{1:1}/399", "22023"),
        ("{1:1,1:2}/400", "22000"),
        (None, "22004"),
    ]:
        assert refused(words, SEARCH_SPARSE, ("words", query, 3, None)).code == code
    assert refused(words, SEARCH_SPARSE, ("words", QUERY, 0, None)).code == "22023"


def test_sidecar_answers_direct_clients(words, sidecar):
    with psycopg.connect(sidecar.dsn(), autocommit=True, row_factory=dict_row) as direct:
        found = direct.execute("SELECT * FROM ruvector_search_sparse('words', %s, k => 7)", (QUERY,)).fetchall()
        expected = WORDS.search(words, QUERY, k=7)
        assert [row["id"] for row in found] == [row[0] for row in expected]
        np.testing.assert_allclose([row["distance"] for row in found], [row[1] for row in expected], rtol=1e-5)
        for statement, hint in [
            ("SELECT * FROM ruvector_search('words', '[1,2]')", "ruvector_search_sparse"),
            ("SELECT * FROM ruvector_search_bits('words', '101')", "ruvector_search"),
            ("SELECT * FROM ruvector_search_sparse('words', '{1:1}/3')", "400 dimensions"),
            ("SELECT * FROM ruvector_search_sparse('words', '{0:1}/400')", "finite"),
        ]:
            problem = refused(direct, statement)
            assert problem.code == "22023"
            assert hint in problem.hint


def test_client_takes_sparse_vectors(words, database):
    with ruvector.connect(database.dsn) as rv:
        query = SparseVectors.from_texts([QUERY, OTHER])
        hits = rv.search("words", query[:1], k=4)
        assert [(hit.id, hit.tier) for hit in hits] == [(row[0], "hot") for row in WORDS.search(words, QUERY, k=4)]
        assert rv.search("words", QUERY, k=4) == hits
        with pytest.raises(ruvector.errors.InvalidVector):
            rv.search("words", query)


def test_metric_comes_from_the_pgvector_index(rv, database):
    with database.connect() as connection:
        connection.execute("CREATE TABLE terms (id int PRIMARY KEY, e sparsevec(9))")
        connection.execute("CREATE INDEX ON terms USING hnsw (e sparsevec_l1_ops)")
        connection.execute("INSERT INTO terms VALUES (1, '{1:1}/9'), (2, '{2:0.5}/9')")
    assert rv.json("attach", "public.terms.e")["metric"] == "l1"
    hits = rv.json("search", "terms_e", "--vector", "{2:1}/9")["hits"]
    assert [(hit["id"], hit["distance"]) for hit in hits] == [("2", 0.5), ("1", 2)]
    assert rv.json("search", "terms_e", "--id", "1")["hits"][0]["id"] == "1"


@pytest.mark.slow
def test_bm25_search_from_sql_equals_the_stored_truth(database, sidecar):
    data = np.load(shared_data("debian-25k-384") / "bm25_sparse.npz")
    dims = int(data["shape"][1])
    rows = SparseVectors(data["indptr"], data["indices"], data["data"], dims)
    queries = SparseVectors(data["q_indptr"], data["q_indices"], data["q_data"], dims)[:40].texts()
    with database.connect() as connection:
        connection.execute(f"CREATE TABLE packages (id int PRIMARY KEY, bm25 sparsevec({dims}))")
        with connection.cursor().copy("COPY packages FROM STDIN") as copy:
            for number, text in enumerate(rows.texts()):
                copy.write_row((number, text))
        connection.execute("SELECT ruvector_register_collection('bm25', 'public', 'packages', 'bm25',"
                           " distance_metric => 'ip')")  # fmt: skip
        sidecar.wait_live("bm25")
        for query, ids, scores in zip(queries, data["ids"], data["score"], strict=False):
            found = connection.execute(SEARCH_SPARSE, ("bm25", query, 100, None)).fetchall()
            assert {row[3] for row in found} == {"hot"}
            np.testing.assert_allclose([row[2] for row in found], scores, rtol=1e-5)
            surely = scores > scores[-1] * (1 + 1e-5)
            assert {str(number) for number in ids[surely]} <= {row[0] for row in found}
