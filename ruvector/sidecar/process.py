"""Wire the sidecar: one worker per attached column, one endpoint, one supervisor that follows the registrations."""

from __future__ import annotations

import fcntl
import logging
import os
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ruvector import __version__, db, limits, systems
from ruvector.bridge.address import Address, parse_address
from ruvector.bridge.backend import Access
from ruvector.bridge.server import Server
from ruvector.bridge.tls import TlsFiles
from ruvector.capture.collections import load_collections
from ruvector.clock import Clock, SystemClock, random_token
from ruvector.errors import (
    CollectionNotFound,
    DatabaseError,
    DatabaseUnreachable,
    InternalError,
    InvalidParameter,
    NotInstalled,
    StaleOwner,
)
from ruvector.mirror.ledger import adopt_database, read_identity
from ruvector.mirror.state import Mirror
from ruvector.mirror.worker import MirrorWorker, WorkerSettings
from ruvector.sidecar.answers import Secrets
from ruvector.sidecar.backend import ProductBackend, new_login
from ruvector.sidecar.lease import Lease
from ruvector.sidecar.rebuild import IndexRebuilder
from ruvector.sidecar.shadow import ShadowTraffic
from ruvector.store.writer import remove_folder
from ruvector.values import Collection

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class SidecarSettings:
    """How one sidecar is started; see ``ruvector run``."""

    dsn: str | None
    data_dir: Path
    listen: tuple[str, ...] = ("127.0.0.1:7411",)
    advertise: str | None = None
    tls_certificate: Path | None = None
    tls_key: Path | None = None
    name: str = "main"
    threads: int = 0
    client_login: str = "ruvector"
    checkpoint_seconds: float = limits.CHECKPOINT_SECONDS
    copy_save_seconds: float = limits.COPY_SAVE_SECONDS
    scrub_seconds: float = limits.SCRUB_CYCLE_SECONDS


class WorkerTable:
    """The running workers; replaced as a whole, so that readers need no lock."""

    def __init__(self) -> None:
        self._workers: dict[int, MirrorWorker] = {}
        self._mirrors: dict[int, Mirror] = {}

    def set(self, workers: Mapping[int, MirrorWorker]) -> None:
        """Take a new set of workers."""
        self._workers = dict(workers)
        self._mirrors = {number: worker.mirror for number, worker in workers.items()}

    def by_id(self) -> Mapping[int, Mirror]:
        """Return every mirror by the number of its collection."""
        return self._mirrors

    def by_name(self, name: str) -> MirrorWorker:
        """Return the worker of a collection, or raise CollectionNotFound."""
        for worker in self._workers.values():
            if worker.mirror.collection.name == name:
                return worker
        raise CollectionNotFound(name)

    def all(self) -> Sequence[MirrorWorker]:
        """Return the workers in order of their names."""
        return sorted(self._workers.values(), key=lambda worker: worker.mirror.collection.name)


