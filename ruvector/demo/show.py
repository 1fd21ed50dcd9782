"""Run the demonstration: build its stage, play its scenes, clean up."""

from __future__ import annotations

import os
import shlex
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

from rich.console import Console

from ruvector import db
from ruvector.clock import Clock, SystemClock
from ruvector.demo import compare, scenes
from ruvector.demo.data import load_wordnet
from ruvector.demo.report import Report
from ruvector.demo.stage import SERVER_SETTINGS, Scene, Stage, texts_of
from ruvector.embedded import EmbeddedPostgres
from ruvector.errors import InvalidParameter

SCENES: tuple[Scene, ...] = (
    scenes.load_table,
    scenes.install_and_attach,
    scenes.show_neighbours,
    scenes.search_with_filter,
    scenes.write_in_a_transaction,
    scenes.kill_the_sidecar,
    scenes.connect_directly,
    compare.compare_engines,
)


def run_demo(*, rows: int | None, folder: Path | None, screen: Console, clock: Clock | None = None) -> Report:
    """Play every scene and return what held; errors end it and are raised, after everything was stopped.

    Args:
        rows: use the first rows only.
        folder: a new folder to build in and to keep; a temporary one that is removed when left out.
        screen: where to show what happens.
        clock: the clock of the measurements.
    """
    clock = clock if clock is not None else SystemClock()
    report = Report(screen, clock)
    with ExitStack() as exits:
        home = _home(folder, exits)
        server = EmbeddedPostgres(home / "postgres", settings=SERVER_SETTINGS)
        exits.callback(server.stop if folder is not None else server.remove)
        wordnet = load_wordnet(rows=rows)
        stage = Stage(report, clock, home, server, wordnet, exits, texts_of(wordnet))
        with db.translated():
            for scene in SCENES:
                scene(stage)
        report.begin("The sidecar ends in order")
        code = stage.process.stop()
        report.check(f"SIGTERM: last checkpoint written, exit code {code}", held=code == 0)
        report.end()
    _conclude(report, folder, stage)
    return report


def _home(folder: Path | None, exits: ExitStack) -> Path:
    if folder is None:
        home = Path(exits.enter_context(tempfile.TemporaryDirectory(prefix="ruvector-demo-")))
        if os.geteuid() == 0:
            home.chmod(0o755)  # the server runs as an unprivileged account and must pass through
        return home
    if folder.exists() and any(folder.iterdir()):
        raise InvalidParameter(f"the folder {folder} is not empty", hint="Give --keep a new folder.")
    folder.mkdir(parents=True, exist_ok=True)
    return folder.resolve()


def _conclude(report: Report, folder: Path | None, stage: Stage) -> None:
    if folder is not None:
        home = shlex.quote(str(stage.folder / "postgres"))
        start = f"from ruvector.embedded import EmbeddedPostgres as P; p = P({home!r}); p.start(); print(p.dsn())"
        report.screen.print("\nEverything is kept. Start the server and a sidecar again with:")
        report.screen.print(f"  {shlex.quote(sys.executable)} -c {shlex.quote(start)}", soft_wrap=True)
        report.screen.print(f"  ruvector {shlex.join(stage.process.command)} -d DSN", soft_wrap=True)
    count = len(report.steps)
    failed = [step.title for step in report.steps if not step.held]
    words = f"{len(failed)} of {count} steps did not hold: {', '.join(failed)}" if failed else f"all {count} steps held"
    report.screen.print(f"\n{words}, in {report.seconds:.0f} s", style="bold red" if failed else "bold green")
