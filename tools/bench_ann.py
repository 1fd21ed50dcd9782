"""Compare ruvector with its peers: recall@10, queries per second, latency, build time and memory on the same rows.

    python tools/bench_ann.py --sets fashion-mnist-784 --output ann.json --plot ann.png --markdown docs/benchmarks.md
    python tools/bench_ann.py --list

Each engine runs in a process of its own. All build first, one after the other; then they are asked in turn, engine by
engine at each ef, so that a machine that changes its speed changes it for all. Needs pip install ruvector[bench].
"""

from __future__ import annotations

import sys
from pathlib import Path

# PYTHONSAFEPATH keeps the folder of the script away from the search path; the modules stand beside it.
sys.path.insert(0, str(Path(__file__).resolve().parent))

from ann.command import main

if __name__ == "__main__":
    sys.exit(main())
