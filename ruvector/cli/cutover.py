"""cutover."""

from __future__ import annotations

import json
from collections.abc import Mapping
from enum import StrEnum
from typing import Annotated, Any

import typer

from ruvector.cli import output
from ruvector.cli.options import ConfigOption, DryRunOption, DsnOption, FormatOption, read_call
from ruvector.client import Client


class Action(StrEnum):
    """What to do."""

    STATUS = "status"
    SHADOW = "shadow"
    REPORT = "report"
    RAMP = "ramp"
    COMPLETE = "complete"
    ROLLBACK = "rollback"
    REBUILD = "rebuild"


PercentArgument = Annotated[
    int | None, typer.Argument(min=0, max=100, metavar="[PERCENT]", help="Of all searches, with ramp.")
]
SampleRateOption = Annotated[
    float | None, typer.Option("--sample-rate", metavar="SHARE", help="Of the searches compared, with shadow: 0.05.")
]
GuardOption = Annotated[
    str | None,
    typer.Option(
        "--guard", metavar="JSON", help="What ends a ramp by itself: min_recall, max_p99_ratio, max_error_rate."
    ),
]
SinceOption = Annotated[
    str | None, typer.Option("--since", metavar="TIME", help="Of the report; the latest step without it.")
]
DropOption = Annotated[
    bool, typer.Option("--drop-pgvector-index", help="With complete: free its space; a rollback builds it again.")
]
ReasonOption = Annotated[str | None, typer.Option("--reason", metavar="TEXT", help="Written down with the step.")]


def cutover(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The collection.")],
    action: Annotated[Action, typer.Argument(metavar="|".join(Action), help="What to do.")],
    percent: PercentArgument = None,
    *,
    sample_rate: SampleRateOption = None,
    guard: GuardOption = None,
    since: SinceOption = None,
    drop_pgvector_index: DropOption = False,
    reason: ReasonOption = None,
    dry_run: DryRunOption = False,
    dsn: DsnOption = None,
    output_format: FormatOption = None,
    config: ConfigOption = None,
) -> None:
    """Move searches from pgvector to the index, a share at a time; rollback gives them back at once.

    shadow lets pgvector answer and compares a sample; report exits with 3 when what was compared breaks the guard.
    rebuild builds pgvector's dropped indexes again, where the sidecar may not.
    """
    given = {Action.RAMP: percent, Action.SHADOW: sample_rate, Action.REPORT: since}
    _refuse_strangers(action, {**given, Action.COMPLETE: drop_pgvector_index or None})
    bounds = _read_guard(guard, action)
    call = read_call(dsn=dsn, file=config, format=output_format)
    with call.client() as client:
        client.collection(name)
        before = client.cutover_status(name)[0]
        if action in (Action.STATUS, Action.REPORT, Action.REBUILD):
            _show(client, name, action, since=since, as_json=call.as_json)
            return
        noted: dict[str, Any] = {"reason": reason, "dry_run": dry_run}
        if action is Action.SHADOW:
            client.shadow_start(name, 0.05 if sample_rate is None else sample_rate, **noted)
            step = {"collection": name, "state": "shadow", "percent": 0}
            step |= {"from_state": before["state"], "from_percent": before["percent"]}
        elif percent is not None:
            step = client.cutover(name, percent, bounds, **noted)
        elif action is Action.COMPLETE:
            step = client.cutover_complete(name, drop_pgvector_index=drop_pgvector_index, **noted)
        else:
            step = client.rollback(name, **noted)
    if call.as_json:
        _write({"dry_run": dry_run, **step}, action, as_json=True)
    else:
        _tell(step, before, dry_run=dry_run)


def _show(client: Client, name: str, action: Action, *, since: str | None, as_json: bool) -> None:
    """Do what takes no step."""
    if action is Action.STATUS:
        _write(client.cutover_status(name)[0], action, as_json=as_json)
        return
    if action is Action.REBUILD:
        _write({"built": client.rebuild_indexes(name)}, action, as_json=as_json)
        return
    report = client.shadow_report(name, since=since)
    _write(report if as_json else _facts_of(report), action, as_json=as_json)
    if report["breaches"]:
        raise typer.Exit(3)


def _tell(step: Mapping[str, Any], before: Mapping[str, Any], *, dry_run: bool) -> None:
    """Say which step was taken, and what it means for pgvector's index."""
    name = step["collection"]
    typer.echo(
        f"{name}: {'would go ' if dry_run else ''}from {step['from_state']} ({step['from_percent']} %) "
        f"to {step['state']} ({step['percent']} %)"
    )
    for dropped in step.get("dropped", ()):
        typer.echo(f"{dropped['index']} dropped: {dropped['bytes']:,} bytes, used {dropped['scans']:,} times")
    if before["indexes_dropped"] and step["state"] != "complete":
        typer.echo(
            "The database answers exactly, without an index, until pgvector's is built again. The sidecar does that if "
            f"its role owns the table; otherwise: ruvector cutover {name} rebuild",
            err=True,
        )


def _refuse_strangers(action: Action, given: Mapping[Action, object]) -> None:
    if (action is Action.RAMP) != (given[Action.RAMP] is not None):
        raise typer.BadParameter("ramp takes the percent of searches that the index answers, the others take none.")
    if any(value is not None and action is not owner for owner, value in given.items()):
        raise typer.BadParameter(
            "--sample-rate belongs to shadow, --since to report, --drop-pgvector-index to complete."
        )


def _write(facts: Mapping[str, Any], action: Action, *, as_json: bool) -> None:
    if as_json:
        output.write_json({"command": "cutover", "action": action.value, **facts})
    else:
        output.write_facts(facts.items())


def _read_guard(text: str | None, action: Action) -> dict[str, float] | None:
    if text is None:
        return None
    if action is not Action.RAMP:
        raise typer.BadParameter("--guard belongs to ramp.")
    try:
        guard = json.loads(text)
    except ValueError as problem:
        raise typer.BadParameter(f"--guard is not JSON: {problem}") from None
    if not isinstance(guard, dict):
        raise typer.BadParameter("--guard must be a JSON object, for example '{\"min_recall\": 0.95}'.")
    return guard


def _facts_of(report: Mapping[str, Any]) -> dict[str, object]:
    """Return the report as people read it."""
    latency, recall = report["latency_ms"], report["recall_at_k"]
    return {
        "state": f"{report['state']} ({report['percent']} %)",
        "since": report["since"],
        "searches": f"{report['n']} compared, {report['missed']} missed",
        "errors": f"{_interval(report['error_rate'])} {report['errors'] or ''}".strip(),
        "overlap@k": _interval(report["overlap_at_k"]),
        "recall@k ruvector": _interval(recall["ruvector"]),
        "recall@k pgvector": _interval(recall["pgvector"]),
        "recall against": f"{recall['exact']} exact, {recall['pooled']} pooled answers",
        **{
            f"{name} {engine} ms": _interval((latency[name] or {}).get(engine))
            for name in ("p50", "p95", "p99")
            for engine in ("ruvector", "pgvector")
        },
        "p99 ratio": _interval(report["p99_ratio"]),
        "guard": report["guard"],
        "broken": "; ".join(report["breaches"]) or "nothing",
    }


def _interval(given: Mapping[str, float | None] | None) -> str:
    value = None if given is None else given.get("mean", given.get("value"))
    if given is None or value is None:
        return "unknown"
    low, high = ("?" if end is None else f"{end:.3f}" for end in (given["low"], given["high"]))
    return f"{value:.3f} ({low} to {high})"
