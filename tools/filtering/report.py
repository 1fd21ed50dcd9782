"""Tables, plot and a section of Markdown, all made from what the JSON file holds."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from ann.report import markdown_table, number
from filtering.engines import PLANS
from filtering.servers import CHOSEN, PGVECTOR, SQL

TARGET = 0.95
METHOD = (
    "Under every filter all engines are asked in turn, one query at a time from one thread of this process, in several "
    "rounds with another engine first; every figure is the median over the rounds. QPS is queries by the time spent "
    "in the engine.",
    "Recall@10 is by distance, computed here in float64, against an exact scan of the rows that pass; where fewer than "
    "ten pass, against those. Rows that do not pass count as missing.",
    "*random* passes a range of a column of numbers dealt at random; *near* and *far* pass the cells of a k-means (of "
    "sqrt(rows) cells, as a column) that are nearest to the query or farthest from it, thinned at random where one "
    "cell holds too many rows. *own* and *far* of a column of the set: the query's own value, and the one whose rows "
    "are, in their mean, farthest. All but the last kind differ from query to query.",
    f"An engine stands with its fastest ef that reaches recall {TARGET}, or, where none does, with that of the best "
    "recall. ruvector stands with its defaults. *auto / best* is its time by that of the fastest forced plan that "
    "reaches that recall; *short* counts answers with fewer than min(10, rows that pass) rows.",
    "hnswlib and faiss get a mask of the rows that pass, made before the clock starts: their figures leave out what "
    "the filter itself costs. hnswlib answers with an error when it finds fewer than ten: that counts as no rows. "
    "usearch is left out: its package for Python has no filter.",
    "ruvector remembers filters; here it meets each for the first time, but for those that are the same for all "
    "queries, so evaluating them is in its figures.",
    "pgvector answers by its hnsw index, with iterative scans off, strict or relaxed, hnsw.max_scan_tuples at its "
    "default. *chosen*: there are B-tree indexes of the columns, and PostgreSQL takes the plan that it thinks best. "
    "No setting is asked more queries than fit the time for each.",
)
OWN_COLUMNS = (
    "filter", "rows pass", "recall", "rows min", "rows mean", "short", "QPS", "p50 ms", "p99 ms", "auto / best", "plan"
)  # fmt: skip
OTHER_COLUMNS = ("filter", "ruvector QPS", "recall")
SQL_COLUMNS = (
    "filter", "ruvector-sql QPS", "recall", "rows min", "p50 ms", "p99 ms", "plan",
    "pgvector off: recall", "rows mean", "iterative: best", "recall", "rows mean", "QPS", "p99 ms", "ruvector /",
    "chosen: plan", "recall", "QPS", "ruvector /",
)  # fmt: skip
POINT_COLUMNS = (
    "filter", "engine", "ef", "recall", "rows min", "rows mean", "short", "QPS", "p50 ms", "p99 ms", "plan"
)  # fmt: skip
Table = Callable[[Sequence[str], Iterable[Sequence[str]]], str]


def title(run: dict[str, Any]) -> str:
    """Return what was searched, in one line."""
    return f"{run['set']}: {run['rows']:,} x {run['dims']}, {run['metric']}, {run['queries']:,} queries"


def best(points: Sequence[dict[str, Any]], *, target: float = TARGET) -> dict[str, Any] | None:
    """Return the fastest point that reaches the recall, else the one of the best recall; None of no points."""
    reaching = [point for point in points if point["recall"] is None or point["recall"] >= target]
    if reaching:
        return max(reaching, key=lambda point: point["qps"])
    return max(points, key=lambda point: (point["recall"], point["qps"]), default=None)


def points_of(case: dict[str, Any], engine: str, *settings: str) -> list[dict[str, Any]]:
    """Return the points of an engine, in the named settings if any."""
    return [
        point
        for point in case["points"]
        if point["engine"] == engine and (not settings or point["setting"] in settings)
    ]


def default(case: dict[str, Any], engine: str) -> dict[str, Any] | None:
    """Return the point of ruvector's defaults."""
    return next((point for point in points_of(case, engine, "auto") if point["ef"] is None), None)


def slowdown(case: dict[str, Any]) -> tuple[float, str] | None:
    """Return how many times as long as the fastest forced plan of enough recall the chosen one takes, and which."""
    own, forced = default(case, "ruvector"), points_of(case, "ruvector", *PLANS)
    if own is None or not forced:
        return None
    fastest = best(forced)
    return None if fastest is None else (fastest["qps"] / own["qps"], fastest["setting"])


