"""Measure filtered search: recall@10, rows returned and latency at every selectivity, beside other engines.

    python tools/bench_filter.py --data debian words --json filter.json --plot filter.png --markdown docs/benchmarks.md
    python tools/bench_filter.py --data synthetic:1000000 --engines ruvector pgvector --selectivity 0.001 0.1
    python tools/bench_filter.py --data fashion --quick

Filters pass rows at random, rows near the query or rows far from it: by a made-up number, by the cells of a k-means and
by the columns that a set has. ruvector answers in this process, with every plan forced, and through SQL; pgvector
in the same database with iterative scans off, strict and relaxed; hnswlib and faiss with their filter functions.
"""

from __future__ import annotations

import sys
from pathlib import Path

# PYTHONSAFEPATH keeps the folder of the script away from the search path; the modules stand beside it.
sys.path.insert(0, str(Path(__file__).resolve().parent))

from filtering.command import main

if __name__ == "__main__":
    sys.exit(main())
