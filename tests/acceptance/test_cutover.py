"""Cutover: pgvector and the index share the searches of a collection, and a rollback holds for the next search."""

import concurrent.futures
import itertools
import threading
from collections import Counter

import psycopg
import pytest
from table_kit import VectorTable, assert_nearest, notices_of, refused, text_of

from ruvector.alembic.install import install

ROWS, DIMS = 400, 6
SEARCHES = 600
ITEMS = VectorTable("ramp_items", dims=DIMS, columns="id bigint PRIMARY KEY, c int", options={"columns": ["c"]})
QUERY = ITEMS.random_vectors(1, seed=701)[0]
STEPS = "SELECT from_state, from_percent, state, percent, changed_by, reason FROM ruvector.cutover_step ORDER BY id"


@pytest.fixture
def items(database, sidecar):
    with database.connect() as connection:
        ITEMS.create(connection)
        ITEMS.insert(connection, ITEMS.random_vectors(ROWS, seed=702), c=[n % 3 for n in range(ROWS)])
        ITEMS.attach(connection)
        sidecar.wait_live(ITEMS.name)
        yield connection


def step(connection, function, *arguments):
    places = ", ".join(["%s"] * (1 + len(arguments)))
    return connection.execute(f"SELECT {function}({places})", (ITEMS.name, *arguments)).fetchone()[0]


def tiers(connection, count):
    """Count who answers so many searches, each of them right."""
    expected = ITEMS.distances(connection, QUERY)
    found = Counter()
    for _ in range(count):
        rows = ITEMS.search(connection, QUERY)
        assert_nearest(rows, expected, 10)
        found[rows[0][3]] += 1
    return found


def test_a_rollback_holds_for_the_next_search_of_every_session(database, items):
    with database.connect() as before, database.connect() as repeatable:
        repeatable.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
        for session in (items, before, repeatable):
            assert tiers(session, 2) == {"hot": 2}
        assert step(items, "ruvector_rollback", "too slow") == {
            "collection": ITEMS.name, "state": "off", "percent": 0, "from_state": "complete", "from_percent": 100,
        }  # fmt: skip
        notices = notices_of(before)
        for session in (items, before, repeatable):
            assert tiers(session, 2) == {"pgvector": 2}
        assert notices == []
        assert items.execute("SELECT * FROM ruvector_cutover_status()").fetchall()[0][:3] == (ITEMS.name, "off", 0)
        # An answer by pgvector is no failure of the index, and filters are kept.
        before.execute("SET ruvector.fallback = 'error'")
        assert tiers(before, 1) == {"pgvector": 1}
        ITEMS.check(before, QUERY, filter_={"c": 1}, where="t.c = 1", tier="exact")
        explained = ITEMS.explain(before, QUERY)
        assert (explained["engine"], explained["reason"]) == ("pgvector", "the cutover is off")
        before.execute("SET ruvector.cutover = 'ignore'")
        assert tiers(before, 2) == {"hot": 2}
        before.execute("SET ruvector.cutover = 'sometimes'")
        assert refused(before, "SELECT * FROM ruvector_search(%s, %s)", (ITEMS.name, text_of(QUERY))).code == "22023"


def test_a_ramp_gives_the_index_its_share(items):
    for percent in (0, 30, 100):
        step(items, "ruvector_cutover", percent)
        answered = tiers(items, SEARCHES)["hot"]
        # Six standard deviations of a fair draw.
        assert abs(answered - SEARCHES * percent / 100) <= 6 * (SEARCHES * percent * (100 - percent)) ** 0.5 / 100
    step(items, "ruvector_cutover", 30)
    assert "30 %" in next(
        why for _ in range(SEARCHES) if (why := ITEMS.explain(items, QUERY)["reason"] or "").startswith("the cutover")
    )


def test_a_sticky_session_stays_on_one_side(database, items):
    """Raising the share moves sessions to the index and none back."""
    sessions = [database.connect() for _ in range(12)]
    try:
        sides = []
        for percent in (20, 50, 80):
            step(items, "ruvector_cutover", percent)
            now = []
            for session in sessions:
                session.execute("SET ruvector.cutover = 'sticky'")
                (side,) = tiers(session, 5)
                now.append(side)
            sides.append(now)
        for earlier, later in itertools.pairwise(sides):
            assert all(new == "hot" for old, new in zip(earlier, later, strict=True) if old == "hot")
        expected = items.execute(
            "SELECT count(*) FROM unnest(%s::int[]) p WHERE abs(hashint4(p) %% 10000) < 8000",
            ([session.info.backend_pid for session in sessions],),
        ).fetchone()[0]
        assert sides[-1].count("hot") == expected
    finally:
        for session in sessions:
            session.close()


def test_steps_are_ordered_and_written_down(items):
    me = items.execute("SELECT session_user").fetchone()[0]
    step(items, "ruvector_rollback")
    assert refused(items, "SELECT ruvector_cutover_complete(%s)", (ITEMS.name,)).code == "55000"
    step(items, "ruvector_cutover", 10, None, "evening")
    step(items, "ruvector_cutover", 10, None, "again")
    assert refused(items, "SELECT ruvector_cutover_complete(%s)", (ITEMS.name,)).code == "55000"
    step(items, "ruvector_cutover", 100)
    step(items, "ruvector_cutover_complete", False, "all well")
    assert items.execute(STEPS).fetchall() == [
        ("complete", 100, "off", 0, me, ""),
        ("off", 0, "ramp", 10, me, "evening"),
        ("ramp", 10, "ramp", 100, me, ""),
        ("ramp", 100, "complete", 100, me, "all well"),
    ]
    assert items.execute("SELECT reason FROM ruvector_cutover_status(%s)", (ITEMS.name,)).fetchone() == ("all well",)
    assert tiers(items, 3) == {"hot": 3}


