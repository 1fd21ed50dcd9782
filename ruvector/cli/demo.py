"""demo."""

from __future__ import annotations

import signal
import sys
from pathlib import Path
from types import FrameType
from typing import Annotated, NoReturn

import typer

from ruvector.cli import output
from ruvector.cli.options import ConfigOption, FormatOption, read_call

_WIDTH = 120  # of its tables where the output is no terminal


def demo(
    *,
    rows: Annotated[
        int | None, typer.Option("--rows", min=500, metavar="N", help="Use the first N rows only.  [default: all]")
    ] = None,
    keep: Annotated[
        Path | None, typer.Option("--keep", metavar="DIR", help="Build everything in this new folder and keep it.")
    ] = None,
    output_format: FormatOption = None,
    config: ConfigOption = None,
) -> None:
    """Show the whole product on real data with a private PostgreSQL: nothing of yours is touched.

    Ends with 0 only when every step held and ruvector's recall@10 through SQL is at least 0.98.
    """
    from ruvector.demo import run_demo

    call = read_call(dsn=None, file=config, format=output_format)
    # A shell's kill must not leave server and sidecar behind: the exit runs the clean-up.
    signal.signal(signal.SIGTERM, _leave)
    report = run_demo(rows=rows, folder=keep, screen=output.console(to_stderr=call.as_json, plain_width=_WIDTH))
    if call.as_json:
        output.write_json({"command": "demo", **report.document()})
    if not report.held:
        raise typer.Exit(1)


def _leave(number: int, _frame: FrameType | None) -> NoReturn:
    sys.exit(128 + number)