def details(run: dict[str, Any], table: Table = markdown_table) -> str:
    """Return one line per filter, contender and ef."""
    lines = [
        [
            case["name"],
            f"{point['engine']} {point['setting']}".rstrip(),
            "default" if point["ef"] is None else str(point["ef"]),
            _recall(point),
            *_rows(point),
            str(point["short"]),
            *map(number, (point["qps"], point["p50_ms"], point["p99_ms"])),
            point["plan"],
        ]
        for case in run["cases"]
        for point in case["points"]
    ]
    return table(POINT_COLUMNS, lines)


def summary(run: dict[str, Any], table: Table = markdown_table) -> list[tuple[str, str]]:
    """Return the tables of a run with their headings; those of engines that were not asked are left out."""
    asked = {point["engine"] for case in run["cases"] for point in case["points"]}
    found = []
    if "ruvector" in asked:
        found.append(("In process, at default settings", table(OWN_COLUMNS, map(_own_line, run["cases"]))))
    others = [name for name in ("hnswlib", "faiss-hnsw") if name in asked]
    if others:
        columns = (*OTHER_COLUMNS, *(word for name in others for word in (f"{name} QPS", "recall", "rows mean")))
        lines = [_other_line(case, others) for case in run["cases"]]
        found.append(("In process, beside filter functions", table(columns, lines)))
    if asked & {SQL, PGVECTOR}:
        found.append(("Through SQL, beside pgvector", table(SQL_COLUMNS, map(_sql_line, run["cases"]))))
    return found


def verdict(run: dict[str, Any]) -> list[str]:
    """Return the promises with what was measured, a sentence each."""
    told = []
    for engine in ("ruvector", SQL):
        own = [(case, point) for case in run["cases"] if (point := default(case, engine)) is not None]
        if own:
            case, worst = min(own, key=lambda each: 1.0 if each[1]["recall"] is None else each[1]["recall"])
            short = sum(point["short"] for _, point in own)
            told.append(
                f"{engine}: lowest recall {_recall(worst)} ({case['name']}); {short} answers with fewer than "
                "min(k, rows that pass) rows."
            )
    slowed = [(*found, case["name"]) for case in run["cases"] if (found := slowdown(case)) is not None]
    if slowed:
        times, plan, name = max(slowed)
        told.append(f"ruvector: at most {times:.2f} times as long as the best forced plan ({plan}, {name}).")
    for what, rival in (("pgvector's best iterative mode", _iterative), ("the plan that PostgreSQL chooses", _chosen)):
        beside = [(ratio, case["name"]) for case in run["cases"] if (ratio := _times(case, rival(case))) is not None]
        if beside:
            told.append(f"{SQL}: at least {min(beside)[0]:.1f} times the QPS of {what} ({min(beside)[1]}).")
    told += [f"{name} failed: {reason}" for name, reason in run["failed"].items()]
    return told


def markdown(result: dict[str, Any]) -> str:
    """Return the section of a result."""
    machine, settings = result["machine"], result["settings"]
    parts = [
        f"## Filtered search, {result['date']}",
        f"{machine['cpu']}, {machine['cores_usable']} cores, {machine['memory_bytes'] / 2**30:.0f} GiB; "
        f"{machine['system']}, Python {machine['python']}, numpy {machine['numpy']}; {machine['kernels']}. "
        f"m = {settings['m']}, ef_construction = {settings['ef_construction']}, rounds: {settings['rounds']}.",
        f"```\n{' '.join(result['command'])}\n```",
        "\n".join(f"- {sentence}" for sentence in METHOD),
        markdown_table(
            ("engine", "version", "setup"),
            [[name, about["status"], about["setup"]] for name, about in result["engines"].items()],
        ).replace("---:", "---"),
    ]
    for run in result["runs"]:
        parts += [f"### {title(run)}", f"Rows: {run['story']}. {run['about']}".rstrip()]
        parts.append("\n".join(f"- {sentence}" for sentence in verdict(run)))
        for heading, table in summary(run):
            parts += [f"{heading}:", table]
    return "\n\n".join(parts) + "\n"


def plot(path: Path, result: dict[str, Any]) -> None:
    """Draw p50 over the share of rows that pass; a line of panels per run, a panel per correlation."""
    matplotlib: Any = importlib.import_module("matplotlib")
    matplotlib.use("Agg")  # no display
    pyplot: Any = importlib.import_module("matplotlib.pyplot")
    kinds = ("random", "near", "far")
    runs = result["runs"]
    figure, panels = pyplot.subplots(
        len(runs), len(kinds), figsize=(6 * len(kinds), 4.5 * len(runs)), squeeze=False, sharey="row", layout="tight"
    )
    for line, run in zip(panels, runs, strict=True):
        for panel, kind in zip(line, kinds, strict=True):
            _draw(panel, run, kind)
            panel.set(title=f"{run['set']}, {kind}", xlabel="share of rows that pass", xscale="log", yscale="log")
            panel.grid(visible=True, which="both", alpha=0.3)
        line[0].set_ylabel("p50 ms; empty: recall below 0.95")
        if line[0].lines:
            line[0].legend(fontsize="small")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


