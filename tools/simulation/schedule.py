"""One schedule: sessions, sidecars and faults, interleaved by a seed; every live snapshot is audited at every step."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np

from ruvector import limits
from ruvector.bridge.backend import CancelFlag
from ruvector.capture.reader import TableReader
from ruvector.errors import NotLive
from ruvector.mirror import generations, scrub
from ruvector.mirror.ledger import Ledger
from ruvector.mirror.state import Candidates, Mirror, MirrorState
from ruvector.mirror.worker import MirrorWorker, Ports, WorkerSettings
from ruvector.sidecar.answers import SearchRequest, answer_search
from ruvector.store import GenerationStore
from simulation import overlay
from simulation.model import Busy, Conflict, Database, Settings, Status, Transaction
from simulation.ports import (
    COLLECTION,
    DATABASE_OID,
    LIMITS,
    Link,
    SimulatedConnection,
    SimulatedIndex,
    SimulatedReader,
    SimulatedStore,
)
from simulation.stage import Actor, Stage, StageClock

KEYS = 14
VECTORS = 60
FAR = -1000  # a query from which every vector has a distance of its own
SESSIONS = 3
PROCESSES_MAX = 3
# Where a plan may stop a sidecar again and again: before and after each of its effects.
STOP_POINTS = (
    "begin_copy", "set_token", "copying", "writes files", "gen-", "removes", "next_checkpoint", "trim_limit", "trimmed",
    "forget_changes", "committed", "take_over", "remove_token", "reader begins", "upserts", "deletes", "clears",
)  # fmt: skip
SETTLE_STEPS = 4_000


class WrongAnswer(AssertionError):
    """A search would have answered, or has answered, something else than the table in its snapshot."""


class NotSettled(AssertionError):
    """The mirror did not become equal to its table although nothing disturbed it any more."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What one seed chooses for its whole schedule."""

    steps: int
    starts_live: bool
    recent_max: int
    dirty_max: int
    sidecar_weight: float
    grain: float
    write_share: float
    commit_share: float
    patience: float
    asynchronous_share: float
    repeatable_share: float
    crash: float
    kill: float
    cut: float
    damage: float
    flush: float
    truncates: float
    early_numbers: float
    holds: float
    scrub: float
    takeover: float
    freeze: float
    failures: float
    disk_steps: int
    stop_point: str
    stop_fault: str
    restart: float

    @classmethod
    def drawn(cls, draw: random.Random) -> Plan:
        """Choose: half of all schedules know only some kinds of fault, so that others get far."""

        def chance(most: float) -> float:
            return draw.random() * most if draw.random() < 0.35 else 0.0

        return cls(
            steps=draw.choice((120, 200, 300)),
            starts_live=draw.random() < 0.8,
            recent_max=draw.choice((8, 16, 1000)),
            dirty_max=draw.choice((6, 12, 1000)),
            sidecar_weight=draw.choice((1.0, 4.0, 10.0)),
            grain=draw.choice((1.0, 0.5, 0.1)),
            write_share=draw.choice((0.4, 0.6, 0.8)),
            commit_share=draw.choice((0.15, 0.3)),
            patience=draw.choice((1.0, 10.0)),
            asynchronous_share=draw.choice((0.0, 0.5, 1.0)),
            repeatable_share=draw.choice((0.2, 0.5, 0.9)),
            crash=chance(0.03),
            kill=chance(0.03),
            cut=chance(0.03),
            damage=draw.choice((0.0, 0.0, 0.5)),
            flush=draw.choice((0.05, 0.005)),
            truncates=draw.choice((0.02, 0.12)),
            early_numbers=draw.choice((0.2, 0.6)),
            holds=chance(0.05),
            scrub=draw.choice((0.3, 1e9)),
            takeover=chance(0.01),
            freeze=chance(0.02),
            failures=chance(0.2),
            disk_steps=draw.choice((1, 3, 12)),
            stop_point=draw.choice(STOP_POINTS) if draw.random() < 0.5 else "nowhere",
            stop_fault=draw.choice(("kill", "kill", "crash", "cut")),
            restart=draw.choice((0.05, 0.3)),
        )


