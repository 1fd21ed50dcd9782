"""What the steps share: the server, the data, the sidecar, connections, and small questions to the database."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from psycopg import sql

from ruvector import db, limits
from ruvector.client import Client, progress_text
from ruvector.client.facade import vector_text
from ruvector.clock import Clock
from ruvector.demo.data import WordNet
from ruvector.demo.process import SidecarProcess
from ruvector.demo.report import Report
from ruvector.embedded import EmbeddedPostgres
from ruvector.errors import Cancelled

COLLECTION = "glosses_embedding"
SERVER_SETTINGS: dict[str, str | int | float] = {
    "shared_buffers": "256MB",
    "maintenance_work_mem": "256MB",  # so that pgvector builds its graph in memory
    "jit": "off",
    "max_connections": 50,
}
_POLL_SECONDS = 0.05


@dataclass(slots=True)
class Stage:
    """One demonstration that runs."""

    report: Report
    clock: Clock
    folder: Path
    server: EmbeddedPostgres
    wordnet: WordNet
    exits: ExitStack
    query_texts: list[str]
    build_seconds: float = 0.0
    sidecar: SidecarProcess | None = None

    @property
    def dsn(self) -> str:
        """Return the connection string of the demonstration's database."""
        return self.server.dsn()

    @property
    def process(self) -> SidecarProcess:
        """Return the sidecar."""
        if self.sidecar is None:
            self.sidecar = SidecarProcess(self.dsn, self.folder, self.clock)
        return self.sidecar

    @contextmanager
    def connection(self, *, autocommit: bool = True, notices: list[str] | None = None) -> Iterator[db.Connection]:
        """Open a connection; the database's notices are collected when a list is given."""
        with db.connect(self.dsn, application_name="ruvector demo", autocommit=autocommit) as connection:
            if notices is not None:
                connection.add_notice_handler(lambda diagnostic: notices.append(diagnostic.message_primary or ""))
            yield connection

    def answered_by(self, connection: db.Connection, *, condition: str | None = None) -> str:
        """Return who answers a search at the moment: ruvector, pgvector or exact."""
        return str(ask(connection, "engine", query=self.query_texts[0], filter=condition)[0][0])

    def wait_live(self, client: Client) -> float:
        """Wait until the mirror answers, drawing its own account of the copy; return the seconds waited."""
        from rich.progress import BarColumn, Progress, TextColumn

        started = self.clock.now()
        columns = (TextColumn("   {task.description}"), BarColumn(), TextColumn("{task.fields[told]}"))
        with Progress(*columns, console=self.report.screen) as bars:
            task = bars.add_task(COLLECTION, total=None, told="")
            while True:
                mirror = client.status(COLLECTION)[0]
                copied, total = mirror["rows_copied"], mirror["rows_total"]
                # Asked beside the state: what a killed sidecar said last is still written there.
                is_live = mirror["state"] == "live" and self.answered_by(client.connection) == "ruvector"
                if is_live:
                    total = copied = mirror["rows_indexed"]
                told = progress_text(copied, total, mirror["rows_per_second"], mirror["eta_seconds"])
                text = f"{mirror['state']}: {told}"
                bars.update(task, completed=copied, total=total or None, told=text)
                waited = self.clock.now() - started
                if is_live:
                    return waited
                if waited > limits.DEMO_SECONDS_MAX:
                    raise Cancelled(f"the mirror is {mirror['state']} after {waited:.0f} s: {mirror['reason']}")
                self.clock.sleep(_POLL_SECONDS)


def ask(connection: db.Connection, name: str, **values: object) -> list[tuple[Any, ...]]:
    """Run a named query of the demonstration and return its rows."""
    return connection.execute(db.query("demo", name).encode(), values).fetchall()


def run(connection: db.Connection, name: str, **values: object) -> int:
    """Run a named statement of the demonstration and return the number of rows it changed."""
    return connection.execute(db.query("demo", name).encode(), values or None).rowcount


def ask_direct(connection: db.Connection, query: str) -> list[tuple[Any, ...]]:
    """Send the search to the sidecar itself, everything written into the statement as psql does."""
    statement = sql.SQL(db.query("demo", "direct")).format(collection=sql.Literal(COLLECTION), query=sql.Literal(query))
    return connection.execute(statement).fetchall()


def lines_of(name: str) -> list[str]:
    """Return a statement of the demonstration as it is sent, for people."""
    return [line for line in db.query("demo", name).splitlines() if not line.startswith("--")]


def texts_of(wordnet: WordNet) -> list[str]:
    """Return the query vectors as PostgreSQL reads them."""
    return [vector_text(vector) for vector in wordnet.query_vectors]


Scene = Callable[[Stage], None]
