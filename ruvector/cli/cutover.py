"""cutover."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from ruvector.cli import output
from ruvector.cli.options import ConfigOption, DryRunOption, DsnOption, FormatOption, read_call


class Action(StrEnum):
    """What to do."""

    STATUS = "status"
    RAMP = "ramp"
    COMPLETE = "complete"
    ROLLBACK = "rollback"


def cutover(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The collection.")],
    action: Annotated[Action, typer.Argument(metavar="status|ramp|complete|rollback", help="What to do.")],
    percent: Annotated[
        int | None, typer.Argument(min=0, max=100, metavar="[PERCENT]", help="Of all searches, with ramp.")
    ] = None,
    *,
    reason: Annotated[str | None, typer.Option("--reason", metavar="TEXT", help="Written down with the step.")] = None,
    dry_run: DryRunOption = False,
    dsn: DsnOption = None,
    output_format: FormatOption = None,
    config: ConfigOption = None,
) -> None:
    """Move searches from pgvector to the index, a share at a time; rollback gives them back at once."""
    if (action is Action.RAMP) != (percent is not None):
        raise typer.BadParameter("ramp takes the percent of searches that the index answers, the others take none.")
    call = read_call(dsn=dsn, file=config, format=output_format)
    with call.client() as client:
        client.collection(name)
        if action is Action.STATUS:
            (row,) = client.cutover_status(name)
            if call.as_json:
                output.write_json({"command": "cutover", "action": action.value, **row})
            else:
                output.write_facts(row.items())
            return
        if percent is not None:
            step = client.cutover(name, percent, reason=reason, dry_run=dry_run)
        elif action is Action.COMPLETE:
            step = client.cutover_complete(name, reason=reason, dry_run=dry_run)
        else:
            step = client.rollback(name, reason=reason, dry_run=dry_run)
    if call.as_json:
        output.write_json({"command": "cutover", "action": action.value, "dry_run": dry_run, **step})
    else:
        typer.echo(
            f"{name}: {'would go ' if dry_run else ''}from {step['from_state']} ({step['from_percent']} %) "
            f"to {step['state']} ({step['percent']} %)"
        )
