"""The command line of tools/bench_filter.py: what to measure, and where the results go."""

from __future__ import annotations

import argparse
import datetime
import json
import os
import sys
import tempfile
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from ann import datasets
from ann.arrays import K
from ann.engines import ENGINES, MISSING_HINT, Plan
from ann.machine import facts, printable_command
from ann.report import text_table, write_json, write_section
from filtering import report, servers
from filtering.attributes import with_attributes
from filtering.cases import cases_of
from filtering.engines import IN_PROCESS
from filtering.rounds import compare

FORMAT = 1  # of the JSON file
SETS = {
    "debian": "debian-25k-384",
    "words": "glove-100k-100",
    "fashion": "fashion-mnist-784",
    "synthetic": "synthetic-1m-128",
}
ENGINE_NAMES = (*IN_PROCESS, *servers.NAMES)
SHARES = (0.0001, 0.001, 0.01, 0.1, 0.5)
EFS = (40, 120, 400)
QUICK: dict[str, Any] = {"selectivity": [0.001, 0.1], "queries": 20, "ef": [40, 200], "rounds": 1, "seconds": 1.0}
PATH_OPTIONS = ("--folder", "--scratch", "--json", "--plot", "--markdown", "--input")


def parser() -> argparse.ArgumentParser:
    """Return the options."""
    beside = Path(__file__).resolve().parents[3] / "shared" / "data"
    options = argparse.ArgumentParser(
        description="Measure filtered search beside other engines; see tools/bench_filter.py."
    )
    options.add_argument("--data", nargs="+", default=["debian"], metavar="SET",
                         help=f"{', '.join(SETS)}; synthetic:N has N rows (default: debian)")  # fmt: skip
    options.add_argument("--engines", nargs="+", choices=ENGINE_NAMES, default=list(ENGINE_NAMES), metavar="ENGINE",
                         help=f"of {', '.join(ENGINE_NAMES)} (default: all that are installed)")  # fmt: skip
    options.add_argument("--selectivity", nargs="+", type=float, default=list(SHARES), metavar="SHARE",
                         help="of the rows that pass, 0.01 is 1 %% (default: 0.0001 to 0.5)")  # fmt: skip
    options.add_argument("--ef", nargs="+", type=int, default=list(EFS),
                         help="ruvector is measured with its default, too (default: 40 120 400)")  # fmt: skip
    options.add_argument("--queries", type=int, default=200)
    options.add_argument("--rows", type=int, help="only so many rows of a real set")
    options.add_argument("--rounds", type=int, default=3, help="measurements of each point; the median counts")
    options.add_argument("--seconds", type=float, default=5.0, help="at most for the queries of one point in one round")
    options.add_argument("--quick", action="store_true", help="few queries, two selectivities, one round")
    options.add_argument("--m", type=int, default=16)
    options.add_argument("--ef-construction", type=int, default=200)
    options.add_argument("--threads", type=int, default=os.cpu_count() or 1, help="of the builds; searches use one")
    options.add_argument("--seed", type=int, default=1)
    options.add_argument("--folder", type=Path, default=Path(os.environ.get("RUVECTOR_SHARED_DATA", beside)),
                         help="where the real sets are")  # fmt: skip
    options.add_argument("--scratch", type=Path, help="folder for rows as files; their size is needed there")
    options.add_argument("--json", type=Path, help="write everything as JSON")
    options.add_argument("--input", type=Path, help="measure nothing, report what --json wrote earlier")
    options.add_argument("--plot", type=Path, help="draw p50 over selectivity as PNG")
    options.add_argument("--markdown", type=Path, help="write or replace a section of this file")
    options.add_argument("--section", default="filter", help="name of that section")
    options.add_argument("--details", action="store_true", help="print every point, not only the summary")
    return options


def main(words: Sequence[str] | None = None) -> int:
    """Measure, print the tables; exit code 1 when an engine failed."""
    words = sys.argv[1:] if words is None else list(words)
    options = parser()
    given = options.parse_args(words)
    if given.quick:
        options.set_defaults(**QUICK)  # what is given stays
        given = options.parse_args(words)
    problem = _problem(given)
    if problem is not None:
        print(problem, file=sys.stderr)
        return 2
    if given.input is not None:
        result = json.loads(given.input.read_text(encoding="utf-8"))
        if result.get("tool") != "bench_filter" or result.get("format") != FORMAT:
            print(f"{given.input} was not written by this version of bench_filter", file=sys.stderr)
            return 2
        for run in result["runs"]:
            _show(run, details=given.details)
    else:
        result = measure(given, list(words))
    if not result["runs"]:
        print("nothing was measured")
        return 0
    if given.plot is not None:
        report.plot(given.plot, result)
    if given.markdown is not None:
        write_section(given.markdown, report.markdown(result), name=given.section)
    return 1 if any(run["failed"] for run in result["runs"]) else 0


