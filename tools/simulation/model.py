"""An exact model of what the mirror needs of PostgreSQL: snapshots, row versions, savepoints, locks, log and crash.

Rows of a table are versions with a creator and a deleter, as in PostgreSQL. Transaction numbers are handed out in
order, become visible in any order, and are handed out again when a crash took the log that named them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from ruvector.snapshot import Snapshot

FIRST_XID = 100


class Busy(Exception):
    """Another transaction holds the row or the table: PostgreSQL would wait."""


class Conflict(Exception):
    """PostgreSQL would raise 40001: the row was changed by a transaction that this snapshot does not see."""


class Status(Enum):
    """Where a transaction is in its life."""

    RUNNING = "running"
    PREPARED = "prepared"
    COMMITTED = "committed"
    ABORTED = "aborted"


@dataclass(eq=False, slots=True)
class Part:
    """A transaction's own part or one savepoint of it: who made or removed a row version."""

    transaction: Transaction
    parent: Part | None = None
    xid: int = 0
    is_undone: bool = False

    @property
    def counts(self) -> bool:
        """Tell whether nothing of it was rolled back to a savepoint."""
        part: Part | None = self
        while part is not None:
            if part.is_undone:
                return False
            part = part.parent
        return True


class Transaction:
    """One transaction of one connection."""

    def __init__(self, database: Database, *, is_repeatable: bool, is_synchronous: bool) -> None:
        self.database = database
        self.is_repeatable, self.is_synchronous = is_repeatable, is_synchronous
        self.history = database.crashes
        self.xid = 0
        self.status = Status.RUNNING
        self.snapshot: Snapshot | None = None
        self.xid_last = 0  # the highest of its own number and those of its savepoints
        self.parts = [Part(self)]
        self.truncations: list[tuple[Part, Table]] = []
        self.uses_items = False

    def statement(self) -> Snapshot:
        """Begin a statement: READ COMMITTED takes a new snapshot for each."""
        if self.snapshot is None or not self.is_repeatable:
            self.snapshot = self.database.snapshot(self)
        return self.snapshot

    def writer(self) -> Part:
        """Return who writes now; the first write takes a transaction number, and a savepoint one of its own."""
        if not self.xid:
            self.xid = self.parts[0].xid = self.database.next_number()
        part = self.parts[-1]
        part.xid = part.xid or self.database.next_number()
        self.xid_last = max(self.xid_last, part.xid)
        return part

    def savepoint(self) -> None:
        """Set a savepoint."""
        self.parts.append(Part(self, parent=self.parts[-1]))

    def release(self) -> None:
        """Forget the innermost savepoint; its writes stay."""
        if len(self.parts) > 1:
            self.parts.pop()

    def undo(self) -> None:
        """Roll back to the innermost savepoint."""
        if len(self.parts) == 1:
            return
        undone = self.parts.pop()
        undone.is_undone = True
        while self.truncations and not self.truncations[-1][0].counts:
            self.database.items = self.truncations.pop()[1]
        self.database.completed(undone.xid)
        self.savepoint()

    @property
    def is_lost(self) -> bool:
        """Tell whether a crash of the server ended it."""
        return self.history != self.database.crashes and self.status is not Status.PREPARED

    def sees(self, part: Part, snapshot: Snapshot) -> bool:
        """Tell whether what a part wrote is visible here."""
        other = part.transaction
        if part.is_undone or (part.parent is not None and not part.counts):
            return False
        if other is self:
            return True
        # As Snapshot.sees, written out: most of the time of a schedule is spent here.
        xid = other.xid
        is_seen = xid < snapshot.xmin or (xid < snapshot.xmax and xid not in snapshot.xip)
        return is_seen and other.status is Status.COMMITTED


@dataclass(eq=False, slots=True)
class Version:
    """One version of a row."""

    value: Any
    creator: Part
    deleter: Part | None = None


def holds(part: Part | None, *, but: Transaction) -> bool:
    """Tell whether a part belongs to a transaction that has not ended, other than one."""
    if part is None or part.transaction is but:
        return False
    return part.transaction.status in (Status.RUNNING, Status.PREPARED) and part.counts


def is_void(part: Part) -> bool:
    """Tell whether nothing will ever see what a part wrote."""
    return part.transaction.status is Status.ABORTED or not part.counts


