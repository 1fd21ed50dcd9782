"""run: the sidecar as a process."""

from __future__ import annotations

import logging
import shlex
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated

import typer

from ruvector import __version__, limits
from ruvector.cli import output
from ruvector.cli.options import ConfigOption, DsnOption, FormatOption, read_call

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress, TaskID

    from ruvector.config import Settings
    from ruvector.sidecar.process import Sidecar

logger = logging.getLogger(__name__)

AdvertiseOption = Annotated[
    str | None,
    typer.Option(
        "--advertise", metavar="HOST:PORT", help="Where the database reaches it.  [default: the first address]"
    ),
]
CertificateOption = Annotated[
    Path | None, typer.Option("--tls-certificate", metavar="FILE", help="PEM file: encrypts the endpoint.")
]
KeyOption = Annotated[Path | None, typer.Option("--tls-key", metavar="FILE", help="PEM file of its key.")]

_SHOWN_EVERY_SECONDS = 0.2
_BUILDING = ("new", "copying", "catching_up", "reconciling")


def run(
    *,
    data_dir: Annotated[
        Path | None, typer.Option("--data-dir", metavar="DIR", help="Folder of its files.  [default: ruvector-data]")
    ] = None,
    listen: Annotated[
        list[str] | None,
        typer.Option(
            "--listen", metavar="ADDRESS", help="HOST:PORT or unix:DIRECTORY; repeatable.  [default: 127.0.0.1:7411]"
        ),
    ] = None,
    advertise: AdvertiseOption = None,
    tls_certificate: CertificateOption = None,
    tls_key: KeyOption = None,
    once: Annotated[
        bool, typer.Option("--once", help="Catch up, write checkpoints, end; do not listen.")
    ] = False,
    name: Annotated[str | None, typer.Option("--name", help="Name of this sidecar.  [default: main]")] = None,
    threads: Annotated[
        int | None, typer.Option("--threads", min=0, metavar="N", help="Threads of a build; 0 takes all cores.")
    ] = None,
    dsn: DsnOption = None,
    output_format: FormatOption = None,
    config: ConfigOption = None,
) -> None:  # fmt: skip
    """Run the sidecar: copy attached columns, follow their changes, answer searches. Ctrl+C ends it in order."""
    from ruvector.sidecar.process import Sidecar, SidecarSettings

    call = read_call(
        dsn=dsn, file=config, data_dir=data_dir, listen=tuple(listen) if listen else None,
        advertise=advertise, tls_certificate=tls_certificate, tls_key=tls_key, name=name, threads=threads,
        format=output_format,
    )  # fmt: skip
    settings = call.settings
    sidecar = Sidecar(
        SidecarSettings(
            dsn=settings.dsn_text, data_dir=settings.data_dir, listen=settings.listen,
            advertise=settings.advertise, tls_certificate=settings.tls_certificate, tls_key=settings.tls_key,
            name=settings.name, threads=settings.threads, checkpoint_seconds=settings.checkpoint_seconds,
            copy_save_seconds=settings.copy_save_seconds, scrub_seconds=settings.scrub_seconds,
        )
    )  # fmt: skip
    # Bars only for people; a file or a journal gets lines.
    screen = output.console(to_stderr=True) if sys.stderr.isatty() and not once else None
    start_logging(settings.log_level, screen=screen)
    if once:
        _run_once(sidecar, as_json=call.as_json)
        return
    with _stop_signals() as stop:
        sidecar.start()
        try:
            _say_where(sidecar, settings)
            _watch(sidecar, stop, screen=screen)
        finally:
            sidecar.stop()
    output.note("stopped; the last checkpoints are written")


def start_logging(level: str, *, screen: Console | None = None) -> None:
    """Log to stderr; through the screen where bars are drawn."""
    if screen is not None:
        from rich.logging import RichHandler

        handler: logging.Handler = RichHandler(console=screen, show_path=False, rich_tracebacks=False)
        logging.basicConfig(level=level.upper(), format="%(message)s", datefmt="%X", handlers=[handler])
        return
    logging.basicConfig(
        level=level.upper(), format="%(asctime)s %(levelname)s %(name)s: %(message)s", stream=sys.stderr
    )


