"""The simulator's picture of PostgreSQL against PostgreSQL: the overlay's twin, snapshots, visibility and capture."""

import random
from collections import Counter

import psycopg
import pytest
from table_kit import PULSE

from ruvector.bridge import SEARCH_COLUMNS, Access, Login, RowSet, ScramVerifier, Server
from ruvector.snapshot import Snapshot
from simulation import overlay
from simulation.model import Busy, Conflict, Database

KEYS = 8
CASES = 150
STEPS = 600
SETUP = """
CREATE TABLE items (id bigint PRIMARY KEY, embedding vector(1));
SELECT ruvector_register_collection('items', 'public', 'items', 'embedding', NULL, 'l2', '{"index_kind": "flat"}');
"""


class Canned:
    """Answers every search of the database with the row it was given."""

    def __init__(self, login, password):
        self._login = Login(login, Access.BRIDGE, ScramVerifier.from_password(password))
        self.row = None

    def authenticate(self, login):
        return self._login if login == self._login.name else None

    def rpc_search(self, payload, cancel):
        return RowSet(SEARCH_COLUMNS, [self.row])


@pytest.fixture
def connection(database):
    with database.connect() as connection:
        connection.execute(SETUP)
        yield connection


def drawn_position(draw, low, high):
    xmin = draw.randint(low, high)
    xmax = draw.randint(xmin, high)
    running = {xid for xid in range(xmin, xmax) if draw.random() < 0.4}
    return Snapshot(min(running, default=xmax), xmax, frozenset(running))


def literal(keys):
    return "{" + ",".join(map(str, keys)) + "}"


def test_twin_of_the_overlay_does_what_the_sql_does(connection):
    login, password = connection.execute("SELECT login, password FROM ruvector.gate").fetchone()
    backend, draw = Canned(login, password), random.Random(11)
    now = connection.execute("SELECT pg_current_xact_id()::text::bigint").fetchone()[0]
    with Server(backend, ["127.0.0.1:0"]) as server:
        address = server.addresses[0]
        connection.execute("UPDATE ruvector.gate SET host = %s, port = %s", (address.host, address.port))
        connection.execute("INSERT INTO ruvector.live (mirror_id, token) SELECT id, 'token' FROM ruvector.collection")
        refused = 0
        for case in range(CASES):
            # Every tenth case is one row beyond the bound, or just at it, all of one key.
            many = 20_000 + case // 10 % 2 if case % 10 == 9 else 0
            rows = [
                (now - draw.randrange(12), draw.randrange(40), draw.random() < 0.03) for _ in range(draw.randrange(9))
            ]
            position = drawn_position(draw, now - 12, now)
            keys, touched = draw.sample(range(40), draw.randrange(6)), draw.sample(range(40), draw.randrange(4))
            backend.row = (None, str(position), literal(keys), 1.5 if keys else None, literal(touched), None)
            connection.execute("DELETE FROM ruvector.changelog_1")
            connection.execute("INSERT INTO ruvector.changelog_1 (xid, key_1) SELECT %s::text::xid8, 7"
                               " FROM generate_series(1, %s)", (now + 1, many))  # fmt: skip
            for xid, key, truncated in rows:
                connection.execute(
                    "INSERT INTO ruvector.changelog_1 (xid, key_1, truncated) VALUES (%s::text::xid8, %s, %s)",
                    (xid, None if truncated else key, truncated),
                )
            connection.execute(PULSE, [0])
            got = connection.execute(
                "SELECT keys, dirty, overlaid, reach, returned, refusal FROM ruvector.candidates_1('[1]', 10, NULL)"
            ).fetchone()

            def logged(position, rows=rows, many=many):
                all_rows = [*[(now + 1, "7")] * many, *((xid, None if gone else str(key)) for xid, key, gone in rows)]
                return [row for row in all_rows if row[0] >= position.xmax or row[0] in position.xip]

            pool = overlay.combine(backend.row, logged)
            refused += pool.refusal is not None
            if pool.refusal is not None:
                assert got[5] == pool.refusal, case
                continue
            expected = (list(pool.keys), set(pool.dirty), pool.overlaid, pool.reach, pool.returned, None)
            assert (got[0], set(got[1]), *got[2:]) == expected, case
    assert 0 < refused < CASES / 5


