"""Facts about the machine and the software, without anything that names this machine."""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

import ruvector
from ann.engines import ENGINES, MISSING_HINT
from ruvector import kernels

PATH_OPTIONS = ("--data", "--scratch", "--output", "--plot", "--markdown", "--input")


def facts() -> dict[str, Any]:
    """Return processor, cores, memory, versions."""
    affinity = getattr(os, "sched_getaffinity", None)
    return {
        "cpu": _cpu_model(),
        "cores": os.cpu_count(),
        "cores_usable": len(affinity(0)) if affinity is not None else os.cpu_count(),
        "memory_bytes": _memory_kib("MemTotal") * 1_024,
        "load_1min_at_start": round(os.getloadavg()[0], 2),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "numpy": np.__version__,
        "ruvector": ruvector.__version__,
        "kernels": str(kernels.simd_info()),
    }


def engine_facts(names: list[str]) -> dict[str, dict[str, Any]]:
    """Return package, version and setup of each engine."""
    return {
        name: {
            "package": engine.package,
            "version": engine.version,
            "setup": engine.setup,
            "status": "installed" if engine.is_installed else MISSING_HINT,
        }
        for name, engine in ((name, ENGINES[name]) for name in names)
    }


def available_bytes() -> int | None:
    """Return the memory that new processes can have, or None where the system does not say."""
    return _memory_kib("MemAvailable") * 1_024 or None


def printable_command(
    words: list[str], *, tool: str = "bench_ann.py", paths: Sequence[str] = PATH_OPTIONS
) -> list[str]:
    """Return the command line with folders cut from paths: results are published, the names of folders are not."""
    shown, before = ["python", f"tools/{tool}"], ""
    for word in words:
        option, equals, value = word.partition("=")
        if before in paths:
            shown.append(Path(word).name)
        elif equals and option in paths:
            shown.append(f"{option}={Path(value).name}")
        else:
            shown.append(word)
        before = word
    return shown


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.processor())


def _memory_kib(name: str) -> int:
    """Return a line of /proc/meminfo, 0 where there is none."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith(f"{name}:")), 0)