def _draw(panel: Any, run: dict[str, Any], kind: str) -> None:
    """Draw every engine with its best point of each share; a point that misses the recall is empty."""
    cases = [case for case in run["cases"] if case["name"].endswith(f" % {kind}")]
    engines: list[tuple[str, str, tuple[str, ...]]] = [
        ("ruvector", "ruvector", ("auto",)),
        *((f"ruvector {plan}", "ruvector", (plan,)) for plan in PLANS),
        (SQL, SQL, ()),
        (f"{PGVECTOR} off", PGVECTOR, ("off",)),
        (f"{PGVECTOR} iterative", PGVECTOR, ("strict_order", "relaxed_order")),
        (f"{PGVECTOR} chosen", PGVECTOR, (CHOSEN,)),
        ("hnswlib", "hnswlib", ()),
        ("faiss-hnsw", "faiss-hnsw", ()),
    ]
    for at, (label, engine, settings) in enumerate(engines):
        drawn = [
            (case["matching_mean"] / run["rows"], point["p50_ms"], point["recall"])
            for case in cases
            if (point := best(points_of(case, engine, *settings))) is not None
        ]
        if not drawn:
            continue
        colour, is_forced = f"C{at}" if at else "black", label != engine and engine == "ruvector"
        shares, times, recalls = zip(*sorted(drawn), strict=True)
        panel.plot(shares, times, color=colour, label=label, linewidth=1 if at else 2.5, ls=":" if is_forced else "-")
        for share, p50_ms, recall in zip(shares, times, recalls, strict=True):
            is_reached = recall is None or recall >= TARGET
            panel.plot(share, p50_ms, "o", color=colour, markersize=5, fillstyle="full" if is_reached else "none")


def _own_line(case: dict[str, Any]) -> list[str]:
    point, ratio = default(case, "ruvector"), slowdown(case)
    if point is None:
        return [case["name"], _matching(case)]
    return [
        case["name"],
        _matching(case),
        _recall(point),
        *_rows(point),
        str(point["short"]),
        *map(number, (point["qps"], point["p50_ms"], point["p99_ms"])),
        "-" if ratio is None else f"{ratio[0]:.2f} ({ratio[1]})",
        point["plan"],
    ]


def _other_line(case: dict[str, Any], others: Sequence[str]) -> list[str]:
    own = default(case, "ruvector")
    cells = [case["name"], _figure(own, "qps"), _recall(own)]
    for name in others:
        point = best(points_of(case, name))
        cells += [_figure(point, "qps"), _recall(point), _rows(point)[1]]
    return cells


def _sql_line(case: dict[str, Any]) -> list[str]:
    own, iterative, chosen = default(case, SQL), _iterative(case), _chosen(case)
    off = best(points_of(case, PGVECTOR, "off"))
    return [
        case["name"],
        _figure(own, "qps"),
        _recall(own),
        _rows(own)[0],
        _figure(own, "p50_ms"),
        _figure(own, "p99_ms"),
        "-" if own is None else own["plan"],
        _recall(off),
        _rows(off)[1],
        "-" if iterative is None else f"{iterative['setting'].removesuffix('_order')}, ef {iterative['ef']}",
        _recall(iterative),
        _rows(iterative)[1],
        _figure(iterative, "qps"),
        _figure(iterative, "p99_ms"),
        number(_times(case, iterative)),
        "-" if chosen is None else chosen["plan"],
        _recall(chosen),
        _figure(chosen, "qps"),
        number(_times(case, chosen)),
    ]


def _iterative(case: dict[str, Any]) -> dict[str, Any] | None:
    return best(points_of(case, PGVECTOR, "strict_order", "relaxed_order"))


def _chosen(case: dict[str, Any]) -> dict[str, Any] | None:
    return best(points_of(case, PGVECTOR, CHOSEN))


def _times(case: dict[str, Any], rival: dict[str, Any] | None) -> float | None:
    """Return how many times the QPS of a rival ruvector's defaults have through SQL."""
    own = default(case, SQL)
    return None if own is None or rival is None else float(own["qps"] / rival["qps"])


def _figure(point: dict[str, Any] | None, name: str) -> str:
    return "-" if point is None else number(point[name])


def _matching(case: dict[str, Any]) -> str:
    return number(case["matching_mean"])


def _recall(point: dict[str, Any] | None) -> str:
    return "-" if point is None or point["recall"] is None else f"{point['recall']:.4f}"


def _rows(point: dict[str, Any] | None) -> tuple[str, str]:
    return ("-", "-") if point is None else (str(point["rows_min"]), f"{point['rows_mean']:.1f}")
