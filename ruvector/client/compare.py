"""Compare exact SQL, pgvector's index and ruvector over one collection: same queries, same snapshot, asked in turn.

Recall@k of an answer is the share of the k nearest rows it holds, judged by distance: a row as near as the k-th nearest
counts, so that equal distances are no loss. The interval of a mean is the 95 % normal approximation over the queries.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from psycopg import sql
from psycopg.rows import dict_row

from ruvector import db, limits
from ruvector.client.facade import Client, vector_text
from ruvector.clock import SystemClock
from ruvector.errors import InvalidParameter
from ruvector.values import Collection, ElementType

EF_SWEEP = (20, 40, 80, 160, 320)
PROBES_SWEEP = (1, 3, 10, 30, 100)
ROUNDS = 2
SEED = 1
SAMPLE_MARGIN = 4  # times as many rows are sampled as queries are wanted: the share of a page is only expected
TIE = 1e-5  # relative: distances of the same row by different kernels differ in the last digits of float32
# The exact scan must not use a vector index.
EXACT_SETTINGS = {"enable_indexscan": "off", "enable_bitmapscan": "off", "enable_seqscan": "on", "enable_sort": "on"}
USUAL_SETTINGS = {"enable_indexscan": "on", "enable_bitmapscan": "on", "enable_seqscan": "on", "enable_sort": "on"}
# Without a sort only the vector index gives rows in order: a small table would be read whole instead.
INDEX_SETTINGS = {**USUAL_SETTINGS, "enable_seqscan": "off", "enable_sort": "off"}
SIDECAR_SETTINGS = {**USUAL_SETTINGS, "ruvector.cutover": "ignore"}  # what the index would answer is compared
_PARAMETERS = {"hnsw": "hnsw.ef_search", "ivfflat": "ivfflat.probes"}


@dataclass(frozen=True, slots=True)
class Measured:
    """One engine at one setting: recall over the queries, times of single queries in milliseconds."""

    engine: str
    setting: str
    recall_mean: float
    recall_interval: float  # half of the width of the 95 % interval of the mean
    recall_p5: float
    recall_min: float
    rows_mean: float
    p50_ms: float
    p95_ms: float
    p99_ms: float
    qps: float
    index_bytes: int | None


@dataclass(frozen=True, slots=True)
class Comparison:
    """The result of ``compare``: facts about the run, one entry for each engine and setting, and what to know."""

    collection: str
    k: int
    queries: int
    query_source: str
    filter: Mapping[str, object] | None
    rows: int
    engines: Sequence[Measured]
    remarks: Sequence[str]


@dataclass(slots=True)
class _Contestant:
    engine: str
    setting: str
    statement: sql.Composed
    settings: Mapping[str, str]
    values: Mapping[str, object]
    index_bytes: int | None = None
    milliseconds: list[float] = field(default_factory=list)
    answers: list[list[float]] = field(default_factory=list)


def compare(
    client: Client,
    name: str,
    *,
    queries: int = 100,
    vectors: Sequence[Any] | None = None,
    k: int = 10,
    filter: Mapping[str, object] | None = None,  # noqa: A002 - the name of the SQL argument
    ef: Sequence[int] = EF_SWEEP,
    on_progress: Callable[[str, int, int], None] | None = None,
) -> Comparison:
    """Ask exact SQL, every pgvector index of the column, and ruvector the same queries in one snapshot.

    Args:
        client: an open client; its connection must not be inside a transaction.
        name: the collection.
        queries: how many rows of the table are taken as queries when no ``vectors`` are given.
        vectors: the queries [n, dims], or texts.
        k: rows wanted.
        filter: a filter on the columns named at the attach.
        ef: widths of the search to sweep, for ruvector and for hnsw; ivfflat sweeps PROBES_SWEEP.
        on_progress: called with a contestant, how many queries were asked, and how many there are.

    Raises:
        CollectionNotFound: there is no such collection.
        InvalidParameter: no row has a vector, or a number is out of range.
    """
    if not 1 <= k <= limits.K_MAX:
        raise InvalidParameter(f"k is {k}", hint=f"Give 1 to {limits.K_MAX}.")
    if vectors is None and queries < 1:
        raise InvalidParameter(f"{queries} queries cannot be compared", hint="Give 1 or more.")
    found = client.collection(name)
    with _snapshot(client):
        table = _Table(client, found, filter)
        texts = [vector_text(vector) for vector in vectors] if vectors is not None else table.sample(queries)
        if not texts:
            raise InvalidParameter(f"no row of {found.table_ref} has a vector to ask for", hint="Give --queries-file.")
        contestants, remarks = table.contestants(k=k, ef=ef)
        _ask_all(client, table.apply, contestants, texts, on_progress)
        remarks += table.remarks(contestants, texts[0], k=k)
    truth = contestants[0]
    return Comparison(
        name, k, len(texts), "given" if vectors is not None else "rows of the table, each of which finds itself",
        filter, table.rows, [_judge(each, truth, k=k) for each in contestants], remarks,
    )  # fmt: skip


@contextmanager
def _snapshot(client: Client) -> Iterator[None]:
    """Hold one snapshot, and give every setting back at the end."""
    connection = client.connection
    with db.translated():
        connection.execute(b"BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
        try:
            yield
        finally:
            connection.execute(b"ROLLBACK")


class _Table:
    """The mirrored table as statements name it."""

    def __init__(self, client: Client, collection: Collection, condition: Mapping[str, object] | None) -> None:
        self._client, self._collection = client, collection
        self._place = {
            "schema": collection.table_schema, "table": collection.table_name, "column": collection.column_name
        }  # fmt: skip
        facts = self._rows("column", self._place)[0]
        self.rows = int(facts["rows"])
        self._filter = None if condition is None else json.dumps(condition)
        written = (
            "true"
            if condition is None
            else self._rows("condition", {"filter": self._filter, "name": collection.name})[0]["filter_sql"]
        )
        self._metric = str(collection.options.metric)
        self._parts: dict[str, sql.Composable] = {
            "table": sql.Identifier(collection.table_schema, collection.table_name),
            "column": sql.Identifier(collection.column_name),
            "operator_schema": sql.Identifier(facts["operator_schema"]),
            "operator": sql.SQL(collection.options.metric.operator),
            "type": sql.SQL(facts["type"]),  # as the catalog writes it
            "condition": sql.SQL(written.replace("%", "%%")),  # quoted by the database's own function
        }

    def sample(self, count: int) -> list[str]:
        """Return vectors of random rows; a table that was never analyzed is read until there are enough."""
        percent = min(100.0, 100.0 * SAMPLE_MARGIN * count / self.rows) if self.rows else 100.0
        statement = self._statement("sample")
        for share in (percent, 100.0):
            values = {"percent": share, "seed": SEED, "count": count}
            rows = self._client.connection.execute(statement, values).fetchall()
            if len(rows) >= count:
                break
        return [row[0] for row in rows]

    def contestants(self, *, k: int, ef: Sequence[int]) -> tuple[list[_Contestant], list[str]]:
        """Return the exact scan first, then pgvector's indexes, then ruvector, each setting by itself."""
        by_distance, asked = self._statement("by_distance"), {"k": k}
        found = [_Contestant("exact", "scan", by_distance, EXACT_SETTINGS, asked)]
        operator_class = f"%\\_{self._metric}\\_ops"
        indexes = self._rows("indexes", {**self._place, "operator_class": operator_class})
        remarks = [] if indexes else [f"the column has no pgvector index for {self._metric}: nothing to compare with"]
        if len(indexes) > 1:
            remarks.append("the column has several pgvector indexes; the planner chooses the one that answers")
        for index in indexes[:1]:
            parameter = _PARAMETERS[index["method"]]
            for value in ef if index["method"] == "hnsw" else PROBES_SWEEP:
                settings = {**INDEX_SETTINGS, parameter: str(value)}
                label = f"{parameter.partition('.')[2]} {value}"
                engine = f"pgvector {index['method']}"
                found.append(_Contestant(engine, label, by_distance, settings, asked, index["bytes"]))
        values = {"name": self._collection.name, "k": k, "filter": self._filter}
        is_sparse = self._collection.options.element is ElementType.SPARSE
        memory = self._memory()
        for width in [None] if is_sparse else ef:
            label = "exact index" if width is None else f"ef_search {width}"
            statement = self._statement("through_ruvector", ef=sql.SQL("" if is_sparse else "ef_search => %(ef)s,"))
            found.append(_Contestant("ruvector", label, statement, SIDECAR_SETTINGS, {**values, "ef": width}, memory))
        return found, remarks

    def remarks(self, contestants: Sequence[_Contestant], query: str, *, k: int) -> list[str]:
        """Say what makes the numbers mean something else than they seem to."""
        remarks: list[str] = []
        first = next((each for each in contestants if each.engine.startswith("pgvector")), None)
        if first is not None:
            self.apply(USUAL_SETTINGS)
            plan = "\n".join(
                row[0] for row in self._client.connection.execute(self._statement("plan"), {"query": query, "k": k})
            )
            if "Order By" not in plan:
                remarks.append("with its own settings the planner does not use the pgvector index for this query")
        if self._collection.options.element is not ElementType.BIT and self._filter is None:
            report = self._client.explain(self._collection.name, query, k=k)
            if report["engine"] != "ruvector":
                remarks.append(f"ruvector's answers came from the database itself: {report['reason']}")
        return remarks

    def apply(self, settings: Mapping[str, str]) -> None:
        """Change settings until the end of the transaction."""
        for name, value in settings.items():
            self._rows("setting", {"name": name, "value": value})

    def _memory(self) -> int | None:
        """Return the bytes of the index in the sidecar, rows included; None while none has told."""
        stats = self._client.index_stats(self._collection.name)
        told = [stats[name] for name in ("row_bytes", "code_bytes", "link_bytes", "table_bytes") if name in stats]
        return sum(map(int, told)) if told else None

    def _statement(self, name: str, **more: sql.Composable) -> sql.Composed:
        function = {ElementType.BIT: "ruvector_search_bits", ElementType.SPARSE: "ruvector_search_sparse"}
        chosen = function.get(self._collection.options.element, "ruvector_search")
        parts = {**self._parts, "api": self._client.api, "function": sql.Identifier(chosen), **more}
        return sql.SQL(db.query("compare", name)).format(**parts)

    def _rows(self, name: str, values: Mapping[str, object]) -> list[dict[str, Any]]:
        with self._client.connection.cursor(row_factory=dict_row) as cursor:
            return cursor.execute(db.query("compare", name).encode(), values).fetchall()


