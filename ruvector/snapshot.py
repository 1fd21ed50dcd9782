"""PostgreSQL snapshots (pg_snapshot) as sets of transactions: visibility, difference, coverage. Pure arithmetic."""

from __future__ import annotations

from dataclasses import dataclass

from ruvector.errors import InvalidParameter


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The transactions whose changes somebody sees: all below ``xmin``, and those below ``xmax`` not in ``xip``."""

    xmin: int
    xmax: int
    xip: frozenset[int]

    @classmethod
    def parse(cls, text: str) -> Snapshot:
        """Read the text form ``xmin:xmax:xip,xip``; InvalidParameter when it is not one."""
        try:
            xmin, xmax, xip = text.split(":")
            parsed = cls(int(xmin), int(xmax), frozenset(map(int, filter(None, xip.split(",")))))
        except ValueError:
            raise InvalidParameter(f"{text!r} is not a pg_snapshot", hint="Send pg_current_snapshot()::text.") from None
        if parsed.xmin > parsed.xmax:
            raise InvalidParameter(f"{text!r} is not a pg_snapshot: xmin is above xmax")
        return parsed

    def __str__(self) -> str:
        return f"{self.xmin}:{self.xmax}:{','.join(str(xid) for xid in sorted(self.xip))}"

    def sees(self, xid: int) -> bool:
        """Tell whether the changes of this transaction are visible (pg_visible_in_snapshot)."""
        return xid < self.xmin or (xid < self.xmax and xid not in self.xip)

    def covers(self, other: Snapshot) -> bool:
        """Tell whether every transaction visible in ``other`` is visible here."""
        if any(other.sees(xid) for xid in self.xip):
            return False
        return all(xid in other.xip for xid in range(self.xmax, other.xmax))
