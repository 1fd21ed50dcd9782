"""The steps of a search through SQL, one by one: what tools/bench_bridge.py measures."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from statistics import median

import numpy as np

from ann.arrays import Floats, K
from ann.curves import percentile
from ann.datasets import DataSet
from ann.engines import Plan
from ann.machine import facts
from ann.report import markdown_table
from ann.servers import Searcher, Stand, connect_to, pgvector_query, ruvector_query
from ann.truth import distances_of, recall
from ruvector.index import KeyedIndex
from ruvector.values import IndexOptions

EFS = (10, 15, 20, 30, 40, 60, 80, 120, 160, 240, 320, 480, 640)
WARM_UP_QUERIES = 20
MICROSECONDS = 1e6
EMPTY_FUNCTION = f"""
CREATE FUNCTION bench_nothing(query vector) RETURNS TABLE (id text, distance real) LANGUAGE plpgsql STABLE AS $$
BEGIN
  FOR place IN 1 .. {K} LOOP id := '1'; distance := 0; RETURN NEXT; END LOOP;
END $$
"""
# What a search used to do and what it does instead, as statements of PL/pgSQL.
PARTS = {
    "a setting, read by a function in SQL": "told := ruvector.setting('ef_search')",
    "a setting, read in place": "told := nullif(current_setting('ruvector.ef_search', true), '')",
    "identity from the control file": "told := (SELECT c.system_identifier FROM pg_control_system() c)",
    "identity by the start of the server": "told := extract(epoch FROM pg_postmaster_start_time())",
    "code over the digits of the query": "told := sha256(convert_to(encode(vector_send(query), 'hex'), 'UTF8'))",
    "code over the bytes of the query": "told := sha256(vector_send(query))",
    "unapplied changes, collected": (
        "SELECT array_agg(DISTINCT l.key_1::text), bool_or(l.truncated) INTO told FROM ruvector.changelog_1 l "
        "WHERE l.xid >= pg_snapshot_xmax(seen)"
    ),
    "unapplied changes, looked for": (
        "told := (SELECT l.xid FROM ruvector.changelog_1 l WHERE l.xid >= pg_snapshot_xmax(seen) "
        "ORDER BY l.xid LIMIT 1)"
    ),
    "a function by a text of SQL": "EXECUTE 'SELECT count(*) FROM bench_nothing($1)' INTO told USING query",
    "a function by its name": "SELECT count(*) INTO told FROM bench_nothing(query)",
}
PART_LOOPS, PART_ROUNDS = 1_000, 5
PART_LOOP = f"""
DO $do$
DECLARE
  query vector := (SELECT r.v FROM rows r LIMIT 1);
  seen pg_snapshot := pg_current_snapshot();
  told text;
  began timestamptz := clock_timestamp();
BEGIN
  FOR n IN 1 .. {PART_LOOPS} LOOP STATEMENT; END LOOP;
  PERFORM set_config('bench.seconds', extract(epoch FROM clock_timestamp() - began)::text, false);
