"""The real sidecar process: `python -m ruvector run`, started, killed and started again."""

import os
import re
import signal
import subprocess
import sys
import time

import pytest

START_SECONDS = 60.0


class SidecarProcess:
    """One data directory and the process that runs over it."""

    def __init__(self, dsn, data_dir):
        self.dsn, self.data_dir = dsn, data_dir
        self.log = data_dir.with_suffix(".log")
        self._process = None

    def start(self, *options, env=None):
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "ruvector", "run", "--dsn", str(self.dsn), "--data-dir", str(self.data_dir),
                 "--listen", "127.0.0.1:0", *options],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, env={**os.environ, **(env or {})},
            )  # fmt: skip
        return self

    @property
    def is_running(self):
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self):
        return self._process.pid

    def kill(self):
        """SIGKILL: nothing is flushed, nothing is said."""
        self._process.send_signal(signal.SIGKILL)
        self._process.wait(10)

    def freeze(self):
        """SIGSTOP: nothing runs, connections stay open."""
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self):
        self._process.send_signal(signal.SIGCONT)

    def terminate(self):
        """SIGTERM, and wait for the orderly end; returns the exit status."""
        self._process.terminate()
        return self._process.wait(START_SECONDS)

    def output(self):
        return self.log.read_text(errors="replace") if self.log.exists() else ""

    def close(self):
        if self.is_running:
            self._process.kill()
            self._process.wait(10)


def wait_for_state(database, name, state, *, seconds=START_SECONDS, process=None):
    """Wait until status functions show a state; fail with the log of the sidecar."""
    end = time.monotonic() + seconds
    with database.connect() as connection:
        while True:
            shown = connection.execute("SELECT state, reason FROM ruvector_consistency_status(%s)", (name,)).fetchone()
            if shown and re.fullmatch(state, shown[0]):
                return shown
            log = process.output() if process is not None else ""
            assert process is None or process.is_running, f"the sidecar ended:\n{log}"
            assert time.monotonic() < end, f"{name} is {shown}, not {state}:\n{log}"
            time.sleep(0.02)


@pytest.fixture
def sidecar_process(database, tmp_path):
    process = SidecarProcess(database.dsn, tmp_path / "data")
    yield process
    process.close()