class Process:
    """One sidecar process over its own files: started, killed, frozen, started again."""

    def __init__(self, schedule: Schedule, name: str) -> None:
        self._schedule, self.name = schedule, name
        self.store = SimulatedStore(schedule.stage, schedule.random)
        self.store.failures, self.store.steps_max = schedule.plan.failures, schedule.plan.disk_steps
        self.links: list[Link] = []
        self.actor: Actor | None = None
        self.worker: MirrorWorker | None = None
        self.epoch = 0  # of the lease that it believes to hold: it may have lost it without knowing

    @property
    def is_running(self) -> bool:
        """Tell whether there is a process."""
        return self.actor is not None

    @property
    def answers(self) -> bool:
        """Tell whether a request would be read."""
        return self.actor is not None and not self.actor.is_frozen

    @property
    def at(self) -> str:
        """Tell where it stands."""
        return self.actor.at if self.actor is not None else ""

    def start(self) -> None:
        """Start a new process: it knows only its files."""
        self.worker = MirrorWorker(
            COLLECTION,
            WorkerSettings(
                None, Path(), checkpoint_seconds=0.1, copy_save_seconds=0.02, scrub_seconds=self._schedule.plan.scrub
            ),
            StageClock(self._schedule.stage),
            ports=Ports(self._connect, cast("GenerationStore", self.store)),
            lease=lambda: self.epoch,
        )
        plan = self._schedule.plan
        self.actor = self._schedule.stage.enter(self.name, self._run, weight=plan.sidecar_weight, grain=plan.grain)

    def kill(self) -> None:
        """Kill -9; its connections break."""
        self._schedule.stage.note(f"{self.name} is killed")
        actor, self.actor = self.actor, None
        self.worker, self.epoch = None, 0
        if actor is not None:
            self._schedule.stage.leave(actor)
        for link in self.links:
            link.is_cut = True
            link.drop()
        self.links.clear()

    def wake(self) -> None:
        """Tell the worker to read now."""
        if self.worker is not None:
            self.worker.wake()

    def cut(self) -> None:
        """Cut one of its connections."""
        if self.links:
            self._schedule.stage.note(f"a connection of {self.name} is cut")
            self._schedule.random.choice(self.links[-2:]).is_cut = True

    def freeze_or_thaw(self) -> None:
        """SIGSTOP, or SIGCONT."""
        if self.actor is not None:
            self.actor.is_frozen = not self.actor.is_frozen
            self._schedule.stage.note(f"{self.name} is {'frozen' if self.actor.is_frozen else 'thawed'}")

    def _run(self) -> None:
        if self.worker is not None:
            self.worker.run()
        self.actor, self.worker = None, None

    def _link(self) -> Link:
        link = Link(self._schedule.database, self._schedule.stage)
        self.links.append(link)
        return link

    def _connect(self) -> tuple[TableReader, Ledger]:
        reader = cast("TableReader", SimulatedReader(self._link()))
        connection = cast("Any", SimulatedConnection(self._link()))
        return reader, Ledger(connection, COLLECTION, name="main", lease=lambda: self.epoch)


