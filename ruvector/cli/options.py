"""The options that many commands share, and what they are turned into."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ruvector.cli import output

if TYPE_CHECKING:
    from ruvector import db
    from ruvector.client import Client
    from ruvector.config import Settings


class Format(StrEnum):
    """How data are printed."""

    TABLE = "table"
    JSON = "json"


DsnOption = Annotated[
    str | None,
    typer.Option(
        "--dsn", "-d", metavar="DSN", help="Connection string; else RUVECTOR_DSN, else libpq's PG* variables.",
        show_envvar=False, allow_from_autoenv=False,
    ),
]  # fmt: skip
FormatOption = Annotated[
    Format | None,
    typer.Option(
        "--format", help="How to print the data.  [default: table]", show_envvar=False, allow_from_autoenv=False
    ),
]
ConfigOption = Annotated[
    Path | None,
    typer.Option(
        "--config",
        metavar="FILE",
        help="Settings file; else RUVECTOR_CONFIG, else ruvector.toml.",
        show_envvar=False,
        allow_from_autoenv=False,
    ),
]
YesOption = Annotated[
    bool, typer.Option("--yes", "-y", help="Ask no question.", show_envvar=False, allow_from_autoenv=False)
]
DryRunOption = Annotated[bool, typer.Option("--dry-run", help="Say what would be done, change nothing.")]


@dataclass(frozen=True, slots=True)
class Call:
    """One call of a command: its settings."""

    settings: Settings

    @property
    def as_json(self) -> bool:
        """Tell whether data are printed as JSON."""
        return self.settings.format == Format.JSON.value

    @contextmanager
    def connection(self) -> Iterator[db.Connection]:
        """Open a connection that needs nothing of ruvector in the database."""
        from ruvector import db

        with db.connect(self.settings.dsn_text, application_name="ruvector") as connection, db.translated():
            yield connection

    @contextmanager
    def client(self) -> Iterator[Client]:
        """Open a client; notices of the database go to stderr."""
        from ruvector.client import connect

        with connect(
            self.settings.dsn_text,
            application_name="ruvector",
            on_notice=lambda text: output.note(f"notice: {text}"),
        ) as client:
            yield client


def read_call(*, dsn: str | None, file: Path | None, **options: object) -> Call:
    """Read the settings for a command; ``options`` are settings given as options of the command."""
    from ruvector.config import load_settings

    given = {name: value.value if isinstance(value, StrEnum) else value for name, value in options.items()}
    return Call(load_settings({"dsn": dsn, **given}, file=file).settings)


def confirm(question: str, *, yes: bool) -> None:
    """Ask before something is removed; without a terminal only ``--yes`` allows it."""
    if yes:
        return
    if not sys.stdin.isatty():
        raise typer.BadParameter(f"{question} There is no terminal to ask at: give --yes.")
    typer.confirm(question, abort=True, err=True)