END $do$
"""
STAGES = ("prepare", "ask", "search", "overlay", "rank")
ENGINE = "engine alone, in the process that asks"
WHOLE = "ruvector_search"
PGVECTOR = "pgvector"


@dataclass(frozen=True, slots=True)
class Question:
    """What is to be measured."""

    recall: float
    clients: tuple[int, ...]
    rounds: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Tuned:
    """The smallest ef of one engine that reaches the recall, or the last that was tried, and its recall."""

    ef: int
    recall: float


def measure(data: DataSet, plan: Plan, question: Question) -> str:
    """Build, measure, and return everything as Markdown."""
    stand = Stand(np.asarray(data.base), plan)
    try:
        started = time.perf_counter()
        stand.start_sidecar(plan)
        stand.attach(plan)
        attached = time.perf_counter()
        stand.create_index(plan)
        created = time.perf_counter()
        stand.connection.execute(EMPTY_FUNCTION)
        through, own = _tune(stand, data, question.recall)
        steps = _steps(plan, through.ef)
        lines = [
            f"## {data.name}: {len(data.base):,} x {data.base.shape[1]}, {data.metric}, {len(data.queries)} queries\n",
            _machine(),
            f"recall@{K} {through.recall:.4f} for ruvector_search (ef {through.ef}), {own.recall:.4f} for pgvector "
            f"(ef {own.ef}). Attach to first answer {attached - started:.1f} s, "
            f"CREATE INDEX {created - attached:.1f} s; {plan.threads} threads, m {plan.m}, "
            f"ef_construction {plan.ef_construction}.\n",
        ]
        for clients in question.clients:
            if clients == 1:
                lines += _one_client(stand, data, plan, steps, question, ef=through.ef, pgvector_ef=own.ef)
                lines += ["\nParts, in loops inside the database:\n", markdown_table(("part", "us"), _parts(stand))]
            else:
                lines += _many_clients(stand, data, steps, question, clients=clients, pgvector_ef=own.ef)
        return "\n".join(lines)
    finally:
        stand.close()


def _machine() -> str:
    about = facts()
    return f"{about['cpu']}, {about['cores_usable']} cores; {about['kernels']}; load {about['load_1min_at_start']}.\n"


def _steps(plan: Plan, ef: int) -> dict[str, str]:
    """Return the statements by name, from nothing to the whole; each takes the query or nothing."""
    return {
        "select 1": "SELECT 1",
        "function that does nothing": "SELECT id FROM bench_nothing(%b)",
        "question to the sidecar, nothing asked": "SELECT * FROM dblink('ruvector_link', 'SELECT 1') AS answer (n int)",
        "candidates: sidecar and overlay": f"SELECT keys FROM ruvector.candidates_1(%b, {K + 8}, {ef})",
        "search: and join, distances": f"SELECT id FROM ruvector.search_1(%b, {K}, {ef}, NULL, NULL, false)",
        WHOLE: ruvector_query(ef),
        PGVECTOR: pgvector_query(plan.metric),
    }


def _tune(stand: Stand, data: DataSet, target: float) -> tuple[Tuned, Tuned]:
    connection = stand.connect()
    connection.execute("SET enable_seqscan = off")
    through, own = Searcher(connection, ""), Searcher(connection, pgvector_query(data.metric))

    def ask_ruvector(ef: int) -> float:
        through.query = ruvector_query(ef)
        return _recall(through, data)

    def ask_pgvector(ef: int) -> float:
        connection.execute(f"SET hnsw.ef_search = {ef}")
        return _recall(own, data)

    try:
        return _smallest(ask_ruvector, target), _smallest(ask_pgvector, target)
    finally:
        connection.close()


def _smallest(ask: Callable[[int], float], target: float) -> Tuned:
    reached = 0.0
    for ef in EFS:
        reached = ask(ef)
        if reached >= target:
            break
    return Tuned(ef, reached)


def _recall(searcher: Searcher, data: DataSet) -> float:
    found = distances_of(data.base, data.queries, searcher.many(data.queries), data.metric)
    return float(recall(found, data.reach))


# One client ---------------------------------------------------------------------------------------------------------


def _one_client(
    stand: Stand, data: DataSet, plan: Plan, steps: dict[str, str], question: Question, *, ef: int, pgvector_ef: int
) -> list[str]:
    index = KeyedIndex(
        IndexOptions(dims=data.base.shape[1], metric=data.metric, m=plan.m, ef_construction=plan.ef_construction),
        threads=plan.threads,
    )
    index.upsert(np.arange(len(data.base)), np.asarray(data.base))
    calls: dict[str, Callable[[Floats], object]] = {ENGINE: lambda query: index.search(query, K + 8, ef=ef)}
    with ExitStack() as exits:
        for name, statement in steps.items():
            connection = exits.enter_context(stand.connect())
            _prepare(connection.execute, pgvector_ef, data.queries[0])
            calls[name] = Searcher(connection, statement).ask
        times = _in_turn(calls, data.queries, question.rounds)
        work = {name: _work(stand, ask, data.queries) for name, ask in calls.items()}
    rows = [
        [name, *(f"{percentile(times[name], share) * MICROSECONDS:.0f}" for share in (0.01, 0.5, 0.99)), work[name]]
        for name in (*list(steps)[:3], ENGINE, *list(steps)[3:])
    ]
    return [
        "One client, microseconds. p1 is what a busy machine leaves undisturbed; cpu is the processor time of client, "
        "server and sidecar for one call:\n",
        markdown_table(("step", "p1", "p50", "p99", "cpu"), rows),
        _verdict(times),
        "Inside one search, as `ruvector_explain` tells (medians; `search` is part of `ask`):\n",
        markdown_table(("stage", *STAGES), [["us", *_stages(stand, data.queries, ef)]]),
    ]


def _verdict(times: dict[str, list[float]]) -> str:
    told = []
    for name, share in (("p50", 0.5), ("p1", 0.01)):
        engine, whole, own = (percentile(times[step], share) * MICROSECONDS for step in (ENGINE, WHOLE, PGVECTOR))
        told.append(f"{name}: the bridge adds {whole - engine:.0f} us, pgvector takes {own / whole:.2f} times as long")
    return "\n" + "; ".join(told) + ".\n"


def _prepare(execute: Callable[..., object], pgvector_ef: int, query: Floats) -> None:
    """Make a connection ready: pgvector's settings, and the link to the sidecar."""
    execute("SET enable_seqscan = off")
    execute(f"SET hnsw.ef_search = {pgvector_ef}")
    execute("SELECT count(*) FROM ruvector_search('rows', %s::real[]::vector)", (query.tolist(),))


