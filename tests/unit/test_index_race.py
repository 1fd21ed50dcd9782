"""The graph under ThreadSanitizer: no two threads touch the same memory without a lock between them."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SOURCES = ROOT / "ruvector" / "_ext"


@pytest.mark.slow
def test_graph_has_no_races(tmp_path):
    compiler = shutil.which("g++")
    if compiler is None:
        pytest.skip("there is no g++")
    flags = ["-std=c++17", "-O1", "-g", "-ffp-contract=off", "-pthread", "-fsanitize=thread"]
    (tmp_path / "probe.cpp").write_text("int main() { return 0; }")
    probe = subprocess.run([compiler, *flags, "probe.cpp", "-o", "probe"], cwd=tmp_path, capture_output=True)
    if probe.returncode or subprocess.run([tmp_path / "probe"], capture_output=True).returncode:
        pytest.skip("this compiler or this machine has no ThreadSanitizer")
    sources = [ROOT / "tests" / "native" / "graph_race.cpp", *sorted((SOURCES / "simd").glob("*.cpp"))]
    subprocess.run([compiler, *flags, f"-I{SOURCES}", *sources, "-o", "race"], cwd=tmp_path, check=True)
    options = os.environ | {"TSAN_OPTIONS": "exitcode=66"}
    done = subprocess.run([tmp_path / "race"], env=options, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, (done.stdout + done.stderr)[:4000]
