"""cutover."""

from __future__ import annotations

import json
from collections.abc import Mapping
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ruvector import limits
from ruvector.cli import output
from ruvector.cli.options import ConfigOption, DryRunOption, DsnOption, FormatOption, read_call
from ruvector.errors import RuvectorError

if TYPE_CHECKING:
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


WordsArgument = Annotated[
    list[str],
    typer.Argument(metavar=f"NAME {'|'.join(Action)} [PERCENT]", help="The collection, what to do, how far to ramp."),
]
AllOption = Annotated[
    bool, typer.Option("--all", help="Every collection in turn, in place of NAME; a step stops at the first refusal.")
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
    words: WordsArgument,
    *,
    every: AllOption = False,
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
    rebuild builds pgvector's dropped indexes again, where the sidecar may not. With --all a rollback goes on past a
    collection that refuses it.
    """
    name, action, percent = _read_words(words, every=every)
    given = {Action.RAMP: percent, Action.SHADOW: sample_rate, Action.REPORT: since}
    _refuse_strangers(action, {**given, Action.COMPLETE: drop_pgvector_index or None})
    how: dict[str, Any] = {
        "percent": percent,
        "guard": _read_guard(guard, action),
        "sample_rate": limits.SHADOW_SAMPLE_RATE if sample_rate is None else sample_rate,
        "drop": drop_pgvector_index,
        "since": since,
        "noted": {"reason": reason, "dry_run": dry_run},
    }
    call = read_call(dsn=dsn, file=config, format=output_format)
    done, failures = [], []
    with call.client() as client:
        names = [each.name for each in client.collections()] if name is None else [client.collection(name).name]
        for each in sorted(names):
            try:
                done.append(_do(client, each, action, how))
            except RuvectorError as error:
                if name is not None or action is not Action.ROLLBACK:
                    if done:
                        _tell_all(done, action, dry_run=dry_run, one=False, as_json=call.as_json)
                    raise
                output.note(f"{each}: {error.message}")
                failures.append(each)
    _tell_all(done, action, dry_run=dry_run, one=name is not None, as_json=call.as_json)
    if failures:
        raise typer.Exit(1)
    if action is Action.REPORT and any(report["breaches"] for report in done):
        raise typer.Exit(3)


def _read_words(words: list[str], *, every: bool) -> tuple[str | None, Action, int | None]:
    """Return the name (None for all), the action and the percentage."""
    name, rest = (None, words) if every else (words[0], words[1:])
    if not 1 <= len(rest) <= 2:
        raise typer.BadParameter("give a collection or --all, what to do, and with ramp a percentage.")
    try:
        action = Action(rest[0])
    except ValueError:
        raise typer.BadParameter(f"{rest[0]!r} is not one of {', '.join(Action)}.") from None
    if len(rest) == 1:
        return name, action, None
    if not rest[1].isascii() or not rest[1].isdigit() or int(rest[1]) > 100:
        raise typer.BadParameter(f"the percentage is a number from 0 to 100, not {rest[1]!r}.")
    return name, action, int(rest[1])


def _do(client: Client, name: str, action: Action, how: Mapping[str, Any]) -> dict[str, Any]:
    """Do one thing to one collection; return what there is to tell."""
    noted = how["noted"]
    before = client.cutover_status(name)[0]
    if action is Action.STATUS:
        return before
    if action is Action.REPORT:
        return client.shadow_report(name, since=how["since"])
    if action is Action.REBUILD:
        return {"collection": name, "built": client.rebuild_indexes(name)}
    if action is Action.SHADOW:
        client.shadow_start(name, how["sample_rate"], **noted)
        step = {"collection": name, "state": "shadow", "percent": 0}
        step |= {"from_state": before["state"], "from_percent": before["percent"]}
    elif action is Action.RAMP:
        step = client.cutover(name, how["percent"], how["guard"], **noted)
    elif action is Action.COMPLETE:
        step = client.cutover_complete(name, drop_pgvector_index=how["drop"], **noted)
    else:
        step = client.rollback(name, **noted)
    if before["indexes_dropped"] and step["state"] != "complete":
        output.note(
            "The database answers exactly, without an index, until pgvector's is built again. The sidecar does that if "
            f"its role owns the table; otherwise: ruvector cutover {name} rebuild"
        )
    return step


def _refuse_strangers(action: Action, given: Mapping[Action, object]) -> None:
    if (action is Action.RAMP) != (given[Action.RAMP] is not None):
        raise typer.BadParameter("ramp takes the percent of searches that the index answers, the others take none.")
    if any(value is not None and action is not owner for owner, value in given.items()):
        raise typer.BadParameter(
            "--sample-rate belongs to shadow, --since to report, --drop-pgvector-index to complete."
        )


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


def _tell_all(done: list[dict[str, Any]], action: Action, *, dry_run: bool, one: bool, as_json: bool) -> None:
    """Write what was done: of one collection its facts, of all a list."""
    if as_json:
        steps = [{"dry_run": dry_run, **each} if "from_state" in each else each for each in done]
        facts = (steps[0] if steps else {}) if one else {"collections": steps}
        output.write_json({"command": "cutover", "action": action.value, **facts})
        return
    for each in done:
        if "from_state" in each:
            _tell(each, dry_run=dry_run)
        else:
            output.write_facts((_facts_of(each) if action is Action.REPORT else each).items())


def _tell(step: Mapping[str, Any], *, dry_run: bool) -> None:
    """Say which step was taken."""
    typer.echo(
        f"{step['collection']}: {'would go ' if dry_run else ''}from {step['from_state']} ({step['from_percent']} %) "
        f"to {step['state']} ({step['percent']} %)"
    )
    for dropped in step.get("dropped", ()):
        typer.echo(f"{dropped['index']} dropped: {dropped['bytes']:,} bytes, used {dropped['scans']:,} times")


def _facts_of(report: Mapping[str, Any]) -> dict[str, object]:
    """Return the report as people read it."""
    latency, recall = report["latency_ms"], report["recall_at_k"]
    return {
        "collection": report["collection"],
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