class Session:
    """One application connection: transactions of writes and searches, each search compared with the table."""

    def __init__(self, schedule: Schedule, name: str) -> None:
        self._schedule = schedule
        self.transaction: Transaction | None = None
        self.actor = schedule.stage.enter(name, self._run)

    def _run(self) -> None:
        draw, stage, plan = self._schedule.random, self._schedule.stage, self._schedule.plan
        while not self._schedule.is_ending:
            stage.pause()
            if not self._schedule.database.is_up:
                continue
            try:
                if self.transaction is None or self.transaction.is_lost:
                    self._begin()
                elif self._schedule.database.awaiting is self.transaction:
                    self._write(self.transaction, empties=True)
                elif draw.random() < plan.commit_share / (plan.patience if self.transaction.is_repeatable else 1.0):
                    self._end()
                elif draw.random() < plan.write_share:
                    self._write(self.transaction)
                else:
                    self._search(self.transaction)
            except Busy:
                stage.note("waits for a lock")
            except Conflict:
                self._rollback()
        self._rollback()

    def _begin(self) -> None:
        draw, plan = self._schedule.random, self._schedule.plan
        self.transaction = self._schedule.database.begin(
            is_repeatable=draw.random() < plan.repeatable_share,
            is_synchronous=draw.random() >= plan.asynchronous_share,
        )
        if draw.random() < plan.early_numbers:
            self.transaction.writer()  # it wrote elsewhere first: its number is older than what it does here

    def _end(self) -> None:
        transaction, self.transaction = self.transaction, None
        if transaction is None:
            return
        database, draw = self._schedule.database, self._schedule.random.random()
        if draw < 0.2:
            self._schedule.stage.note(f"rolls back {transaction.xid}")
            database.rollback(transaction)
        elif draw < 0.25:
            self._schedule.stage.note(f"prepares {transaction.xid}")
            database.prepare(transaction)
        else:
            self._schedule.stage.note(f"commits {transaction.xid} {'' if transaction.is_synchronous else 'async'}")
            database.commit(transaction)

    def _rollback(self) -> None:
        transaction, self.transaction = self.transaction, None
        if transaction is not None and not transaction.is_lost:
            self._schedule.database.rollback(transaction)

    def _write(self, transaction: Transaction, *, empties: bool = False) -> None:
        draw, database = self._schedule.random, self._schedule.database
        transaction.statement()
        if not empties:
            database.use_items(transaction)
        key, kind = draw.randrange(KEYS), draw.random()
        if empties or draw.random() < self._schedule.plan.truncates:
            database.truncate(transaction)
            what = "truncates"
        elif kind < 0.55:
            vector = draw.randrange(1, VECTORS)
            database.upsert(transaction, key, vector)
            what = f"puts {key} = {vector}"
        elif kind < 0.7:
            database.delete(transaction, key)
            what = f"deletes {key}"
        elif kind < 0.8:
            target = draw.randrange(KEYS)
            database.move(transaction, key, target)
            what = f"moves {key} to {target}"
        elif kind < 0.86:
            transaction.savepoint()
            what = "savepoint"
        elif kind < 0.92:
            transaction.undo()
            what = "rollback to savepoint"
        else:
            transaction.release()
            what = "release"
        self._schedule.stage.note(f"{what} in {transaction.xid}")

    def _search(self, transaction: Transaction) -> None:
        schedule = self._schedule
        draw, database = schedule.random, schedule.database
        snapshot = transaction.statement()
        database.use_items(transaction)
        query, k = draw.randrange(VECTORS), draw.choice((1, 2, 5))
        schedule.stage.note(f"searches {query} at {snapshot}")

        def candidates(wanted: int) -> overlay.Pool:
            if transaction.is_lost:
                return overlay.Pool(refusal="the server crashed")
            answer = schedule.ask(transaction, query=query, wanted=wanted)
            if transaction.is_lost:
                return overlay.Pool(refusal="the server crashed")
            return overlay.combine(answer, schedule.logged_for(transaction))

        def distances_of(keys: Iterable[str]) -> list[float]:
            found = (database.items.get(int(key), transaction) for key in keys)
            return [float(abs(vector - query)) for vector in found if vector is not None]

        answer = overlay.search(k, candidates, distances_of, slack=draw.choice((0, 1, 8)))
        if isinstance(answer, str):
            schedule.refused += 1
            schedule.reasons[answer] += 1
            schedule.stage.note(f"refused: {answer}")
            return
        exact = sorted(abs(vector - query) for vector in database.items.scan(transaction).values())[:k]
        schedule.answered += 1
        if answer != exact:
            raise WrongAnswer(f"search of {query}, k = {k}, at {snapshot}: {answer} instead of {exact}")