def _ask_all(
    client: Client,
    apply: Callable[[Mapping[str, str]], None],
    contestants: Sequence[_Contestant],
    texts: Sequence[str],
    on_progress: Callable[[str, int, int], None] | None,
) -> None:
    """Ask in rounds, every second one backwards, so that no engine always meets the warmer cache or the quieter moment.

    Exact answers are the truth and need one round; the first answer of each round is not timed.
    """
    clock, connection = SystemClock(), client.connection
    for turn in range(ROUNDS):
        for contestant in contestants if turn % 2 == 0 else reversed(contestants):
            if contestant is contestants[0] and turn:
                continue
            apply(contestant.settings)
            # A text of its own: a plan that was prepared under other settings would be used again.
            statement = contestant.statement + sql.SQL(f"/* {contestant.engine}, {contestant.setting} */")
            connection.execute(statement, {**contestant.values, "query": texts[0]}, prepare=True).fetchall()
            for number, text in enumerate(texts):
                started = clock.now()
                rows = connection.execute(statement, {**contestant.values, "query": text}, prepare=True).fetchall()
                contestant.milliseconds.append((clock.now() - started) * 1000)
                if turn == 0:
                    contestant.answers.append(_distances(rows))
                if on_progress is not None:
                    on_progress(f"{contestant.engine}, {contestant.setting}", number + 1, len(texts))


