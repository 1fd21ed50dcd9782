"""What a mirror writes to the database: checkpoints, the live token, status, and the trim of the changelog."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from ruvector import db, limits
from ruvector.capture.statements import TableStatements
from ruvector.errors import InternalError, StaleOwner
from ruvector.mirror.state import Mirror
from ruvector.snapshot import Snapshot
from ruvector.values import Collection


@dataclass(frozen=True, slots=True)
class Identity:
    """Which database this is, by its own word."""

    instance_id: str
    is_original: bool  # False after a restore, clone or upgrade: the row was made by another database
    server_started_at: str  # to the microsecond: no two servers, and no copy of one, share it
    database_oid: int
    installed_version: str


@dataclass(frozen=True, slots=True)
class ConsumerRow:
    """The checkpoints that the database has confirmed for this sidecar."""

    epoch: int
    checkpoint_id: str
    checkpoint: Snapshot
    previous_id: str | None
    previous: Snapshot | None

    def position_of(self, checkpoint_id: str) -> Snapshot | None:
        """Return the position of a confirmed checkpoint, or None when it is not one of the two."""
        if checkpoint_id == self.checkpoint_id:
            return self.checkpoint
        return self.previous if checkpoint_id == self.previous_id else None


def read_identity(connection: db.Connection) -> Identity:
    """Read the identity of the database."""
    with db.translated():
        row = connection.execute(db.query("mirror", "identity").encode()).fetchone()
    if row is None:
        raise InternalError("ruvector.instance has no row")
    return Identity(row[0], bool(row[1]), row[2], int(row[3]), row[4])


def adopt_database(connection: db.Connection, collections: list[Collection]) -> Identity:
    """Make a restored or cloned database one of its own: old transaction numbers and checkpoints mean nothing here."""
    with db.translated(), connection.transaction():
        connection.execute(db.query("mirror", "adopt").encode())
        connection.execute(db.query("mirror", "free_lease").encode())
        connection.execute(db.query("mirror", "forget_consumers").encode())
        connection.execute(db.query("mirror", "forget_table_oids").encode())
        connection.execute(db.query("mirror", "find_table_oids").encode())
        for collection in collections:
            connection.execute(TableStatements(collection).empty_changelog())
        connection.execute(db.query("mirror", "restart_trim").encode())
    return read_identity(connection)


LeaseEpoch = Callable[[], int]  # of the lease that this sidecar holds now, 0 when it holds none


class Ledger:
    """The rows of one mirror and sidecar, over a connection that it takes over; not thread-safe."""

    def __init__(
        self, connection: db.Connection, collection: Collection, *, name: str, lease: LeaseEpoch | None = None
    ) -> None:
        """Take over a connection. What only the holder of the lease may do matches no row without it."""
        self._lease = lease
        self._connection = connection
        self._statements = TableStatements(collection)
        self._key = {"mirror": collection.id, "name": name}
        self.epoch = 0
        with db.translated():
            self._connection.execute(db.query("capture", "prepare_reader").encode())

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def identity(self) -> Identity:
        """Return the identity of the database this connection reached."""
        return read_identity(self._connection)

    def consumer(self) -> ConsumerRow | None:
        """Return the confirmed checkpoints, or None before the first copy began."""
        row = self._one("consumer")
        if row is None:
            return None
        previous = Snapshot.parse(row[4]) if row[4] else None
        return ConsumerRow(row[0], row[1], Snapshot.parse(row[2]), row[3], previous)

    def begin_copy(self, position: Snapshot, checkpoint_id: str) -> None:
        """Record where the first copy starts: from here on no change may be trimmed."""
        row = self._one("begin_copy", id=checkpoint_id, position=str(position))
        self.epoch = int(row[0]) if row else 0

    def take_over(self) -> None:
        """Become the only writer of this name: an older process matches no row from now on."""
        row = self._one("take_over")
        if row is None:
            raise StaleOwner("the checkpoint row of this sidecar is gone")
        self.epoch = int(row[0])

    def confirm(self, checkpoint_id: str, position: Snapshot) -> None:
        """Record a generation that is durable on disk; StaleOwner when another sidecar took over."""
        with db.translated():
            done = self._connection.execute(
                db.query("mirror", "next_checkpoint").encode(),
                {**self._key, "epoch": self.epoch, "id": checkpoint_id, "position": str(position)},
            )
        if done.rowcount != 1:
            raise StaleOwner("another sidecar of the same name took over this mirror")

    def trimmed_below(self) -> int:
        """Return below which transaction the changelog has nothing any more."""
        row = self._one("trimmed", group="capture")
        return int(row[0]) if row else 0

    def trim(self) -> int:
        """Delete changelog rows that no checkpoint of any sidecar needs; return how many."""
        row = self._one("trim_limit")
        if row is None or row[0] is None:
            return 0
        above, below, total = self.trimmed_below(), int(row[0]), 0
        bounds = {"above": str(above), "below": str(below), "rows": limits.TRIM_ROWS, "lease": self._lease_epoch()}
        while above < below:
            with db.translated(), self._connection.transaction():
                deleted = self._connection.execute(self._statements.forget_changes(), bounds).rowcount
                total += deleted
                if deleted < limits.TRIM_ROWS:
                    # In the transaction that found nothing left: a reader of the bound must not see rows below it.
                    self._connection.execute(
                        db.query("capture", "set_trimmed").encode(), {**self._key, "below": str(below)}
                    )
                    break
        return total

    def forget_absent(self, *, bytes_max: int = limits.CHANGELOG_BYTES_MAX) -> str:
        """Drop checkpoints of other sidecars that hold up the trim of a changelog that is too large; return whose."""
        row = self._one("forget_absent", lease=self._lease_epoch(), bytes=bytes_max)
        return str(row[0] or "") if row else ""

    def set_token(self, token: str) -> bool:
        """Publish the token: the database asks this mirror from now on; False when another sidecar has the lease."""
        return self._run("set_token", token=token, lease=self._lease_epoch()) == 1

    def mark_copy(self, checkpoint_id: str) -> None:
        """Leave a mark that is gone after a crash of the server, which may take rows copied before."""
        self._run("mark_copy", id=checkpoint_id)

    def copy_mark(self) -> str | None:
        """Return the mark of the first copy under way."""
        row = self._one("copy_mark")
        return str(row[0]) if row else None

    def remove_token(self, token: str) -> None:
        """Take the token back, unless somebody else has set another."""
        self._run("remove_token", token=token)

    def publish(self, mirror: Mirror, stats: Mapping[str, object]) -> None:
        """Write what status functions show while the sidecar is busy or down."""
        self._run(
            "status",
            state=mirror.state.value,
            reason=mirror.reason,
            position=str(mirror.position) if mirror.position else None,
            lsn=mirror.position_lsn or None,
            rows_indexed=len(mirror.index),
            rows_copied=mirror.progress.rows_copied,
            rows_total=mirror.progress.rows_total,
            rows_per_second=mirror.progress.rows_per_second,
            eta_seconds=mirror.progress.eta_seconds,
            unindexed=json.dumps(mirror.unindexed.counts()),
            stats=json.dumps(dict(stats)),
            verified=json.dumps(mirror.verified),
            lease=self._lease_epoch(),
        )

    def follow(self) -> str:
        """Bring the registration up to date with its table; return what stops that, or nothing."""
        row = self._one("follow")
        return str(row[0] or "") if row else ""

    def note_event(self, kind: str, detail: Mapping[str, object]) -> None:
        """Leave word of something that status and doctor show later."""
        self._run("note_event", kind=kind, detail=json.dumps(dict(detail)), kept=limits.EVENTS_KEPT)

    def _one(self, name: str, *, group: str = "mirror", **parameters: object) -> tuple[Any, ...] | None:
        with db.translated():
            cursor = self._connection.execute(db.query(group, name).encode(), {**self._key, **parameters})
            return cursor.fetchone()

    def _run(self, name: str, **parameters: object) -> int:
        with db.translated():
            done = self._connection.execute(db.query("mirror", name).encode(), {**self._key, **parameters})
            return done.rowcount

    def _lease_epoch(self) -> int | None:
        """Return the epoch that effects are bound to: -1 is nobody's, None asks for none."""
        return None if self._lease is None else self._lease() or -1
