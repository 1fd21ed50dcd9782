"""Measure how long a saved index takes to open and to answer, and how much memory it then takes.

The index is synthetic: random rows and, unless --build is given, random links, which cost as much to open, to verify
and to walk as real ones but find nothing in particular. Every figure is that of a process of its own, which opens the
index, asks at once, waits for the verification and asks 1,000 more queries. Files are in the page cache (warm), as
after a restart of the program; nothing is dropped from it.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from ruvector.index import Index, KeyedIndex, options_to_json
from ruvector.store import write_generation
from ruvector.values import IndexOptions, Metric

EMPTY = 0xFFFFFFFF
QUERIES = 1000
COLUMNS = (
    ("verify", "verify"),
    ("open ms", "open_ms"),
    ("first ms", "first_ms"),
    ("both ms", "both_ms"),
    ("early ms", "early_ms"),
    ("verified s", "verified_s"),
    ("late ms", "late_ms"),
    ("MB open", "open_mb"),
    ("MB first", "first_mb"),
    ("MB verified", "verified_mb"),
    ("MB 1000", "late_mb"),
)


def synthetic_sections(options: IndexOptions, rows: int) -> dict[str, Any]:
    """Return the sections of an index of random rows with random links; codes are made when it is restored."""
    rng = np.random.default_rng(1)
    stride = (options.dims * 4 + 15) // 16 * 16
    data = np.zeros((rows, stride // 4), dtype=np.float32)
    for start in range(0, rows, 50_000):
        part = data[start : start + 50_000]
        part[:, : options.dims] = rng.standard_normal((len(part), options.dims), dtype=np.float32)
    levels = np.minimum(np.floor(-np.log(rng.random(rows)) / np.log(options.m)), 5).astype(np.uint8)
    upper = []
    members = [np.flatnonzero(levels >= level) for level in range(int(levels.max()) + 1)]
    for level in levels[levels > 0].tolist():
        upper += [rng.choice(members[at], options.m) for at in range(1, level + 1)]
    entry = int(members[-1][0])
    return {
        "rows": data.view(np.uint8),
        "links": rng.integers(0, rows, (rows, 2 * options.m), dtype=np.uint32),
        "codes": np.zeros((0, 16), dtype=np.uint8),
        "levels": levels,
        "states": np.ones(rows, dtype=np.uint8),
        "keys": np.arange(rows, dtype=np.int64),
        "scales": np.ones(rows, dtype=np.float32),
        "fingerprints": rng.integers(0, 2**32, rows, dtype=np.uint32),
        "twin_heads": np.full(rows, EMPTY, dtype=np.uint32),
        "upper": np.concatenate(upper).astype(np.uint32),
        "center": np.zeros(0, dtype=np.float32),
        "head": np.array([entry, levels.max(), rows, 0, rows, 0, 0, 0], dtype=np.int64),
    }


def save(path: Path, *, rows: int, dims: int, is_built: bool) -> None:
    """Write the index that is measured."""
    if is_built:
        index = Index(dims)
        index.add(np.arange(rows), np.random.default_rng(1).standard_normal((rows, dims), dtype=np.float32))
        index.save(path)
        return
    options = IndexOptions(dims=dims, metric=Metric.L2)
    keyed = KeyedIndex.from_sections(options, synthetic_sections(options, rows))
    write_generation(path, keyed.sections(), meta={"content": "ruvector index", "options": options_to_json(options)})


def resident_mb() -> float:
    """Return the resident memory of this process."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * resource.getpagesize() / 1e6


def measure(path: Path, *, dims: int, verify: str) -> dict[str, Any]:
    """Open, ask, wait, ask again."""
    queries = np.random.default_rng(2).standard_normal((2 * QUERIES, dims), dtype=np.float32)
    Index(dims).add([1], queries[:1])  # code that is loaded on first use
    base_mb = resident_mb()
    figures: dict[str, Any] = {"verify": verify}
    started = time.perf_counter()
    index = Index.open(path, verify="full" if verify == "full" else "lazy")
    opened = time.perf_counter()
    figures["open_mb"] = resident_mb() - base_mb
    index.search(queries[0])
    first = time.perf_counter()
    figures["first_mb"] = resident_mb() - base_mb
    early = first_queries(index, queries)
    index.verified()
    verified = time.perf_counter()
    figures["verified_mb"] = resident_mb() - base_mb
    index.search(queries[QUERIES])
    late_started = time.perf_counter()
    for query in queries[QUERIES:]:
        index.search(query)
    figures["late_ms"] = (time.perf_counter() - late_started) / QUERIES * 1e3
    figures["late_mb"] = resident_mb() - base_mb
    milliseconds = {"open_ms": opened - started, "first_ms": first - opened, "both_ms": first - started}
    figures |= {name: value * 1e3 for name, value in milliseconds.items()}
    return figures | {"early_ms": early, "verified_s": verified - started}


def first_queries(index: Index, queries: Any) -> float:
    """Return milliseconds per search of the 20 that follow the first."""
    started = time.perf_counter()
    for query in queries[1:21]:
        index.search(query)
    return (time.perf_counter() - started) / 20 * 1e3


def main() -> int:
    """Build, measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--dims", type=int, default=128)
    parser.add_argument("--build", action="store_true", help="link the rows as a program would")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--folder", type=Path, help="where the index is kept; reused when it is there")
    parser.add_argument("--measure", choices=("lazy", "full"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.measure:
        print(json.dumps(measure(given.folder, dims=given.dims, verify=given.measure)))
        return 0
    with tempfile.TemporaryDirectory() as folder:
        path = given.folder or Path(folder) / "index"
        if not path.exists():
            save(path, rows=given.rows, dims=given.dims, is_built=given.build)
        size = sum(file.stat().st_size for file in path.iterdir())
        print(
            f"{given.rows} rows x {given.dims}, {size / 1e6:.0f} MB of files, warm page cache; {given.runs} runs each"
        )
        print(" ".join(f"{title:>11}" for title, _ in COLUMNS))
        for verify in ("lazy", "full") * given.runs:
            command = [sys.executable, __file__, "--folder", str(path), "--dims", str(given.dims), "--measure", verify]
            answer = subprocess.run(command, capture_output=True, text=True, check=True)
            figures = json.loads(answer.stdout)
            cells = [figures[name] for _, name in COLUMNS]
            print(" ".join(f"{cell:>11}" if isinstance(cell, str) else f"{cell:>11.2f}" for cell in cells), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
