"""Look at a database while it works: what its indexes find, and which queries cannot use one. Reads only."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import psycopg
from psycopg import sql

from ruvector import db
from ruvector.cli.advice import Remark, remark
from ruvector.cli.query_advice import METRICS, NO_LIMIT, asks_by_distance, reasons

_K = 10
_RECALL_ADVISED = 0.95
_GENERIC_PLAN_SINCE = 160000
_TEXT_SHOWN = 500
_STATEMENT_MS = 10_000
_BEAMS = {"hnsw": "hnsw.ef_search", "ivfflat": "ivfflat.probes"}


def sampled_recall(
    connection: db.Connection, index: Mapping[str, Any], *, rows: int, queries: int, seconds: float
) -> tuple[dict[str, Any] | None, list[Remark]]:
    """Return the recall@10 of an index at the settings of this session, over rows of its table; None when unknown.

    Each row is asked for its neighbours, by the index and by an exact scan in the same snapshot; the row itself does
    not count, and equal distances are as good as each other. Ends after so many seconds, with what is known by then.
    """
    if not index["is_valid"] or index["is_partial"] or index["column"] is None:
        return None, []
    operator = next(each for each, metric in METRICS.items() if index["operator_class"].endswith(f"_{metric}_ops"))
    parts = {
        "table": sql.Identifier(*_split(index)),
        "column": sql.Identifier(index["column"]),
        "operator": sql.SQL("{}.{}").format(sql.SQL(index["vector_schema"]), sql.SQL(operator)),
        "type": sql.SQL(index["type"]),
    }
    with connection.transaction():
        connection.execute(db.query("inspect", "prefer_indexes").encode(), {"milliseconds": str(int(seconds * 1000))})
        percent = min(100.0, max(0.01, 2000.0 * queries / max(rows, 1)))
        texts = _column(connection, "probe_sample", parts, percent=percent, count=queries)
        texts = texts or _column(connection, "probe_some", parts, count=queries)
        if not texts or not _uses(connection, parts, texts[0], index["index"]):
            return None, []
        shares = list(_shares(connection, parts, texts, until=time.monotonic() + seconds))
        beam = connection.execute(db.query("inspect", "beam").encode(), {"name": _BEAMS[index["method"]]}).fetchone()
    if not shares:
        return None, [remark("an exact scan takes too long to tell its recall", evidence=f"more than {seconds:g} s")]
    measured, width = summary(shares), beam[0] if beam else ""
    found = {"k": _K, "queries": len(shares), _BEAMS[index["method"]]: width, **measured}
    if measured["high"] >= _RECALL_ADVISED:
        return found, []
    interval = f"{measured['mean']:.3f} ({measured['low']:.3f} to {measured['high']:.3f})"
    evidence = f"recall@{_K} {interval} in {len(shares)} queries, the worst {measured['min']:.2f}"
    hint = f"SET {_BEAMS[index['method']]} = {int(width or 1) * 2};"
    return found, [remark("it misses neighbours", severity="warning", evidence=evidence, hint=hint)]


def summary(shares: Sequence[float]) -> dict[str, float]:
    """Return mean with its 95 % interval (normal approximation), 5th percentile and minimum."""
    n, ordered = len(shares), sorted(shares)
    mean = sum(shares) / n
    deviation = math.sqrt(sum((share - mean) ** 2 for share in shares) / (n - 1)) if n > 1 else 1.0
    half = 1.96 * deviation / math.sqrt(n)
    return {
        "mean": mean,
        "low": max(0.0, mean - half),
        "high": min(1.0, mean + half),
        "p5": ordered[max(0, math.ceil(0.05 * n) - 1)],
        "min": ordered[0],
    }


def query_findings(
    connection: db.Connection, indexes: Sequence[Mapping[str, Any]], *, version: int
) -> tuple[list[dict[str, Any]], list[Remark]]:
    """Return the costliest queries that compute distances and cannot use an index, with the reasons."""
    schema = connection.execute(db.query("inspect", "statements_schema").encode()).fetchone()
    if schema is None:
        hint = "shared_preload_libraries = 'pg_stat_statements', then CREATE EXTENSION pg_stat_statements;"
        return [], [remark("queries are not looked at: pg_stat_statements is not installed", hint=hint)]
    statement = sql.SQL(db.query("inspect", "statements")).format(schema=sql.SQL(schema[0]))
    try:
        with connection.transaction():
            rows = connection.execute(statement).fetchall()
    except psycopg.Error as error:
        return [], [remark("queries are not looked at", evidence=error.diag.message_primary or "")]
    found = []
    for text, calls, mean_ms, total_ms, count in rows:
        causes = reasons(text, indexes) if asks_by_distance(text) else []
        if causes and version >= _GENERIC_PLAN_SINCE and _can_use_index(connection, text):
            # Without LIMIT it can, and then the planner sorts the table, or the index ends early.
            causes = [each for each in causes if each["problem"] == NO_LIMIT]
        if causes:
            found.append({"query": text[:_TEXT_SHOWN], "calls": calls, "mean_ms": mean_ms, "total_ms": total_ms,
                          "rows": count, "advice": causes})  # fmt: skip
    return found, []


def _can_use_index(connection: db.Connection, text: str) -> bool:
    """Tell whether a plan orders by an index; False also where the database cannot explain the text."""
    statement = db.query("inspect", "statement_plan").replace("{statement}", text)
    try:
        with connection.transaction(force_rollback=True):
            connection.execute(db.query("inspect", "prefer_indexes").encode(), {"milliseconds": str(_STATEMENT_MS)})
            (plan,) = connection.execute(statement.encode()).fetchone() or ([],)
    except psycopg.Error:
        return False
    return any("Order By" in node for node in _nodes(plan))


def _uses(connection: db.Connection, parts: Mapping[str, sql.Composable], query: str, name: str) -> bool:
    statement = sql.SQL(db.query("inspect", "probe_plan")).format(**parts)
    (plan,) = connection.execute(statement, {"query": query, "k": _K + 1}).fetchone() or ([],)
    # An index of a partitioned table has other names in the partitions.
    used = [node["Index Name"] for node in _nodes(plan) if "Order By" in node]
    return bool(used) and (name in used or len(used) > 1)


def _nodes(plan: Any) -> Iterator[Mapping[str, Any]]:
    if isinstance(plan, list):
        for each in plan:
            yield from _nodes(each)
    elif isinstance(plan, dict):
        yield plan
        for each in plan.values():
            if isinstance(each, (list, dict)):
                yield from _nodes(each)


def _shares(
    connection: db.Connection, parts: Mapping[str, sql.Composable], texts: Sequence[str], *, until: float
) -> Iterator[float]:
    """Yield the share of the neighbours that the index found, for each row, as long as there is time."""
    for text in texts:
        if time.monotonic() > until:
            return
        try:
            with connection.transaction():
                found = _column(connection, "probe_index", parts, query=text, k=_K + 1)
                truth = _column(connection, "probe_exact", parts, query=text, k=_K + 1)[1:]
        except psycopg.errors.QueryCanceled:
            return
        if truth:
            # The nearest of all is the row itself, or its twin.
            yield min(1.0, sum(distance <= truth[-1] for distance in found[1:]) / len(truth))


def _column(connection: db.Connection, name: str, parts: Mapping[str, sql.Composable], **values: Any) -> list[Any]:
    statement = sql.SQL(db.query("inspect", name)).format(**parts)
    return [row[0] for row in connection.execute(statement, values).fetchall()]


def _split(index: Mapping[str, Any]) -> tuple[str, str]:
    return str(index["table_schema"]), str(index["table"])
