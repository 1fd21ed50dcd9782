"""docs/sqlalchemy.md is followed as it stands: files are written, commands and Python are run."""

import contextlib
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from fix_alembic import entry_point_folder
from fix_sidecar import running_sidecar
from orm_kit import url_of

import ruvector.sqlalchemy

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "docs" / "sqlalchemy.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```", TEXT, re.DOTALL | re.MULTILINE)


def test_tutorial(bare_database, tmp_path, monkeypatch):
    url = url_of(bare_database).render_as_string(hide_password=False)
    home = Path(ruvector.__file__).resolve().parents[1]
    path = os.pathsep.join(map(str, (home, tmp_path, entry_point_folder(tmp_path))))
    environment = {**os.environ, "DATABASE_URL": url, "PYTHONPATH": path}

    def alembic(*words):
        done = subprocess.run(
            [sys.executable, "-m", "alembic", *words],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    alembic("init", "migrations")
    monkeypatch.syspath_prepend(str(tmp_path))
    names = {"url": url}
    with contextlib.ExitStack() as stack:
        for kind, block in BLOCKS:
            file = re.match(r"# (\S+\.py)\n", block)
            if file:
                (tmp_path / file[1]).write_text(block)
            elif kind == "python":
                exec(compile(block, "docs/sqlalchemy.md", "exec"), names)  # noqa: S102
            elif kind == "sh":
                for line in block.splitlines():
                    program, *words = shlex.split(line, comments=True)
                    assert program == "alembic"
                    alembic(*words)
            else:
                (revision,) = (tmp_path / "migrations" / "versions").glob("*.py")
                written = [line.strip() for line in revision.read_text().splitlines()]
                assert [line for line in block.splitlines() if line not in written] == []
                stack.enter_context(running_sidecar(bare_database, tmp_path / "sidecar")).wait_live("items_embedding")
        names["engine"].dispose()
    sys.modules.pop("models")


def test_every_public_name_is_explained():
    assert [name for name in ruvector.sqlalchemy.__all__ if name not in TEXT] == []


@pytest.mark.parametrize("target", re.findall(r"\]\((?!http)([^)#]+)\)", TEXT) or ["sqlalchemy.md"])
def test_links_lead_somewhere(target):
    assert (ROOT / "docs" / target).exists()