def test_a_step_that_is_not_committed_does_not_hold(database, items):
    with database.connect() as other:
        other.execute("BEGIN")
        step(other, "ruvector_rollback")
        assert tiers(items, 2) == {"hot": 2}
        other.execute("ROLLBACK")
        assert tiers(items, 2) == {"hot": 2}
        assert items.execute(STEPS).fetchall() == []


def test_completing_does_not_undo_a_rollback_it_waited_for(database, items):
    step(items, "ruvector_cutover", 100)
    with database.connect() as other, concurrent.futures.ThreadPoolExecutor() as pool:
        items.execute("BEGIN")
        step(items, "ruvector_rollback")
        late = pool.submit(refused, other, "SELECT ruvector_cutover_complete(%s)", (ITEMS.name,))
        while not items.execute("SELECT FROM pg_locks WHERE NOT granted").fetchall():
            assert not late.done()
        items.execute("COMMIT")
        assert late.result().code == "55000"
    assert tiers(items, 2) == {"pgvector": 2}


def test_bad_steps_are_refused(database, items):
    for percent in (-1, 101, None):
        assert refused(items, "SELECT ruvector_cutover(%s, %s::int)", (ITEMS.name, percent)).code == "22023"
    for function in ("ruvector_rollback(%s)", "ruvector_cutover(%s, 5)", "ruvector_cutover_complete(%s)"):
        assert refused(items, f"SELECT {function}", ("ghost",)).code == "42704"
        assert refused(items, f"SELECT {function}", (None,)).code == "22004"
    assert refused(items, "SELECT * FROM ruvector_cutover_status(%s)", ("ghost",)).code == "42704"


def test_an_index_that_is_not_built_gets_no_searches(database):
    with database.connect() as connection:
        ITEMS.create(connection)
        ITEMS.attach(connection)
        step(connection, "ruvector_rollback")
        assert refused(connection, "SELECT ruvector_cutover(%s, 10)", (ITEMS.name,)).code == "55000"
        assert step(connection, "ruvector_cutover", 0)["state"] == "ramp"


def test_users_see_the_state_and_cannot_change_it(items):
    items.execute("GRANT ruvector_user TO CURRENT_USER")
    items.execute("SET ROLE ruvector_user")
    assert items.execute("SELECT state FROM ruvector_cutover_status(%s)", (ITEMS.name,)).fetchone() == ("complete",)
    assert refused(items, "SELECT ruvector_rollback(%s)", (ITEMS.name,)).code == "42501"
    assert refused(items, "SELECT ruvector.set_cutover(%s, 'off', 0, '')", (ITEMS.name,)).code == "42501"
    assert refused(items, "UPDATE ruvector.collection SET cutover_state = 'off'", ()).code == "42501"


def test_the_state_outlives_an_upgrade(database, items):
    step(items, "ruvector_cutover", 0)
    install(database.dsn)
    assert tiers(items, 2) == {"pgvector": 2}


def test_no_search_fails_or_errs_while_the_cutover_goes_forth_and_back(database, items):
    """Readers and writers all the time; each answer is compared with exact SQL of the same snapshot."""
    is_over = threading.Event()
    problems, answers = [], Counter()

    def read(seed):
        queries = ITEMS.random_vectors(50, seed=seed)
        try:
            with database.connect() as session:
                while not is_over.is_set():
                    for query in queries:
                        with session.transaction():
                            session.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
                            rows = ITEMS.search(session, query)
                            assert_nearest(rows, ITEMS.distances(session, query), 10)
                        answers[rows[0][3]] += 1
        except (AssertionError, psycopg.Error) as problem:
            problems.append(problem)

    def write():
        try:
            with database.connect() as session:
                for turn in range(10_000):
                    if is_over.is_set():
                        return
                    first = 10_000 + 5 * turn
                    ITEMS.insert(session, ITEMS.random_vectors(5, seed=turn), first=first, c=[0] * 5)
                    session.execute("DELETE FROM ramp_items WHERE id BETWEEN %s AND %s", (first - 50, first - 46))
        except psycopg.Error as problem:
            problems.append(problem)

    threads = [threading.Thread(target=read, args=(seed,)) for seed in (710, 711)] + [threading.Thread(target=write)]
    for thread in threads:
        thread.start()
    try:
        steps = [
            ("ruvector_rollback",),
            ("ruvector_shadow_start",),
            *(("ruvector_cutover", share) for share in (10, 50, 100)),
        ]
        for each in [*steps, ("ruvector_cutover_complete",), ("ruvector_rollback",)]:
            step(items, *each)
            before = sum(answers.values())
            while sum(answers.values()) < before + 60 and not problems:
                is_over.wait(0.01)
    finally:
        is_over.set()
        for thread in threads:
            thread.join()
    assert problems == []
    assert set(answers) == {"hot", "pgvector"}


def test_the_extension_cannot_be_dropped_while_columns_are_attached(items):
    """With CASCADE it takes the columns along."""
    problem = refused(items, "DROP EXTENSION vector CASCADE")
    assert (problem.code, "public.ramp_items.embedding" in problem.message) == ("2BP01", True)
    assert "detach" in problem.hint
    assert items.execute("SELECT count(embedding) FROM ramp_items").fetchone() == (ROWS,)
    items.execute("CREATE EXTENSION pg_trgm; DROP EXTENSION pg_trgm CASCADE; CREATE SCHEMA s; DROP SCHEMA s CASCADE")
    items.execute("SELECT ruvector_unregister_collection(%s)", (ITEMS.name,))
    items.execute("DROP EXTENSION vector CASCADE")
    assert items.execute("SELECT count(*) FROM ramp_items").fetchone() == (ROWS,)
