"""backfill."""

from __future__ import annotations

from typing import Annotated

import typer

from ruvector.cli import output
from ruvector.cli.attach import ColumnArgument
from ruvector.cli.options import ConfigOption, DryRunOption, DsnOption, FormatOption, read_call

UsingOption = Annotated[
    str, typer.Option("--using", metavar="SQL", help="The vector of a row, as an expression of its columns.")
]
BatchOption = Annotated[int, typer.Option("--batch", min=1, max=100_000, metavar="N", help="Rows in one transaction.")]
PauseOption = Annotated[float, typer.Option("--pause-ms", min=0, metavar="MS", help="After each, for the others.")]


def backfill(
    column: ColumnArgument,
    *,
    using: UsingOption,
    batch: BatchOption = 1_000,
    pause_ms: PauseOption = 0.0,
    dry_run: DryRunOption = False,
    dsn: DsnOption = None,
    output_format: FormatOption = None,
    config: ConfigOption = None,
) -> None:
    """Fill a vector column where it is NULL, online: for a new model, other dimensions, or vectors kept as real[].

    Each batch is a transaction of its own; stop it at any time, and start it again to go on.
    """
    call = read_call(dsn=dsn, file=config, format=output_format)
    with call.client() as client, output.progress() as show:
        done = client.backfill(column, using=using, batch=batch, pause_ms=pause_ms, dry_run=dry_run, on_progress=show)
    if call.as_json:
        output.write_json({"command": "backfill", "column": column, "dry_run": dry_run, "filled": done.filled,
                           "remaining": done.remaining})  # fmt: skip
        return
    typer.echo(f"{column}: {done.filled} rows {'would be filled' if dry_run else 'filled'}, {done.remaining} are NULL")
