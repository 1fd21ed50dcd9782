"""Schedules of the simulator (tools/simulation): the mirror is right in all, and wrong with any part taken out."""

import inspect
import logging
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

from ruvector.capture.reader import TableReader
from ruvector.store import GenerationStore
from simulation.model import Settings
from simulation.mutations import MUTATIONS, RARE
from simulation.ports import SimulatedReader, SimulatedStore
from simulation.schedule import Schedule, WrongAnswer

SCHEDULES = 150
# Seeds that found something, or that are the first to notice that a part is missing.
SEEDS = (0, 8, 12, 15, 19, 24, 65, 116, 333)
HINTS = {"trim_by_current_checkpoint": 22, "no_token": 132, "no_horizon": 2228}  # where the search is long
SEARCHED = 2_000  # seeds in which a missing part must be noticed; most are in the first twenty


@pytest.fixture(autouse=True)
def quiet():
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


def play(seed, settings=None):
    schedule = Schedule(seed, settings=settings)
    try:
        schedule.run()
    except AssertionError as wrong:
        raise AssertionError(f"again: python tools/simulate.py --seed {seed} --trace") from wrong
    return schedule


@pytest.mark.parametrize("seed", SEEDS)
def test_seed_that_found_something(seed):
    play(seed)


def test_every_snapshot_gets_its_own_answer():
    first = random.randrange(1_000_000)
    print(f"seeds {first} to {first + SCHEDULES - 1}")  # noqa: T201
    audits = answered = 0
    for seed in range(first, first + SCHEDULES):
        schedule = play(seed)
        audits, answered = audits + schedule.audits, answered + schedule.audits_answered
    assert audits > 50 * SCHEDULES
    assert answered > 0.5 * audits, "a simulator that always refuses proves nothing"


@pytest.mark.parametrize("name", sorted(set(MUTATIONS) - set(RARE)))
def test_missing_part_is_noticed(name):
    for seed in (HINTS.get(name, 0), *range(SEARCHED)):
        settings = Settings()
        with MUTATIONS[name](settings):
            try:
                Schedule(seed, settings=settings).run()
            except WrongAnswer:
                return
    pytest.fail(f"no seed below {SEARCHED} notices {name}")


def test_a_seed_decides_everything():
    """The same in another process, whose hashes of texts differ."""
    script = (
        "import hashlib, sys; from simulation.schedule import Schedule\n"
        "schedule = Schedule(25, trace=True); schedule.run()\n"
        "lines = [line.split('{')[0] for line in schedule.stage.trace]\n"
        "print(hashlib.sha256('\\n'.join(lines).encode()).hexdigest())"
    )
    tools = Path(__file__).resolve().parents[2] / "tools"
    seen = set()
    for hash_seed in ("1", "2"):
        environment = {**os.environ, "PYTHONHASHSEED": hash_seed, "PYTHONPATH": str(tools)}
        done = subprocess.run(
            [sys.executable, "-c", script], capture_output=True, text=True, env=environment, check=True
        )
        seen.add(done.stdout)
    assert len(seen) == 1


@pytest.mark.parametrize(("stand_in", "real"), [(SimulatedReader, TableReader), (SimulatedStore, GenerationStore)])
def test_stand_in_is_called_like_the_real_one(stand_in, real):
    for name, method in inspect.getmembers(stand_in, inspect.isfunction):
        if not name.startswith("_") and hasattr(real, name):
            assert list(inspect.signature(method).parameters) == list(
                inspect.signature(inspect.unwrap(getattr(real, name))).parameters
            ), name
