"""Print: data as a table or one JSON document to stdout, messages and errors to stderr."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from rich.console import Console

    from ruvector.errors import RuvectorError

SCHEMA = 1  # of every JSON document: a key is added freely, renamed or removed only with another number
PLAIN_WIDTH = 400  # columns of a table that goes to a file: cells are not cut
PERMISSION_DENIED = "42501"  # insufficient_privilege
_PERMISSION_HINT = "Use the role that installed ruvector; applications need membership in ruvector_user."


def note(text: str) -> None:
    """Write one line for people to stderr."""
    typer.echo(text, err=True)


def show_error(error: RuvectorError) -> None:
    """Write message, detail and hint of an error to stderr."""
    note(f"error: {error.message}")
    hint = error.hint or (_PERMISSION_HINT if error.sqlstate == PERMISSION_DENIED else "")
    for label, text in (("detail", error.detail), ("hint", hint)):
        if text:
            note(f"{label}: {text}")


def write_json(document: Mapping[str, Any]) -> None:
    """Write one document to stdout; ``schema`` comes first."""
    typer.echo(json.dumps({"schema": SCHEMA, **document}, indent=2, ensure_ascii=False, default=str))


def console(*, to_stderr: bool = False, plain_width: int = PLAIN_WIDTH) -> Console:
    """Return a console that interprets nothing: names and texts of users are printed as they are."""
    from rich.console import Console

    file = sys.stderr if to_stderr else sys.stdout
    width = None if file.isatty() else plain_width
    return Console(file=file, width=width, markup=False, highlight=False, emoji=False, soft_wrap=False)


def write_table(columns: Sequence[str], rows: Iterable[Sequence[object]], *, right: Sequence[str] = ()) -> None:
    """Write a table to stdout; columns named in ``right`` are aligned to the right."""
    from rich.table import Table

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for column in columns:
        table.add_column(column, justify="right" if column in right else "left", overflow="fold")
    for row in rows:
        table.add_row(*(cell(value) for value in row))
    console().print(table)


def write_facts(facts: Iterable[tuple[str, object]]) -> None:
    """Write one ``name  value`` line per fact to stdout."""
    listed = [(name, cell(value)) for name, value in facts]
    width = max((len(name) for name, _ in listed), default=0)
    for name, value in listed:
        typer.echo(f"{name:{width}}  {value}")


def cell(value: object) -> str:
    """Return a value as people read it."""
    if value is None or value == "":
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:,.3f}"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, (list, tuple)):
        return ", ".join(map(str, value)) or "-"
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {count}" for name, count in value.items()) or "-"
    return str(value)


@contextmanager
def progress() -> Iterator[Callable[[str, int, int], None] | None]:
    """Give a function that shows what is done, how much of it, and of how much; None where nobody looks."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.progress import Progress

    with Progress(console=console(to_stderr=True), transient=True) as bars:
        task = bars.add_task("", total=None)

        def show(what: str, done: int, total: int) -> None:
            bars.update(task, description=what, completed=done, total=total)

        yield show


def size(count: float | None) -> str:
    """Return bytes as people read them."""
    if count is None:
        return "-"
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(count) < 1024:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} TiB"
