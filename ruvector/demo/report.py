"""What a demonstration found: steps with their checks, and the rows of the final table."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from rich.console import Console

from ruvector.clock import Clock


@dataclass(frozen=True, slots=True)
class Check:
    """One statement that was tried."""

    text: str
    held: bool


@dataclass(slots=True)
class Step:
    """One step with its checks; it holds when all of them do and there is one."""

    title: str
    checks: list[Check] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def held(self) -> bool:
        """Tell whether the step held."""
        return bool(self.checks) and all(check.held for check in self.checks)


@dataclass(frozen=True, slots=True)
class Contestant:
    """One row of the final table: recall@10 as a share, times in milliseconds, build in seconds (None: nothing)."""

    engine: str
    recall_at_10: float
    p50_ms: float
    p99_ms: float
    build_seconds: float | None


class Report:
    """Collects what happens and shows it at once."""

    def __init__(self, screen: Console, clock: Clock) -> None:
        self.screen = screen
        self.steps: list[Step] = []
        self.contestants: list[Contestant] = []
        self.facts: dict[str, object] = {}
        self._clock = clock
        self._started = self._step_started = clock.now()

    @property
    def held(self) -> bool:
        """Tell whether every step held."""
        return bool(self.steps) and all(step.held for step in self.steps)

    @property
    def seconds(self) -> float:
        """Return the seconds since the start."""
        return self._clock.now() - self._started

    def begin(self, title: str) -> None:
        """Begin the next step."""
        self.end()
        self.steps.append(Step(title))
        self._step_started = self._clock.now()
        self.screen.print(f"\n{len(self.steps)}. {title}", style="bold")

    def end(self) -> None:
        """End the step that runs, if any."""
        if self.steps and not self.steps[-1].seconds:
            self.steps[-1].seconds = self._clock.now() - self._step_started

    def check(self, text: str, *, held: bool) -> None:
        """Record and show whether something held."""
        self.steps[-1].checks.append(Check(text, held))
        self.screen.print(f"   {'ok  ' if held else 'FAIL'} {text}", style="green" if held else "bold red")

    def say(self, text: str) -> None:
        """Show a line that is no check."""
        self.screen.print(f"   {text}")

    def document(self) -> dict[str, Any]:
        """Return everything, ready for JSON."""
        return {
            "held": self.held,
            "seconds": round(self.seconds, 1),
            **self.facts,
            "steps": [{**asdict(step), "held": step.held} for step in self.steps],
            "comparison": [asdict(contestant) for contestant in self.contestants],
        }