class Table:
    """Rows by key, each a list of versions, oldest first."""

    def __init__(self) -> None:
        self.rows: dict[Any, list[Version]] = {}

    def get(self, key: Any, transaction: Transaction) -> Any:
        """Return the value of a key as this statement sees it, or None."""
        snapshot = transaction.snapshot
        if snapshot is None:
            raise ValueError("a read needs a statement")
        for version in reversed(self.rows.get(key, ())):
            if transaction.sees(version.creator, snapshot):
                deleter = version.deleter
                if deleter is None or not transaction.sees(deleter, snapshot):
                    return version.value
        return None

    def scan(self, transaction: Transaction) -> dict[Any, Any]:
        """Return all visible rows."""
        found = {}
        for key in self.rows:
            value = self.get(key, transaction)
            if value is not None:
                found[key] = value
        return found

    def put(self, key: Any, value: Any, transaction: Transaction) -> Any:
        """Insert a row or replace it; return the value it replaced."""
        replaced = self._newest(key, transaction)
        versions = self.rows.setdefault(key, [])
        writer = transaction.writer()
        if replaced is not None:
            replaced.deleter = writer
        versions.append(Version(value, writer))
        return None if replaced is None else replaced.value

    def remove(self, key: Any, transaction: Transaction) -> bool:
        """Delete a row; tell whether there was one."""
        doomed = self._newest(key, transaction)
        if doomed is None:
            return False
        doomed.deleter = transaction.writer()
        return True

    def lock(self, key: Any, transaction: Transaction) -> None:
        """Raise Busy or Conflict when an insert of this key would."""
        self._newest(key, transaction)

    def _newest(self, key: Any, transaction: Transaction) -> Version | None:
        """Return the version that a write replaces: the newest that counts, if it is not deleted."""
        versions = self.rows.get(key)
        if not versions:
            return None
        transaction.database.vacuum(versions)
        newest = next((version for version in reversed(versions) if not is_void(version.creator)), None)
        if newest is None:
            return None
        if holds(newest.creator, but=transaction) or holds(newest.deleter, but=transaction):
            raise Busy
        snapshot = transaction.snapshot
        deleter = newest.deleter if newest.deleter is not None and not is_void(newest.deleter) else None
        unseen = [part for part in (newest.creator, deleter) if part is not None]
        is_current = snapshot is None or all(transaction.sees(part, snapshot) for part in unseen)
        if not is_current:
            # Stricter than PostgreSQL for an insert over a row that others deleted: it would leave two rows of one key.
            raise Conflict
        return None if deleter is not None else newest


@dataclass(eq=False, slots=True)
class LogRow:
    """One row of the changelog; without a key it says that the table was emptied."""

    xid: int
    key: int | None
    version: Version


@dataclass
class Settings:
    """What a deliberate mistake changes about the database's side."""

    live_survives_crash: bool = False


