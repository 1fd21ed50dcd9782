"""attach and detach."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from ruvector import limits
from ruvector.cli import output
from ruvector.cli.options import ConfigOption, DryRunOption, DsnOption, FormatOption, YesOption, confirm, read_call

ColumnArgument = Annotated[
    str, typer.Argument(metavar="SCHEMA.TABLE.COLUMN", help='As SQL writes it: public."My Table".embedding')
]
NameOption = Annotated[str | None, typer.Option("--name", help="Name of the collection.  [default: TABLE_COLUMN]")]
MetricOption = Annotated[
    str | None,
    typer.Option(
        "--metric", metavar="METRIC",
        help="l2, cosine, ip, l1, hamming or jaccard.  [default: that of the pgvector index, else l2]",
    ),
]  # fmt: skip
ColumnsOption = Annotated[str | None, typer.Option("--columns", metavar="A,B,C", help="Columns that filters may use.")]
LinksOption = Annotated[
    int | None, typer.Option("--m", min=limits.M_MIN, max=limits.M_MAX, help="Links per node.  [default: 16]")
]
EffortOption = Annotated[
    int | None,
    typer.Option(
        "--ef-construction", min=4, max=limits.EF_CONSTRUCTION_MAX, help="Candidates per insertion.  [default: 200]"
    ),
]
DimsOption = Annotated[
    int | None, typer.Option("--dims", min=1, help="Only for a column whose type does not declare them.")
]


def attach(
    column: ColumnArgument,
    *,
    name: NameOption = None,
    metric: MetricOption = None,
    columns: ColumnsOption = None,
    m: LinksOption = None,
    ef_construction: EffortOption = None,
    dims: DimsOption = None,
    dry_run: DryRunOption = False,
    yes: YesOption = False,
    dsn: DsnOption = None,
    output_format: FormatOption = None,
    config: ConfigOption = None,
) -> None:
    """Register a vector column, install its triggers and queue its first build.

    Writers wait for at most two seconds, and only while the triggers are created; on a busy table it tries again.
    """
    from ruvector.client import parse_names

    del yes  # nothing is removed, so nothing is asked
    call = read_call(dsn=dsn, file=config, hnsw_m=m, hnsw_ef_construction=ef_construction, format=output_format)
    with call.client() as client:
        done = client.attach(
            column,
            name=name,
            metric=metric,
            columns=parse_names(columns or ""),
            m=call.settings.hnsw_m,
            ef_construction=call.settings.hnsw_ef_construction,
            dims=dims,
            dry_run=dry_run,
            on_wait=_say_waiting,
        )
    if call.as_json:
        output.write_json(
            {
                "command": "attach", "dry_run": dry_run, "id": done.id, "name": done.name,
                "table_schema": done.column.schema, "table_name": done.column.table,
                "column_name": done.column.column, "metric": done.metric, "metric_source": done.metric_source,
                "dims": done.dims, "options": dict(done.options),
            }
        )  # fmt: skip
        return
    typer.echo(
        f"{'would attach' if dry_run else 'attached'} {column} as collection {done.name}: {done.dims} dimensions, "
        f"metric {done.metric} ({done.metric_source}), {json.dumps(done.options)}"
    )
    if not dry_run:
        typer.echo("the sidecar copies it as soon as it runs: ruvector run; progress: ruvector status")


def detach(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The collection.")],
    *,
    yes: YesOption = False,
    dry_run: DryRunOption = False,
    dsn: DsnOption = None,
    output_format: FormatOption = None,
    config: ConfigOption = None,
) -> None:
    """Remove a collection: triggers, bookkeeping and files; the table stays as it is."""
    call = read_call(dsn=dsn, file=config, format=output_format)
    with call.client() as client:
        collection = client.collection(name)
        if not dry_run:
            confirm(f"Detach {name} ({collection.table_ref}.{collection.column_name})?", yes=yes)
            client.detach(name, on_wait=_say_waiting)
    if call.as_json:
        output.write_json({"command": "detach", "dry_run": dry_run, "name": name})
    else:
        typer.echo(f"{'would detach' if dry_run else 'detached'} {name}")


def _say_waiting(attempt: int) -> None:
    output.note(f"the table is locked by another session; try {attempt} of {limits.ATTACH_TRIES} gave way")
