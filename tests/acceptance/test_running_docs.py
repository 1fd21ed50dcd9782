"""Deployment files are well-formed, and every command of theirs exists with the options it is given."""

import json
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "docs" / "deploy"
RUNNING = (ROOT / "docs" / "running.md").read_text(encoding="utf-8")
COMPOSE = yaml.safe_load((DEPLOY / "compose.yaml").read_text(encoding="utf-8"))
DOCKERFILE = (DEPLOY / "Dockerfile").read_text(encoding="utf-8")
UNIT = (DEPLOY / "ruvector.service").read_text(encoding="utf-8")


def commands():
    """Return the words of every call of the command line in the documents."""
    for block in re.findall(r"```sh\n(.*?)```", RUNNING, re.DOTALL):
        for line in block.replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            if "ruvector" in words:
                yield words[words.index("ruvector") + 1 :]
    for service in COMPOSE["services"].values():
        if "command" in service:
            yield service["command"][1:]
    yield json.loads(re.search(r"^CMD (.*)$", DOCKERFILE, re.MULTILINE)[1])[1:]
    yield shlex.split(re.search(r"^ExecStart=(.*)$", UNIT, re.MULTILINE)[1])[1:]


@pytest.mark.parametrize("words", list(commands()), ids=" ".join)
def test_command_exists_with_its_options(cli, words):
    help_text = cli(words[0], "--help").out
    options = [word for word in words if word.startswith("--")]
    assert all(re.search(rf"{option}\b", help_text) for option in options), options


def test_services_wait_for_services_that_exist():
    services = COMPOSE["services"]
    assert set(services) == {"database", "install", "sidecar"}
    for service in services.values():
        assert set(service.get("depends_on", {})) <= set(services)
        for volume in service.get("volumes", []):
            assert volume.split(":")[0] in COMPOSE["volumes"]
    for name in ("install", "sidecar"):
        build = services[name]["build"]
        assert (DEPLOY / build["context"]).resolve() == ROOT
        assert (ROOT / build["dockerfile"]).is_file()


def test_image_reads_settings_that_exist(cli):
    variables = dict(re.findall(r"\b(RUVECTOR_[A-Z_]+)=(\S+)", DOCKERFILE))
    settings = cli.json("config", "show", **variables)["settings"]
    assert settings["data_dir"] == variables["RUVECTOR_DATA_DIR"]


def test_unit_is_accepted_by_systemd(tmp_path):
    if not shutil.which("systemd-analyze"):
        pytest.skip("there is no systemd here")
    unit = tmp_path / "ruvector.service"
    unit.write_text(UNIT.replace("/opt/ruvector/bin/ruvector", "/bin/true"))
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(unit)], capture_output=True, text=True, timeout=60, check=False
    )
    about_ours = [line for line in done.stderr.splitlines() if "ruvector.service" in line]
    assert not about_ours


def test_links_lead_somewhere():
    targets = re.findall(r"\]\((?!http)([^)#]+)\)", RUNNING)
    assert targets
    assert all((ROOT / "docs" / target).exists() for target in targets)
