"""The command line, the client, and a small table; for a sidecar see fix_process."""

import contextlib
import io
import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

import ruvector
from ruvector.cli.app import run
from ruvector.client import connect
from ruvector.clock import SystemClock

HOME = str(Path(ruvector.__file__).resolve().parent.parent)
SECONDS_MAX = 120


@dataclass(frozen=True)
class Answer:
    """What a command ended with."""

    code: int
    out: str
    err: str

    @property
    def document(self):
        document = json.loads(self.out)
        assert document["schema"] == 1
        return document


class CommandLine:
    """Run `ruvector ...` in a folder, against a database: in this process, or with ``process`` in one of its own."""

    def __init__(self, folder, dsn=None):
        self.folder = folder
        self.dsn = dsn

    def __call__(self, *words, dsn=None, **variables):
        arguments = ["ruvector", *map(str, words)]
        with (
            environment(self._variables(dsn, variables)),
            contextlib.chdir(self.folder),
            swapped(sys, "argv", arguments),
            swapped(sys, "stdin", io.StringIO()),
            contextlib.redirect_stdout(io.StringIO()) as out,
            contextlib.redirect_stderr(io.StringIO()) as err,
        ):
            code = run()
        return Answer(code, out.getvalue(), err.getvalue())

    def process(self, *words, dsn=None, **variables):
        done = subprocess.run(
            [sys.executable, "-m", "ruvector", *map(str, words)],
            cwd=self.folder,
            env=self._variables(dsn, variables),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=SECONDS_MAX,
            check=False,
        )
        assert "Traceback" not in done.stderr, done.stderr
        return Answer(done.returncode, done.stdout, done.stderr)

    def json(self, *words, **options):
        """Run with --format json; the exit code must be 0."""
        answer = self(*words, "--format", "json", **options)
        assert answer.code == 0, answer.err
        return answer.document

    def _variables(self, dsn, variables):
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(("RUVECTOR_", "PG"))}
        chosen = dsn or self.dsn
        return {**inherited, "PYTHONPATH": HOME, **({"RUVECTOR_DSN": str(chosen)} if chosen else {}), **variables}


@contextlib.contextmanager
def environment(variables):
    before = dict(os.environ)
    os.environ.clear()
    os.environ.update(variables)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


@contextlib.contextmanager
def swapped(home, name, value):
    before = getattr(home, name)
    setattr(home, name, value)
    try:
        yield
    finally:
        setattr(home, name, before)


@pytest.fixture
def cli(tmp_path):
    """The command line without a database."""
    return CommandLine(tmp_path)


@pytest.fixture
def rv(tmp_path, database):
    """The command line against the test's database, where ruvector is installed."""
    return CommandLine(tmp_path, database.dsn)


@pytest.fixture
def items(database):
    """A table of 300 rows with vectors of 8 dimensions."""
    with database.connect() as connection:
        connection.execute("CREATE TABLE items (id bigint PRIMARY KEY, category text, embedding vector(8))")
        connection.execute(
            """
            INSERT INTO items
            SELECT n, CASE n % 3 WHEN 0 THEN 'a' ELSE 'b' END,
                   (SELECT array_agg(sin(n * 0.7 + d * d)) FROM generate_series(1, 8) d)::vector
            FROM generate_series(1, 300) n
            """
        )
    return "public.items.embedding"


@pytest.fixture
def client(database):
    with connect(database.dsn) as opened:
        yield opened


@pytest.fixture
def wait_live(client):
    """Return a function that waits until the index of a collection answers."""
    clock = SystemClock()

    def wait(name, query="[1,0,0,0,0,0,0,0]"):
        deadline = clock.now() + SECONDS_MAX
        while client.explain(name, query)["engine"] != "ruvector":
            assert clock.now() < deadline, client.status(name)
            clock.sleep(0.05)

    return wait