def _in_turn(calls: dict[str, Callable[[Floats], object]], queries: Floats, rounds: int) -> dict[str, list[float]]:
    """Ask every step for a query, another one first each time, before the next query is taken."""
    names = list(calls)
    times: dict[str, list[float]] = {name: [] for name in names}
    for query in queries[:WARM_UP_QUERIES]:
        for ask in calls.values():
            ask(query)
    for _ in range(rounds):
        for number, query in enumerate(queries):
            first = number % len(names)
            for name in names[first:] + names[:first]:
                start = time.perf_counter()
                calls[name](query)
                times[name].append(time.perf_counter() - start)
    return times


def _work(stand: Stand, ask: Callable[[Floats], object], queries: Floats) -> str:
    """Return the processor time of one call in microseconds: unlike its duration it does not wait for others."""
    before = stand.cpu_clock()
    for query in queries:
        ask(query)
    after = stand.cpu_clock()
    return "-" if before is None or after is None else f"{(after - before) / len(queries) * MICROSECONDS:.0f}"


def _stages(stand: Stand, queries: Floats, ef: int) -> Iterator[str]:
    """Return the median of each stage that ruvector_explain reports, in microseconds."""
    searcher = Searcher(stand.connect(), f"SELECT stages_ms FROM ruvector_explain('rows', %b, {K}, NULL, {ef})")
    told = [searcher.ask(query) for query in queries]
    for stage in STAGES:
        yield f"{median(each[0][0][stage] for each in told) * 1_000:.0f}"


def _parts(stand: Stand) -> list[list[str]]:
    """Return what each of the parts takes: the best of some loops, in microseconds."""
    rows = []
    for name, statement in PARTS.items():
        loop = PART_LOOP.replace("STATEMENT", statement)
        seconds = []
        for _ in range(PART_ROUNDS):
            stand.connection.execute(loop)
            (told,) = stand.connection.execute("SELECT current_setting('bench.seconds')").fetchone() or ("0",)
            seconds.append(float(told))
        rows.append([name, f"{min(seconds) / PART_LOOPS * MICROSECONDS:.1f}"])
    return rows


# Many clients -------------------------------------------------------------------------------------------------------


def _many_clients(
    stand: Stand, data: DataSet, steps: dict[str, str], question: Question, *, clients: int, pgvector_ef: int
) -> list[str]:
    times: dict[str, list[float]] = {name: [] for name in steps}
    with _started(stand.dsn, data, clients, pgvector_ef) as channels:
        for _ in range(question.rounds):
            for name, statement in steps.items():
                for channel in channels:
                    channel.send((statement, question.seconds))
                for channel in channels:
                    times[name] += channel.recv()
    passed = question.rounds * question.seconds
    rows = [
        [
            name,
            f"{len(times[name]) / passed:,.0f}",
            *(f"{percentile(times[name], share) * MICROSECONDS:.0f}" for share in (0.5, 0.99)),
        ]
        for name in steps
    ]
    ratio = len(times[WHOLE]) / max(1, len(times[PGVECTOR]))
    return [
        f"\n{clients} clients, microseconds and calls a second:\n",
        markdown_table(("step", "calls/s", "p50", "p99"), rows),
        f"\nruvector_search answers {ratio:.2f} times as many searches as pgvector.\n",
    ]


@contextmanager
def _started(dsn: str, data: DataSet, clients: int, pgvector_ef: int) -> Iterator[Sequence[Connection]]:
    context = multiprocessing.get_context("spawn")
    channels: list[Connection] = []
    processes = []
    try:
        for number in range(clients):
            ours, theirs = context.Pipe()
            process = context.Process(
                target=_serve, args=(theirs, dsn, str(data.queries_file), number, pgvector_ef), daemon=True
            )
            process.start()
            theirs.close()
            channels.append(ours)
            processes.append(process)
        for channel in channels:
            channel.recv()
        yield channels
    finally:
        for channel in channels:
            channel.close()
        for process in processes:
            process.join()


def _serve(channel: Connection, dsn: str, queries_file: str, number: int, pgvector_ef: int) -> None:
    """Run statements for a time, as often as asked, and send back how long each took; a closed channel ends it."""
    queries: Floats = np.roll(np.load(queries_file), number * 37, axis=0)
    connection = connect_to(dsn)
    _prepare(connection.execute, pgvector_ef, queries[0])
    searcher = Searcher(connection, "")
    channel.send(None)
    try:
        while True:
            searcher.query, seconds = channel.recv()
            channel.send(_loop(searcher, queries, seconds))
    except EOFError:
        connection.close()


def _loop(searcher: Searcher, queries: Floats, seconds: float) -> list[float]:
    for query in queries[:WARM_UP_QUERIES]:
        searcher.ask(query)
    times: list[float] = []
    end = time.perf_counter() + seconds
    while True:
        for query in queries:
            start = time.perf_counter()
            if start >= end:
                return times
            searcher.ask(query)
            times.append(time.perf_counter() - start)