class Twin:
    """One connection and the model's transaction for it."""

    def __init__(self, database, model):
        self.connection = database.connect()
        self.model, self.transaction, self.xid = model, None, None

    def do(self, draw):
        """Do one thing on both sides; return what both see, when it was a look."""
        if self.transaction is None:
            repeatable = draw.random() < 0.5
            level = "REPEATABLE READ" if repeatable else "READ COMMITTED"
            self.connection.execute(f"BEGIN ISOLATION LEVEL {level}")
            self.transaction = self.model.begin(is_repeatable=repeatable, is_synchronous=True)
            return None
        kind = draw.random()
        if kind < 0.4:
            return self._look()
        if kind < 0.75:
            self._write(draw)
        elif kind < 0.81:
            self.connection.execute("SAVEPOINT s")
            self.transaction.savepoint()
        elif kind < 0.87 and len(self.transaction.parts) > 1:
            self.connection.execute("ROLLBACK TO s")
            self.transaction.undo()
        elif kind < 0.9 and len(self.transaction.parts) > 1:
            self.connection.execute("RELEASE s")
            self.transaction.release()
        elif kind > 0.92:
            self.end(commits=draw.random() < 0.7)
        return None

    def _write(self, draw):
        key, vector, transaction = draw.randrange(KEYS), draw.randrange(50), self.transaction
        transaction.statement()
        deletes = draw.random() < 0.3
        try:
            if deletes:
                self.model.delete(transaction, key)
            else:
                self.model.upsert(transaction, key, vector)
        except Busy:
            self.connection.execute("SELECT 1")  # PostgreSQL would wait; its snapshot is taken all the same
            return
        except Conflict:
            self.end(commits=False)
            return
        if deletes:
            self.connection.execute("DELETE FROM items WHERE id = %s", (key,))
        else:
            self.connection.execute(
                "INSERT INTO items VALUES (%s, %s) ON CONFLICT (id) DO UPDATE SET embedding = excluded.embedding",
                (key, f"[{vector}]"),
            )
        if transaction.xid and self.xid is None:
            self.xid = self.connection.execute("SELECT pg_current_xact_id()::text::bigint").fetchone()[0]

    def _look(self):
        transaction = self.transaction
        snapshot = transaction.statement()
        text, rows, logged = self.connection.execute(
            "SELECT pg_current_snapshot()::text, (SELECT jsonb_object_agg(id, embedding::real[]) FROM items),"
            " (SELECT array_agg(key_1) FROM ruvector.changelog_1)"
        ).fetchone()
        table = {int(key): value[0] for key, value in (rows or {}).items()}
        assert table == self.model.items.scan(transaction)
        assert Counter(logged or []) == Counter(row.key for row in self.model.seen_rows(transaction))
        return Snapshot.parse(text), snapshot

    def end(self, *, commits):
        self.connection.execute("COMMIT" if commits else "ROLLBACK")
        (self.model.commit if commits else self.model.rollback)(self.transaction)
        self.transaction = self.xid = None


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_model_sees_what_postgresql_sees(database, connection, seed):
    draw, model, numbers, looks = random.Random(seed), Database(), {}, 0
    twins = [Twin(database, model) for _ in range(4)]
    for _ in range(STEPS):
        twin = draw.choice(twins)
        seen = twin.do(draw)
        if twin.xid is not None:
            numbers[twin.transaction.xid] = twin.xid
        if seen is not None:
            looks += 1
            real, modelled = seen
            own = twin.transaction.xid
            for model_xid, real_xid in numbers.items():
                if model_xid != own:
                    assert modelled.sees(model_xid) == real.sees(real_xid), (model_xid, seen)
    for twin in twins:
        if twin.transaction is not None:
            twin.end(commits=False)
        twin.connection.close()
    assert looks > 50
    assert len(numbers) >= 15


def test_conflicts_of_the_model_are_those_of_postgresql(database, connection):
    """An update of a row that a later transaction changed: 40001 under REPEATABLE READ."""
    model = Database()
    setup = model.begin(is_repeatable=False, is_synchronous=True)
    model.upsert(setup, 1, 5)
    model.commit(setup)
    connection.execute("INSERT INTO items VALUES (1, '[5]')")
    with database.connect() as old:
        old.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
        old.execute("SELECT count(*) FROM items")
        late = model.begin(is_repeatable=True, is_synchronous=True)
        late.statement()
        connection.execute("UPDATE items SET embedding = '[6]' WHERE id = 1")
        other = model.begin(is_repeatable=False, is_synchronous=True)
        model.upsert(other, 1, 6)
        model.commit(other)
        with pytest.raises(psycopg.errors.SerializationFailure):
            old.execute("UPDATE items SET embedding = '[7]' WHERE id = 1")
        with pytest.raises(Conflict):
            model.upsert(late, 1, 7)
