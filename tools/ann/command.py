"""The command line of tools/bench_ann.py: what to compare, and where the results go."""

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

from ann import datasets, report
from ann.arrays import K
from ann.engines import ENGINES, Plan
from ann.machine import available_bytes, engine_facts, facts, printable_command
from ann.rounds import compare

FORMAT = 1  # of the JSON file
EFS = (10, 15, 20, 30, 40, 60, 80, 120, 160, 240, 320, 480, 640)
SETS = ("fashion-mnist-784", "debian-25k-384", "glove-100k-100")
INDEX_SHARE = 1.4  # of the raw rows: a guess at an index with its links, for the warning about memory


def parser() -> argparse.ArgumentParser:
    """Return the options."""
    beside = Path(__file__).resolve().parents[3] / "shared" / "data"
    options = argparse.ArgumentParser(description="Compare ruvector with its peers; see tools/bench_ann.py.")
    options.add_argument("--sets", nargs="+", choices=list(datasets.NAMES), default=list(SETS), metavar="SET")
    options.add_argument("--engines", nargs="+", choices=list(ENGINES), default=list(ENGINES), metavar="ENGINE")
    options.add_argument("--list", action="store_true", help="show engines and data sets, measure nothing")
    options.add_argument("--ef", nargs="+", type=int, default=list(EFS))
    options.add_argument("--threads", nargs="+", type=int, default=[1], help="each number is a comparison of its own")
    options.add_argument("--rounds", type=int, default=3, help="measurements of each point; the median counts")
    options.add_argument("--rows", type=int, help="only so many rows of each set; the truth is found anew")
    options.add_argument("--queries", type=int, default=1_000, help="only so many queries of each set")
    options.add_argument("--m", type=int, default=16)
    options.add_argument("--ef-construction", type=int, default=200)
    options.add_argument("--seed", type=int, default=1, help="of the made-up sets")
    options.add_argument("--latent", type=int, default=24, help="latent dimensions of the made-up sets")
    options.add_argument("--data", type=Path, default=Path(os.environ.get("RUVECTOR_SHARED_DATA", beside)))
    options.add_argument("--scratch", type=Path, help="folder for rows as files; their size is needed there")
    options.add_argument("--output", type=Path, help="write everything as JSON")
    options.add_argument("--input", type=Path, help="measure nothing, report what --output wrote earlier")
    options.add_argument("--plot", type=Path, help="draw recall against queries per second as PNG")
    options.add_argument("--markdown", type=Path, help="write or replace a section of this file")
    options.add_argument("--section", default="ann", help="name of that section")
    return options


def main(words: Sequence[str] | None = None) -> int:
    """Run the comparison; exit code 1 when an engine failed."""
    words = sys.argv[1:] if words is None else list(words)
    given = parser().parse_args(words)
    if given.list:
        print(listing(given.data))
        return 0
    if min([*given.ef, *given.threads, given.rounds, given.queries]) < 1 or (given.rows or K) < K:
        print(f"ef, threads, rounds and queries begin at 1, rows at {K}", file=sys.stderr)
        return 2
    if given.plot is not None and find_spec("matplotlib") is None:
        print("--plot needs matplotlib: pip install ruvector[bench]", file=sys.stderr)
        return 2
    if given.input is not None:
        result = json.loads(given.input.read_text(encoding="utf-8"))
        if result.get("tool") != "bench_ann" or result.get("format") != FORMAT:
            print(f"{given.input} was not written by this version of bench_ann", file=sys.stderr)
            return 2
    else:
        result = measure(given, list(words))
    if not result["runs"]:
        print("nothing was measured")
        return 0
    if given.plot is not None:
        report.plot(given.plot, result)
    if given.markdown is not None:
        report.write_section(given.markdown, report.markdown(result), name=given.section)
    failed = [name for run in result["runs"] for name, engine in run["engines"].items() if engine["status"] != "ok"]
    return 1 if failed else 0


def measure(given: argparse.Namespace, words: list[str]) -> dict[str, Any]:
    """Compare the engines on every set with every number of threads; the JSON file grows with each comparison."""
    names = list(dict.fromkeys(given.engines))
    result: dict[str, Any] = {
        "tool": "bench_ann",
        "format": FORMAT,
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "command": printable_command(words),
        "machine": facts(),
        "settings": {
            name: getattr(given, name)
            for name in ("ef", "rounds", "rows", "queries", "m", "ef_construction", "seed", "latent")
        },
        "engines": engine_facts(names),
        "method": list(report.METHOD),
        "runs": [],
    }
    print(f"{result['machine']['cpu']}, {result['machine']['kernels']}")
    print("\n".join(report.METHOD))
    for name, engine in result["engines"].items():
        print(f"{name}: {engine['version'] or engine['status']}; {engine['setup']}")
    for set_name in dict.fromkeys(given.sets):
        if not datasets.is_there(set_name, given.data):
            print(f"skipped: {set_name} is not in {given.data} (give --data DIR)")
            continue
        with tempfile.TemporaryDirectory(prefix="bench-ann-", dir=given.scratch) as scratch:
            choice = datasets.Choice(given.data, given.rows, given.queries, given.seed, given.latent)
            data = datasets.load(set_name, choice, scratch=Path(scratch))
            _warn_of_memory(data, len(names))
            for threads in dict.fromkeys(given.threads):
                plan = Plan(data.metric, given.m, given.ef_construction, threads, Path(scratch))
                run = compare(data, names, plan=plan, efs=given.ef, rounds=given.rounds, say=_say)
                result["runs"].append(run)
                for name, engine in run["engines"].items():
                    result["engines"][name]["about"] = engine.get("about")
                _show(run, result["engines"])
                if given.output is not None:
                    report.write_json(given.output, result)
    return result


def listing(data: Path) -> str:
    """Return engines with their versions and data sets, one a line."""
    engines = [
        f"{name:<18} {about['version'] or '-':<10} {about['status']}"
        for name, about in engine_facts(list(ENGINES)).items()
    ]
    sets = [f"{name:<18} {'' if datasets.is_there(name, data) else 'not there (give --data DIR)'}".rstrip()
            for name in datasets.NAMES]  # fmt: skip
    return "\n".join(["engines:", *engines, "sets:", *sets])


def _say(line: str) -> None:
    print(line, flush=True)


def _show(run: dict[str, Any], engines: dict[str, dict[str, Any]]) -> None:
    print(f"\n{report.title(run)}")
    print(report.text_table(report.POINT_COLUMNS, report.points(run)))
    print()
    print(report.text_table(report.COLUMNS, report.summary(run, engines)), flush=True)


def _warn_of_memory(data: datasets.DataSet, engines: int) -> None:
    """Say so when the indexes of all engines, which are in memory at the same time, may not fit."""
    free = available_bytes()
    needed = int(data.base.nbytes * (1 + INDEX_SHARE * engines))
    print(f"\n{data.name}: {len(data.base)} rows", flush=True)
    if free is not None and needed > free:
        print(
            f"  {engines} engines may need {needed / 2**30:.0f} GiB of {free / 2**30:.0f} GiB free: "
            "give fewer --engines or --rows"
        )
