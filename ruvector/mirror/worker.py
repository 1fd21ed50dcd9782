"""The thread that keeps one mirror equal to its table, through restarts of either side."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import replace

from ruvector import limits
from ruvector.capture.reader import TableReader
from ruvector.clock import Clock, random_token, random_uuid
from ruvector.errors import (
    DatabaseError,
    DatabaseUnreachable,
    Flood,
    InternalError,
    NotLive,
    RuvectorError,
    StaleOwner,
    StoreDamaged,
)
from ruvector.index import BuildProgress, VectorIndex, options_to_json
from ruvector.mirror import generations, verify
from ruvector.mirror.apply import catch_up, changes_max, write_rows
from ruvector.mirror.backfill import Backfill
from ruvector.mirror.generations import Label
from ruvector.mirror.ledger import Identity, LeaseEpoch, Ledger
from ruvector.mirror.ports import Ports, WorkerSettings, real_ports
from ruvector.mirror.recent import RecentChanges
from ruvector.mirror.scrub import Scrub
from ruvector.mirror.state import CopyProgress, Mirror, MirrorState
from ruvector.values import Collection

__all__ = ["MirrorWorker", "Ports", "WorkerSettings"]

logger = logging.getLogger(__name__)


class MirrorWorker:
    """Owns one mirror: the only thread that writes its index, its files and its rows in the database."""

    def __init__(
        self,
        collection: Collection,
        settings: WorkerSettings,
        clock: Clock,
        *,
        ports: Ports | None = None,
        lease: LeaseEpoch | None = None,
    ) -> None:
        """Start without rows. With a lease the mirror answers only while its epoch is held, and stands by otherwise."""
        self.mirror = Mirror(collection, generations.fresh_index(collection, threads=settings.threads))
        self._settings = settings
        self._clock = clock
        self._ports = ports if ports is not None else real_ports(collection, settings, lease)
        self._lease = lease
        self._is_flooded = False
        self._answers_since = 0  # the epoch of the lease under which the token was set
        self._store = self._ports.store
        self._stop = threading.Event()
        self._wake = threading.Event()
        self._thread: threading.Thread | None = None
        self._scrub = Scrub(clock, cycle_seconds=settings.scrub_seconds)
        self._errands: list[verify.Errand] = []
        self._errand_lock = threading.Lock()
        self._reader: TableReader | None = None
        self._ledger: Ledger | None = None
        self._identity: Identity | None = None
        self._checkpoint_id = ""
        self._checkpoint_at = clock.now()
        self._checkpoint_cost = 0.0
        self._checkpoint_changes = 0
        self._published: tuple[object, ...] = ()
        self._published_at = 0.0
        self._drift_checked_at = 0.0
        self._backfill = Backfill()
        self._is_distrustful = False  # files turned out damaged, or nobody waits: read all of a generation first

    # ---- life ----------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Run in a thread of its own until stop."""
        self._thread = threading.Thread(target=self.run, name=f"mirror-{self.mirror.collection.id}", daemon=True)
        self._thread.start()

    def stop(self, *, seconds: float = 30.0) -> None:
        """Ask the thread to checkpoint and end; wait for it."""
        self._stop.set()
        self._wake.set()
        if self._thread is not None:
            self._thread.join(seconds)

    def wake(self) -> None:
        """Read the changelog now instead of at the next poll."""
        self._wake.set()

    def run(self) -> None:
        """Recover, follow, and start again after every lost connection, until stop."""
        pause = limits.POLL_SECONDS_MIN
        while not self._stop.is_set():
            try:
                self._connect()
                self._recover()
                pause = limits.POLL_SECONDS_MIN
                self._follow()
            except StaleOwner as error:
                self._give_up(MirrorState.STALE, error)
                if not self._is_forgotten():
                    return
            except (DatabaseUnreachable, DatabaseError) as error:
                self._give_up(MirrorState.UNREACHABLE, error)
            except Flood as error:
                self._is_flooded = True
                self._give_up(MirrorState.STALE, error)
            except RuvectorError as error:
                self._is_distrustful |= isinstance(error, StoreDamaged)
                self._give_up(MirrorState.STALE, error)
            except Exception as error:
                logger.exception("mirror of %s: unexpected error", self.mirror.collection.name)
                self._give_up(MirrorState.STALE, InternalError(f"unexpected {type(error).__name__}, see the log"))
            pause = min(pause * 2, 5.0)
            self._clock.wait(self._stop, pause)
        self._close()

    def _is_forgotten(self) -> bool:
        """Tell whether the database dropped the checkpoints of this sidecar, instead of another one taking over."""
        try:
            return self._ledger is not None and self._ledger.consumer() is None
        except RuvectorError:
            return True  # the next try will tell

    def run_once(self) -> None:
        """Recover, apply everything committed so far, checkpoint, and end; errors are raised."""
        self._is_distrustful = True
        try:
            self._connect()
            self._recover()
            self._backfill.finish(self.mirror, *self._parts())
            self._checkpoint()
        finally:
            self._stop.set()
            self._leave()
            self._close()

    def verify(
        self, *, sample: int, full: bool, repair: bool, check: Callable[[], None] | None = None
    ) -> dict[str, object]:
        """Have the thread compare table and mirror between two batches; see ruvector.mirror.verify."""
        if self.mirror.state is not MirrorState.LIVE:
            raise NotLive(f'collection "{self.mirror.collection.name}" is {self.mirror.state}: {self.mirror.reason}')
        errand = verify.Errand(sample=None if full else sample, repair=repair)
        with self._errand_lock:
            self._errands.append(errand)
        self._wake.set()
        return errand.result(check)

    # ---- coming back -----------------------------------------------------------------------------------------------

    def _connect(self) -> None:
        self._close()
        self._reader, self._ledger = self._ports.connect()
        self._identity = self._ledger.identity()
        self.mirror.database = (self._identity.server_started_at, self._identity.database_oid)

    def _recover(self) -> None:
        """Reach a state from which searches can be answered (design: mirror protocol, section 6)."""
        reader, _ = self._parts()
        self._store.remove_partial()  # what a kill left half-written is as large as the index
        self._check_drift(reader)
        if self._identity is not None and not self._identity.is_original:
            raise NotLive("the database was restored or cloned", hint="Restart the sidecar.")
        generations.fit_attributes(self.mirror.index, self.mirror.collection)  # it may have been inherited
        also: set[str] = set()
        rows_max = limits.RECENT_CHANGES_MAX
        if not self._is_flooded and (self._go_back(also) or self._load()):
            rows_max = changes_max(self.mirror)
        elif self._is_flooded or not self._reconcile():
            self._copy(resume=None)
            self._is_flooded = False
        self._backfill = Backfill()
        self._build()
        self.mirror.put_off(MirrorState.CATCHING_UP, "applying what changed meanwhile")
        self._publish(force=True)
        catch_up(self.mirror, reader, also=also, rows_max=rows_max)
        while len(catch_up(self.mirror, reader).changes) > limits.CHANGE_BATCH_ROWS_MAX:
            self._check_stop()
        if self._checkpoint_changes < 0:
            self._checkpoint()
        self._is_distrustful = False
        self.mirror.followed_at = self._clock.now()
        self._answer_or_stand_by()
        self._publish(force=True)

    def _answer_or_stand_by(self) -> None:
        """Answer while this sidecar holds the lease: only then the database asks it."""
        epoch = 1 if self._lease is None else self._lease()
        is_live = self.mirror.state is MirrorState.LIVE
        if is_live and epoch == self._answers_since:
            return
        token = random_token()
        if epoch and self._parts()[1].set_token(token):
            self._answers_since = epoch
            self.mirror.go_live(token)
            self._publish(force=True)
        elif is_live or self.mirror.state is not MirrorState.STANDBY:
            self.mirror.put_off(MirrorState.STANDBY, "another sidecar answers; this one follows")

    def _go_back(self, also: set[str]) -> bool:
        """After a lost connection: return to the last checkpoint that the database confirms.

        A crash may have taken transactions that were applied here; their keys are read again.
        """
        ledger = self._parts()[1]
        if self.mirror.position is None or self._checkpoint_changes < 0 or self._is_distrustful:
            return False
        consumer = ledger.consumer()
        position = consumer.position_of(self._checkpoint_id) if consumer else None
        if consumer is None or position is None or not self.mirror.recent.knows(position):
            return False
        ledger.epoch = consumer.epoch
        also.update(self.mirror.recent.not_visible_in(position))
        self.mirror.replace(self.mirror.index, self.mirror.recent, position)
        return True

    def _load(self) -> bool:
        """Load the newest generation that the database confirms; False when there is none."""
        reader, ledger = self._parts()
        consumer = ledger.consumer()
        if consumer is None or self._identity is None:
            return False
        loaded = generations.load_generation(
            self._store,
            self.mirror.collection,
            instance_id=self._identity.instance_id,
            is_confirmed=lambda checkpoint_id: consumer.position_of(checkpoint_id) is not None,
            threads=self._settings.threads,
            is_read_first=self._is_distrustful,
        )
        if loaded is None:
            return False
        label, index, reasons = loaded
        self.mirror.unindexed.reasons = reasons
        self._checkpoint_id = label.checkpoint_id
        if label.phase == "copying":
            if ledger.copy_mark() != label.checkpoint_id:
                return False  # the server crashed meanwhile: rows copied before may have vanished with it
            ledger.take_over()
            self.mirror.replace(index, RecentChanges(horizon=label.snapshot.xmax - 1), label.snapshot)
            logger.info("first copy of %s goes on after %d rows", self.mirror.collection.name, label.rows_copied)
            self._copy(resume=label)
            return True
        ledger.take_over()
        changes = reader.changes_within(label.snapshot)
        horizon = ledger.trimmed_below() if changes is not None else label.snapshot.xmax
        recent = RecentChanges(horizon=horizon - 1)
        recent.extend(changes or [])
        self.mirror.replace(index, recent, label.snapshot)
        self._checkpoint_changes = self.mirror.changes_applied
        return True

    def inherit(self, mirror: Mirror) -> None:
        """Begin with the index of a worker that was stopped: what still fits needs no copy."""
        if mirror.collection.options == self.mirror.collection.options:
            self.mirror.index, self.mirror.unindexed = mirror.index, mirror.unindexed

    def _reconcile(self) -> bool:
        """Compare an index whose history is not known with the table, and repair it (section 6).

        False when there is none, or when so much differs that a copy is cheaper.
        """
        reader, ledger = self._parts()
        mirror = self.mirror
        if len(mirror.index) == 0:
            loaded = generations.load_generation(
                self._store,
                mirror.collection,
                instance_id=None,
                is_confirmed=lambda _: True,
                threads=self._settings.threads,
                is_read_first=self._is_distrustful,
            )
            if loaded is None or loaded[0].phase != "complete":
                return False
            _, mirror.index, mirror.unindexed.reasons = loaded
        self._begin(mirror.index)
        total = max(len(mirror.index), 1)
        work = verify.Verification(repair=True)
        while not work.is_done:
            self._check_stop()
            work.step(mirror, reader)
            found = work.findings
            if found.differences > max(limits.RECONCILE_DIFFERENCES_MAX, limits.RECONCILE_SHARE_MAX * found.checked):
                logger.info("%s differs too much from its table, it is copied again", mirror.collection.name)
                return False
            mirror.put_off(MirrorState.RECONCILING, f"comparing with the table: {found.checked} of about {total} rows")
            self._publish()
        ledger.note_event("reconciled", work.findings.report())
        return True

    def _begin(self, index: VectorIndex) -> None:
        """Take the present as the position from which changes count: none may be trimmed any more."""
        reader, ledger = self._parts()
        # A complete generation is due as soon as the mirror has caught up. Said first: the database names the new
        # checkpoint before the old index is gone, and a connection lost in between must not lead back to that index.
        self._checkpoint_changes = -1
        self._checkpoint_id = random_uuid()
        with reader.at_snapshot() as (start, _):
            pass
        ledger.begin_copy(start, self._checkpoint_id)
        self.mirror.replace(index, RecentChanges(horizon=start.xmax - 1), start)

    # ---- first copy ------------------------------------------------------------------------------------------------

    def _copy(self, *, resume: Label | None) -> None:
        """Copy the table in key order; from the last saved key when a label is given (section 3)."""
        reader, ledger = self._parts()
        mirror = self.mirror
        last_key, copied = None, 0
        if resume is None:
            mirror.unindexed.reasons = {}
            self._begin(generations.fresh_index(mirror.collection, threads=self._settings.threads))
            ledger.mark_copy(self._checkpoint_id)
        else:
            last_key, copied = resume.last_key, resume.rows_copied
            self._checkpoint_changes = -1
        total = reader.row_estimate()
        mirror.put_off(MirrorState.COPYING, "first copy")
        started, copied_before, saved_at, save_cost = self._clock.now(), copied, self._clock.now(), 0.0
        while True:
            self._check_stop(label=self._copy_label(last_key, copied))
            with reader.at_snapshot():
                rows = reader.chunk_after(last_key)
            write_rows(mirror, rows, defer=True)
            copied += rows.row_count
            last_key = rows.last_key if rows.last_key is not None else last_key
            elapsed = max(self._clock.now() - started, 1e-6)
            rate = (copied - copied_before) / elapsed
            total = max(total, copied)
            mirror.progress = CopyProgress(copied, total, rate, (total - copied) / rate if rate > 0 else None)
            if rows.row_count < reader.chunk_rows:
                break
            self._publish()
            if self._clock.now() - saved_at > max(
                self._settings.copy_save_seconds, save_cost / limits.CHECKPOINT_SHARE_MAX
            ):
                before = self._clock.now()
                self._save_copy(self._copy_label(last_key, copied))
                saved_at, save_cost = self._clock.now(), self._clock.now() - before
        mirror.progress = replace(mirror.progress, rows_total=copied, eta_seconds=0.0)
        self._save_copy(self._copy_label(last_key, copied))  # a kill while the graph is built costs no copy

    def _build(self) -> None:
        """Link what the first copy deferred; also after a restart that found it unfinished."""
        mirror = self.mirror
        if mirror.index.stats()["loose"] == 0:
            return

        def report(progress: BuildProgress) -> None:
            self._check_stop()
            eta = "" if progress.eta_seconds is None else f", about {progress.eta_seconds:.0f} s to go"
            mirror.put_off(MirrorState.CATCHING_UP, f"building the graph: {progress.share:.0%}{eta}")
            self._publish()

        mirror.index.build(on_progress=report)

    def _copy_label(self, last_key: str | None, copied: int) -> Label:
        return self._label("copying", self._checkpoint_id, last_key=last_key, rows_copied=copied)

    def _save_copy(self, label: Label) -> None:
        generations.save_generation(self._store, self.mirror, label)
        generations.keep_only(self._store, {label.checkpoint_id})
        self._publish(force=True)

    # ---- following -------------------------------------------------------------------------------------------------

    def _follow(self) -> None:
        """Apply batch after batch, checkpoint when due, until stop or an error."""
        reader, _ = self._parts()
        pause = limits.POLL_SECONDS_MIN
        while not self._stop.is_set():
            began = self._clock.now()
            batch = catch_up(self.mirror, reader, rows_max=changes_max(self.mirror))
            self.mirror.followed_at = began
            self._answer_or_stand_by()
            if self._clock.now() - self._drift_checked_at >= limits.DRIFT_CHECK_SECONDS:
                self._check_drift(reader)
            self._run_errands(reader)
            self._backfill.step(self.mirror, *self._parts())
            self.mirror.index.verified(0)  # raises when a page that was not read at start is damaged
            self._scrub_some(reader)
            if self._checkpoint_due():
                self._checkpoint()
            self._publish()
            is_busy = batch.changes or self._backfill.is_busy
            pause = limits.POLL_SECONDS_MIN if is_busy else min(pause * 2, limits.POLL_SECONDS_MAX)
            if not self._errands:
                self._clock.wait(self._wake, pause)
                self._wake.clear()
        self._leave()

    def _check_drift(self, reader: TableReader) -> None:
        self._drift_checked_at = self._clock.now()
        with reader.at_snapshot():
            drift = reader.drift()
        if drift:
            problem = self._parts()[1].follow()
            raise NotLive(problem or f"{drift}; the mirror follows", hint="See ruvector doctor.")

    def _run_errands(self, reader: TableReader) -> None:
        """Do a slice of every verification that somebody waits for."""
        with self._errand_lock:
            self._errands = [errand for errand in self._errands if not errand.is_done]
            errands = list(self._errands)
        for errand in errands:
            errand.step(self.mirror, reader)

    def _scrub_some(self, reader: TableReader) -> None:
        """Do a slice of the verification that always runs, when it is due; say aloud what it finds."""
        found = self._scrub.step(self.mirror, reader)
        if found is not None:
            logger.warning("%s differed from its table: %s", self.mirror.collection.name, found)
            self._parts()[1].note_event("difference", found)
            self._publish(force=True)

    def _checkpoint_due(self) -> bool:
        changes = self.mirror.changes_applied - self._checkpoint_changes
        if changes <= 0:
            return False
        age = self._clock.now() - self._checkpoint_at
        if age < self._checkpoint_cost / limits.CHECKPOINT_SHARE_MAX:
            return False  # writing whole generations may take only its share of the time
        return changes >= limits.CHECKPOINT_CHANGES or age >= self._settings.checkpoint_seconds

    def _checkpoint(self) -> None:
        """Write a generation, have the database confirm it, trim what it makes superfluous (section 5)."""
        _, ledger = self._parts()
        started = self._clock.now()
        position = self.mirror.position
        if position is None:
            return
        label = self._label("complete", random_uuid(), rows_copied=self.mirror.progress.rows_copied)
        changes = self.mirror.changes_applied
        generations.save_generation(self._store, self.mirror, label)
        ledger.confirm(label.checkpoint_id, position)
        self._checkpoint_id, self._checkpoint_changes = label.checkpoint_id, changes
        ledger.trim()
        if forgotten := ledger.forget_absent():
            logger.warning("the changelog of %s is too large: the checkpoints of %s were dropped",
                           self.mirror.collection.name, forgotten)  # fmt: skip
            ledger.note_event("dropped", {"consumers": forgotten})
        consumer = ledger.consumer()
        if consumer is not None:
            generations.keep_only(self._store, {consumer.checkpoint_id, consumer.previous_id or ""})
        self._checkpoint_at = self._clock.now()
        self._checkpoint_cost = self._checkpoint_at - started

    def _label(self, phase: str, checkpoint_id: str, *, last_key: str | None = None, rows_copied: int = 0) -> Label:
        return Label(
            checkpoint_id=checkpoint_id,
            position=str(self.mirror.position),
            phase=phase,
            last_key=last_key,
            rows_copied=rows_copied,
            mirror_id=self.mirror.collection.id,
            instance_id=self._identity.instance_id if self._identity else "",
            options=options_to_json(self.mirror.collection.options),
        )

    # ---- leaving ---------------------------------------------------------------------------------------------------

    def _check_stop(self, *, label: Label | None = None) -> None:
        if self._stop.is_set():
            if label is not None and label.rows_copied:
                self._save_copy(label)
            raise NotLive("the sidecar is stopping")

    def _leave(self) -> None:
        """Stop answering in order: token first, then a last checkpoint."""
        _, ledger = self._parts()
        token = self.mirror.token
        self.mirror.put_off(MirrorState.STOPPED, "the sidecar was stopped")
        if token is not None:
            ledger.remove_token(token)
        if self.mirror.changes_applied > self._checkpoint_changes >= 0:
            self._checkpoint()
        self._publish(force=True)

    def _give_up(self, state: MirrorState, error: RuvectorError) -> None:
        if self._stop.is_set() and isinstance(error, NotLive):
            state, reason = MirrorState.STOPPED, error.message
        else:
            reason = error.message
            logger.warning("mirror of %s: %s", self.mirror.collection.name, reason)
        token = self.mirror.token
        self.mirror.put_off(state, reason)
        try:
            if self._ledger is not None:
                if token is not None:
                    self._ledger.remove_token(token)
                self._publish(force=True)
        except RuvectorError:
            logger.debug("the database could not be told that %s is %s", self.mirror.collection.name, state)
        with self._errand_lock:
            errands, self._errands = self._errands, []
        for errand in errands:
            errand.fail(NotLive(reason))

    def _close(self) -> None:
        for part in (self._reader, self._ledger):
            if part is not None:
                part.close()
        self._reader = self._ledger = None

    def _parts(self) -> tuple[TableReader, Ledger]:
        if self._reader is None or self._ledger is None:
            raise DatabaseUnreachable("the mirror has no connection to the database")
        return self._reader, self._ledger

    def _publish(self, *, force: bool = False) -> None:
        now = self._clock.now()
        mirror = self.mirror
        # Without the position: writing the status moves it, and would make the next status due.
        shown = (mirror.state, mirror.reason, mirror.changes_applied, mirror.progress.rows_copied)
        age = now - self._published_at
        if not force and (age < limits.STATUS_SECONDS or (shown == self._published and age < limits.HEARTBEAT_SECONDS)):
            return
        self._parts()[1].publish(mirror, mirror.index.stats())
        self._published, self._published_at = shown, now