class Sidecar:
    """One running sidecar. start() returns when the endpoint listens; stop() checkpoints and leaves in order."""

    def __init__(self, settings: SidecarSettings, *, clock: Clock | None = None) -> None:
        self._settings = settings
        self._clock = clock or SystemClock()
        self._workers = WorkerTable()
        self._stop = threading.Event()
        self._supervisor: threading.Thread | None = None
        self._endpoint: Server | None = None
        self._connection: db.Connection | None = None
        self._advertised = parse_address(settings.advertise, port=0) if settings.advertise is not None else None
        self._lease = Lease(settings.dsn, name=settings.name, clock=self._clock)
        self._shadow = ShadowTraffic(settings.dsn, clock=self._clock)
        self._rebuilder = IndexRebuilder(settings.dsn, clock=self._clock)
        self._served_epoch = 0
        self._folder_lock: int | None = None
        systems.load()

    @property
    def workers(self) -> WorkerTable:
        """Return the running workers."""
        return self._workers

    @property
    def addresses(self) -> Sequence[Address]:
        """Return where the endpoint listens."""
        return self._endpoint.addresses if self._endpoint is not None else ()

    @property
    def shortcut(self) -> Address | None:
        """Return the faster address for a database on this machine, where the system has one."""
        return self._endpoint.shortcut if self._endpoint is not None else None

    def start(self) -> None:
        """Check database and data directory, listen, tell the database where, follow the registrations."""
        collections = self._prepare()
        self._endpoint = Server(self._backend(), self._settings.listen, clock=self._clock, tls=self._tls())
        self._endpoint.start()
        self._shadow.start()
        self._lease.start()
        self._follow_lease()
        self._reconcile(collections)
        self._supervisor = threading.Thread(target=self._supervise, name="supervisor", daemon=True)
        self._supervisor.start()

    def stop(self) -> None:
        """Stop answering, write last checkpoints, close everything."""
        self._stop.set()
        if self._supervisor is not None:
            self._supervisor.join()
        self._shadow.stop()
        self._rebuilder.stop()
        for worker in self._workers.all():
            worker.stop()
        self._lease.stop()
        if self._endpoint is not None:
            self._endpoint.close()
        self._close()

    def run_once(self) -> Sequence[Mirror]:
        """Catch up and checkpoint every collection without listening; errors are raised."""
        mirrors = []
        try:
            collections = self._prepare()
            self._lease.try_once()
            self._served_epoch = self._lease.epoch
            if self._lease.is_twin:
                raise StaleOwner(f'a sidecar called "{self._settings.name}" runs already', hint="Stop it first.")
            for collection in collections:
                worker = self._new_worker(collection)
                worker.run_once()
                mirrors.append(worker.mirror)
        finally:
            self._lease.stop()
            self._close()
        return mirrors

    def _close(self) -> None:
        if self._connection is not None:
            self._connection.close()
        if self._folder_lock is not None:
            os.close(self._folder_lock)
            self._folder_lock = None

    # ---- the database --------------------------------------------------------------------------------------------

    def _prepare(self) -> list[Collection]:
        self._settings.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._lock_folder()
        self._connection = db.connect(self._settings.dsn, application_name="ruvector sidecar")
        try:
            identity = read_identity(self._connection)
        except DatabaseError as error:
            raise NotInstalled("schema ruvector does not exist in this database, or this role may not read it",
                               detail=error.message) from error  # fmt: skip
        if identity.installed_version != __version__:
            raise NotInstalled(
                f"schema ruvector has version {identity.installed_version or 'unknown'}, this program {__version__}"
            )
        self._adopt()
        return load_collections(self._connection)

    def _lock_folder(self) -> None:
        """Keep the data directory for this process alone, until it ends in whatever way."""
        descriptor = os.open(self._settings.data_dir / "lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(descriptor)
            raise StaleOwner(
                f"another sidecar runs over {self._settings.data_dir}", hint="Give it a --data-dir of its own."
            ) from None
        self._folder_lock = descriptor

    def _follow_lease(self) -> None:
        """Tell the database where to ask once this sidecar is the one that answers; end links when it no longer is."""
        epoch = self._lease.epoch
        if epoch == self._served_epoch:
            return
        if epoch:
            self._register_gate()
            logger.info("this sidecar answers the database (epoch %d)", epoch)
        else:
            logger.warning("this sidecar lost the lease and stands by")
            if self._endpoint is not None:
                self._endpoint.end_sessions()
        self._served_epoch = epoch

    def _adopt(self) -> None:
        """Make a restored, cloned or upgraded database one of its own, with mirrors that start from a comparison."""
        if self._connection is not None and not read_identity(self._connection).is_original:
            logger.warning("the database was restored, cloned or upgraded: all rows are compared with the files here")
            adopt_database(self._connection, load_collections(self._connection))

    def _backend(self) -> ProductBackend:
        if self._connection is None:
            raise DatabaseUnreachable("the sidecar has no connection to the database")
        with db.translated():
            row = self._connection.execute(db.query("mirror", "secrets").encode()).fetchone()
        if row is None:
            raise InternalError("ruvector.secret or ruvector.gate has no row")
        inner_key, outer_key, bridge_login, bridge_password = row
        logins = [
            new_login(str(bridge_login), Access.BRIDGE, str(bridge_password)),
            new_login(self._settings.client_login, Access.ADMIN, self.client_password()),
        ]
        return ProductBackend(
            self._workers,
            secrets=Secrets(bytes(inner_key), bytes(outer_key)),
            logins=logins,
            clock=self._clock,
            offer_sample=self._shadow.offer,
        )

    def client_password(self) -> str:
        """Return the password of direct clients: made once, kept in the data directory for its owner alone."""
        path = self._settings.data_dir / "client-password"
        if not path.exists():
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(descriptor, "w", encoding="ascii") as file:
                file.write(random_token())
        return path.read_text(encoding="ascii").strip()

    def _tls(self) -> TlsFiles | None:
        certificate, key = self._settings.tls_certificate, self._settings.tls_key
        if certificate is None and key is None:
            return None
        if certificate is None or key is None:
            raise InvalidParameter("TLS needs a certificate and its key", hint="Give --tls-certificate and --tls-key.")
        return TlsFiles(certificate, key)

    def _register_gate(self) -> None:
        # Encryption is asked for only between machines: the database's libpq may be built without it.
        address = self._gate_address()
        values = {
            "host": address.host,
            "port": address.port,
            "is_encrypted": self._settings.tls_certificate is not None and not address.is_local,
            "lease": self._lease.epoch or -1,
        }
        shortcut = self.shortcut
        if shortcut is not None and self._advertised is None and not values["is_encrypted"]:
            values["host"] = f"{shortcut.host},{address.host}"  # libpq tries one after the other
        if self._connection is not None:
            with db.translated():
                self._connection.execute(db.query("mirror", "set_gate").encode(), values)

    def _gate_address(self) -> Address:
        """Return where the database is to look for this sidecar."""
        # TCP first: the server's user may not be allowed into the directory of the Unix socket.
        address = min(self.addresses, key=lambda each: each.is_unix)
        if self._advertised is not None:
            return Address(self._advertised.host, self._advertised.port or address.port)
        if address.is_any:
            logger.warning("%s is every interface: a database on another machine needs --advertise HOST:PORT", address)
            return Address("::1" if ":" in address.host else "127.0.0.1", address.port)
        return address

    # ---- collections come and go -----------------------------------------------------------------------------------

    def _supervise(self) -> None:
        while not self._stop.wait(limits.COLLECTION_POLL_SECONDS):
            try:
                if self._connection is None or self._connection.closed:
                    self._connection = db.connect(self._settings.dsn, application_name="ruvector sidecar")
                    self._adopt()
                self._follow_lease()
                self._reconcile(load_collections(self._connection))
                if self._served_epoch:
                    self._rebuilder.poll(self._connection)
            except (DatabaseUnreachable, DatabaseError) as error:
                logger.warning("the registrations cannot be read: %s", error.message)
                if self._connection is not None:
                    self._connection.close()
                self._stop.wait(1.0)

    def _reconcile(self, collections: Sequence[Collection]) -> None:
        """Start a worker for every new or changed collection, end those whose collection is gone; twice equals once."""
        running = {worker.mirror.collection.id: worker for worker in self._workers.all()}
        # The checkpoints of a twin are its own: until it is gone nothing is mirrored here.
        wanted = {} if self._lease.is_twin else {collection.id: collection for collection in collections}
        gone = [running.pop(number) for number in set(running).difference(wanted)]
        started = []
        for number, collection in wanted.items():
            old = running.get(number)
            if old is None or old.mirror.collection != collection:
                running[number] = self._new_worker(collection)
                started.append(running[number])
                if old is not None:
                    logger.info("collection %s changed: its mirror follows", collection.name)
                    old.stop()
                    running[number].inherit(old.mirror)
        self._workers.set(running)
        for worker in started:
            worker.start()
        for worker in gone:
            worker.stop()
            logger.info("collection %s was detached", worker.mirror.collection.name)
        if not self._lease.is_twin:
            self._remove_foreign_folders(wanted)

    def _remove_foreign_folders(self, wanted: Mapping[int, Collection]) -> None:
        for folder in self._settings.data_dir.glob("collection-*"):
            number = folder.name.removeprefix("collection-")
            if number.isdigit() and int(number) not in wanted:
                remove_folder(folder)

    def _new_worker(self, collection: Collection) -> MirrorWorker:
        folder = self._settings.data_dir / f"collection-{collection.id}"
        settings = WorkerSettings(
            self._settings.dsn,
            folder,
            self._settings.name,
            self._settings.threads,
            checkpoint_seconds=self._settings.checkpoint_seconds,
            copy_save_seconds=self._settings.copy_save_seconds,
            scrub_seconds=self._settings.scrub_seconds,
        )
        return MirrorWorker(collection, settings, self._clock, lease=self._answering_epoch)

    def _answering_epoch(self) -> int:
        """Return the epoch of the lease once the database knows where to ask; 0 without it."""
        epoch = self._lease.epoch
        return epoch if epoch == self._served_epoch else 0
