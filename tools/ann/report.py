"""Tables, plot and a section of Markdown, all made from what the JSON file holds."""

from __future__ import annotations

import importlib
import json
import math
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

METHOD = (
    "Each engine runs in a process of its own with the stated number of threads; OpenMP threads sleep while they wait. "
    "All build first, one after the other; then they are asked in turn, engine by engine at each ef, in several "
    "rounds; every figure is the median over the rounds.",
    "Recall@10 is by distance: an answer counts when its distance, computed here in float64, is not larger than that "
    "of the true tenth neighbour.",
    "QPS come from the batch call where the engine has one (pgvector has none: single queries on one connection); "
    '"cpu" divides by processor time of all threads (for pgvector of client and server), "wall" by elapsed time. At '
    "recall 0.90, 0.95 and 0.99 they are interpolated, log QPS over log (1 - recall); - means not reached, "
    "and where the smallest ef already exceeds a recall its QPS stand there.",
    "p50 and p99 are wall time of single calls from a Python loop, each on one thread, at the smallest ef that reaches "
    "recall 0.95.",
    "B/vec grown is the growth of the process (RSS) over the build, after the input was released and freed memory "
    "returned; it cannot be measured so for a server. B/vec told is what the engine reports (pgvector: the index "
    "without the table, hnswlib: the size of its file).",
    "Build does not count loading and, for pgvector, filling the table. Rows are normalized beforehand for engines "
    "without cosine distance.",
)
LATENCY_RECALL = 0.95
COLUMNS = ("engine", "build cpu s", "build wall s", "B/vec grown", "B/vec told", "QPS cpu @.90", "@.95", "@.99",
           "QPS wall @.90", "@.95", "@.99", "p50 ms", "p99 ms")  # fmt: skip
POINT_COLUMNS = ("engine", "ef", "recall", "QPS cpu", "QPS wall", "p50 ms", "p99 ms")


def summary(run: dict[str, Any], engines: dict[str, dict[str, Any]]) -> list[list[str]]:
    """Return one line per engine: the figures, or why there are none."""
    lines = []
    for name, about in engines.items():
        result = run["engines"].get(name)
        if result is None or result["status"] != "ok":
            lines.append([name, about["status"] if result is None else f"failed: {result['reason']}"])
            continue
        build, at = result["build"], result["qps_at"]
        reached = [point for point in result["points"] if point["recall"] >= LATENCY_RECALL]
        first = min(reached, key=lambda point: point["ef"], default={"p50_ms": None, "p99_ms": None})
        figures = [build["cpu_s"], build["wall_s"], build["rss_bytes_per_vector"], build["reported_bytes_per_vector"]]
        figures += [at[target][clock] for clock in ("qps_cpu", "qps_wall") for target in at]
        lines.append([name, *map(number, [*figures, first["p50_ms"], first["p99_ms"]])])
    return lines


def points(run: dict[str, Any]) -> list[list[str]]:
    """Return one line per engine and ef."""
    return [
        [name, str(point["ef"]), f"{point['recall']:.4f}"]
        + [number(point[figure]) for figure in ("qps_cpu", "qps_wall", "p50_ms", "p99_ms")]
        for name, result in run["engines"].items()
        for point in result.get("points", [])
    ]


def title(run: dict[str, Any]) -> str:
    """Return what was searched, in one line."""
    threads = "1 thread" if run["threads"] == 1 else f"{run['threads']} threads"
    return f"{run['set']}: {run['rows']:,} x {run['dims']}, {run['metric']}, {run['queries']:,} queries, {threads}"


def number(value: float | None) -> str:
    """Return a figure with three digits that matter, - for none."""
    if value is None:
        return "-"
    digits = 0 if value == 0 else max(0, 2 - math.floor(math.log10(abs(value))))
    return f"{value:,.{digits}f}"


