"""Play seeded schedules of commits, crashes, kills and searches against the real mirror over a model of PostgreSQL.

    python tools/simulate.py --schedules 2000           # seeds 0 to 1999
    python tools/simulate.py --seed 1234 --trace        # one seed again, step by step
    python tools/simulate.py --without no_horizon       # without a part of the protocol: must be wrong
    python tools/simulate.py --seconds 600              # as many as fit

After every step the index is compared with the table for every snapshot that could search. A seed decides everything,
so the same seed fails again. Exit code 3 when an answer was wrong or the mirror did not become equal to its table.
"""

from __future__ import annotations

import argparse
import itertools
import logging
import sys
import time
from collections import Counter
from pathlib import Path

# PYTHONSAFEPATH keeps the folder of the script away from the search path; the modules stand beside it.
sys.path.insert(0, str(Path(__file__).resolve().parent))

from simulation.model import Settings
from simulation.mutations import MUTATIONS
from simulation.schedule import NotSettled, Schedule, WrongAnswer


def play(seed: int, *, without: str | None, trace: bool) -> tuple[Schedule, str]:
    """Play one schedule; return it and what was wrong, or nothing."""
    settings = Settings()
    schedule = Schedule(seed, settings=settings, trace=trace)
    problem = ""
    try:
        if without is None:
            schedule.run()
        else:
            with MUTATIONS[without](settings):
                schedule.run()
    except (WrongAnswer, NotSettled) as wrong:
        problem = f"{type(wrong).__name__}: {wrong}"
    if trace:
        print("\n".join([*(schedule.stage.trace or ()), str(schedule.plan)]))
    return schedule, problem


def main() -> int:
    """Play, and print what was seen."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--schedules", type=int, default=1000)
    parser.add_argument("--seed", type=int, help="play this one only")
    parser.add_argument("--first", type=int, default=0, help="the first of the seeds")
    parser.add_argument("--seconds", type=float, help="stop after so long instead of after --schedules")
    parser.add_argument("--trace", action="store_true", help="print every step")
    parser.add_argument("--without", choices=sorted(MUTATIONS), help="take a part of the protocol out")
    given = parser.parse_args()
    logging.disable(logging.CRITICAL)  # a mirror says much about faults that are meant to be
    started, used = time.monotonic(), time.process_time()
    seeds = itertools.count(given.first) if given.seconds else range(given.first, given.first + given.schedules)
    counts: Counter[str] = Counter()
    for seed in [given.seed] if given.seed is not None else seeds:
        schedule, problem = play(seed, without=given.without, trace=given.trace)
        counts += Counter(
            schedules=1, steps=schedule.steps, searches=schedule.answered + schedule.refused,
            answered=schedule.answered, audits=schedule.audits, audits_answered=schedule.audits_answered,
        )  # fmt: skip
        if problem:
            counts["wrong"] += 1
            print(f"seed {seed}: {problem}\n  again: python tools/simulate.py --seed {seed} --trace", flush=True)
        if given.seconds and time.monotonic() - started > given.seconds:
            break
    used = time.process_time() - used
    print(
        f"{counts['schedules']} schedules, {counts['steps']} steps, {counts['schedules'] / used * 60:.0f} schedules a"
        f" minute of processor time; {counts['audits']} snapshots audited, {counts['audits_answered']} of them could be"
        f" answered by the index; {counts['searches']} searches raced with the mirror, {counts['answered']} answered by"
        f" it; {counts['wrong']} wrong"
    )
    return 3 if counts["wrong"] else 0


if __name__ == "__main__":
    sys.exit(main())
