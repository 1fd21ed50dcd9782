"""Searches through the mirror against exact order, statement by statement, under concurrent transactions.

The index is exact (flat) and made slow between its steps, so that every wrong answer is the protocol's. The share of
searches that the index answered is part of the test: one that always falls back would prove nothing.
"""

import random
import threading
import time

import numpy as np
import psycopg
import pytest

from ruvector.index import chosen_rows

DIMS = 6
ROWS = 400
SECONDS = 8.0
COMPARE = """
SELECT (SELECT array_agg(s.distance ORDER BY s.distance) FROM answer s),
       (SELECT array_agg(e.d ORDER BY e.d) FROM (
          SELECT (i.embedding <-> %(query)s::vector) + 0 AS d FROM items i WHERE {where}
          ORDER BY 1 LIMIT %(k)s) e WHERE e.d <= coalesce(%(most)s::float8, 'Infinity')),
       (SELECT min(s.engine) FROM answer s)
"""
COMPARE = (
    "WITH answer AS MATERIALIZED (SELECT * FROM ruvector.search_1(%(query)s, %(k)s, NULL, %(filter)s, NULL, false,"
    " max_distance => %(most)s))" + COMPARE
)
# The same condition in both languages; the sidecar is certain of the first three, and of numeric it is not.
FILTERS = [
    ('{"part": 3}', "part = 3"), ('{"word": ["a", "b"], "part": {"$lt": 4}}', "word IN ('a', 'b') AND part < 4"),
    ('{"$not": {"word": "c"}}', "NOT word = 'c'"), ('{"cost": {"$gte": 2}}', "cost >= 2"),
]  # fmt: skip


class SlowIndex:
    """The real index with pauses inside a batch and before a search: the windows that races need."""

    def __init__(self, index, seed):
        self._index = index
        self._random = random.Random(seed)

    def __getattr__(self, name):
        return getattr(self._index, name)

    def __len__(self):
        return len(self._index)

    def _pause(self):
        if self._random.random() < 0.3:
            time.sleep(self._random.random() * 0.01)

    def upsert(self, keys, vectors, **options):
        done = 0
        for start in range(0, len(keys), 2):
            part = np.zeros(len(keys), dtype=bool)
            part[start : start + 2] = True
            rows = options | {"attributes": chosen_rows(options["attributes"], part)}
            done += self._index.upsert(keys[start : start + 2], vectors[start : start + 2], **rows)
            self._pause()
        return done

    def delete(self, keys):
        self._pause()
        return self._index.delete(keys)

    def search(self, query, k, **options):
        self._pause()
        answer = self._index.search(query, k, **options)
        self._pause()
        return answer


class Session(threading.Thread):
    """One application connection that writes and, after every step, compares a search with exact order."""

    def __init__(self, database, number, seed, until):
        super().__init__(name=f"session-{number}", daemon=True)
        self._database, self._number, self._until = database, number, until
        self._random = random.Random(seed)
        self.compared = self.answered = 0
        self.wrong = []
        self.error = None

    def run(self):
        try:
            with self._database.connect(autocommit=False) as connection:
                while time.monotonic() < self._until:
                    self._transaction(connection)
        except Exception as error:  # noqa: BLE001 - shown by the test
            self.error = error

    def _transaction(self, connection):
        draw = self._random.random
        connection.isolation_level = (
            psycopg.IsolationLevel.REPEATABLE_READ if draw() < 0.5 else psycopg.IsolationLevel.READ_COMMITTED
        )
        try:
            for _ in range(self._random.randint(1, 5)):
                if draw() < 0.7:
                    self._write(connection)
                if draw() < 0.1:
                    time.sleep(draw() * 0.1)
                self._compare(connection)
            if draw() < 0.75:
                connection.commit()
            else:
                connection.rollback()
        except (
            psycopg.errors.SerializationFailure,
            psycopg.errors.DeadlockDetected,
            psycopg.errors.UniqueViolation,
        ):
            connection.rollback()

    def _write(self, connection):
        key, other = self._random.randrange(ROWS * 2), self._random.randrange(ROWS * 2)
        vector = str([round(self._random.gauss(0, 1), 3) for _ in range(DIMS)])
        kind = self._random.random()
        if kind < 0.35:
            connection.execute(
                "INSERT INTO items (id, embedding, part, word, cost) VALUES (%s, %s, %s, 'a', 2)"
                " ON CONFLICT (id) DO UPDATE SET embedding = excluded.embedding",
                (key, vector, other % 6),
            )
        elif kind < 0.6:
            if self._random.random() < 0.4:
                connection.execute("UPDATE items SET embedding = %s WHERE id = %s", (vector, key))
            else:
                connection.execute(
                    "UPDATE items SET part = %s, word = (ARRAY['a', 'b', 'c', NULL])[1 + %s], cost = %s WHERE id = %s",
                    (other % 6, other % 4, other % 5, key),
                )
        elif kind < 0.75:
            connection.execute("DELETE FROM items WHERE id = %s", (key,))
        elif kind < 0.85:
            connection.execute(
                "UPDATE items SET id = %s WHERE id = %s AND NOT EXISTS (SELECT FROM items WHERE id = %s)",
                (other + 10 * ROWS + self._number * 10_000, key, other),
            )
        elif kind < 0.95:
            connection.execute("SAVEPOINT s")
            connection.execute("DELETE FROM items WHERE id BETWEEN %s AND %s", (key, key + 5))
            connection.execute("ROLLBACK TO SAVEPOINT s")
        else:
            connection.execute("UPDATE items SET note = 'x' WHERE id = %s", (key,))

    def _compare(self, connection):
        query = str([round(self._random.gauss(0, 1), 3) for _ in range(DIMS)])
        filter_, where = self._random.choice([*FILTERS, (None, "true"), (None, "true")])
        parameters = {"query": query, "k": self._random.choice((1, 5, 20)), "filter": filter_}
        parameters["most"] = self._random.choice((None, None, 1.5, 2.5))
        got, wanted, engine = connection.execute(COMPARE.replace("{where}", where), parameters).fetchone()
        self.compared += 1
        self.answered += engine == "ruvector" or not wanted
        if not np.allclose(got or [], wanted or [], rtol=1e-5, atol=1e-6):
            self.wrong.append((self._number, parameters, engine, got, wanted))


