"""A comparison as a plot and as a page in one file. Needs matplotlib: the extra ``plots``."""

from __future__ import annotations

import base64
import html
import io
import json
from collections.abc import Sequence
from string import Template
from typing import TYPE_CHECKING

from ruvector.errors import InvalidParameter

try:
    from matplotlib.figure import Figure
except ImportError:
    raise InvalidParameter(
        "a plot needs matplotlib, which is not installed", hint="pip install 'ruvector[plots]'"
    ) from None

if TYPE_CHECKING:
    from ruvector.client.compare import Comparison

_KINDS = ("png", "svg", "pdf")
_PAGE = Template("""<!DOCTYPE html>
<html lang="en"><meta charset="utf-8"><title>$title</title>
<style>
body { font-family: sans-serif; margin: 2em; max-width: 70em; }
table { border-collapse: collapse; }
th, td { padding: 0.2em 0.8em; border-bottom: 1px solid #ccc; text-align: right; }
th:nth-child(-n+2), td:nth-child(-n+2) { text-align: left; }
</style>
<h1>$title</h1>
<p>$facts</p>
<img alt="recall against latency" src="data:image/png;base64,$image">
<table><tr>$head</tr>
$rows
</table>
$remarks
</html>
""")


def draw(found: Comparison, *, kind: str = "png") -> bytes:
    """Return a picture of recall against the median latency, a line for each engine."""
    if kind not in _KINDS:
        raise InvalidParameter(f'a plot cannot be written as "{kind}"', hint=f"Use {', '.join(_KINDS)}.")
    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.subplots()
    for engine in dict.fromkeys(each.engine for each in found.engines):
        own = [each for each in found.engines if each.engine == engine]
        axes.plot([each.recall_mean for each in own], [each.p50_ms for each in own], marker="o", label=engine)
        for each in own:
            axes.annotate(each.setting.rpartition(" ")[2], (each.recall_mean, each.p50_ms), fontsize="x-small")
    axes.set(xlabel=f"recall@{found.k}", ylabel="median latency, ms", yscale="log", title=found.collection)
    axes.grid(visible=True, alpha=0.3)
    axes.legend()
    picture = io.BytesIO()
    figure.savefig(picture, format=kind, dpi=120)
    return picture.getvalue()


def page(found: Comparison, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return an HTML page with table, plot and remarks; nothing is loaded from elsewhere."""
    condition = f", filter {json.dumps(found.filter)}" if found.filter is not None else ""
    facts = (
        f"{found.queries} queries ({found.query_source}), k {found.k}{condition}, about {found.rows:,} rows; "
        "one connection, in turns, in one snapshot"
    )
    return _PAGE.substitute(
        title=html.escape(f"Comparison of {found.collection}"),
        facts=html.escape(facts),
        image=base64.b64encode(draw(found)).decode(),
        head="".join(f"<th>{html.escape(column)}</th>" for column in columns),
        rows="\n".join(
            "<tr>" + "".join(f"<td>{html.escape(str(value))}</td>" for value in row) + "</tr>" for row in rows
        ),
        remarks="".join(f"<p>{html.escape(remark)}</p>" for remark in found.remarks),
    )
