"""The verification that always runs: a slice now and then, so that no difference lives longer than a cycle."""

from __future__ import annotations

from ruvector import limits
from ruvector.capture.reader import TableReader
from ruvector.clock import Clock, random_share
from ruvector.mirror.state import Mirror
from ruvector.mirror.verify import Verification


class Scrub:
    """Compares table and index slice by slice, repairs what differs, and begins again.

    The slices are spread over a cycle, with jitter so that several mirrors do not fall into step; where that would
    take more than its share of the time, the cycle grows longer instead.
    """

    def __init__(self, clock: Clock, *, cycle_seconds: float) -> None:
        """Start with a pause."""
        self._clock = clock
        self._cycle_seconds = cycle_seconds
        self._due_at: float | None = None
        self._began_at = 0.0
        self._work: Verification | None = None
        self._cycles = 0
        self._last: dict[str, object] = {}

    def step(self, mirror: Mirror, reader: TableReader) -> dict[str, object] | None:
        """Do a slice when one is due; return what differed in it, None when nothing did."""
        now = self._clock.now()
        if self._due_at is None:
            self._put_off(mirror, reader, cost=0.0)
            return None
        if now < self._due_at:
            return None
        if self._work is None:
            # Somewhere at first: a process that never lives for a whole cycle meets every row at some time, too.
            self._work = Verification(repair=True, after=None if self._cycles else _some_key(mirror))
            self._began_at = now
        before = self._work.findings.differences
        self._work.step(mirror, reader)
        findings = self._work.findings
        differed = findings.differences > before
        report = findings.report()
        if self._work.is_done:
            self._cycles += 1
            self._last = {
                "rows": findings.checked,
                "differences": findings.differences,
                "seconds": round(self._clock.now() - self._began_at, 3),
            }
            self._work = None
        mirror.verified = {
            "cycles": self._cycles,
            "rows": 0 if self._work is None else findings.checked,
            "differences": findings.differences,
            "last": self._last,
        }
        self._put_off(mirror, reader, cost=self._clock.now() - now)
        return report if differed else None

    def _put_off(self, mirror: Mirror, reader: TableReader, *, cost: float) -> None:
        slices = max(1.0, len(mirror.index) / reader.slice_rows)
        pause = max(self._cycle_seconds / slices, cost / limits.SCRUB_SHARE_MAX)
        self._due_at = self._clock.now() + pause * (0.5 + random_share())


def _some_key(mirror: Mirror) -> str | None:
    keys = mirror.index.keys()
    return str(keys[int(random_share() * len(keys))]) if len(keys) else None
