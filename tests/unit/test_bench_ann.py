"""The pure pieces of tools/bench_ann.py, and one small comparison from the command line to the JSON file."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ann import command, curves, datasets, engines, machine, report, synthetic, truth
from ann.arrays import NO_ROW, K, as_ids
from ruvector.values import Metric

TOOL = Path(__file__).resolve().parents[2] / "tools" / "bench_ann.py"
CURVE = [(0.80, 4_000.0), (0.90, 2_000.0), (0.98, 1_000.0)]


@pytest.mark.parametrize(
    ("points", "target", "speed"),
    [
        (CURVE, 0.90, 2_000.0),
        # 1 - recall falls from 0.1 to 0.02, and sqrt(0.1 * 0.02) lies in the middle of both logarithms.
        (CURVE, 1 - (0.1 * 0.02) ** 0.5, (2_000.0 * 1_000.0) ** 0.5),
        (CURVE, 0.99, None),
        (CURVE, 0.50, 4_000.0),
        ([(0.5, 300.0), (1.0, 100.0)], 1.0, 100.0),
        # A larger ef that found less is no better than the smaller one that was faster.
        ([(0.8, 400.0), (0.95, 200.0), (0.94, 100.0)], 0.95, 200.0),
        ([], 0.9, None),
    ],
)
def test_speed_is_interpolated(points, target, speed):
    assert curves.speed_at(points, target) == (None if speed is None else pytest.approx(speed))


@pytest.mark.parametrize(("share", "value"), [(0.5, 2), (0.51, 3), (0.99, 4), (1.0, 4), (0.0, 1)])
def test_percentile_is_a_measured_value(share, value):
    assert curves.percentile([4, 1, 3, 2], share) == value


def test_middle_is_the_median_and_none_where_a_round_has_none():
    rounds = [{"a": 1.0, "b": 5.0}, {"a": 9.0, "b": None}, {"a": 2.0, "b": 6.0}]
    assert curves.middle(rounds) == {"a": 2.0, "b": None}


@pytest.mark.parametrize("metric", [Metric.L2, Metric.COSINE, Metric.IP])
def test_truth_is_that_of_a_full_scan(metric):
    random = np.random.default_rng(5)
    base, queries = random.normal(size=(700, 9)).astype("f4"), random.normal(size=(40, 9)).astype("f4")
    rows, asked = base.astype("f8"), queries.astype("f8")
    if metric is Metric.L2:
        scanned = np.linalg.norm(rows[None] - asked[:, None], axis=-1)
    elif metric is Metric.IP:
        scanned = -asked @ rows.T
    else:
        scanned = 1 - (asked @ rows.T) / np.outer(np.linalg.norm(asked, axis=1), np.linalg.norm(rows, axis=1))
    ids, distances = truth.nearest(base, queries, metric)
    assert np.array_equal(ids, np.argsort(scanned, axis=1, kind="stable")[:, :K])
    assert np.allclose(distances, np.sort(scanned, axis=1)[:, :K])


def test_truth_survives_rounding_of_float32():
    # Far from the origin the products lose the differences between these rows.
    random = np.random.default_rng(6)
    base = (1_000 + 0.01 * random.normal(size=(500, 16))).astype("f4")
    queries = (1_000 + 0.01 * random.normal(size=(8, 16))).astype("f4")
    scanned = np.linalg.norm(base[None].astype("f8") - queries[:, None].astype("f8"), axis=-1)
    assert np.allclose(truth.reach_of(base, queries, Metric.L2)[:, 0], np.sort(scanned, axis=1)[:, K - 1])


def test_recall_counts_ties_and_neither_repeated_nor_missing_rows():
    base = np.repeat(np.arange(30, dtype="f4")[:, None], 2, axis=0)  # every row twice
    queries = np.zeros((1, 1), dtype="f4")
    reach = truth.reach_of(base, queries, Metric.L2)
    assert reach.tolist() == [[4.0]]

    def found(*ids):
        return truth.recall(truth.distances_of(base, queries, as_ids([ids]), Metric.L2), reach)

    assert found(0, 1, 2, 3, 4, 5, 6, 7, 8, 9) == 1.0
    assert found(0, 1, 2, 3, 4, 5, 6, 7, 8, 8) == 0.9
    assert found(0, 1, 2, 3, 4, 5, 6, 7, 9, 10) == 0.9
    assert found(0, 1, 2) == 0.3
    assert found(*[NO_ROW] * 9, 60) == 0.0


def test_answers_are_filled_and_cut_to_ten():
    assert as_ids(np.array([[3, 1]], dtype="u4")).tolist() == [[3, 1, *[NO_ROW] * 8]]
    assert as_ids(np.arange(12)).tolist() == [list(range(10))]


@pytest.mark.parametrize("name", synthetic.GENERATORS)
def test_generators_repeat_themselves(name):
    generator = replace(synthetic.GENERATORS[name], dims=12)

    def rows(count, seed):
        into = np.empty((count, 12), dtype="f4")
        synthetic.draw_rows(generator, into, seed=seed, latent=4)
        return into

    first = rows(300, 1)
    assert np.isfinite(first).all()
    assert np.array_equal(first, rows(300, 1))
    assert not np.array_equal(first, rows(300, 2))
    if name != "hard-drift":  # whose mean depends on the place among all rows
        assert np.array_equal(first[:100], rows(100, 1))
    queries = synthetic.draw_queries(generator, 20, seed=1, latent=4)
    assert queries.shape == (20, 12)
    assert queries.dtype == np.float32
    if name != "hard-duplicates":
        assert truth.nearest(first, queries, Metric.L2)[1].min() > 0


def test_half_of_the_rows_are_duplicates():
    rows = np.empty((4_000, 8), dtype="f4")
    synthetic.draw_rows(replace(synthetic.GENERATORS["hard-duplicates"], dims=8), rows, seed=1, latent=4)
    different = len(np.unique(rows, axis=0))
    assert 0.45 < different / len(rows) < 0.55


def test_effort_of_lists_grows_with_ef():
    lists = [engines.lists_to_search(ef, 1_000) for ef in command.EFS]
    assert lists == sorted(lists)
    assert (lists[0], lists[-1]) == (1, 223)
    assert engines.lists_to_search(640, 76) == 76
    assert [engines.kept_for_reranking(ef) for ef in (10, 50, 640)] == [50, 50, 640]
    assert [engines.parts_of(dims) for dims in (784, 384, 128, 100, 25)] == [196, 96, 64, 50, 25]


def test_listing_names_every_engine_and_set(tmp_path):
    lines = command.listing(tmp_path).splitlines()
    named = {line.split()[0] for line in lines}
    assert named >= {*engines.ENGINES, *datasets.NAMES}
    assert any(line.startswith("ruvector ") and line.endswith("installed") for line in lines)
    assert "fashion-mnist-784  not there (give --data DIR)" in lines


def test_engine_without_its_package_says_what_to_install():
    absent = replace(engines.ENGINES["hnswlib"], module="no_such_module.inside", package="no-such-package")
    assert (absent.is_installed, absent.version) == (False, None)
    assert engines.MISSING_HINT == "not installed: pip install ruvector[bench]"


def test_command_is_shown_without_folders():
    words = ["--data", "/somewhere/data", "--output=/elsewhere/ann.json", "--sets", "hard-drift"]
    shown = " ".join(machine.printable_command(words))
    assert shown == "python tools/bench_ann.py --data data --output=ann.json --sets hard-drift"


@pytest.mark.parametrize(
    ("value", "shown"), [(None, "-"), (0.0, "0"), (0.01234, "0.0123"), (9.876, "9.88"), (12_345.6, "12,346")]
)
def test_numbers_keep_three_digits(value, shown):
    assert report.number(value) == shown


def test_section_replaces_itself_only(tmp_path):
    page = tmp_path / "docs" / "benchmarks.md"
    report.write_section(page, "first\n", name="a")
    page.write_text("# Title\n\n" + page.read_text())
    report.write_section(page, "other\n", name="b")
    report.write_section(page, "second \\1\n", name="a")
    text = page.read_text()
    assert text.startswith("# Title\n")
    assert "first" not in text
    assert text.index("second \\1") < text.index("other")
    assert text.count("<!-- ") == 4


def run_tool(*words):
    command_line = [sys.executable, "-P", TOOL, *map(str, words)]
    return subprocess.run(command_line, capture_output=True, text=True, timeout=120)


def test_comparison_from_the_command_line(tmp_path):
    output, page = tmp_path / "ann.json", tmp_path / "ann.md"
    given = ("--sets", "synthetic-1m-128", "fashion-mnist-784", "--data", tmp_path, "--engines", "ruvector")
    size = ("--rows", 400, "--queries", 20, "--rounds", 2, "--ef", 10, 80, "--latent", 6)
    done = run_tool(*given, *size, "--output", output, "--markdown", page)
    assert done.returncode == 0, done.stderr + done.stdout
    assert "skipped: fashion-mnist-784" in done.stdout
    result = json.loads(output.read_text())
    assert set(result) == {
        "tool", "format", "date", "command", "machine", "settings", "engines", "method", "runs",
    }  # fmt: skip
    assert str(tmp_path) not in output.read_text()
    assert result["engines"]["ruvector"]["version"] == result["machine"]["ruvector"]
    (run,) = result["runs"]
    facts = [run[about] for about in ("set", "metric", "rows", "dims", "threads")]
    assert facts == ["synthetic-1m-128", "l2", 400, 128, 1]
    own = run["engines"]["ruvector"]
    assert own["status"] == "ok"
    assert set(own["build"]) == {"cpu_s", "wall_s", "rss_bytes_per_vector", "reported_bytes_per_vector"}
    assert [point["ef"] for point in own["points"]] == [10, 80]
    for point in own["points"]:
        assert set(point) == {"ef", "recall", "qps_cpu", "qps_wall", "p50_ms", "p99_ms", "rounds"}
        assert len(point["rounds"]) == 2
        assert 0 < point["p50_ms"] <= point["p99_ms"]
    assert own["points"][1]["recall"] > 0.95
    assert set(own["qps_at"]) == {"0.90", "0.95", "0.99"}
    assert "synthetic-1m-128: 400 x 128, l2, 20 queries, 1 thread" in page.read_text()

    again = run_tool("--input", output, "--markdown", page)
    assert again.returncode == 0, again.stderr
    assert page.read_text().count("### synthetic-1m-128") == 1


def test_engine_that_fails_is_reported(tmp_path):
    output = tmp_path / "ann.json"
    size = ("--rows", 20, "--queries", 2, "--rounds", 1, "--ef", 10)
    # No graph has so many links: the engine refuses to start.
    done = run_tool("--sets", "hard-drift", "--engines", "ruvector", "--m", 100_000, *size, "--output", output)
    assert done.returncode == 1, done.stderr + done.stdout
    (run,) = json.loads(output.read_text())["runs"]
    assert run["engines"]["ruvector"]["status"] == "failed"
    assert "InvalidParameter" in run["engines"]["ruvector"]["reason"]
