"""max_distance: all rows within a distance, at most k of them, in every metric and however the search is answered."""

import math

import psycopg
import pytest
from table_kit import VectorTable, assert_nearest, refused

ROWS = 1500
COLUMNS = "id bigint PRIMARY KEY, category int"
TABLES = [
    VectorTable("far_l2", dims=6, columns=COLUMNS, options={"columns": ["category"]}),
    # by inner product a walk misses some of random rows: with this beam all are compared
    VectorTable("far_ip", dims=6, metric="ip", columns=COLUMNS, options={"columns": ["category"], "ef_search": 400}),
    VectorTable("far_cosine", dims=6, metric="cosine", element="halfvec", columns=COLUMNS,
                options={"columns": ["category"]}),
    VectorTable("far_l1", dims=6, metric="l1", columns=COLUMNS, options={"columns": ["category"]}),
    VectorTable("far_bit", dims=40, metric="hamming", element="bit", columns=COLUMNS,
                options={"columns": ["category"]}),
    VectorTable("far_sparse", dims=30, metric="l2", element="sparsevec", columns=COLUMNS,
                options={"columns": ["category"]}),
]  # fmt: skip
FILTER, WHERE = {"category": [1, 2]}, "t.category IN (1, 2)"


@pytest.fixture(scope="module")
def tables(shared_database, shared_sidecar):
    with shared_database.connect() as connection:
        for table in TABLES:
            table.create(connection)
            table.insert(connection, table.random_vectors(ROWS, seed=401), category=[n % 5 for n in range(ROWS)])
            table.attach(connection)
        shared_sidecar.wait_live(*(table.name for table in TABLES))
        yield connection


def distance_after(ordered, rows):
    """A distance that so many rows lie within: half way to the next, as what is returned is rounded to real."""
    return (ordered[rows - 1] + ordered[rows]) / 2


def check(table, connection, query, most, *, k, tier="hot", filter_=None, where="true", **more):
    """Compare with exact SQL: no row farther, none missing, k at most."""
    found = table.search(connection, query, k=k, filter_=filter_, max_distance=most, **more)
    within = {key: each for key, each in table.distances(connection, query, where=where).items() if each <= most}
    assert {row[3] for row in found} <= {tier}
    assert_nearest(found, within, k)
    return found


@pytest.mark.parametrize("table", TABLES, ids=[table.name for table in TABLES])
def test_rows_within_a_distance_are_found(tables, table):
    query = table.random_vectors(1, seed=402)[0]
    ordered = sorted(table.distances(tables, query).values())
    for rows in (1, 2, 7, 60, 99, 100, 101, 450, 1400, ROWS - 1):
        most = distance_after(ordered, rows)
        for k in (1, 10, 500, 10_000):
            found = check(table, tables, query, most, k=k)
            assert len(found) >= min(k, rows)
            check(table, tables, query, most, k=k, filter_=FILTER, where=WHERE)
    assert check(table, tables, query, ordered[0] - 1, k=10) == []
    assert len(check(table, tables, query, math.inf, k=10_000)) == ROWS
    assert len(table.search(tables, query, k=20, max_distance=None)) == 20
    assert table.search(tables, query, k=20, max_distance=-math.inf) == []


@pytest.mark.parametrize("table", TABLES[:3], ids=[table.name for table in TABLES[:3]])
def test_unapplied_changes_and_every_engine_keep_the_distance(tables, table, shared_sidecar):
    query = table.random_vectors(1, seed=403)[0]
    most = distance_after(sorted(table.distances(tables, query).values()), 300)
    with tables.transaction(force_rollback=True):
        tables.execute(f"UPDATE {table.name} SET embedding = (SELECT embedding FROM {table.name} WHERE id = 5)"
                       " WHERE id BETWEEN 100 AND 140")  # fmt: skip
        tables.execute(f"DELETE FROM {table.name} WHERE id % 7 = 0")
        check(table, tables, query, most, k=1000)
        check(table, tables, query, most, k=20, filter_=FILTER, where=WHERE)
        check(table, tables, query, most, k=1000, tier="exact", exactness="exact")
        check(table, tables, query, most, k=1000, tier="exact", filter_=FILTER, where=WHERE, exactness="exact")
    keys = [str(key) for key in range(1, 200)]
    check(table, tables, query, most, k=1000, keys=keys, where="t.id < 200")


def test_the_database_keeps_the_distance_when_no_sidecar_answers(database):
    table = TABLES[0]
    with database.connect() as connection:
        table.create(connection)
        table.insert(connection, table.random_vectors(300, seed=404), category=[n % 5 for n in range(300)])
        table.attach(connection)
        query = table.random_vectors(1, seed=405)[0]
        most = distance_after(sorted(table.distances(connection, query).values()), 50)
        assert len(check(table, connection, query, most, k=100, tier="pgvector")) == 50
        check(table, connection, query, most, k=100, tier="exact", filter_=FILTER, where=WHERE)


def test_what_is_searched_grows_with_what_is_near(tables):
    """Where few rows are near, few are answered, however many may come."""
    table = TABLES[0]
    query = table.random_vectors(1, seed=406)[0]
    ordered = sorted(table.distances(tables, query).values())
    for rows in (1, 5, 64, 300, 1000):
        explained = table.explain(tables, query, k=10_000, max_distance=distance_after(ordered, rows))
        assert (explained["engine"], explained["candidates"]) == ("ruvector", rows)


def test_bad_distances_are_refused(tables, shared_sidecar):
    table = TABLES[0]
    query = "[1,2,3,4,5,6]"
    statement = "SELECT * FROM ruvector_search(%s, %s, 10, max_distance => %s)"
    problem = refused(tables, statement, (table.name, query, "NaN"))
    assert (problem.code, problem.message) == ("22023", "max_distance is not a number")
    assert refused(tables, statement, (table.name, query, "near")).code == "22P02"
    with psycopg.connect(shared_sidecar.dsn(), autocommit=True) as direct:
        ids = [row[0] for row in tables.execute(statement, (table.name, query, 7))]
        assert [row[0] for row in direct.execute(statement, (table.name, query, 7))] == ids
        assert refused(direct, statement, (table.name, query, "NaN")).code == "22023"
