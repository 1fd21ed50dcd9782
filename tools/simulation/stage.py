"""Actors as coroutines: one runs at a time, and who goes on at a yield is for the seed to say."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from dataclasses import dataclass, field

from greenlet import GreenletExit, getcurrent, greenlet


@dataclass(eq=False)
class Actor:
    """One flow of control, and when it may go on."""

    name: str
    fiber: greenlet
    weight: float = 1.0
    until: float = 0.0
    event: threading.Event | None = None
    is_frozen: bool = False
    grain: float = 1.0  # share of its yields at which others may really go on
    at: str = ""  # what it is about to do, or has just done

    def is_ready(self, now: float) -> bool:
        """Tell whether it has something to do."""
        if self.is_frozen or self.fiber.dead:
            return False
        return now >= self.until or (self.event is not None and self.event.is_set())


@dataclass
class Stage:
    """The actors of one schedule, their common random numbers and their clock."""

    random: random.Random
    seconds: float = 0.0
    actors: list[Actor] = field(default_factory=list)
    trace: list[str] | None = None

    def __post_init__(self) -> None:
        self.hub = getcurrent()
        self._chosen: Actor | None = None

    def enter(self, name: str, run: Callable[[], None], *, weight: float = 1.0, grain: float = 1.0) -> Actor:
        """Add an actor; it starts when it is chosen."""
        actor = Actor(name, greenlet(run, parent=self.hub), weight, grain=grain)
        self.actors.append(actor)
        return actor

    def leave(self, actor: Actor) -> None:
        """End an actor where it stands, as kill -9 does."""
        if actor in self.actors:
            self.actors.remove(actor)
        if not actor.fiber.dead:
            actor.fiber.throw(GreenletExit)

    def step(self) -> Actor | None:
        """Let one actor go on to its next yield."""
        self.seconds += self.random.random() * 0.02
        ready = [actor for actor in self.actors if actor.is_ready(self.seconds)]
        if not ready:
            waiting = [actor.until for actor in self.actors if not actor.is_frozen and not actor.fiber.dead]
            if not waiting:
                return None
            self.seconds = max(self.seconds, min(waiting))
            return self.step()
        actor = self.random.choices(ready, [each.weight for each in ready])[0]
        actor.until, actor.event = 0.0, None
        self._chosen = actor
        actor.fiber.switch()
        return actor

    def pause(self, what: str = "") -> None:
        """Yield: anything may happen before this returns."""
        if not self.is_on():
            return
        self.note(what)
        actor = self._current()
        actor.at = what
        if actor.grain == 1.0 or actor.until or self.random.random() < actor.grain:
            self.hub.switch()

    def note(self, what: str) -> None:
        """Write a line of the trace."""
        if self.trace is not None and what:
            name = self._current().name if self.is_on() else "-"
            self.trace.append(f"{self.seconds:8.3f} {name:>9} {what}")

    def _current(self) -> Actor:
        if self._chosen is None:
            raise RuntimeError("no actor runs")
        return self._chosen

    def is_on(self) -> bool:
        """Tell whether an actor runs now, not the one who watches."""
        return getcurrent() is not self.hub

    def wait(self, event: threading.Event | None, seconds: float) -> bool:
        """Yield until the event is set or the time is over."""
        actor = self._current()
        actor.until, actor.event = self.seconds + seconds, event
        self.pause("waits")
        return event is not None and event.is_set()


@dataclass(frozen=True)
class StageClock:
    """The clock of a stage."""

    stage: Stage

    def now(self) -> float:
        """Return seconds since the schedule began."""
        return self.stage.seconds

    def sleep(self, seconds: float) -> None:
        """Let others go on."""
        self.stage.wait(None, seconds)

    def wait(self, event: threading.Event, seconds: float) -> bool:
        """Let others go on until the event is set."""
        return event.is_set() or self.stage.wait(event, seconds)