@contextmanager
def _stop_signals() -> Iterator[threading.Event]:
    """Give an event that SIGINT and SIGTERM set; a second signal ends the process at once."""
    stop = threading.Event()

    def ask(number: int, _frame: FrameType | None) -> None:
        stop.set()
        signal.signal(number, signal.SIG_DFL)

    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _run_once(sidecar: Sidecar, *, as_json: bool) -> None:
    mirrors = sidecar.run_once()
    rows = [
        {"collection": mirror.collection.name, "rows_indexed": len(mirror.index), "position": str(mirror.position)}
        for mirror in mirrors
    ]
    if as_json:
        output.write_json({"command": "run", "once": True, "collections": rows})
    else:
        for row in rows:
            typer.echo(f"{row['collection']}: {row['rows_indexed']:,} rows, checkpoint written")


def _say_where(sidecar: Sidecar, settings: Settings) -> None:
    output.note(f'ruvector {__version__}, sidecar "{settings.name}", files in {settings.data_dir}')
    password = shlex.quote(str(settings.data_dir / "client-password"))
    for address in sidecar.addresses:
        # On the Unix socket the operating system vouches for a process of the same user.
        secret = "" if address.is_unix else f'PGPASSWORD="$(cat {password})" '
        output.note(f"listening on {address}")
        output.note(f"  {secret}psql -h {shlex.quote(address.host)} -p {address.port} -U ruvector ruvector")


def _watch(sidecar: Sidecar, stop: threading.Event, *, screen: Console | None) -> None:
    """Wait for the end; show first copies as bars on a terminal, as lines of the log elsewhere."""
    if screen is None:
        told: dict[str, str] = {}
        while not stop.wait(limits.PROGRESS_LOG_SECONDS):
            _log_progress(sidecar, told)
        return
    from rich.progress import BarColumn, Progress, TextColumn

    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[told]}"))
    with Progress(*columns, console=screen, transient=True) as bars:
        shown: dict[str, TaskID] = {}
        while not stop.wait(_SHOWN_EVERY_SECONDS):
            _draw(sidecar, bars, shown)


def _draw(sidecar: Sidecar, bars: Progress, shown: dict[str, TaskID]) -> None:
    from ruvector.client import progress_text

    for worker in sidecar.workers.all():
        mirror = worker.mirror
        name, progress = mirror.collection.name, mirror.progress
        if mirror.state in _BUILDING:
            if name not in shown:
                shown[name] = bars.add_task(name, total=None, told="")
            told = progress_text(
                progress.rows_copied, progress.rows_total, progress.rows_per_second, progress.eta_seconds
            )
            total = progress.rows_total if progress.rows_total > progress.rows_copied else None
            text = f"{mirror.state}: {told}"
            bars.update(shown[name], completed=progress.rows_copied, total=total, told=text)
        elif name in shown:
            bars.remove_task(shown.pop(name))
            logger.info("%s is %s: %s rows", name, mirror.state, f"{len(mirror.index):,}")


def _log_progress(sidecar: Sidecar, told: dict[str, str]) -> None:
    """Log what changed about each mirror since the last look."""
    from ruvector.client import progress_text

    for worker in sidecar.workers.all():
        mirror, progress = worker.mirror, worker.mirror.progress
        text = f"{mirror.state}" + (f", {mirror.reason}" if mirror.reason else "")
        if mirror.state in _BUILDING:
            text += ": " + progress_text(
                progress.rows_copied, progress.rows_total, progress.rows_per_second, progress.eta_seconds
            )
        if told.get(mirror.collection.name) != text:
            told[mirror.collection.name] = text
            logger.info("%s is %s", mirror.collection.name, text)
