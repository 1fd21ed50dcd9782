"""Fixtures of all tests; each kind has its own file fix_<kind>.py."""

import os
from pathlib import Path

import pytest

pytest_plugins = ["fix_alembic", "fix_bridge", "fix_cli", "fix_postgres", "fix_process", "fix_sidecar"]


def pytest_configure(config):
    """Stop when `make test` would test the checkout instead of the installed build."""
    if os.environ.get("RUVECTOR_TEST_INSTALLED") != "1":
        return
    import ruvector.errors

    imported = Path(ruvector.errors.__file__).resolve()
    if imported.is_relative_to(config.rootpath / "ruvector"):
        pytest.exit(f"ruvector was imported from the checkout ({imported}), not from the installed build", returncode=4)