def text_table(columns: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    """Return lines with aligned columns; a line that ends early is a note."""
    full = [list(columns), *map(list, lines)]
    widths = [max(len(line[at]) for line in full if len(line) == len(columns)) for at in range(len(columns))]
    widths[0] = max(len(line[0]) for line in full)
    shown = []
    for line in full:
        if len(line) < len(columns):
            shown.append(f"{line[0]:<{widths[0]}}  {' '.join(line[1:])}")
            continue
        cells = (f"{cell:>{width}}" for cell, width in zip(line[1:], widths[1:], strict=True))
        shown.append("  ".join([f"{line[0]:<{widths[0]}}", *cells]))
    return "\n".join(shown)


def markdown_table(columns: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    """Return a table of Markdown, figures to the right."""
    shown = [f"| {' | '.join(columns)} |", f"|{'|'.join(['---', *['---:'] * (len(columns) - 1)])}|"]
    for line in lines:
        cells = [cell.replace("|", "\\|").replace("\n", " ") for cell in line]
        shown.append(f"| {' | '.join(cells + [''] * (len(columns) - len(cells)))} |")
    return "\n".join(shown)


def markdown(result: dict[str, Any]) -> str:
    """Return the section of a result."""
    machine, settings = result["machine"], result["settings"]
    parts = [
        f"## Nearest neighbours beside other engines, {result['date']}",
        f"{machine['cpu']}, {machine['cores_usable']} cores, {machine['memory_bytes'] / 2**30:.0f} GiB; "
        f"{machine['system']}, Python {machine['python']}, numpy {machine['numpy']}; {machine['kernels']}. "
        f"m = {settings['m']}, ef_construction = {settings['ef_construction']}, rounds: {settings['rounds']}.",
        f"```\n{' '.join(result['command'])}\n```",
        "\n".join(f"- {sentence}" for sentence in METHOD),
        _engines_table(result["engines"]),
    ]
    for run in result["runs"]:
        parts += [f"### {title(run)}", f"Rows: {run['story']}."]
        parts.append(markdown_table(COLUMNS, summary(run, result["engines"])))
    return "\n\n".join(parts) + "\n"


def _engines_table(engines: dict[str, dict[str, Any]]) -> str:
    lines = []
    for name, about in engines.items():
        setup = "; ".join(filter(None, [about["setup"], about.get("about")]))
        lines.append([name, about["package"], about["version"] or "-", setup])
    return markdown_table(("engine", "package", "version", "setup"), lines).replace("---:", "---")


def write_section(path: Path, text: str, *, name: str) -> None:
    """Write a section into a Markdown file: in place of the one of this name, else at the end."""
    begin, end = f"<!-- bench_ann {name}: generated, do not edit -->", f"<!-- end of bench_ann {name} -->"
    section = f"{begin}\n{text}{end}\n"
    before = path.read_text(encoding="utf-8") if path.exists() else ""
    pattern = re.compile(f"{re.escape(begin)}.*?{re.escape(end)}\n", re.DOTALL)
    if pattern.search(before):
        after = pattern.sub(lambda _found: section, before)
    else:
        after = f"{before.rstrip()}\n\n{section}" if before.strip() else section
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(after, encoding="utf-8")


def write_json(path: Path, result: dict[str, Any]) -> None:
    """Write everything, whole or not at all: an interrupted comparison keeps the runs before."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    partial.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    partial.replace(path)


def plot(path: Path, result: dict[str, Any]) -> None:
    """Draw queries per second of processor time (of wall time where that is unknown) over recall, a panel per run."""
    matplotlib: Any = importlib.import_module("matplotlib")
    matplotlib.use("Agg")  # no display
    pyplot: Any = importlib.import_module("matplotlib.pyplot")
    runs = result["runs"]
    columns = min(2, len(runs))
    lines = -(-len(runs) // columns)
    figure, panels = pyplot.subplots(lines, columns, figsize=(7 * columns, 5 * lines), squeeze=False, layout="tight")
    for panel, run in zip(panels.flat, runs, strict=False):
        for name, engine in run["engines"].items():
            drawn = sorted(
                (point["recall"], point["qps_cpu"] or point["qps_wall"]) for point in engine.get("points", [])
            )
            # ruvector stands out, the others keep their colour in every panel.
            style = {"color": "black", "linewidth": 2.5} if name == "ruvector" else {"color": _colour(result, name)}
            if drawn:
                panel.plot(*zip(*drawn, strict=True), marker=".", label=name, **style)
        panel.set(title=title(run), xlabel="recall@10", ylabel="queries per second", yscale="log")
        panel.set_xlim(0.8, 1.002)
        panel.grid(visible=True, which="both", alpha=0.3)
        if panel.lines:
            panel.legend(fontsize="small")
    for panel in panels.flat[len(runs) :]:
        panel.set_axis_off()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)
    pyplot.close(figure)


def _colour(result: dict[str, Any], name: str) -> str:
    return f"C{list(result['engines']).index(name)}"
