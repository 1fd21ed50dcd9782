"""What a worker reads and writes, over the model: connections that break, files that are torn, an index that yields."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache, reduce
from operator import xor
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from ruvector import db, limits
from ruvector.capture.reader import BucketSum, ChangeBatch
from ruvector.errors import DatabaseUnreachable, Flood, StoreDamaged, StoreError
from ruvector.index import KeyedIndex
from ruvector.mirror.hashes import vector_hashes
from ruvector.snapshot import Snapshot
from ruvector.store.reader import Unread, read_all
from ruvector.values import Collection, DecodedRows, IndexKind, IndexOptions, Metric
from simulation.model import Busy, Database, Table, Transaction
from simulation.stage import Stage

COLLECTION = Collection(
    id=1, name="items", table_oid=1, table_schema="public", table_name="items", column_name="embedding",
    key_columns=("id",), key_types=("bigint",), options=IndexOptions(dims=1, metric=Metric.L2, kind=IndexKind.FLAT),
)  # fmt: skip
DATABASE_OID, INSTANCE = 1, "instance"
CHUNK_ROWS = 3


class Link:
    """One connection to the server; it breaks when it is cut and when the server crashes."""

    def __init__(self, database: Database, stage: Stage) -> None:
        self.database, self.stage = database, stage
        self.history = database.crashes
        self.is_cut = False
        self.events: list[str] = []
        self.transaction: Transaction | None = None
        stage.pause("connect")
        self.check()

    def check(self) -> None:
        """Raise when nobody answers any more."""
        if self.is_cut or self.history != self.database.crashes or not self.database.is_up:
            self.drop()
            raise DatabaseUnreachable("the connection is gone")

    def drop(self) -> None:
        """End what the connection was doing; the server notices sooner or later, here at once."""
        transaction, self.transaction = self.transaction, None
        if transaction is not None and transaction in self.database.active:
            self.database.rollback(transaction)

    def wait_while_busy(self, attempt: Callable[[], Any]) -> Any:
        """Do something as soon as no other transaction holds what it needs."""
        while True:
            self.check()
            try:
                return attempt()
            except Busy:
                self.stage.pause("waits for a lock")


class SimulatedReader:
    """Stands for TableReader: the same questions to the model."""

    def __init__(self, link: Link) -> None:
        self.collection = COLLECTION
        self._link = link
        self.chunk_rows = CHUNK_ROWS

    def close(self) -> None:
        """Close the connection."""
        self._link.is_cut = True
        self._link.drop()

    @contextmanager
    def at_snapshot(self) -> Iterator[tuple[Snapshot, str]]:
        """Open a REPEATABLE READ transaction."""
        link = self._link
        link.stage.pause("reader begins")
        link.check()
        link.transaction = link.database.begin(is_repeatable=True, is_synchronous=True)
        try:
            snapshot = link.transaction.statement()
            link.stage.note(f"reads at {snapshot}")
            yield snapshot, f"0/{len(link.database.log):X}"
        finally:
            if link.transaction is not None and link.transaction in link.database.active:
                link.database.commit(link.transaction)
            link.transaction = None

    def changes_since(self, position: Snapshot, snapshot: Snapshot, lsn: str, *, rows_max: int = 10**9) -> ChangeBatch:
        """Return what this snapshot sees and the position does not; Flood when it is too much."""
        rows = self._link.database.logged(self._reading(), position)
        if len(rows) > rows_max:
            raise Flood(f"more than {rows_max} changes at once")
        return ChangeBatch(snapshot, lsn, tuple((xid, None if key is None else str(key)) for xid, key in rows))

    def changes_within(self, position: Snapshot) -> list[tuple[int, str]] | None:
        """Return the changelog rows whose transaction is visible in the position; None when they are too many."""
        with self.at_snapshot():
            rows = self._link.database.seen_rows(self._reading())
            seen = [(row.xid, row.key) for row in rows if position.sees(row.xid)]
        if len(seen) > limits.RECENT_CHANGES_MAX:
            return None
        return [(xid, str(key)) for xid, key in seen if key is not None]

    def rows_of(self, keys: Sequence[str]) -> DecodedRows:
        """Return the rows that exist now of these keys."""
        return self._rows([int(key) for key in keys])

    def chunk_after(self, key: str | None) -> DecodedRows:
        """Return the next rows in key order."""
        return self._rows(None, after=None if key is None else int(key))

    @property
    def slice_rows(self) -> int:
        """How many rows one slice of a verification takes."""
        return CHUNK_ROWS

    def bucket_sums(self, after: str | None) -> list[BucketSum]:
        """Return sums over the next slice of rows in key order."""
        hashes = list(self.row_hashes(after, None).items())[:CHUNK_ROWS]
        return [
            BucketSum([part[-1][0]], len(part), reduce(xor, (row_hash for _, row_hash in part), 0), len(part))
            for part in (hashes[at : at + 2] for at in range(0, len(hashes), 2))
        ]

    def row_hashes(self, after: str | None, upto: str | None) -> dict[str, int]:
        """Return the hash of each row in a range of keys, as PostgreSQL computes it."""
        transaction, database = self._reading(), self._link.database
        self._link.wait_while_busy(lambda: database.use_items(transaction))
        table = sorted(database.items.scan(transaction).items())
        rows = [
            (key, vector)
            for key, vector in table
            if (after is None or key > int(after)) and (upto is None or key <= int(upto))
        ]
        keys = np.array([key for key, _ in rows], dtype=np.int64)
        vectors = np.array([vector for _, vector in rows], dtype=np.float32).reshape(-1, 1)
        hashes = vector_hashes(vectors, keys.view(np.uint64), element=COLLECTION.options.element, dims=1)
        return dict(zip(map(str, keys.tolist()), hashes.astype(np.int64).tolist(), strict=True))

    def row_estimate(self) -> int:
        """Return a guess."""
        return len(self._link.database.items.rows)

    def drift(self) -> str:
        """Return that nothing changed about the table."""
        return ""

    def _reading(self) -> Transaction:
        self._link.stage.pause()
        self._link.check()
        if self._link.transaction is None:
            raise DatabaseUnreachable("the transaction is gone")
        return self._link.transaction

    def _rows(self, keys: list[int] | None, *, after: int | None = None) -> DecodedRows:
        transaction, database = self._reading(), self._link.database
        self._link.wait_while_busy(lambda: database.use_items(transaction))
        if keys is None:
            found = sorted(key for key in database.items.scan(transaction) if after is None or key > after)[:CHUNK_ROWS]
        else:
            found = [key for key in keys if database.items.get(key, transaction) is not None]
        vectors = [database.items.get(key, transaction) for key in found]
        return DecodedRows(
            keys=np.array(found, dtype=np.int64),
            vectors=np.array(vectors, dtype=np.float32).reshape(-1, 1),
            missing_keys=np.empty(0, np.int64),
            wrong_keys=np.empty(0, np.int64),
            last_key=str(found[-1]) if found else None,
        )


class Answer:
    """What a statement returned."""

    def __init__(self, rows: Sequence[tuple[Any, ...]] = (), *, rowcount: int = 0) -> None:
        self._rows, self.rowcount = rows, rowcount

    def fetchone(self) -> tuple[Any, ...] | None:
        """Return the first row."""
        return self._rows[0] if self._rows else None


class SimulatedConnection:
    """Stands for the connection of a Ledger: its named queries, carried out on the model."""

    def __init__(self, link: Link) -> None:
        self._link = link

    def close(self) -> None:
        """Close the connection."""
        self._link.is_cut = True
        self._link.drop()

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Carry out several statements as one transaction."""
        link = self._link
        link.check()
        link.transaction = link.database.begin(is_repeatable=False, is_synchronous=True)
        try:
            yield
        except BaseException:
            link.drop()
            raise
        link.check()
        link.database.commit(link.transaction)
        link.transaction = None
        link.stage.pause("committed")
        link.check()

    def execute(self, query: Any, parameters: Mapping[str, Any] | None = None) -> Answer:
        """Carry out one statement: anything may happen before it, and between its effect and the answer."""
        name = _names()[query] if isinstance(query, bytes) else "forget_changes"
        if name in ("prepare_reader", "status", "forget_absent"):
            return Answer()
        link = self._link
        link.stage.pause(name)
        link.check()
        if link.transaction is not None:
            return self._statement(name, link.transaction, parameters or {})
        own = link.transaction = link.database.begin(is_repeatable=False, is_synchronous=True)
        answer = self._statement(name, own, parameters or {})
        link.database.commit(own)
        link.transaction = None
        link.stage.pause(f"{name} done {dict(parameters or {})}")
        link.check()
        return answer

    def _statement(self, name: str, transaction: Transaction, parameters: Mapping[str, Any]) -> Answer:
        action = getattr(self, f"_{name}")

        def attempt() -> Answer:
            transaction.statement()
            answer: Answer = action(transaction, **parameters)
            return answer

        result: Answer = self._link.wait_while_busy(attempt)
        return result

    def _note_event(self, _: Transaction, *, mirror: int, name: str, kind: str, detail: str, kept: int) -> Answer:
        self._link.stage.note(f"{kind}: {detail}")
        self._link.events.append(detail)
        return Answer()

    # One method per named query; see sql/queries/mirror.sql and capture.sql.

    def _identity(self, _: Transaction) -> Answer:
        return Answer([(INSTANCE, True, self._link.database.started, DATABASE_OID, "")])

    def _consumer(self, transaction: Transaction, *, mirror: int, name: str) -> Answer:
        row = self._link.database.consumer.get((mirror, name), transaction)
        return Answer([] if row is None else [row])

    def _begin_copy(self, transaction: Transaction, *, mirror: int, name: str, id: str, position: str) -> Answer:  # noqa: A002
        consumer = self._link.database.consumer
        old = consumer.get((mirror, name), transaction)
        epoch = 0 if old is None else old[0] + 1
        consumer.put((mirror, name), (epoch, id, position, None, None), transaction)
        return Answer([(epoch,)])

    def _next_checkpoint(
        self, transaction: Transaction, *, mirror: int, name: str, epoch: int, id: str, position: str  # noqa: A002
    ) -> Answer:  # fmt: skip
        consumer = self._link.database.consumer
        old = consumer.get((mirror, name), transaction)
        if old is None or old[0] != epoch:
            return Answer(rowcount=0)
        consumer.put((mirror, name), (epoch, id, position, old[1], old[2]), transaction)
        return Answer(rowcount=1)

    def _take_over(self, transaction: Transaction, *, mirror: int, name: str) -> Answer:
        consumer = self._link.database.consumer
        old = consumer.get((mirror, name), transaction)
        if old is None:
            return Answer()
        consumer.put((mirror, name), (old[0] + 1, *old[1:]), transaction)
        return Answer([(old[0] + 1,)])

    def _trim_limit(self, transaction: Transaction, *, mirror: int, name: str) -> Answer:
        rows = self._link.database.consumer.scan(transaction).values()
        limit = self._limit_of([row[2] for row in rows], [row[4] for row in rows])
        return Answer([(limit,)])

    def _limit_of(self, current: list[str], previous: list[str | None]) -> int | None:
        known = [Snapshot.parse(text).xmin for text in previous if text is not None]
        return min(known) if known and len(known) == len(previous) else None

    def _trimmed(self, transaction: Transaction, *, mirror: int, name: str) -> Answer:
        return Answer([(self._link.database.trimmed.get(mirror, transaction),)])

    def _forget_changes(
        self, transaction: Transaction, *, above: str, below: str, rows: int, lease: int | None
    ) -> Answer:
        if not self._holds(transaction, lease):
            return Answer(rowcount=0)
        doomed = [row for row in self._link.database.seen_rows(transaction) if int(above) <= row.xid < int(below)]
        doomed = sorted(doomed, key=lambda row: row.xid)[:rows]
        for row in doomed:
            deleter = row.version.deleter
            if deleter is not None and deleter.transaction in self._link.database.active:
                raise Busy
        for row in doomed:
            row.version.deleter = transaction.writer()
        return Answer(rowcount=len(doomed))

    def _set_trimmed(self, transaction: Transaction, *, mirror: int, name: str, below: str) -> Answer:
        _raise(self._link.database.trimmed, mirror, int(below), transaction)
        return Answer()

    def _set_token(
        self, transaction: Transaction, *, mirror: int, name: str, token: str, lease: int | None
    ) -> Answer:  # fmt: skip
        if not self._holds(transaction, lease):
            return Answer(rowcount=0)
        self._link.database.live.put(mirror, token, transaction)
        return Answer(rowcount=1)

    def _mark_copy(self, transaction: Transaction, *, mirror: int, name: str, id: str) -> Answer:  # noqa: A002
        self._link.database.copying.put((mirror, name), id, transaction)
        return Answer()

    def _copy_mark(self, transaction: Transaction, *, mirror: int, name: str) -> Answer:
        mark = self._link.database.copying.get((mirror, name), transaction)
        return Answer([] if mark is None else [(mark,)])

    def _holds(self, transaction: Transaction, lease: int | None) -> bool:
        return lease is None or self._link.database.lease.get(1, transaction)[0] == lease

    def _remove_token(self, transaction: Transaction, *, mirror: int, name: str, token: str) -> Answer:
        if self._link.database.live.get(mirror, transaction) == token:
            self._link.database.live.remove(mirror, transaction)
        return Answer()


