"""The list of packages, extensions and their compiler flags, nothing else."""

import os
import sys
from pathlib import Path

from Cython.Build import cythonize
from setuptools import Extension, find_namespace_packages, find_packages, setup

DEBUG = os.environ.get("RUVECTOR_DEBUG") == "1"
SIMD = sorted(str(path) for path in Path("ruvector/_ext/simd").glob("*.cpp"))
# Instruction sets are enabled per function (target attributes), never per file and never with -march=native:
# one build runs on every CPU of its architecture and picks its kernels at import.
# No contraction to fused multiply-adds: codes must come out the same, bit by bit, under every instruction set.
COMPILE = ["-std=c++17", "-O3", "-fno-math-errno", "-ffp-contract=off", "-fvisibility=hidden"]
LINK: list[str] = []
if DEBUG:
    COMPILE = [
        "-std=c++17",
        "-O1",
        "-g",
        "-ffp-contract=off",
        "-fsanitize=undefined",
        "-fno-sanitize-recover=undefined",
    ]
    LINK = ["-fsanitize=undefined"]
if sys.platform == "darwin":
    COMPILE.append("-mmacosx-version-min=10.14")
else:
    COMPILE.append("-pthread")  # threads are a library of their own before glibc 2.34
    LINK.append("-pthread")


def extension(name: str, *sources: str) -> Extension:
    """Describe one C++ extension module of ruvector._ext."""
    return Extension(
        f"ruvector._ext.{name}",
        [f"ruvector/_ext/{name}.pyx", *sources],
        include_dirs=["ruvector/_ext"],
        depends=[str(path) for path in Path("ruvector/_ext").rglob("*.h*")],
        language="c++",
        extra_compile_args=COMPILE,
        extra_link_args=LINK,
        define_macros=[("NPY_NO_DEPRECATED_API", "NPY_1_7_API_VERSION")],
    )


EXTENSIONS = [
    extension("distance", *SIMD),  # one query against many rows
    extension("codes", *SIMD),  # the kernels over quantized vectors, for tests
    extension("graph", *SIMD),  # the HNSW graph
    extension("inverted"),  # exact inverted lists of sparse rows
    extension("ivf", *SIMD),  # inverted lists
    extension("copyformat"),  # COPY BINARY frames and page checksums
]

# sql/ and migrations/ stand at the top of the checkout and ship inside the package.
FOLDERS = ("sql", "migrations")
PACKAGES = find_packages(include=["ruvector", "ruvector.*"])
for folder in FOLDERS:
    inner = [f"ruvector.{folder}.{name}" for name in find_namespace_packages(folder) if "__pycache__" not in name]
    PACKAGES += [f"ruvector.{folder}", *inner]

setup(
    packages=PACKAGES,
    package_dir={f"ruvector.{folder}": folder for folder in FOLDERS},
    package_data={"": ["*.sql", "*.md", "*.mako", "*.txt", "*.pyi", "py.typed"], "ruvector.demo": ["data/*"]},
    ext_modules=cythonize(
        EXTENSIONS,
        nthreads=2,
        compiler_directives={
            "language_level": 3,
            "boundscheck": DEBUG,
            "wraparound": False,
            "cdivision": not DEBUG,
            "initializedcheck": DEBUG,
            "embedsignature": True,
            "freethreading_compatible": True,
        },
    ),
)
