"""Measure where the time of a search through SQL goes, beside pgvector's own index at equal recall.

    python tools/bench_bridge.py --set fashion-mnist-784 --markdown docs/bridge.md
    python tools/bench_bridge.py --set demo-wordnet-12k --clients 1 8

Starts an embedded PostgreSQL with a sidecar, loads the rows, builds both indexes and asks, step by step: an empty
statement, an empty function, an empty question to the sidecar, the engine in this process, the functions of the search
from the inside out, the whole, and pgvector. One client asks every step for one query before it takes the next query.
Several clients are processes with a connection each; they run one step after the other, in several rounds.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from pathlib import Path

# PYTHONSAFEPATH keeps the folder of the script away from the search path; the modules stand beside it.
sys.path.insert(0, str(Path(__file__).resolve().parent))

from ann import datasets, report
from ann.bridge import Question, measure
from ann.engines import Plan


def parser() -> argparse.ArgumentParser:
    """Return the options."""
    beside = Path(__file__).resolve().parents[2] / "shared" / "data"
    options = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    options.add_argument("--set", choices=list(datasets.NAMES), default="demo-wordnet-12k", metavar="SET")
    options.add_argument("--rows", type=int, help="only so many rows of the set; the truth is found anew")
    options.add_argument("--queries", type=int, default=500)
    options.add_argument("--recall", type=float, default=0.97, help="both engines get the smallest ef that reaches it")
    options.add_argument("--clients", type=int, nargs="+", default=[1, 8])
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument("--seconds", type=float, default=2.0, help="of each step in each round with several clients")
    options.add_argument("--m", type=int, default=16)
    options.add_argument("--ef-construction", type=int, default=200)
    options.add_argument("--threads", type=int, default=os.cpu_count() or 1, help="of the builds")
    options.add_argument("--seed", type=int, default=1, help="of the made-up sets")
    options.add_argument("--latent", type=int, default=24, help="latent dimensions of the made-up sets")
    options.add_argument("--data", type=Path, default=Path(os.environ.get("RUVECTOR_SHARED_DATA", beside)))
    options.add_argument("--scratch", type=Path, help="folder for rows as files; their size is needed there")
    options.add_argument("--markdown", type=Path, help="write or replace a section of this file, named as the set")
    return options


def main() -> int:
    """Measure one set and print the tables."""
    given = parser().parse_args()
    if not datasets.is_there(given.set, given.data):
        print(f"skipped: {given.set} is not in {given.data} (give --data DIR)")
        return 0
    with tempfile.TemporaryDirectory(prefix="bench-bridge-", dir=given.scratch) as scratch:
        choice = datasets.Choice(given.data, given.rows, given.queries, given.seed, given.latent)
        data = datasets.load(given.set, choice, scratch=Path(scratch))
        plan = Plan(data.metric, given.m, given.ef_construction, given.threads, Path(scratch))
        question = Question(given.recall, tuple(given.clients), given.rounds, given.seconds)
        text = measure(data, plan, question)
    print(text)
    if given.markdown is not None:
        report.write_section(given.markdown, text, name=f"bridge {given.set}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
