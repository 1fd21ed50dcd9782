"""What the README shows works as it stands there."""

import re
from pathlib import Path

import pytest

README = (Path(__file__).resolve().parents[2] / "README.md").read_text(encoding="utf-8")


def test_first_search_in_sql(database):
    snippet = re.search(r"```sql\n(.*?)```", README, re.DOTALL)[1]
    with database.connect() as connection:
        for statement in filter(str.strip, snippet.split(";\n")):
            cursor = connection.execute(statement)
        assert [row[0] for row in cursor.fetchall()] == [1, 3]


def test_settings_file(cli):
    (cli.folder / "ruvector.toml").write_text(re.search(r"```toml\n(.*?)```", README, re.DOTALL)[1])
    assert cli.json("config", "show")["settings"]["data_dir"] == "/var/lib/ruvector/shop"


@pytest.mark.parametrize("line", re.findall(r"^ruvector ([a-z]+)(?: .*)?$", README, re.MULTILINE))
def test_commands_exist(cli, line):
    assert cli(line, "--help").code == 0


def test_links_lead_somewhere():
    root = Path(__file__).resolve().parents[2]
    assert all((root / target).exists() for target in re.findall(r"\]\((?!http)([^)]+)\)", README))
