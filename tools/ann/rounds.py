"""The parent's side: starts one worker per engine, lets them build one after the other, then asks them in turn."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from ann.curves import TARGETS, middle, speed_at
from ann.datasets import DataSet
from ann.engines import ENGINES, Plan
from ann.messages import Answer, BuildReport, Failure, Order
from ann.truth import distances_of, recall

ANSWER_SECONDS_MAX = 6 * 3_600  # a build of a million rows by the slowest engine takes hours; more is a hang
STOP_SECONDS_MAX = 60  # a server shuts down in this time
LOG_TAIL_BYTES = 2_000
# Waiting OpenMP threads sleep: spinning ones take the core from whoever shares it, and count as processor time.
OPENMP_WAITS = {"OMP_WAIT_POLICY": "passive"}
THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS")

Say = Callable[[str], None]


class WorkerFailed(Exception):
    """An engine's process reported an error, ended or does not answer."""


@dataclass(slots=True)
class Worker:
    """One engine's process and the channel to it."""

    engine: str
    process: subprocess.Popen[bytes]
    channel: Connection
    log: Path

    def ask(self, question: object) -> Any:
        """Send a question and wait for the answer.

        Raises:
            WorkerFailed: there is none.
        """
        try:
            self.channel.send(question)
            if not self.channel.poll(ANSWER_SECONDS_MAX):
                raise WorkerFailed(f"no answer within {ANSWER_SECONDS_MAX} s")
            answer = self.channel.recv()
        except (EOFError, ConnectionError):
            code = self.process.wait(STOP_SECONDS_MAX)
            raise WorkerFailed(f"its process ended with exit code {code}") from None
        if isinstance(answer, Failure):
            raise WorkerFailed(answer.reason)
        return answer

    def log_tail(self) -> str:
        """Return the last lines that the process printed."""
        return self.log.read_bytes()[-LOG_TAIL_BYTES:].decode("utf-8", "replace").strip()

    def stop(self) -> None:
        """End the process: asked, then told, then killed."""
        self.channel.close()
        for push in (self.process.terminate, self.process.kill):
            try:
                self.process.wait(STOP_SECONDS_MAX)
            except subprocess.TimeoutExpired:
                push()
        self.process.wait()


def start_worker(engine: str, *, threads: int, scratch: Path) -> Worker:
    """Start the process of an engine; it waits for its order."""
    ours, theirs = multiprocessing.Pipe()
    log = scratch / f"{engine}.log"
    tools = str(Path(__file__).resolve().parents[1])
    paths = [tools, *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = OPENMP_WAITS | os.environ | dict.fromkeys(THREAD_VARIABLES, str(threads))
    environment["PYTHONPATH"] = os.pathsep.join(paths)
    with log.open("wb") as output:
        # Safe path: the checkout in the current folder would hide the installed package.
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "ann.worker", str(theirs.fileno())],
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env=environment,
        )
    theirs.close()
    return Worker(engine, process, ours, log)


def compare(
    data: DataSet, names: Sequence[str], *, plan: Plan, efs: Sequence[int], rounds: int, say: Say
) -> dict[str, Any]:
    """Build and measure every installed engine on one data set; returns what the JSON file keeps of it."""
    results: dict[str, dict[str, Any]] = {}
    workers: list[Worker] = []
    try:
        for name in names:
            if ENGINES[name].is_installed:
                workers.append(start_worker(name, threads=plan.threads, scratch=plan.scratch))
                results[name] = _build(workers[-1], data, plan, say)
        for number in range(rounds):
            # Another engine first each round, so that none always follows the same engine or a pause.
            first = number % max(1, len(workers))
            for ef in efs:
                _ask_in_turn(workers[first:] + workers[:first], ef, data, results, say)
            say(f"  round {number + 1} of {rounds}")
    finally:
        for worker in workers:
            worker.stop()
    for result in results.values():
        if result["status"] == "ok":
            result["points"] = [
                {"ef": ef, **middle(figures), "rounds": figures} for ef, figures in result.pop("measured").items()
            ]
            result["qps_at"] = speeds(result["points"])
    rows, dims = data.base.shape
    return {
        "set": data.name,
        "story": data.story,
        "metric": str(data.metric),
        "rows": rows,
        "dims": dims,
        "queries": len(data.queries),
        "threads": plan.threads,
        "engines": results,
    }


def speeds(points: Sequence[dict[str, Any]]) -> dict[str, dict[str, float | None]]:
    """Return queries per second at each target recall, by processor and by wall time."""
    found: dict[str, dict[str, float | None]] = {}
    for target in TARGETS:
        found[f"{target:.2f}"] = {
            clock: speed_at([(p["recall"], p[clock]) for p in points], target)
            if all(p[clock] is not None for p in points)
            else None
            for clock in ("qps_cpu", "qps_wall")
        }
    return found


def _build(worker: Worker, data: DataSet, plan: Plan, say: Say) -> dict[str, Any]:
    """Let a worker build; returns its result so far."""
    try:
        report: BuildReport = worker.ask(Order(worker.engine, plan, data.base_file, data.queries_file))
    except WorkerFailed as error:
        return _failed(worker, error, say)
    say(f"  built {worker.engine}: {report.wall_s:.1f} s")
    return {"status": "ok", "about": report.about, "build": _build_figures(report, len(data.base)), "measured": {}}


def _ask_in_turn(
    workers: Sequence[Worker], ef: int, data: DataSet, results: dict[str, dict[str, Any]], say: Say
) -> None:
    """Ask every engine that still works for one ef, and note its figures."""
    for worker in workers:
        result = results[worker.engine]
        if result["status"] != "ok":
            continue
        try:
            answer: Answer = worker.ask(ef)
        except WorkerFailed as error:
            results[worker.engine] = _failed(worker, error, say)
        else:
            result["measured"].setdefault(ef, []).append(_figures(answer, data))


def _failed(worker: Worker, error: WorkerFailed, say: Say) -> dict[str, Any]:
    say(f"  {worker.engine} failed: {error}\n{worker.log_tail()}")
    return {"status": "failed", "reason": str(error)}


def _build_figures(report: BuildReport, rows: int) -> dict[str, float | None]:
    return {
        "cpu_s": report.cpu_s,
        "wall_s": report.wall_s,
        "rss_bytes_per_vector": None if report.rss_bytes is None else report.rss_bytes / rows,
        "reported_bytes_per_vector": None if report.size_bytes is None else report.size_bytes / rows,
    }


def _figures(answer: Answer, data: DataSet) -> dict[str, float | None]:
    found = distances_of(data.base, data.queries, answer.ids, data.metric)
    figures = asdict(answer)
    del figures["ids"]
    return {"recall": recall(found, data.reach), **figures}
