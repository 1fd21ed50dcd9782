"""Measure what shadow traffic costs the searches: the same queries without it, at 5 %, and with every one sampled.

    python tools/bench_shadow.py --set demo-wordnet-12k --markdown docs/cutover.md

Starts an embedded PostgreSQL with a sidecar, loads the rows, builds both indexes, and lets pgvector answer. The three
states take turns, in several rounds; each block asks every query once over one connection.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from contextlib import closing
from pathlib import Path
from statistics import median
from typing import Any

# PYTHONSAFEPATH keeps the folder of the script away from the search path; the modules stand beside it.
sys.path.insert(0, str(Path(__file__).resolve().parent))

import psycopg

from ann import datasets, report
from ann.arrays import Floats
from ann.curves import percentile
from ann.engines import Plan
from ann.machine import facts
from ann.servers import Searcher, Stand, ruvector_query

STATES = {
    "off": "SELECT ruvector_rollback('rows')",
    "shadow, 5 %": "SELECT ruvector_shadow_start('rows', 0.05)",
    "shadow, every search": "SELECT ruvector_shadow_start('rows', 1)",
}
EF = 40
WARM_UP_QUERIES = 20  # the first sample of a session opens a connection
COMPARED = "SELECT count(*) FROM ruvector.shadow_pair"


def parser() -> argparse.ArgumentParser:
    """Return the options."""
    beside = Path(__file__).resolve().parents[2] / "shared" / "data"
    options = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    options.add_argument("--set", choices=list(datasets.NAMES), default="demo-wordnet-12k", metavar="SET")
    options.add_argument("--rows", type=int, help="only so many rows of the set; the truth is found anew")
    options.add_argument("--queries", type=int, default=500)
    options.add_argument("--rounds", type=int, default=5)
    options.add_argument("--pause-ms", type=float, default=2.0, help="between two searches, as an application has")
    options.add_argument("--seed", type=int, default=1, help="of the made-up sets")
    options.add_argument("--latent", type=int, default=24, help="latent dimensions of the made-up sets")
    options.add_argument("--data", type=Path, default=Path(os.environ.get("RUVECTOR_SHARED_DATA", beside)))
    options.add_argument("--markdown", type=Path, help="write or replace a section of this file, named as the set")
    return options


def measure(stand: Stand, queries: Floats, *, rounds: int, pause: float) -> dict[str, dict[str, list[float]]]:
    """Return p50 and p99 of each round in ms, and how many samples were compared, for each state."""
    found: dict[str, dict[str, list[float]]] = {state: {"p50": [], "p99": [], "compared": []} for state in STATES}
    with closing(stand.connect()) as connection:
        searcher = Searcher(connection, ruvector_query(EF))
        for _ in range(rounds):
            for state, step in STATES.items():
                stand.connection.execute(step.encode())
                for query in queries[:WARM_UP_QUERIES]:
                    searcher.one(query)
                before = _settled(stand.connection)
                times = []
                for query in queries:
                    started = time.perf_counter()
                    searcher.one(query)
                    times.append((time.perf_counter() - started) * 1000)
                    time.sleep(pause)
                found[state]["p50"].append(percentile(times, 0.5))
                found[state]["p99"].append(percentile(times, 0.99))
                found[state]["compared"].append(_settled(stand.connection) - before)
    return found


def _count(connection: psycopg.Connection[Any]) -> int:
    row = connection.execute(COMPARED.encode()).fetchone()
    return int(row[0]) if row else 0


def _settled(connection: psycopg.Connection[Any]) -> int:
    """Return how many samples were compared, once none is any more."""
    last = -1
    while (now := _count(connection)) != last:
        last = now
        time.sleep(1.0)
    return now


def table(found: dict[str, dict[str, list[float]]], queries: int) -> str:
    """Return the medians of the rounds, and the ratio of each to that without shadow traffic in the same round."""
    lines = []
    for state, values in found.items():
        ratios = [
            median(own / base for own, base in zip(values[each], found["off"][each], strict=True))
            for each in ("p50", "p99")
        ]
        lines.append(
            [
                state,
                f"{median(values['p50']):.2f}",
                f"{ratios[0]:.2f}x",
                f"{median(values['p99']):.2f}",
                f"{ratios[1]:.2f}x",
                f"{median(values['compared']) / queries:.1%}",
            ]
        )
    columns = ("state", "p50, ms", "of off", "p99, ms", "of off", "searches compared")
    return report.markdown_table(columns, lines)


def main() -> int:
    """Measure one set and print the table."""
    given = parser().parse_args()
    if not datasets.is_there(given.set, given.data):
        print(f"skipped: {given.set} is not in {given.data} (give --data DIR)")
        return 0
    with tempfile.TemporaryDirectory(prefix="bench-shadow-") as scratch:
        choice = datasets.Choice(given.data, given.rows, given.queries, given.seed, given.latent)
        data = datasets.load(given.set, choice, scratch=Path(scratch))
        plan = Plan(data.metric, 16, 200, os.cpu_count() or 1, Path(scratch))
        with closing(Stand(data.base, plan)) as stand:
            stand.create_index(plan)
            stand.start_sidecar(plan)
            stand.attach(plan)
            found = measure(stand, data.queries, rounds=given.rounds, pause=given.pause_ms / 1000)
    about = facts()
    text = (
        f"{data.name}, {len(data.base)} rows; {len(data.queries)} queries in each of {given.rounds} rounds, "
        f"{given.pause_ms:g} ms apart, one connection; pgvector answers (m 16, ef 40). {about['cpu']}, "
        f"{about['cores_usable']} cores; load {about['load_1min_at_start']}.\n\n"
        + table(found, len(data.queries))
        + "\n"
    )
    print(text)
    if given.markdown is not None:
        report.write_section(given.markdown, text, name=f"shadow {given.set}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
