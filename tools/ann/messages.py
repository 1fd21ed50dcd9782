"""What the parent and the process of an engine send each other."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ann.arrays import Ids
from ann.engines import Plan


@dataclass(frozen=True, slots=True)
class Order:
    """What the worker is started for."""

    engine: str
    plan: Plan
    base_file: Path
    queries_file: Path


@dataclass(frozen=True, slots=True)
class BuildReport:
    """What building cost: seconds, and bytes the process grew by or the engine reports; None where unknown."""

    cpu_s: float | None
    wall_s: float
    rss_bytes: int | None
    size_bytes: int | None
    about: str | None


@dataclass(frozen=True, slots=True)
class Answer:
    """The answers to all queries at one ef, and how long they took."""

    ids: Ids
    qps_cpu: float | None
    qps_wall: float
    p50_ms: float
    p99_ms: float


@dataclass(frozen=True, slots=True)
class Failure:
    """Why the engine cannot go on."""

    reason: str
