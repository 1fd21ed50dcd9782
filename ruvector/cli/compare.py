"""compare: exact SQL, pgvector and ruvector side by side, with a table, a plot and a page."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ruvector.cli import output
from ruvector.cli.options import ConfigOption, DsnOption, FormatOption, read_call
from ruvector.cli.search import read_array, read_json
from ruvector.errors import InvalidParameter, InvalidVector

if TYPE_CHECKING:
    from ruvector.client.compare import Comparison

BELOW = 3  # a check found differences
_COLUMNS = ("engine", "setting", "recall", "95 % +-", "p5", "min", "rows", "p50 ms", "p95 ms", "p99 ms", "QPS", "index")


def compare(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The collection.")],
    *,
    queries: Annotated[
        int, typer.Option("--queries", min=1, metavar="N", help="So many rows of the table are the queries.")
    ] = 100,
    queries_file: Annotated[
        Path | None, typer.Option("--queries-file", metavar="NPY", help="Queries [n, dims] in a file of numpy instead.")
    ] = None,
    k: Annotated[int, typer.Option("-k", "--k", min=1, help="How many rows.")] = 10,
    filter_text: Annotated[
        str | None, typer.Option("--filter", metavar="JSON", help='For example {"price": {"$lt": 50}}')
    ] = None,
    ef: Annotated[
        str, typer.Option("--ef", metavar="N,N", help="Widths of the search, for ruvector and for hnsw.")
    ] = "20,40,80,160,320",
    min_recall: Annotated[
        float | None,
        typer.Option("--min-recall", min=0, max=1, help="End with 3 when ruvector reaches it at no setting."),
    ] = None,
    plot: Annotated[
        Path | None, typer.Option("--plot", metavar="FILE", help="Draw recall against latency: .png, .svg or .pdf.")
    ] = None,
    report: Annotated[
        Path | None, typer.Option("--report", metavar="HTML", help="Write a page with table and plot.")
    ] = None,
    dsn: DsnOption = None,
    output_format: FormatOption = None,
    config: ConfigOption = None,
) -> None:  # fmt: skip
    """Compare recall and latency of exact SQL, pgvector's index and ruvector, in one snapshot. Reads only."""
    from ruvector.client.compare import compare as run

    widths = _widths(ef)
    condition = read_json(filter_text, option="--filter", wanted=dict) if filter_text is not None else None
    vectors = _vectors_in(queries_file) if queries_file is not None else None
    if plot is not None or report is not None:
        from ruvector.cli import compare_page  # says early when there is nothing to draw with
    call = read_call(dsn=dsn, file=config, format=output_format)
    with call.client() as client, output.progress() as show:
        found = run(client, name, queries=queries, vectors=vectors, k=k, filter=condition, ef=widths, on_progress=show)
    if plot is not None:
        plot.write_bytes(compare_page.draw(found, kind=plot.suffix.removeprefix(".") or "png"))
    if report is not None:
        report.write_text(compare_page.page(found, _COLUMNS, list(_rows(found))), encoding="utf-8")
    if call.as_json:
        output.write_json({"command": "compare", **asdict(found)})
    else:
        _show(found)
    best = max(each.recall_mean for each in found.engines if each.engine == "ruvector")
    if min_recall is not None and best < min_recall:
        output.note(f"ruvector reaches a recall of {best:.4f}, less than {min_recall}")
        raise typer.Exit(BELOW)


def _show(found: Comparison) -> None:
    output.write_table(_COLUMNS, _rows(found), right=_COLUMNS[2:])
    asked = f"{found.queries} queries ({found.query_source}), k {found.k}, about {found.rows:,} rows"
    typer.echo(f"\n{asked}; one connection, in turns, in one snapshot")
    for remark in found.remarks:
        typer.echo(f"remark: {remark}")


def _rows(found: Comparison) -> Any:
    for each in found.engines:
        yield (
            each.engine, each.setting, f"{each.recall_mean:.4f}", f"{each.recall_interval:.4f}",
            f"{each.recall_p5:.2f}", f"{each.recall_min:.2f}", f"{each.rows_mean:.1f}", f"{each.p50_ms:.2f}",
            f"{each.p95_ms:.2f}", f"{each.p99_ms:.2f}", f"{each.qps:,.0f}", output.size(each.index_bytes),
        )  # fmt: skip


def _widths(text: str) -> list[int]:
    try:
        widths = [int(part) for part in text.split(",")]
    except ValueError:
        widths = []
    if not widths or min(widths) < 1:
        raise InvalidParameter(f'--ef "{text}" is no list of whole numbers', hint="For example --ef 20,40,80.")
    return widths


def _vectors_in(file: Path) -> Any:
    import numpy as np

    numbers = read_array(file, name="queries")
    if not isinstance(numbers, np.ndarray) or numbers.dtype.kind not in "fiu" or numbers.ndim != 2 or not len(numbers):
        raise InvalidVector(f"{file} does not hold vectors of numbers", hint="Save an array of shape [queries, dims].")
    return numbers