@cache
def _names() -> dict[bytes, str]:
    return {text.encode(): name for group in ("mirror", "capture") for name, text in db.named_queries(group).items()}


def _raise(table: Table, key: int, value: int, transaction: Transaction) -> None:
    if table.get(key, transaction) < value:
        table.put(key, value, transaction)


class SimulatedGeneration:
    """One generation in the memory of the simulator."""

    def __init__(self, sections: Mapping[str, npt.NDArray[Any]], meta: Mapping[str, Any]) -> None:
        self._sections = {name: array.copy() for name, array in sections.items()}
        self.meta = meta
        self.names = tuple(self._sections)
        self.is_damaged = False
        self.proofs: Mapping[str, Any] = {}

    def section(self, name: str) -> npt.NDArray[Any]:
        """Return a private copy of one array."""
        return self._sections[name].copy()

    def close(self) -> None:
        """Do nothing."""

    def keep_proofs(self) -> None:
        """Do nothing: everything was read."""

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Do nothing."""


class SimulatedStore:
    """Stands for GenerationStore: it outlives its process; a write takes time and may fail."""

    def __init__(self, stage: Stage, random: random.Random) -> None:
        self._stage, self._random = stage, random
        self._generations: dict[Path, SimulatedGeneration] = {}
        self._count = 0
        self.failures = 0.0
        self.steps_max = 3

    def write(self, sections: Mapping[str, npt.NDArray[Any]], *, meta: Mapping[str, Any]) -> Path:
        """Write the next generation: a process that is killed meanwhile leaves none."""
        generation = SimulatedGeneration(sections, meta)
        for _ in range(self._random.randint(1, self.steps_max)):
            self._stage.pause("writes files")
        if self._random.random() < self.failures:
            raise StoreError("the disk is full")
        self._count += 1
        path = Path(f"gen-{self._count:06d}")
        self._generations[path] = generation
        self._stage.pause(f"{path} is durable")
        return path

    def open(self, path: Path, *, verify: bool = True, unread: Unread = read_all) -> SimulatedGeneration:
        """Open a generation; damage is noticed when it is verified."""
        generation = self._generations[path]
        if generation.is_damaged and verify:
            raise StoreDamaged(f"{path} is damaged")
        return generation

    def list(self) -> list[Path]:
        """Return the generations, newest first."""
        return sorted(self._generations, reverse=True)

    def remove(self, path: Path) -> None:
        """Remove one generation."""
        self._stage.pause(f"removes {path}")
        self._generations.pop(path, None)

    def remove_partial(self) -> None:
        """Do nothing: an interrupted write left nothing."""

    def damage(self) -> None:
        """Flip a bit of the newest generation, or of all."""
        for path in self.list()[: self._random.choice((1, 1, 9))]:
            self._stage.note(f"{path} is damaged")
            self._generations[path].is_damaged = True


class SimulatedIndex(KeyedIndex):
    """The real index, with a yield between any two of its rows and on either side of a search."""

    stage: Stage
    changes = 0
    seen: tuple[int, Any] = (-1, None)

    def look(self, query: Any) -> Any:
        """Search for the one who watches: always the same query, so an unchanged index has the same answer."""
        if self.seen[0] != self.changes:
            self.seen = (self.changes, super().search(query, limits.WANTED_MAX))
        return self.seen[1]

    def upsert(self, keys: Any, vectors: Any, *, defer: bool = False, attributes: Any = None) -> int:
        """Insert or replace rows, one by one and in an order that does not depend on a hash."""
        done = 0
        for at in np.argsort(keys):
            self.stage.pause(f"upserts {keys[at]} = {vectors[at][0]:.0f}")
            self.changes += 1
            done += super().upsert(keys[at : at + 1], vectors[at : at + 1], defer=defer)
        return done

    def delete(self, keys: Any) -> int:
        """Delete rows, one by one."""
        done = 0
        for key in np.sort(keys):
            self.stage.pause(f"deletes {key}")
            self.changes += 1
            done += super().delete(np.array([key]))
        return done

    def clear(self) -> None:
        """Delete all rows."""
        self.stage.pause("clears the index")
        self.changes += 1
        super().clear()

    def search(self, query: Any, k: int, *, ef: int | None = None, cancel: Any = None, **sieve: Any) -> Any:
        """Search, after and before whatever else happens."""
        if not self.stage.is_on():
            return self.look(query)
        self.stage.pause()
        found = super().search(query, k, ef=ef, cancel=cancel, **sieve)
        self.stage.pause()
        return found


LIMITS = {
    "CHANGE_BATCH_ROWS_MAX": 3,
    "TRIM_ROWS": 2,
    "CHECKPOINT_CHANGES": 6,
    "CHECKPOINT_SHARE_MAX": 1.0,
    "SCRUB_SHARE_MAX": 1.0,
    "POLL_SECONDS_MAX": 0.1,
    "STATUS_SECONDS": 1e9,
    "HEARTBEAT_SECONDS": 1e9,
    "DRIFT_CHECK_SECONDS": 1e9,
}
assert set(LIMITS) <= set(dir(limits))  # noqa: S101
