"""The application: its commands, and how an error becomes a message and an exit code."""

from __future__ import annotations

import os
import sys
from typing import Annotated

import typer

from ruvector import __version__
from ruvector.cli import (
    attach,
    backfill,
    compare,
    cutover,
    demo,
    doctor,
    inspection,
    install,
    output,
    search,
    serve,
    settings,
    status,
    verify,
)
from ruvector.errors import RuvectorError

INTERRUPTED = 130  # as a shell reports a command that Ctrl+C ended

app = typer.Typer(
    name="ruvector",
    help="An index beside PostgreSQL and pgvector: mirrored by triggers, searched from SQL.",
    epilog="Exit codes: 0 ok, 1 failed, 2 usage, 3 a check found differences, 4 database unreachable, "
    "5 sidecar unreachable, 6 refused by a gate.",
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    # Every option has a twin: RUVECTOR_ATTACH_METRIC for `ruvector attach --metric`.
    context_settings={"auto_envvar_prefix": "RUVECTOR", "help_option_names": ["-h", "--help"]},
)


@app.callback(invoke_without_command=True)
def _root(
    context: typer.Context,
    *,
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", show_envvar=False, allow_from_autoenv=False)
    ] = False,
) -> None:
    if version:
        typer.echo(f"ruvector {__version__}")
    elif context.invoked_subcommand is None:
        typer.echo(context.get_help())


for command in (
    demo.demo,
    inspection.inspect,
    install.install,
    install.uninstall,
    attach.attach,
    attach.detach,
    serve.run,
    status.status,
    doctor.doctor,
    search.search,
    compare.compare,
    verify.verify,
    cutover.cutover,
    backfill.backfill,
):
    app.command()(command)
app.add_typer(settings.app, name="config")


def run() -> int:
    """Run the command of sys.argv and return its exit code; no error of ours ends in a traceback."""
    try:
        app()
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else 1
    except RuvectorError as error:
        output.show_error(error)
        return error.exit_code
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        # The reader of stdout went away (head, less): nobody is left to tell.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except UnicodeEncodeError:
        output.note("error: an argument is not valid UTF-8")
        return 1
    except OSError as error:
        output.note(f"error: {error.strerror or error}{f': {error.filename}' if error.filename else ''}")
        return 1
    return 0
