"""The sidecar of the demonstration: `ruvector run` as a process of its own, started, killed and stopped."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import ruvector
from ruvector import limits
from ruvector.clock import Clock
from ruvector.errors import SidecarUnreachable

_LISTENING = re.compile(r"^listening on (\S+):(\d+)$", re.MULTILINE)
_POLL_SECONDS = 0.05


class SidecarProcess:
    """Owns the process; its log is the file sidecar.log of the folder."""

    def __init__(self, dsn: str, folder: Path, clock: Clock) -> None:
        self.folder = folder
        self.data_dir = folder / "sidecar"
        self.log_path = folder / "sidecar.log"
        self.port = 0
        self._dsn = dsn
        self._clock = clock
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def command(self) -> list[str]:
        """Return the arguments after `ruvector`."""
        return ["run", "--data-dir", str(self.data_dir), "--listen", "127.0.0.1:0"]

    @property
    def pid(self) -> int:
        """Return its process number, 0 when it does not run."""
        return 0 if self._process is None else self._process.pid

    def start(self) -> None:
        """Start it and wait until it listens."""
        # By environment: arguments of a process can be read by everybody on the machine.
        environment = {**os.environ, "RUVECTOR_DSN": self._dsn, "PYTHONPATH": _python_path()}
        environment.pop("RUVECTOR_CONFIG", None)
        before = self.log_path.stat().st_size if self.log_path.exists() else 0
        with self.log_path.open("ab") as log:
            self._process = subprocess.Popen(  # noqa: S603 - our own command line, no shell
                [sys.executable, "-m", "ruvector", *self.command],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment, cwd=self.folder,
            )  # fmt: skip
        deadline = self._clock.now() + limits.DEMO_SECONDS_MAX
        while True:
            text = self.log_path.read_bytes()[before:].decode("utf-8", "replace")
            if found := _LISTENING.search(text):
                self.port = int(found[2])
                return
            if self._process.poll() is not None or self._clock.now() > deadline:
                raise SidecarUnreachable("the sidecar of the demonstration does not start", detail=text[-2_000:])
            self._clock.sleep(_POLL_SECONDS)

    def kill(self) -> int:
        """End it with SIGKILL, as the out-of-memory killer would; return its process number."""
        if self._process is None:
            return 0
        self._process.kill()
        self._process.wait()
        return self._process.pid

    def stop(self) -> int | None:
        """End it with SIGTERM and return its exit code; SIGKILL and None when it does not end."""
        process, self._process = self._process, None
        if process is None:
            return None
        process.send_signal(signal.SIGTERM)
        try:
            return process.wait(limits.DEMO_STOP_SECONDS_MAX)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            return None

    def direct_dsn(self) -> str:
        """Return the connection string of a client that goes past the database."""
        password = (self.data_dir / "client-password").read_text(encoding="ascii").strip()
        return f"host=127.0.0.1 port={self.port} user=ruvector password={password} dbname=ruvector"


def _python_path() -> str:
    """Return the path under which the child finds the ruvector that runs here."""
    home = str(Path(ruvector.__file__).resolve().parent.parent)
    return os.pathsep.join(filter(None, (home, os.environ.get("PYTHONPATH"))))
