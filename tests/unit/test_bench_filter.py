"""The pure pieces of tools/bench_filter.py, and one small run from the command line to the JSON file."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from ann import datasets
from ann.arrays import K
from ann.truth import nearest
from filtering import attributes, cases, command, engines, report
from filtering.filters import Among, Between, Filter

TOOL = Path(__file__).resolve().parents[2] / "tools" / "bench_filter.py"
COLUMNS = {"dice": np.array([0, 5, 9, 3]), "section": np.array(["a", "b", "b", "c"])}


@pytest.fixture(scope="module")
def attributed(tmp_path_factory):
    scratch = tmp_path_factory.mktemp("filtered")
    choice = datasets.Choice(scratch, rows_max=600, queries_max=12, seed=1, latent=6)
    return attributes.with_attributes(datasets.load("synthetic-1m-128", choice, scratch=scratch), scratch, seed=1)


@pytest.mark.parametrize(
    ("conditions", "mapping", "sql", "values", "mask"),
    [
        ([Between("dice", 3, 9)], {"dice": {"$gte": 3, "$lt": 9}}, "dice >= %s AND dice < %s", [3, 9], [0, 1, 0, 1]),
        ([Between("dice", 5)], {"dice": {"$gte": 5}}, "dice >= %s", [5], [0, 1, 1, 0]),
        ([Among("dice", (0, 3))], {"dice": [0, 3]}, "dice = ANY (%s::int4[])", [[0, 3]], [1, 0, 0, 1]),
        ([Among("section", ("b",)), Between("dice", None, 9)], {"section": "b", "dice": {"$lt": 9}},
         "section = %s AND dice < %s", ["b", 9], [0, 1, 0, 0]),
    ],
)  # fmt: skip
def test_filter_has_three_forms(conditions, mapping, sql, values, mask):
    each = Filter(tuple(conditions))
    assert each.mapping() == mapping
    assert each.sql() == (sql, values)
    assert each.mask(COLUMNS).tolist() == [bool(passes) for passes in mask]


def test_cases_have_their_selectivity_correlation_and_truth(attributed, tmp_path):
    shares = (0.0001, 0.1, 0.5)
    found = {case.name: case for case in cases.cases_of(attributed, shares, tmp_path, seed=1)}
    assert list(found) == [f"{share} % {kind}" for share in ("0.01", "10", "50") for kind in ("random", "near", "far")]
    assert set(found["0.01 % random"].matching.tolist()) == {1}
    assert set(found["10 % random"].matching.tolist()) == {60}
    for name in ("50 % near", "50 % far"):
        assert 300 <= found[name].matching.min() <= found[name].matching.max() <= 450
    reach = {name: float(case.reach.mean()) for name, case in found.items()}
    assert reach["10 % near"] < reach["10 % random"] < reach["10 % far"]
    data = attributed.data
    for case in (found["10 % random"], found["10 % far"]):
        for number, each in enumerate(case.filters):
            passing = data.base[each.mask(attributed.columns)]
            last = nearest(passing, data.queries[number : number + 1], data.metric)[1][0, -1]
            assert case.reach[number, 0] == pytest.approx(last)


def test_score_counts_only_true_neighbours_that_pass(attributed, tmp_path):
    case = next(each for each in cases.cases_of(attributed, (0.1,), tmp_path, seed=1) if each.name == "10 % random")
    data = attributed.data
    rows = np.flatnonzero(case.filters[0].mask(attributed.columns))
    near = rows[nearest(data.base[rows], data.queries[:1], data.metric)[0][0]].tolist()
    others = nearest(data.base, data.queries[:1], data.metric)[0][0].tolist()
    assert cases.score(case, 0, near, attributed) == cases.Score(K, K, K)
    assert cases.score(case, 0, near[:4], attributed) == cases.Score(4, 4, K)
    assert cases.score(case, 0, [near[0]] * K, attributed).hits == 1
    assert cases.score(case, 0, [row for row in others if row not in rows], attributed).hits == 0
    assert cases.score(case, 0, [], attributed) == cases.Score(0, 0, K)


def test_debian_set_brings_filters_and_truths():
    folder = command.parser().get_default("folder")
    if not datasets.is_there("debian-25k-384", folder):
        pytest.skip("the real data sets are not there")
    base = np.load(folder / "debian-25k-384" / "base.f16.npy").astype("f4")
    queries = np.load(folder / "debian-25k-384" / "queries.f16.npy")[:4].astype("f4")
    reach = np.empty((4, 1))
    data = datasets.DataSet(
        "debian-25k-384", datasets.REAL["debian-25k-384"][1], "", base, queries, reach, folder, folder
    )
    # A stored truth that differs from the scan raises.
    found = {
        case.name: case for case in cases.cases_of(attributes.with_attributes(data, folder, seed=1), [], folder, seed=1)
    }
    assert set(found) == {"own section", "far section", "installed_kb, top 1 %", "installed_kb, top 10 %"}
    assert found["own section"].filters[0].mapping() == {"section": "python"}
    assert set(found["installed_kb, top 1 %"].matching) == {250}


def point(engine="pgvector", setting="off", *, ef=40, recall=1.0, qps=1.0):
    return {"engine": engine, "setting": setting, "ef": ef, "recall": recall, "qps": qps}


def test_fastest_point_that_reaches_the_recall_counts():
    slow, fast, wrong = point(qps=10, ef=400), point(qps=50, recall=0.96), point(qps=90, recall=0.9)
    assert report.best([slow, fast, wrong]) is fast
    assert report.best([wrong, point(qps=99, recall=0.5)]) is wrong
    assert report.best([]) is None


def test_slowdown_is_the_time_by_that_of_the_best_forced_plan():
    own = point("ruvector", "auto", ef=None, qps=40)
    forced = [point("ruvector", plan, ef=None, qps=qps) for plan, qps in (("scan", 20), ("hop", 50), ("walk", 10))]
    assert report.slowdown({"points": [own, *forced]}) == (1.25, "hop")
    assert report.slowdown({"points": forced}) is None


@pytest.mark.parametrize(
    "words",
    [["--data", "nothing"], ["--data", "words:100"], ["--data", "synthetic:5"], ["--ef", "0"], ["--selectivity", "2"]],
)
def test_wrong_options_are_refused(words, capsys):
    assert command.main(words) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_run_from_the_command_line(tmp_path):
    output, page = tmp_path / "filter.json", tmp_path / "filter.md"
    command_line = [
        sys.executable, "-P", TOOL, "--data", "synthetic:400", "debian", "--folder", tmp_path, "--quick",
        "--queries", "6", "--selectivity", "0.01", "--engines", "ruvector", "--json", output, "--markdown", page,
    ]  # fmt: skip
    done = subprocess.run(command_line, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr + done.stdout
    assert "skipped: debian-25k-384" in done.stdout
    result = json.loads(output.read_text())
    assert str(tmp_path) not in output.read_text()
    (run,) = result["runs"]
    assert [run["rows"], run["queries"], run["failed"]] == [400, 6, {}]
    assert [case["name"] for case in run["cases"]] == ["1 % random", "1 % near", "1 % far"]
    for case in run["cases"]:
        assert {(each["setting"], each["ef"]) for each in case["points"]} == {
            ("auto", None), ("auto", 40), ("auto", 200), *((plan, None) for plan in engines.PLANS),
        }  # fmt: skip
        for each in case["points"]:
            assert each["short"] == 0
            assert each["rows_min"] <= each["rows_mean"] <= K
            assert each["recall"] > 0.95
            assert 0 < each["p50_ms"] <= each["p99_ms"]
        assert case["points"][0]["plan"] in {"scan", "hop", "walk"} or "," in case["points"][0]["plan"]
    assert "### synthetic-1m-128: 400 x 128, l2, 6 queries" in page.read_text()
    again = subprocess.run(
        [sys.executable, "-P", TOOL, "--input", output, "--details"], capture_output=True, text=True, timeout=60
    )
    assert again.returncode == 0, again.stderr
    assert "1 % far" in again.stdout