class Schedule:
    """Everything that one seed decides."""

    def __init__(self, seed: int, *, settings: Settings | None = None, trace: bool = False) -> None:
        self.random = random.Random(seed)
        self.plan = Plan.drawn(self.random)
        self.stage = Stage(self.random, trace=[] if trace else None)
        self.database = Database(settings or Settings())
        self.gate: Process | None = None
        self.processes: list[Process] = []
        self.sessions: list[Session] = []
        self._chances = self._possible()
        self.holder: Transaction | None = None
        self.is_ending = self.is_disturbed = False
        self.answered = self.refused = self.audits = self.audits_answered = self.steps = 0
        self._listed: tuple[Any, str] = (None, "")
        self.reasons: Counter[str] = Counter()

    def run(self) -> None:
        """Play it; WrongAnswer or NotSettled says what went wrong."""
        replaced = {"RECENT_CHANGES_MAX": self.plan.recent_max, "DIRTY_KEYS_MAX": self.plan.dirty_max}
        with ExitStack() as stack:
            stack.enter_context(attributes(limits, **LIMITS, **replaced))
            stack.enter_context(attributes(generations, KeyedIndex=SimulatedIndex))
            stack.enter_context(attributes(SimulatedIndex, stage=self.stage))
            stack.enter_context(attributes(scrub, random_share=self.random.random))
            stack.callback(self._close)
            self._fill()
            self._start(Process(self, "sidecar 1"))
            if self.plan.starts_live:
                self._wait_live(self.processes[0])
            self.sessions = [Session(self, f"session {number}") for number in range(1, SESSIONS + 1)]
            for _ in range(self.plan.steps):
                self._disturb()
                self._step()
            self._settle()

    # ---- what a searcher gets ------------------------------------------------------------------------------------

    def ask(self, transaction: Transaction, *, query: int, wanted: int) -> Sequence[object]:
        """Send a search as the database does, and return what comes back."""
        token = self.database.live.get(1, transaction)
        process = self.gate
        if token is None:
            return _refusal("the mirror is not live")
        if process is None or not process.answers or process.worker is None:
            return _refusal("sidecar unreachable")
        started = self.database.started
        fields = (COLLECTION.id, wanted, 0, 10_000, 0, started, DATABASE_OID, token, transaction.snapshot)
        request = SearchRequest.parse(" ".join(map(str, fields)).encode(), _sent(query))
        mirrors = {COLLECTION.id: process.worker.mirror}
        clock = StageClock(self.stage)
        (answer,) = answer_search(mirrors, request, CancelFlag(clock), clock=clock).rows
        if not process.answers or process.worker is None or process.worker.mirror is not mirrors[COLLECTION.id]:
            return _refusal("the sidecar was lost during the search")
        return answer

    def logged_for(self, transaction: Transaction) -> overlay.Logged:
        """Return how a statement reads the changelog beyond a position."""
        rows = self.database.logged
        return lambda position: [(xid, None if key is None else str(key)) for xid, key in rows(transaction, position)]

    # ---- steps -----------------------------------------------------------------------------------------------------

    def _fill(self) -> None:
        setup = self.database.begin(is_repeatable=False, is_synchronous=True)
        for key in range(self.random.randrange(KEYS)):
            self.database.upsert(setup, key, self.random.randrange(1, VECTORS))
        self.database.commit(setup)

    def _start(self, process: Process) -> None:
        if process not in self.processes:
            self.processes.append(process)
        process.start()
        if self.gate is None or self.gate is process or not self.gate.answers:
            self._give_lease(process)

    def _give_lease(self, process: Process) -> None:
        self.stage.note(f"{process.name} has the lease")
        process.epoch, self.gate = self.database.give_lease(process.name), process

    def _wait_live(self, process: Process) -> None:
        for _ in range(SETTLE_STEPS):
            if process.worker is not None and process.worker.mirror.state is MirrorState.LIVE:
                return
            self.stage.step()
        raise NotSettled("the first copy does not end")

    def _step(self) -> None:
        actor = self.stage.step()
        self.steps += 1
        # What a session does changes what it sees itself and what a new snapshot sees; all else changes everything.
        own = [session for session in self.sessions if session.actor is actor]
        self._audit(self.sessions if self.is_disturbed or not own else own)
        self.is_disturbed = False

    def _disturb(self) -> None:
        """Let happen what the plan allows, each kind by its own chance."""
        process, happens = self.random.choice(self.processes), self.random.random
        if process.at.startswith(self.plan.stop_point) and happens() < 0.25:
            self._harm(process, {"kill": process.kill, "crash": self._crash, "cut": process.cut}[self.plan.stop_fault])
        for chance, happen in self._chances:
            if happens() < chance:
                happen(process)
                self.is_disturbed = True

    def _possible(self) -> list[tuple[float, Callable[[Process], None]]]:
        plan = self.plan
        chances: list[tuple[float, Callable[[Process], None]]] = [
            (plan.flush, lambda _: self.database.flush()),
            (0.02, Process.wake),
            (0.02, lambda _: self._finish_prepared()),
            (plan.holds, lambda _: self._hold_or_end()),
            (plan.crash, lambda process: self._harm(process, self._crash)),
            (plan.kill, lambda process: self._harm(process, process.kill)),
            (plan.cut, lambda process: self._harm(process, process.cut)),
            (plan.freeze, Process.freeze_or_thaw),
            (plan.takeover, lambda _: self._take_over()),
            (plan.restart, self._restart),
        ]
        return [each for each in chances if each[0] > 0.0]

    def _harm(self, process: Process, harm: Callable[[], None]) -> None:
        harm()
        self.is_disturbed = True
        if self.random.random() < self.plan.damage:
            process.store.damage()

    def _crash(self) -> None:
        self.stage.note("the server crashes")
        self.database.crash()

    def _take_over(self) -> None:
        if len(self.processes) < PROCESSES_MAX:
            self._start(Process(self, f"sidecar {len(self.processes) + 1}"))

    def _restart(self, process: Process) -> None:
        """Start a process that is not there, or let one that stands by take over from one that is silent."""
        if not process.is_running:
            self._start(process)
        elif process.answers and (self.gate is None or not self.gate.answers):
            self._give_lease(process)

    def _hold_or_end(self) -> None:
        """Let a transaction that writes elsewhere begin, or end: it only holds its number."""
        held, self.holder = self.holder, None
        if held is None or held.is_lost:
            self.holder = self.database.begin(is_repeatable=False, is_synchronous=True)
            self.holder.writer()
        else:
            self.database.commit(held)

    def _finish_prepared(self) -> None:
        for transaction in self.database.active:
            if transaction.status is Status.PREPARED:
                transaction.is_synchronous = True
                if self.random.random() < 0.7:
                    self.database.commit(transaction)
                else:
                    self.database.rollback(transaction)
                return

    def _close(self) -> None:
        for actor in list(self.stage.actors):
            self.stage.leave(actor)

    # ---- checks ----------------------------------------------------------------------------------------------------

    def _audit(self, sessions: Iterable[Session]) -> None:
        """Compare index and table for the snapshots of these sessions, and for one that begins now."""
        process = self.gate
        if process is None or not process.answers or process.worker is None:
            return
        mirror = process.worker.mirror
        if mirror.state is not MirrorState.LIVE or not self.database.is_up:
            return
        for transaction in self._searchers(sessions):
            self.audits += 1
            token = self.database.live.get(1, transaction)
            if token is None or transaction.snapshot is None:
                continue
            try:
                found = mirror.candidates(
                    np.array([FAR], dtype=np.float32), limits.WANTED_MAX, ef=None, snapshot=transaction.snapshot,
                    token=token,
                )  # fmt: skip
            except NotLive:
                continue
            self._compare(transaction, found)

    def _searchers(self, sessions: Iterable[Session]) -> Iterator[Transaction]:
        """Yield the transactions that may search now, each at its statement; and one that begins now."""
        for session in sessions:
            transaction = session.transaction
            if transaction is None or transaction.is_lost:
                continue
            held = transaction.snapshot
            transaction.statement()
            if not self._is_locked_out(transaction):
                yield transaction
            transaction.snapshot = held
        fresh = Transaction(self.database, is_repeatable=False, is_synchronous=True)
        fresh.statement()
        if not self._is_locked_out(fresh):
            yield fresh

    def _is_locked_out(self, transaction: Transaction) -> bool:
        return any(each.truncations for each in self.database.active if each is not transaction)

    def _compare(self, transaction: Transaction, found: Candidates) -> None:
        logged = self.logged_for(transaction)
        if found.keys is not self._listed[0]:
            self._listed = (found.keys, _literal(found.keys))
        answer = (None, found.position, self._listed[1], None, _literal(sorted(found.touched)), None)
        pool = overlay.combine(answer, logged)
        if pool.refusal is not None:
            return
        self.audits_answered += 1
        held = dict(zip(map(str, found.keys), found.distances.tolist(), strict=True))
        indexed = {key: round(held[key] + FAR) for key in pool.keys}
        table = {str(key): vector for key, vector in self.database.items.scan(transaction).items()}
        # A key without a visible row may stand in the index: the join with the table drops it.
        for key, vector in table.items():
            if key not in pool.dirty and indexed.get(key) != vector:
                raise WrongAnswer(
                    f"key {key} at {transaction.snapshot}, claimed {found.position}: index has {indexed.get(key)},"
                    f" table has {vector}, dirty and touched {sorted(pool.dirty)}"
                )

    def _settle(self) -> None:
        """Stop all disturbances: the mirror must become live and equal to its table."""
        self.is_ending = True
        if self.holder is not None and not self.holder.is_lost:
            self.database.commit(self.holder)
        for process in self.processes[:-1]:
            process.kill()
        last = self.processes[-1]
        last.store.failures = 0.0
        if last.actor is not None:
            last.actor.is_frozen = False
        if last.is_running and self.gate is not last:
            self._give_lease(last)
        for _ in range(SETTLE_STEPS):
            while any(each.status is Status.PREPARED for each in self.database.active):
                self._finish_prepared()
            if not last.is_running:
                self._start(last)
            if self._is_settled(last):
                return
            self._step()
        mirror = last.worker.mirror if last.worker is not None else None
        raise NotSettled(f"the mirror is {mirror.state if mirror else 'gone'}: {mirror.reason if mirror else ''}")

    def _is_settled(self, process: Process) -> bool:
        if process.worker is None or any(not session.actor.fiber.dead for session in self.sessions):
            return False
        mirror: Mirror = process.worker.mirror
        reader = Transaction(self.database, is_repeatable=False, is_synchronous=True)
        now = reader.statement()
        if mirror.state is not MirrorState.LIVE or mirror.position is None or not mirror.position.covers(now):
            return False
        table = self.database.items.scan(reader)
        keys, distances = mirror.index.search(np.array([FAR], dtype=np.float32), limits.WANTED_MAX)
        index = {int(key): round(distance + FAR) for key, distance in zip(keys, distances.tolist(), strict=True)}
        if index != table:
            raise WrongAnswer(f"at the end the index holds {index} and the table {table}")
        return True


@contextmanager
def attributes(owner: Any, **values: Any) -> Iterator[None]:
    """Give a module or class other attributes for a while."""
    before = {name: getattr(owner, name, None) for name in values}
    for name, value in values.items():
        setattr(owner, name, value)
    try:
        yield
    finally:
        for name, value in before.items():
            setattr(owner, name, value)


def _sent(query: int) -> bytes:
    """Return a vector of one element as vector_send writes it."""
    return (1).to_bytes(2, "big") + bytes(2) + np.array([query], dtype=">f4").tobytes()


def _refusal(reason: str) -> Sequence[object]:
    return (reason, None, None, None, None, None)


def _literal(keys: Iterable[object]) -> str:
    return "{" + ",".join(f'"{key}"' for key in keys) + "}"
