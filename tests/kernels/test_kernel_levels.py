"""Every instruction set this machine can run, and the numpy twin, pass the same tests; each in its own process."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import ruvector
from ruvector._ext.distance import LEVELS, simd_levels

HERE = Path(__file__).parent
# The processes test the build this one imported: the checkout's or the installed one.
BUILD = str(Path(ruvector.__file__).parent.parent)
# The chosen kernels are fixed at import, so each choice needs a process of its own.
SAY_NAME = "from ruvector import kernels; print(kernels.simd_name())"


@pytest.fixture
def run(tmp_path):
    """Run Python with other kernels."""

    def start(*arguments, **variables):
        environment = dict(os.environ)
        for name in ("RUVECTOR_SIMD", "RUVECTOR_KERNELS"):
            environment.pop(name, None)
        return subprocess.run(
            [sys.executable, *arguments],
            env=environment | variables | {"PYTHONPATH": BUILD},
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=200,
        )

    return start


@pytest.mark.parametrize("level", LEVELS)
def test_level_computes_the_same_distances(run, level):
    if level not in simd_levels():
        pytest.skip(f"this CPU does not run {level}")
    done = run("-m", "pytest", "-q", "-p", "no:cacheprovider", HERE / "test_kernel_distances.py", RUVECTOR_SIMD=level)
    assert done.returncode == 0, done.stdout[-3000:]
    assert run("-c", SAY_NAME, RUVECTOR_SIMD=level).stdout.strip() == level.removesuffix("-table")


def test_numpy_twin_computes_the_same(run):
    files = [HERE / "test_kernel_distances.py", HERE / "test_kernel_copy.py"]
    done = run("-m", "pytest", "-q", "-p", "no:cacheprovider", *files, RUVECTOR_KERNELS="numpy")
    assert done.returncode == 0, done.stdout[-3000:]
    assert run("-c", SAY_NAME, RUVECTOR_KERNELS="numpy").stdout.strip() == "numpy"


def test_numpy_twin_needs_no_compiled_module(run):
    code = (
        "import sys; from ruvector import kernels; from ruvector.kernels import copyformat;"
        "print([name for name in sys.modules if name.startswith('ruvector._ext.')])"
    )
    assert run("-c", code, RUVECTOR_KERNELS="numpy").stdout.strip() == "[]"


def test_unknown_level_falls_back_to_the_best(run):
    assert run("-c", SAY_NAME, RUVECTOR_SIMD="mmx").stdout == run("-c", SAY_NAME).stdout
    assert run("-c", SAY_NAME, RUVECTOR_SIMD="scalar").stdout.strip() == "scalar"


def test_unknown_kernels_are_refused(run):
    done = run("-c", SAY_NAME, RUVECTOR_KERNELS="fortran")
    assert done.returncode != 0
    assert 'InvalidParameter: RUVECTOR_KERNELS is "fortran"' in done.stderr
