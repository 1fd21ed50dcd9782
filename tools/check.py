"""Run every check that a change must pass: style, types, generated files, tests."""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PYTHON = [sys.executable, "-m"]

# The quick checks first; each is a command that ends with 0 when all is well.
CHECKS = {
    "lint": [*PYTHON, "ruff", "check", "ruvector", "tools", "tests", "migrations"],
    "format": [*PYTHON, "ruff", "format", "--check", "ruvector", "tools", "tests", "migrations"],
    "cython": [str(Path(sys.executable).with_name("cython-lint")), "ruvector/_ext"],
    "generated": [sys.executable, "tools/build_sql.py", "--check"],
    "types": [*PYTHON, "mypy"],
    "tidy": [*PYTHON, "pytest", "-q", "tests/tidy", "tests/golden"],
    "tests": [*PYTHON, "pytest", "-q", "-m", "not slow"],
    "slow": [*PYTHON, "pytest", "-q", "-m", "slow"],
}
QUICK = ("lint", "format", "cython", "generated", "types", "tidy")


def main() -> int:
    """Run the named checks, or all; print one line each and return 1 when one failed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checks", nargs="*", metavar="CHECK", help=f"of {', '.join(CHECKS)} (default: all)")
    parser.add_argument("--quick", action="store_true", help=f"only {', '.join(QUICK)}")
    options = parser.parse_args()
    names = options.checks or (QUICK if options.quick else tuple(CHECKS))
    unknown = set(names) - set(CHECKS)
    if unknown:
        parser.error(f"no check is called {', '.join(sorted(unknown))}")
    failed = [name for name in names if not passes(name)]
    if failed:
        print(f"failed: {', '.join(failed)}")
    return 1 if failed else 0


def passes(name: str) -> bool:
    """Run one check; its output is shown only when it fails."""
    started = time.monotonic()
    done = subprocess.run(
        CHECKS[name], cwd=ROOT, check=False, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    print(f"{name:10} {'ok' if done.returncode == 0 else 'FAILED':7} {time.monotonic() - started:5.1f} s", flush=True)
    if done.returncode != 0:
        print(done.stdout.rstrip())
    return done.returncode == 0


if __name__ == "__main__":
    sys.exit(main())