@dataclass
class Database:
    """One server with one mirrored table, its changelog and the rows of the sidecar."""

    settings: Settings = field(default_factory=Settings)

    def __post_init__(self) -> None:
        self.next_xid = FIRST_XID
        self.latest_completed = FIRST_XID - 1
        self.active: list[Transaction] = []
        self.log: list[tuple[int, Transaction | None]] = []  # (xid, transaction it commits)
        self.flushed = 0
        self.crashes = 0
        self.is_up = True
        self.awaiting: Transaction | None = None  # who waits to empty the table
        self.items = Table()
        self.changelog: list[LogRow] = []
        self.live, self.copying, self.consumer, self.trimmed, self.lease = (Table() for _ in range(5))
        setup = self.begin(is_repeatable=False, is_synchronous=True)
        self.trimmed.put(1, FIRST_XID, setup)
        self.lease.put(1, (0, ""), setup)
        self.commit(setup)

    @property
    def started(self) -> str:
        """Return when the server was started, as far as anybody can tell."""
        return "always" if self.settings.live_survives_crash else str(self.crashes)

    def give_lease(self, holder: str) -> int:
        """Let another sidecar have the lease: the tokens of whoever had it are gone with it."""
        taking = self.begin(is_repeatable=False, is_synchronous=True)
        taking.statement()
        epoch: int = self.lease.get(1, taking)[0] + 1
        self.lease.put(1, (epoch, holder), taking)
        for key in self.live.scan(taking):
            self.live.remove(key, taking)
        self.commit(taking)
        return epoch

    # ---- transactions ------------------------------------------------------------------------------------------

    def begin(self, *, is_repeatable: bool, is_synchronous: bool) -> Transaction:
        """Begin a transaction."""
        transaction = Transaction(self, is_repeatable=is_repeatable, is_synchronous=is_synchronous)
        self.active.append(transaction)
        return transaction

    def snapshot(self, of: Transaction) -> Snapshot:
        """Return pg_current_snapshot(): the own number lowers xmin and is not listed."""
        xmax = self.latest_completed + 1
        running = [each.xid for each in self.active if each.xid and each.xid < xmax]
        listed = frozenset(xid for xid in running if xid != of.xid)
        return Snapshot(min(running, default=xmax), xmax, listed)

    def next_number(self) -> int:
        """Hand out a transaction number; the write that needs it is in the log."""
        self.next_xid += 1
        self.log.append((self.next_xid - 1, None))
        return self.next_xid - 1

    def completed(self, xid: int) -> None:
        """Take note of the end of a transaction or savepoint."""
        self.latest_completed = max(self.latest_completed, xid)

    def commit(self, transaction: Transaction) -> None:
        """Commit: durable at once when it is synchronous or emptied a table, else when the log is flushed."""
        if transaction.xid:
            self.log.append((transaction.xid, transaction))
            if transaction.is_synchronous or transaction.truncations:
                self.flush()
        self._end(transaction, Status.COMMITTED)

    def rollback(self, transaction: Transaction) -> None:
        """Roll back."""
        while transaction.truncations:
            self.items = transaction.truncations.pop()[1]
        self._end(transaction, Status.ABORTED)

    def prepare(self, transaction: Transaction) -> None:
        """PREPARE TRANSACTION: it outlives its connection and a crash."""
        transaction.writer()
        self.flush()
        transaction.status = Status.PREPARED

    def flush(self) -> None:
        """Make everything in the log durable."""
        self.flushed = len(self.log)

    def _end(self, transaction: Transaction, status: Status) -> None:
        transaction.status = status
        self.active.remove(transaction)
        if transaction.xid:
            self.completed(transaction.xid_last)

    def crash(self) -> None:
        """Kill -9 and recovery: what the log on disk does not commit never happened."""
        for _, transaction in self.log[self.flushed :]:
            if transaction is not None:
                transaction.status = Status.ABORTED
        for transaction in list(self.active):
            if transaction.status is Status.RUNNING:
                while transaction.truncations:
                    self.items = transaction.truncations.pop()[1]
                transaction.status = Status.ABORTED
                self.active.remove(transaction)
        del self.log[self.flushed :]
        self.next_xid = max([FIRST_XID, *(xid for xid, _ in self.log)]) + 1
        self.latest_completed = self.next_xid - 1
        if not self.settings.live_survives_crash:
            self.live, self.copying = Table(), Table()
        self.crashes += 1

    def vacuum(self, versions: list[Version]) -> None:
        """Forget versions that nobody can see any more."""
        if len(versions) < 4:
            return
        oldest = min((each.snapshot.xmin for each in self.active if each.snapshot is not None), default=self.next_xid)
        oldest = min([oldest, *(each.xid for each in self.active if each.xid)])
        flushed = {id(transaction) for _, transaction in self.log[self.flushed :]}

        def is_dead(version: Version) -> bool:
            deleter = version.deleter
            if is_void(version.creator):
                return True
            if deleter is None or deleter.transaction.status is not Status.COMMITTED or not deleter.counts:
                return False
            return deleter.transaction.xid < oldest and id(deleter.transaction) not in flushed

        versions[:] = [version for version in versions if not is_dead(version)]

    # ---- the mirrored table ------------------------------------------------------------------------------------

    def use_items(self, transaction: Transaction) -> None:
        """Take the lock of a reader or writer of the table; Busy while somebody empties it."""
        if any(each.truncations for each in self.active if each is not transaction):
            raise Busy
        if not transaction.uses_items and self.awaiting is not transaction and self.awaiting in self.active:
            raise Busy  # whoever waits for the whole table comes first
        transaction.uses_items = True

    def upsert(self, transaction: Transaction, key: int, vector: int) -> None:
        """INSERT ... ON CONFLICT DO UPDATE, captured: an equal vector writes nothing into the changelog."""
        if self.items.put(key, vector, transaction) != vector:
            self._capture(transaction, key)

    def delete(self, transaction: Transaction, key: int) -> None:
        """DELETE, captured."""
        if self.items.remove(key, transaction):
            self._capture(transaction, key)

    def move(self, transaction: Transaction, key: int, target: int) -> None:
        """UPDATE of the key, captured under both names; nothing when the target exists."""
        vector = self.items.get(key, transaction)
        if vector is None or self.items.get(target, transaction) is not None:
            return
        self.items.lock(target, transaction)
        if not self.items.remove(key, transaction):
            return
        self._capture(transaction, key)
        self.items.put(target, vector, transaction)
        self._capture(transaction, target)

    def truncate(self, transaction: Transaction) -> None:
        """TRUNCATE, captured; needs the table for itself, and everybody sees the new file at once."""
        if any(each.uses_items for each in self.active if each is not transaction):
            if self.awaiting not in self.active:
                self.awaiting = transaction
            raise Busy
        self.use_items(transaction)
        self.awaiting = None
        transaction.truncations.append((transaction.writer(), self.items))
        self.items = Table()
        self._capture(transaction, None)

    def _capture(self, transaction: Transaction, key: int | None) -> None:
        writer = transaction.writer()
        self.changelog.append(LogRow(transaction.xid, key, Version(key, writer)))

    def logged(self, transaction: Transaction, position: Snapshot) -> list[tuple[int, int | None]]:
        """Return the changelog rows that this statement sees and the position does not."""
        snapshot = transaction.statement() if transaction.snapshot is None else transaction.snapshot
        late, listed = [], []
        for row in self.changelog:
            if row.xid >= position.xmax:
                if self._sees_row(transaction, row, snapshot):
                    late.append((row.xid, row.key))
            elif row.xid in position.xip and self._sees_row(transaction, row, snapshot):
                listed.append((row.xid, row.key))
        return late + listed

    def seen_rows(self, transaction: Transaction) -> Iterator[LogRow]:
        """Yield every changelog row that this statement sees."""
        snapshot = transaction.snapshot or transaction.statement()
        return (row for row in self.changelog if self._sees_row(transaction, row, snapshot))

    @staticmethod
    def _sees_row(transaction: Transaction, row: LogRow, snapshot: Snapshot) -> bool:
        version = row.version
        if not transaction.sees(version.creator, snapshot):
            return False
        return version.deleter is None or not transaction.sees(version.deleter, snapshot)
