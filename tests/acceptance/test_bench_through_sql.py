"""The measuring tools over a real server and a real sidecar, on as few rows as they take."""

import json
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

TOOLS = Path(__file__).resolve().parents[2] / "tools"


def run(tool, *words):
    done = subprocess.run([sys.executable, "-P", TOOLS / tool, *words], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_bench_bridge_prints_every_step(tmp_path):
    page = tmp_path / "bridge.md"
    printed = run(
        "bench_bridge.py", "--set", "synthetic-1m-128", "--rows", "300", "--queries", "5", "--clients", "1", "2",
        "--rounds", "1", "--seconds", "0.2", "--markdown", str(page),
    )  # fmt: skip
    for step in ("select 1", "function that does nothing", "question to the sidecar", "engine alone", "candidates",
                 "search:", "ruvector_search", "pgvector"):  # fmt: skip
        lines = [line for line in printed.splitlines() if line.startswith(f"| {step}")]
        assert len(lines) == (1 if step == "engine alone" else 2), step
        figures = [float(cell.replace(",", "")) for line in lines for cell in line.strip("|").split("|")[1:]]
        assert min(figures) >= 0
        assert max(figures) > 0
    assert re.search(
        r"recall@10 (0\.9[7-9]|1\.0)\d* for ruvector_search \(ef \d+\), (0\.9|1\.0)\d* for pgvector", printed
    )
    assert "| stage | prepare | ask | search | overlay | rank |" in printed
    assert re.search(r"\| a function by its name \| \d+\.\d \|", printed)
    assert printed.strip() in page.read_text(encoding="utf-8")


def test_bench_ann_asks_through_sql(tmp_path):
    output = tmp_path / "ann.json"
    run(
        "bench_ann.py", "--sets", "synthetic-1m-128", "--rows", "300", "--queries", "5", "--ef", "40", "--rounds", "1",
        "--engines", "ruvector-sql", "pgvector", "--output", str(output),
    )  # fmt: skip
    engines = json.loads(output.read_text(encoding="utf-8"))["runs"][0]["engines"]
    assert set(engines) == {"ruvector-sql", "pgvector"}
    for engine in engines.values():
        assert engine["status"] == "ok"
        assert engine["points"][0]["recall"] == 1.0
        assert engine["points"][0]["qps_wall"] > 0
        assert engine["build"]["wall_s"] > 0


def test_bench_filter_asks_ruvector_and_pgvector_the_same(tmp_path):
    output, page, plot = (tmp_path / name for name in ("filter.json", "filter.md", "filter.png"))
    drawn = [] if find_spec("matplotlib") is None else ["--plot", str(plot)]
    printed = run(
        "bench_filter.py", "--data", "synthetic:300", "--quick", "--queries", "4", "--selectivity", "0.1",
        "--engines", "ruvector-sql", "pgvector", "--json", str(output), "--markdown", str(page), *drawn,
    )  # fmt: skip
    (measured,) = json.loads(output.read_text(encoding="utf-8"))["runs"]
    settings = {
        ("ruvector-sql", "auto"),
        *(("pgvector", setting) for setting in ("off", "strict_order", "relaxed_order", "chosen")),
    }
    assert [case["name"] for case in measured["cases"]] == ["10 % random", "10 % near", "10 % far"]
    for case in measured["cases"]:
        assert {(point["engine"], point["setting"]) for point in case["points"]} == settings
        for point in case["points"]:
            if point["engine"] == "ruvector-sql":
                assert (point["recall"], point["short"]) == (1.0, 0)
            elif point["setting"] != "chosen":
                assert point["plan"] == "hnsw"
            elif point["plan"] in ("btree", "seq"):
                assert point["recall"] == 1.0
    assert "Through SQL, beside pgvector" in printed
    assert "| 10 % far |" in page.read_text(encoding="utf-8")
    assert plot.exists() == bool(drawn)