@pytest.fixture
def items(database, sidecar):
    with database.connect() as connection:
        connection.execute(
            f"CREATE TABLE items (id bigint PRIMARY KEY, embedding vector({DIMS}), note text, part int, word text,"
            " cost numeric)"
        )
        connection.execute(
            "INSERT INTO items SELECT n, (SELECT array_agg(sin(n * 7 + g * g)) FROM generate_series(1, %s) g)::vector,"
            " NULL, n %% 6, (ARRAY['a', 'b', 'c', NULL])[1 + n %% 4], n %% 5 FROM generate_series(0, %s) n",
            (DIMS, ROWS - 1),
        )
        connection.execute(
            "SELECT ruvector_register_collection('items', 'public', 'items', 'embedding', NULL, 'l2',"
            ' \'{"index_kind": "flat", "columns": ["part", "word", "cost"]}\')'
        )
    sidecar.wait_live("items")
    return sidecar.mirror("items")


def test_every_search_sees_exactly_its_snapshot(database, items, sidecar):
    seed = 20261121
    items.index = SlowIndex(items.index, seed)
    until = time.monotonic() + SECONDS
    sessions = [Session(database, number, seed + number, until) for number in range(6)]
    for session in sessions:
        session.start()
    for session in sessions:
        session.join(SECONDS + 60)
    errors = [session.error for session in sessions if session.error]
    assert not errors, errors
    wrong = [each for session in sessions for each in session.wrong]
    compared = sum(session.compared for session in sessions)
    answered = sum(session.answered for session in sessions)
    print(f"seed {seed}: {compared} comparisons, {answered} answered by the index, {len(wrong)} wrong")  # noqa: T201
    assert not wrong, wrong[:3]
    assert compared >= 200
    assert answered > 0.9 * compared
    sidecar.wait_applied("items")
    assert sidecar.worker("items").verify(sample=0, full=True, repair=False)["differences"] == 0


def test_truncate_is_seen_at_once(database, items, sidecar):
    with database.connect(autocommit=False) as connection:
        connection.execute("TRUNCATE items")
        connection.execute("INSERT INTO items VALUES (1, '[1,1,1,1,1,1]')")
        rows = connection.execute(
            "SELECT id, engine FROM ruvector.search_1('[1,1,1,1,1,1]', 5, NULL, NULL, NULL, false)"
        )
        assert rows.fetchall() == [("1", "ruvector")]
        connection.rollback()
        rows = connection.execute("SELECT count(*) FROM ruvector_search('items', '[1,1,1,1,1,1]', 5)").fetchone()
        assert rows == (5,)
        connection.execute("TRUNCATE items")
        connection.commit()
        sidecar.wait_applied("items")
        assert connection.execute("SELECT count(*) FROM ruvector_search('items', '[1,1,1,1,1,1]', 5)").fetchone() == (
            0,
        )
    assert len(items.index) == 0


def test_an_old_snapshot_keeps_its_answer(database, items, sidecar):
    query = "SELECT array_agg(id ORDER BY distance), min(tier) FROM ruvector_search('items', '[0,0,0,0,0,0]', 10)"
    with database.connect(autocommit=False) as reader, database.connect() as writer:
        reader.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        before, tier = reader.execute(query).fetchone()
        assert tier == "hot"
        writer.execute("DELETE FROM items WHERE id = ANY (%s::bigint[])", (before,))
        writer.execute("INSERT INTO items SELECT n, '[0,0,0,0,0,0.0001]' FROM generate_series(5000, 5003) n")
        sidecar.wait_applied("items")
        assert reader.execute(query).fetchone() == (before, "hot")
        assert set(writer.execute(query).fetchone()[0]).isdisjoint(before)


def test_many_changes_of_few_keys_hide_no_other_key(database, items, sidecar):
    """The overlay reads the changelog up to a bound: rows it cut off must not pass for rows that are not there."""
    with database.connect(autocommit=False) as connection:
        connection.execute("INSERT INTO ruvector.changelog_1 (key_1) SELECT 1 FROM generate_series(1, 20001)")
        connection.execute("UPDATE items SET embedding = '[9,9,9,9,9,9]' WHERE id = 2")
        rows = connection.execute("SELECT id, tier FROM ruvector_search('items', '[9,9,9,9,9,9]', 1)").fetchall()
        assert rows == [("2", "pgvector")]
