"""The rounds of a run: under every filter the contenders are asked in turn, another one first each round."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any

import numpy as np

from ann.arrays import K
from ann.curves import middle, percentile
from ann.engines import Plan
from filtering import servers
from filtering.attributes import Attributed
from filtering.cases import Case, score
from filtering.engines import IN_PROCESS, Built, Contender, Effort

WARM_UP_QUERIES = 3
ASKED_MIN = 5  # queries, however long they take
PLAN_QUERIES = 20  # of which the plan is told

Say = Callable[[str], None]
Figures = dict[str, float | None]


def compare(
    attributed: Attributed,
    cases: Sequence[Case],
    names: Sequence[str],
    *,
    plan: Plan,
    efs: tuple[int, ...],
    rounds: int,
    seconds: float,
    say: Say,
) -> dict[str, Any]:
    """Build the named engines, measure them under every case, and return what the JSON file keeps of it."""
    data = attributed.data
    with ExitStack() as exits:
        contenders, failed, about = _build_all(attributed, names, plan, efs, exits, say)
        measured: dict[tuple[str, str, Effort], list[Figures]] = {}
        points: dict[str, dict[tuple[str, Effort], dict[str, Any]]] = {case.name: {} for case in cases}
        for number in range(rounds):
            first = number % max(1, len(contenders))
            for case in cases:
                for contender in contenders[first:] + contenders[:first]:
                    if contender.label in failed:
                        continue
                    try:
                        _measure(contender, case, attributed, seconds, points[case.name], measured)
                    except Exception as error:  # noqa: BLE001 - whatever a library raises is reported, the others go on
                        failed[contender.label] = f"{type(error).__name__}: {error}"
                        say(f"  {contender.label} failed: {failed[contender.label]}")
            say(f"  round {number + 1} of {rounds}")
    told = [_case(case, points[case.name], measured) for case in cases]
    rows, dims = data.base.shape
    return {
        "set": data.name,
        "story": data.story,
        "metric": str(data.metric),
        "rows": rows,
        "dims": dims,
        "queries": len(data.queries),
        "about": about,
        "failed": failed,
        "cases": told,
    }


def _build_all(
    attributed: Attributed, names: Sequence[str], plan: Plan, efs: tuple[int, ...], exits: ExitStack, say: Say
) -> tuple[list[Contender], dict[str, str], str]:
    """Return contenders, what failed and why, and what the server is."""
    contenders: list[Contender] = []
    failed: dict[str, str] = {}
    about = ""
    steps: list[tuple[tuple[str, ...], Callable[[], Built]]] = []
    for name in names:
        if name in IN_PROCESS:
            build = IN_PROCESS[name].build
            steps.append(((name,), lambda build=build: build(attributed, plan, efs)))  # type: ignore[misc]
    served = tuple(name for name in names if name in servers.NAMES)
    if served:
        steps.append((served, lambda: servers.build(attributed, plan, efs, served)))
    for step, start in steps:
        began = time.perf_counter()
        try:
            built = start()
        except Exception as error:  # noqa: BLE001 - as above
            failed |= dict.fromkeys(step, f"{type(error).__name__}: {error}")
            say(f"  {', '.join(step)} failed: {failed[step[0]]}")
            continue
        exits.callback(built.close)
        contenders += built.contenders
        about = built.about or about
        say(f"  {', '.join(step)} ready after {time.perf_counter() - began:.1f} s")
    return contenders, failed, about


def _measure(
    contender: Contender,
    case: Case,
    attributed: Attributed,
    seconds: float,
    points: dict[tuple[str, Effort], dict[str, Any]],
    measured: dict[tuple[str, str, Effort], list[Figures]],
) -> None:
    """Ask a contender at each ef; the first round also notes what the answers are worth, and the plan."""
    for ef in contender.efs:
        contender.set_ef(ef)
        answers, figures = _ask(contender, case, attributed, seconds)
        measured.setdefault((case.name, contender.label, ef), []).append(figures)
        if (contender.label, ef) not in points:
            told = slice(min(PLAN_QUERIES, len(answers)))
            points[contender.label, ef] = {
                "engine": contender.engine,
                "setting": contender.setting,
                "ef": ef,
                **_worth(answers, case, attributed),
                "plan": contender.plan(attributed.data.queries[told], case.filters[told]),
            }


def _ask(contender: Contender, case: Case, attributed: Attributed, seconds: float) -> tuple[list[list[int]], Figures]:
    """Ask query by query, until ``seconds`` have passed in the engine; return the answers and how long they took."""
    queries = attributed.data.queries
    for query, each in zip(queries[:WARM_UP_QUERIES], case.filters, strict=False):
        contender.ask(contender.prepare(query, each))
    contender.forget()
    answers: list[list[int]] = []
    times: list[float] = []
    for query, each in zip(queries, case.filters, strict=True):
        question = contender.prepare(query, each)
        start = time.perf_counter()
        answer = contender.ask(question)
        times.append(time.perf_counter() - start)
        answers.append(contender.rows(answer))
        if sum(times) > seconds and len(times) >= ASKED_MIN:
            break
    figures: Figures = {
        "qps": len(times) / sum(times),
        "p50_ms": percentile(times, 0.50) * 1_000,
        "p99_ms": percentile(times, 0.99) * 1_000,
    }
    return answers, figures


def _worth(answers: Sequence[Sequence[int]], case: Case, attributed: Attributed) -> dict[str, Any]:
    scores = [score(case, number, answer, attributed) for number, answer in enumerate(answers)]
    shares = [each.hits / each.possible for each in scores if each.possible]
    return {
        "asked": len(answers),
        "recall": float(np.mean(shares)) if shares else None,
        "rows_min": min(each.rows for each in scores),
        "rows_mean": float(np.mean([each.rows for each in scores])),
        # Answers with fewer rows than there could have been.
        "short": sum(each.rows < each.possible for each in scores),
    }


def _case(
    case: Case, points: dict[tuple[str, Effort], dict[str, Any]], measured: dict[tuple[str, str, Effort], list[Figures]]
) -> dict[str, Any]:
    return {
        "name": case.name,
        "matching_min": int(case.matching.min()),
        "matching_mean": float(case.matching.mean()),
        "possible_mean": float(np.minimum(case.matching, K).mean()),
        "points": [
            {**point, **middle(measured[case.name, label, ef]), "rounds": measured[case.name, label, ef]}
            for (label, ef), point in points.items()
        ],
    }
