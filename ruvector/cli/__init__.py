"""The command line: one module per group of commands; what a command needs is imported when it runs.

Takes: arguments, RUVECTOR_* variables, ruvector.toml.  Gives: data on stdout, everything else on stderr, an exit code.
"""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command line and leave with its exit code; see ruvector.cli.app for the meaning of the codes."""
    from ruvector.cli.app import run

    sys.exit(run())
