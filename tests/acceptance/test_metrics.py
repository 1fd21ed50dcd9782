"""Every metric over every element type answers like exact SQL, through the index."""

import numpy as np
import pytest
from table_kit import VectorTable, bit_texts, gaussian, refused, sparse_texts

ROWS = 300
CASES = [
    *(VectorTable(f"{element}_{metric}", dims=24, metric=metric, element=element)
      for element in ("vector", "halfvec") for metric in ("l2", "ip", "cosine", "l1")),
    *(VectorTable(f"bit_{metric}_{bits}", dims=bits, metric=metric, element="bit")
      for metric in ("hamming", "jaccard") for bits in (1, 13, 256)),
    VectorTable("one_dimension", dims=1),
    VectorTable("one_dimension_ip", dims=1, metric="ip"),
    VectorTable("halfvec_2000", dims=2000, metric="cosine", element="halfvec"),
    VectorTable("untyped", dims=24, dims_given=24, typed=False),
    *(VectorTable(f"sparsevec_{metric}", dims=300, metric=metric, element="sparsevec")
      for metric in ("l2", "ip", "cosine", "l1")),
    VectorTable("sparsevec_wide", dims=1_000_000_000, metric="ip", element="sparsevec"),
    VectorTable("sparsevec_untyped", dims=300, dims_given=300, metric="l2", element="sparsevec", typed=False),
    VectorTable("flat", dims=24, metric="cosine", options={"index_kind": "flat"}),
]  # fmt: skip
# 16,000 dimensions take pages of TOAST: fewer rows.
WIDE = [
    VectorTable("vector_16000", dims=16_000, metric="l2"),
    VectorTable("halfvec_16000", dims=16_000, metric="ip", element="halfvec"),
]


def rows_of(case):
    count = 6 if case in WIDE else 40 if case.dims == 2000 else ROWS
    if case.element == "bit":
        return bit_texts(count, case.dims, seed=case.dims)
    if case.element == "sparsevec":
        return sparse_texts(count, case.dims, seed=7)
    return gaussian(count, case.dims, seed=case.dims)


def queries_of(case, count, *, seed):
    if case.element == "bit":
        return rows_of(case)[:count]
    if case.element == "sparsevec":
        return sparse_texts(count, case.dims, seed=seed)
    return gaussian(count, case.dims, seed=seed)


@pytest.fixture(scope="module")
def live(shared_sidecar, shared_database):
    """Half of the rows are there before the attach, half come through the triggers."""
    with shared_database.connect() as connection:
        for case in (*CASES, *WIDE):
            vectors = rows_of(case)
            case.create(connection)
            case.insert(connection, vectors[: len(vectors) // 2])
            case.attach(connection)
            case.insert(connection, vectors[len(vectors) // 2 :], first=1 + len(vectors) // 2)
        shared_sidecar.wait_live(*(case.name for case in (*CASES, *WIDE)))
        yield connection


@pytest.mark.parametrize("case", [*CASES, *WIDE], ids=lambda case: case.name)
def test_search_equals_exact_sql(live, case):
    for query in queries_of(case, 2, seed=1):
        for k in (1, 10):
            case.check(live, query, k=k)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_score_grows_with_nearness(live, case):
    query = queries_of(case, 1, seed=2)[0]
    scores = [row[2] for row in case.search(live, query, k=20)]
    assert scores == sorted(scores, reverse=True)


def test_halfvec_measures_from_what_halfvec_can_hold(live):
    """The query is rounded like the operator rounds it, so the last bits do not change the order."""
    case = next(case for case in CASES if case.name == "halfvec_l2")
    query = np.float32(1) + gaussian(1, case.dims, seed=3)[0] * np.float32(1e-4)
    case.check(live, query, k=25)


@pytest.mark.parametrize(
    ("statement", "code", "message", "hint"),
    [
        ("SELECT * FROM ruvector_search('bit_hamming_13', '[1]')", "22023",
         'collection "bit_hamming_13" holds bit vectors', "ruvector_search_bits"),
        ("SELECT * FROM ruvector_search_bits('vector_l2', B'101')", "22023",
         'collection "vector_l2" holds vectors, not bits', "ruvector_search("),
        ("SELECT * FROM ruvector_search('sparsevec_l2', '[1]')", "22023",
         'collection "sparsevec_l2" holds sparse vectors', "ruvector_search_sparse"),
        ("SELECT * FROM ruvector_explain('sparsevec_l2', '[1]')", "22023",
         'collection "sparsevec_l2" holds sparse vectors', "vector and halfvec"),
        ("SELECT * FROM ruvector_search_sparse('vector_l2', '{1:1}/24')", "22023",
         'collection "vector_l2" holds no sparse vectors', "ruvector_search("),
        ("SELECT * FROM ruvector_search_sparse('sparsevec_l2', '{1:1}/301')", "22023",
         "the query has 301 dimensions, collection sparsevec_l2 has 300", "300 dimensions"),
        ("SELECT * FROM ruvector_search_sparse('sparsevec_cosine', '{}/300')", "22023",
         "the query vector is all zeros, which has no direction under the cosine metric", "not zero"),
        ("SELECT * FROM ruvector_search_bits('bit_hamming_13', B'101')", "22023",
         "the query has 3 dimensions, collection bit_hamming_13 has 13", "13 dimensions"),
    ],
)  # fmt: skip
def test_wrong_kind_of_query_names_the_right_function(live, statement, code, message, hint):
    problem = refused(live, statement)
    assert (problem.code, problem.message) == (code, message)
    assert hint in problem.hint


@pytest.mark.parametrize("case", [*CASES, *WIDE], ids=lambda case: case.name)
def test_exact_mode_equals_exact_sql(live, case):
    query = queries_of(case, 1, seed=4)[0]
    with live.transaction():
        live.execute("SET LOCAL ruvector.exactness = 'exact'")
        case.check(live, query, tier="exact")


def test_database_answers_alone_for_every_type(live, shared_sidecar):
    """Runs last of this file: the sidecar is stopped, and rows of other dimensions do not disturb the fallback."""
    shared_sidecar.stop()
    live.execute("INSERT INTO untyped VALUES (1001, '[1,2]'), (1002, NULL)")
    live.execute("INSERT INTO sparsevec_untyped VALUES (1001, '{1:1}/2'), (1002, NULL), (1003, '{}/300')")
    for case in CASES:
        query = queries_of(case, 1, seed=5)[0]
        where = "t.id NOT IN (1001, 1002)" if "untyped" in case.name else "true"
        case.check(live, query, where=where, tier="pgvector")
