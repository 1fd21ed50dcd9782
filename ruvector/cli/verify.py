"""verify."""

from __future__ import annotations

from typing import Annotated

import typer

from ruvector import limits
from ruvector.cli import output
from ruvector.cli.options import ConfigOption, DsnOption, FormatOption, read_call

DIFFERENCES = 3


def verify(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The collection.")],
    *,
    sample: Annotated[
        int | None, typer.Option("--sample", min=1, metavar="N", help="Compare about N rows.  [default: 1000]")
    ] = None,
    full: Annotated[bool, typer.Option("--full", help="Compare every row.")] = False,
    repair: Annotated[bool, typer.Option("--repair", help="Read the rows that differ again.")] = False,
    dsn: DsnOption = None,
    output_format: FormatOption = None,
    config: ConfigOption = None,
) -> None:
    """Compare table and mirror: missing, stale and orphan rows. Ends with 3 when some differ and stay so."""
    if full and sample is not None:
        raise typer.BadParameter("--full compares every row; leave --sample out.")
    call = read_call(dsn=dsn, file=config, format=output_format)
    with call.client() as client:
        client.collection(name)
        report = client.verify(name, sample=sample or limits.VERIFY_SAMPLE_ROWS, full=full, repair=repair)
    differences = int(report["differences"])
    if call.as_json:
        output.write_json({"command": "verify", "collection": name, "full": full, "repair": repair, **report})
    else:
        facts = ("checked", "missing", "stale", "orphan", "repaired")
        output.write_facts((fact, report[fact]) for fact in facts)
        for kind, keys in report.get("keys", {}).items():
            if keys:
                typer.echo(f"{kind} keys: {', '.join(map(str, keys))}")
    if differences > int(report["repaired"]):
        if not repair:
            output.note("hint: ruvector verify with --repair reads these rows again")
        raise typer.Exit(DIFFERENCES)
