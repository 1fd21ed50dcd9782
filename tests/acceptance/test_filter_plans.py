"""Plans of a filter as ruvector_explain names them: the sidecar applies the filter itself, however it is told to."""

import pytest
from fix_sidecar import wait_until
from table_kit import VectorTable, gaussian

DIMS, ROWS, K = 8, 3000, 10
QUERY = gaussian(1, DIMS, seed=401)[0]
TABLE = VectorTable(
    "planned", dims=DIMS, columns="id bigint PRIMARY KEY, category int, note text", options={"columns": ["category"]}
)


@pytest.fixture(scope="module")
def planned(shared_sidecar, shared_database):
    with shared_database.connect() as connection:
        TABLE.create(connection)
        TABLE.insert(connection, gaussian(ROWS, DIMS, seed=402), category=[n % 100 for n in range(1, ROWS + 1)])
        TABLE.attach(connection)
        shared_sidecar.wait_live(TABLE.name)
        yield connection


def forced(connection, plan):
    connection.execute("SELECT set_config('ruvector.filter_plan', %s, true)", (plan,))


@pytest.mark.parametrize("plan", ["scan", "hop", "walk"])
@pytest.mark.parametrize(("below", "share"), [(1, 0.01), (10, 0.1), (50, 0.5), (100, 1.0), (0, 0.0)])
def test_forced_plan_is_taken_and_told(planned, plan, below, share):
    with planned.transaction():
        forced(planned, plan)
        condition, where = {"category": {"$lt": below}}, f"t.category < {below}"
        assert len(TABLE.check(planned, QUERY, k=K, filter_=condition, where=where)) == min(K, round(share * ROWS))
        explained = TABLE.explain(planned, QUERY, filter_=condition)
    taken = plan if share else "scan"  # where nothing passes there is nothing to walk to
    assert (explained["engine"], explained["plan"]) == ("ruvector", f"index, filtered: {taken}")
    if explained["selectivity"] is not None:
        assert explained["selectivity"] == pytest.approx(share, abs=1e-6)


@pytest.mark.parametrize("plan", ["auto", "scan", "hop", "walk"])
def test_keys_are_a_filter_too(planned, plan):
    keys = [str(number) for number in range(1, 41)]
    with planned.transaction():
        forced(planned, plan)
        TABLE.check(planned, QUERY, k=K, keys=keys, where="t.id <= 40")
        TABLE.check(planned, QUERY, k=K, keys=keys, filter_={"category": [7, 8]}, where="t.id IN (7, 8)")
        explained = TABLE.explain(planned, QUERY, keys=keys)
    assert explained["plan"].startswith("index, filtered")


def test_one_round_is_enough_when_few_rows_pass(planned):
    explained = TABLE.explain(planned, QUERY, filter_={"category": 3})
    assert explained["plan"] in ("index, filtered: scan", "index, filtered: hop", "index, filtered: walk")
    assert explained["candidates"] == K + 8


def test_new_column_is_applied_by_the_sidecar_once_it_was_read(planned, shared_sidecar):
    planned.execute("UPDATE planned SET note = 'n' || id % 50")
    shared_sidecar.wait_applied(TABLE.name)
    planned.execute("SELECT ruvector.set_filter_columns('planned', '{category,note}')")
    condition, where = {"note": "n7"}, "t.note = 'n7'"
    assert {row[0] for row in TABLE.search(planned, QUERY, filter_=condition)} == {
        key for key, _ in sorted(TABLE.distances(planned, QUERY, where=where).items(), key=lambda row: row[1])[:K]
    }

    def is_applied():
        explained = TABLE.explain(planned, QUERY, filter_=condition)
        return explained["plan"].startswith("index, filtered") and explained["candidates"] == K + 8

    wait_until(is_applied, "the sidecar to read the new column")
    TABLE.check(planned, QUERY, k=K, filter_=condition, where=where)
    planned.execute("UPDATE planned SET note = 'n7' WHERE id % 50 = 8")
    TABLE.check(planned, QUERY, k=100, filter_=condition, where=where)
    shared_sidecar.wait_applied(TABLE.name)
    TABLE.check(planned, QUERY, k=100, filter_=condition, where=where)
