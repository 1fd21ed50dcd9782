"""What a worker is given: its settings, and all its input and output."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ruvector import db, limits
from ruvector.capture.reader import TableReader
from ruvector.mirror.ledger import LeaseEpoch, Ledger
from ruvector.store import GenerationStore
from ruvector.values import Collection


@dataclass(frozen=True, slots=True)
class WorkerSettings:
    """What a worker needs to know besides its collection."""

    dsn: str | None
    folder: Path
    name: str = "main"
    threads: int = 0
    checkpoint_seconds: float = limits.CHECKPOINT_SECONDS
    copy_save_seconds: float = limits.COPY_SAVE_SECONDS
    scrub_seconds: float = limits.SCRUB_CYCLE_SECONDS


@dataclass(frozen=True, slots=True)
class Ports:
    """All input and output of a worker besides its clock: what the simulator puts its own in place of."""

    connect: Callable[[], tuple[TableReader, Ledger]]
    store: GenerationStore


def real_ports(collection: Collection, settings: WorkerSettings, lease: LeaseEpoch | None = None) -> Ports:
    """Return connections to the database of the settings, and the files of their folder."""

    def connect() -> tuple[TableReader, Ledger]:
        reader = TableReader(settings.dsn, collection)
        try:
            connection = db.connect(settings.dsn, application_name=f"ruvector ledger {collection.name}"[:63])
            return reader, Ledger(connection, collection, name=settings.name, lease=lease)
        except BaseException:
            reader.close()
            raise

    return Ports(connect, GenerationStore(settings.folder))
