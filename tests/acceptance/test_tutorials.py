"""The tutorials are followed as they stand: psql runs their SQL, and prints what they show."""

import re
import shlex
import subprocess
from pathlib import Path

import pytest
from fix_sidecar import RunningSidecar, wait_until

DOCS = Path(__file__).resolve().parents[2] / "docs"
TUTORIALS = sorted(DOCS.glob("tutorial-*.md"))


def blocks(text):
    return re.findall(r"^```(\w+)\n(.*?)^```", text, re.DOTALL | re.MULTILINE)


def cells(printed):
    """Return the rows of tables as lists of cells: how wide columns are drawn is no matter."""
    lines = [line for line in printed.splitlines() if line.strip() and not re.fullmatch(r"[-+ ]+", line)]
    return [[cell.strip() for cell in line.split("|")] for line in lines]


def psql(server, dsn, text):
    program = server.embedded.programs / "psql"
    done = subprocess.run(
        [program, "-X", "-q", "-P", "footer=off", "-v", "ON_ERROR_STOP=1", "-d", dsn],
        input=text, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, f"{text}\n{done.stderr}"
    return done.stdout


@pytest.mark.parametrize("tutorial", TUTORIALS, ids=lambda path: path.stem)
def test_tutorial(tutorial, cli, bare_database, tmp_path):
    if bare_database.server.embedded is None:
        pytest.skip("psql of the embedded server is needed")
    sidecar = RunningSidecar(bare_database, tmp_path / "sidecar")
    printed, shown = "", 0
    try:
        for kind, block in blocks(tutorial.read_text(encoding="utf-8")):
            if kind == "sql":
                printed = psql(bare_database.server, bare_database.dsn, block)
            elif kind == "text":
                assert cells(printed) == cells(block)
                shown += 1
            else:
                for line in block.splitlines():
                    run(line, cli, bare_database, sidecar)
    finally:
        sidecar.stop()
    assert shown >= 4


def run(line, cli, database, sidecar):
    """Run one command; the sidecar runs in this process, and is waited for."""
    program, *words = shlex.split(line, comments=True)
    assert program == "ruvector"
    if words == ["run", "&"]:
        sidecar.start()
    else:
        answer = cli(*words, dsn=database.dsn)
        assert answer.code == 0, answer.err
    if sidecar.is_running:
        with database.connect() as connection:
            names = [row[0] for row in connection.execute("SELECT name FROM ruvector.collection").fetchall()]
        wait_until(lambda: {worker.mirror.collection.name for worker in sidecar.sidecar.workers.all()} == set(names),
                   "the workers")  # fmt: skip
        sidecar.wait_live(*names)


@pytest.mark.parametrize("tutorial", TUTORIALS, ids=lambda path: path.stem)
def test_tutorials_are_linked_from_the_readme(tutorial):
    assert f"docs/{tutorial.name}" in (DOCS.parent / "README.md").read_text(encoding="utf-8")