def _distances(rows: Sequence[Sequence[Any]]) -> list[float]:
    """Return the distances of an answer; a row that is named twice counts once."""
    if rows and len(rows[0]) > 1:
        return list({row[1]: float(row[0]) for row in rows}.values())
    return [float(row[0]) for row in rows]


def _judge(contestant: _Contestant, truth: _Contestant, *, k: int) -> Measured:
    recalls = []
    for answer, nearest in zip(contestant.answers, truth.answers, strict=True):
        if not nearest:
            recalls.append(1.0)
            continue
        bound = nearest[-1] + TIE * abs(nearest[-1]) + 1e-7
        recalls.append(min(1.0, sum(distance <= bound for distance in answer[:k]) / len(nearest)))
    shares, times = np.asarray(recalls), np.asarray(contestant.milliseconds)
    p50, p95, p99 = (float(value) for value in np.percentile(times, (50, 95, 99)))
    spread = float(shares.std(ddof=1)) if len(shares) > 1 else 0.0
    return Measured(
        contestant.engine, contestant.setting, float(shares.mean()), 1.96 * spread / len(shares) ** 0.5,
        float(np.percentile(shares, 5)), float(shares.min()),
        float(np.mean([len(answer) for answer in contestant.answers])), p50, p95, p99,
        1000 / float(times.mean()), contestant.index_bytes,
    )  # fmt: skip