def measure(given: argparse.Namespace, words: list[str]) -> dict[str, Any]:
    """Measure every set; the JSON file grows with each."""
    names = list(dict.fromkeys(given.engines))
    result: dict[str, Any] = {
        "tool": "bench_filter",
        "format": FORMAT,
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "command": printable_command(words, tool="bench_filter.py", paths=PATH_OPTIONS),
        "machine": facts(),
        "settings": {
            name: getattr(given, name)
            for name in ("selectivity", "ef", "queries", "rows", "rounds", "seconds", "m", "ef_construction", "seed")
        },
        "engines": {name: _about(name) for name in names},
        "method": list(report.METHOD),
        "runs": [],
    }
    print(f"{result['machine']['cpu']}, {result['machine']['kernels']}")
    for name, about in result["engines"].items():
        print(f"{name}: {about['status']}; {about['setup']}")
    for told in dict.fromkeys(given.data):
        name, rows = _set_of(told)
        if not datasets.is_there(name, given.folder):
            print(f"skipped: {name} is not in {given.folder} (give --folder DIR)")
            continue
        with tempfile.TemporaryDirectory(prefix="bench-filter-", dir=given.scratch) as scratch:
            choice = datasets.Choice(given.folder, rows or given.rows, given.queries, given.seed, latent=24)
            data = datasets.load(name, choice, scratch=Path(scratch))
            print(f"\n{name}: {len(data.base):,} rows", flush=True)
            attributed = with_attributes(data, given.folder, seed=given.seed)
            cases = cases_of(attributed, given.selectivity, given.folder, seed=given.seed)
            plan = Plan(data.metric, given.m, given.ef_construction, given.threads, Path(scratch))
            run = compare(
                attributed,
                cases,
                [each for each in names if ENGINES[each].is_installed],
                plan=plan,
                efs=tuple(given.ef),
                rounds=given.rounds,
                seconds=given.seconds,
                say=_say,
            )
        result["runs"].append(run)
        _show(run, details=given.details)
        if given.json is not None:
            write_json(given.json, result)
    return result


def _problem(given: argparse.Namespace) -> str | None:
    """Return what cannot be done as it was asked."""
    for told in given.data:
        name, colon, rows = told.partition(":")
        if name not in SETS or (colon and not (name == "synthetic" and rows.isdigit() and int(rows) >= K)):
            return f"unknown set {told}: give {', '.join(SETS)} or synthetic:N with N from {K} on"
    if min([*given.ef, given.rounds, given.queries, given.threads]) < 1 or (given.rows or K) < K:
        return f"ef, rounds, queries and threads begin at 1, rows at {K}"
    if not all(0 < share <= 1 for share in given.selectivity):
        return "a selectivity is above 0 and at most 1"
    if given.plot is not None and find_spec("matplotlib") is None:
        return "--plot needs matplotlib: pip install ruvector[bench]"
    return None


def _set_of(told: str) -> tuple[str, int | None]:
    """Return the name of a set among those of bench_ann, and its rows where they are given."""
    name, _, rows = told.partition(":")
    return SETS[name], int(rows) if rows else None


def _about(name: str) -> dict[str, str]:
    needed = ENGINES[name]
    return {
        "status": needed.version or "installed" if needed.is_installed else MISSING_HINT,
        "setup": IN_PROCESS[name].setup if name in IN_PROCESS else servers.NAMES[name],
    }


def _say(line: str) -> None:
    print(line, flush=True)


def _show(run: dict[str, Any], *, details: bool) -> None:
    print(f"\n{report.title(run)}")
    if details:
        print(report.details(run, text_table), end="\n\n")
    for heading, table in report.summary(run, text_table):
        print(f"{heading}:\n{table}\n")
    print("\n".join(report.verdict(run)), flush=True)
