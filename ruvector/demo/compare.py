"""The final table: exact scan, pgvector's HNSW and ruvector, asked in turn with the same queries."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from rich.table import Table

from ruvector import db
from ruvector.demo.report import Contestant
from ruvector.demo.scenes import RECALL_MIN
from ruvector.demo.stage import Stage, ask, run
from ruvector.kernels.copyformat import decode

K = 10
TIE = 1e-6  # distances this close to the k-th count as ties: float32 cannot tell them apart
WARM_UP = 10  # queries asked before anything is measured
DIMS = 384
PGVECTOR_EF = (40, 100)  # its default, and ruvector's


@dataclass(slots=True)
class Engine:
    """One way to answer: a session and the statement it sends."""

    name: str
    connection: db.Connection
    statement: str
    build_seconds: float | None
    milliseconds: list[float] = field(default_factory=list)
    answers: list[list[int]] = field(default_factory=list)


def compare_engines(stage: Stage) -> None:
    """Build pgvector's index, ask every engine every query in turn, show recall and times."""
    report, clock = stage.report, stage.clock
    report.begin("exact, pgvector HNSW and ruvector side by side")
    with ExitStack() as exits:
        exact, narrow, wide, ruvector = (exits.enter_context(stage.connection()) for _ in range(4))
        started = clock.now()
        run(narrow, "create_index")
        pgvector_seconds = clock.now() - started
        run(narrow, "analyze")
        run(exact, "without_indexes")
        engines = [
            Engine("exact scan", exact, "ordered", None),
            *(
                Engine(f"pgvector HNSW, ef_search {ef}", connection, "ordered", pgvector_seconds)
                for ef, connection in zip(PGVECTOR_EF, (narrow, wide), strict=True)
            ),
            Engine("ruvector, defaults", ruvector, "through_ruvector", stage.build_seconds),
        ]
        for ef, connection in zip(PGVECTOR_EF, (narrow, wide), strict=True):
            run(connection, "with_index", ef_search=ef)
        keys, vectors = _table(exact)
        _measure(stage, engines)
        plan = "\n".join(row[0] for row in ask(wide, "plan", query=stage.query_texts[0]))
        answered_by = stage.answered_by(ruvector)
    truth = _distances(stage.wordnet.query_vectors, vectors)
    report.contestants = [_contestant(engine, truth, keys) for engine in engines]
    _show(stage, report.contestants, rows=len(keys))
    last = report.contestants[-1]
    report.check(
        f"ruvector's recall@{K} through SQL is {last.recall_at_10:.4f}, at least {RECALL_MIN}",
        held=last.recall_at_10 >= RECALL_MIN,
    )
    report.check(f"ruvector's answers came from its index ({answered_by})", held=answered_by == "ruvector")
    report.check("pgvector's answers came from its index", held="glosses_hnsw" in plan)


def _measure(stage: Stage, engines: Sequence[Engine]) -> None:
    """Ask each query of each engine, in an order that rotates, so that no engine always comes first."""
    for engine in engines:
        for query in stage.query_texts[:WARM_UP]:
            ask(engine.connection, engine.statement, query=query)
    for number, query in enumerate(stage.query_texts):
        turn = number % len(engines)
        for engine in (*engines[turn:], *engines[:turn]):
            started = stage.clock.now()
            rows = ask(engine.connection, engine.statement, query=query)
            engine.milliseconds.append((stage.clock.now() - started) * 1000)
            engine.answers.append([int(row[0]) for row in rows])


def _table(connection: db.Connection) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Return keys[rows], ascending, and vectors[rows, dims] as they stand in the table now."""
    buffer = bytearray()
    with connection.cursor() as cursor, cursor.copy(db.query("demo", "vectors").encode()) as copy:
        for block in copy:
            buffer += block
    rows = decode(buffer, key_kind="int64", element="f32", dims=DIMS)
    return np.asarray(rows.keys, dtype=np.int64), np.asarray(rows.vectors, dtype=np.float64)


def _distances(queries: NDArray[np.float32], vectors: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the exact cosine distances [queries, rows] in double precision."""
    asked = queries.astype(np.float64)
    asked /= np.linalg.norm(asked, axis=1, keepdims=True)
    distances: NDArray[np.float64] = 1 - asked @ (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).T
    return distances


def _contestant(engine: Engine, truth: NDArray[np.float64], keys: NDArray[np.int64]) -> Contestant:
    """Judge answers by the true distances of the rows they name: a tie with the tenth is as good as the tenth."""
    found = 0
    for answer, distances in zip(engine.answers, truth, strict=True):
        tenth = np.partition(distances, K - 1)[K - 1]
        places = np.searchsorted(keys, np.unique(answer))
        found += int((distances[places] <= tenth + TIE).sum())
    p50, p99 = np.percentile(engine.milliseconds, (50, 99))
    return Contestant(engine.name, found / (K * len(truth)), float(p50), float(p99), engine.build_seconds)


def _show(stage: Stage, contestants: Sequence[Contestant], *, rows: int) -> None:
    table = Table(box=None, title_justify="left")
    for column in ("engine", "recall@10", "p50 ms", "p99 ms", "build s"):
        table.add_column(column, justify="left" if column == "engine" else "right")
    for each in contestants:
        build = "-" if each.build_seconds is None else f"{each.build_seconds:.1f}"
        table.add_row(each.engine, f"{each.recall_at_10:.4f}", f"{each.p50_ms:.2f}", f"{each.p99_ms:.2f}", build)
    stage.report.screen.print("", table)
    stage.report.say(
        f"{len(stage.query_texts)} queries, {rows:,} rows, m 16, ef_construction 200, one client, "
        f"{os.cpu_count()} CPUs, in turns within this run"
    )
    stage.report.say("build: CREATE INDEX for pgvector; from attach to live for ruvector, copy included")
