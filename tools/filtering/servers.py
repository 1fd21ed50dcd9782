"""ruvector through SQL and pgvector, on the same table of one PostgreSQL server."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Iterable
from typing import Any

import numpy as np
import psycopg

from ann.arrays import Floats, K
from ann.engines import Plan
from ann.servers import OPERATORS, Searcher, Stand
from filtering.attributes import DICE, Attributed
from filtering.engines import Built, Contender, Effort, tally
from filtering.filters import Columns, Filter
from ruvector.limits import FILTER_CACHE_MAX

SQL, PGVECTOR = "ruvector-sql", "pgvector"
NAMES = {
    SQL: "ruvector_search(..., filter => ...) in an embedded PostgreSQL with a sidecar, columns mirrored",
    PGVECTOR: "WHERE ... ORDER BY ... LIMIT on the same table, by its hnsw index; *chosen*: also B-tree indexes of the "
    "columns, PostgreSQL chooses its plan for the values of every query, iterative scans relaxed",
}
SCANS = ("off", "strict_order", "relaxed_order")
CHOSEN = "chosen"  # by PostgreSQL: the index or another plan
FILTERED_SECONDS_MAX = 60  # until the sidecar knows the columns; then it is measured as it is
# As many other filters as the sidecar remembers, none of which lets a row pass.
FORGET = f"""
SELECT count(*) FROM generate_series(1, {FILTER_CACHE_MAX}) n, (SELECT v FROM rows LIMIT 1) r,
  ruvector_search('rows', r.v, 1, filter => jsonb_build_object('{DICE}', -n))
"""
INDEX_KINDS = {"rows_v": "hnsw", "rows_by_": "btree"}  # by the name of an index in a plan


def build(attributed: Attributed, plan: Plan, efs: tuple[int, ...], names: Iterable[str]) -> Built:
    """Start a server with the rows, and what the named engines need."""
    stand = Stand(np.asarray(attributed.data.base), plan)
    try:
        _add_columns(stand.connection, attributed.columns)
        contenders = []
        if SQL in names:
            stand.start_sidecar(plan)
            stand.attach(plan, columns=sorted(attributed.columns))
            contenders.append(_ruvector(stand, (None, *efs)))
        if PGVECTOR in names:
            stand.create_index(plan)
            for name in attributed.columns:
                stand.connection.execute(f"CREATE INDEX rows_by_{name} ON rows ({name})")
            contenders += [_pgvector(stand, plan, scan, efs) for scan in (*SCANS, CHOSEN)]
        stand.connection.execute("VACUUM ANALYZE rows")
        told = stand.connection.execute(
            "SELECT format('PostgreSQL %s, pgvector %s', current_setting('server_version'), extversion) "
            "FROM pg_extension WHERE extname = 'vector'"
        ).fetchone() or ("",)
        return Built(contenders, told[0], stand.close)
    except BaseException:
        stand.close()
        raise


def _add_columns(connection: psycopg.Connection[Any], columns: Columns) -> None:
    """Give the table the columns; it is written anew, because an UPDATE of all rows would double it."""
    kinds = {name: "int4" if values.dtype.kind in "iu" else "text" for name, values in columns.items()}
    definitions = ", ".join(f"{name} {kind}" for name, kind in kinds.items())
    names = ", ".join(kinds)
    connection.execute("ALTER TABLE rows RENAME TO bare")
    connection.execute(f"CREATE TABLE rows (LIKE bare INCLUDING STORAGE, {definitions})")
    connection.execute(f"CREATE TEMP TABLE attributes (id int4, {definitions})")
    with connection.cursor() as cursor, cursor.copy(f"COPY attributes (id, {names}) FROM STDIN") as copy:
        for line in enumerate(zip(*(values.tolist() for values in columns.values()), strict=True)):
            copy.write_row((line[0], *line[1]))
    connection.execute(
        f"INSERT INTO rows (id, v, {names}) SELECT b.id, b.v, {names} FROM bare b JOIN attributes a ON a.id = b.id "
        "ORDER BY b.id"
    )
    connection.execute("DROP TABLE bare, attributes")
    connection.execute("VACUUM ANALYZE rows")


def _ruvector(stand: Stand, efs: tuple[Effort, ...]) -> Contender:
    searcher, explainer = Searcher(stand.connect(), ""), Searcher(stand.connect(), "")

    def set_ef(ef: Effort) -> None:
        told = "" if ef is None else f", ef_search => {ef}"
        searcher.query = f"SELECT id FROM ruvector_search('rows', %b, {K}, filter => %s::jsonb{told})"
        explainer.query = f"SELECT plan FROM ruvector_explain('rows', %b, {K}, %s::jsonb{told})"

    def plan(queries: Floats, filters: tuple[Filter, ...]) -> str:
        told = [
            explainer.ask(query, after=[json.dumps(each.mapping())])[0][0]
            for query, each in zip(queries, filters, strict=True)
        ]
        return tally(Counter(each.removeprefix("index, filtered: ") for each in told))

    def forget() -> None:
        stand.connection.execute(FORGET)

    set_ef(None)
    _wait_until_filtered(stand)
    return Contender(
        SQL,
        "auto",
        efs,
        set_ef=set_ef,
        prepare=lambda query, each: (query, json.dumps(each.mapping())),
        ask=lambda question: searcher.ask(question[0], after=[question[1]]),
        rows=_numbers,
        plan=plan,
        forget=forget,
    )


def _wait_until_filtered(stand: Stand) -> None:
    """Wait until the sidecar applies filters itself."""
    until = time.monotonic() + FILTERED_SECONDS_MAX
    asked = f"SELECT plan FROM ruvector_explain('rows', (SELECT v FROM rows LIMIT 1), 1, '{{\"{DICE}\": 0}}')"
    while time.monotonic() < until:
        (plan,) = stand.connection.execute(asked).fetchone() or ("",)
        if str(plan).startswith("index, filtered"):
            return
        time.sleep(0.1)
    print(f"ruvector-sql: after {FILTERED_SECONDS_MAX} s filters are still answered by: {plan}", flush=True)


def _pgvector(stand: Stand, plan: Plan, scan: str, efs: tuple[int, ...]) -> Contender:
    connection = stand.connect()
    # The statements are prepared, but the planner is to see the values, as it does with a new statement.
    connection.execute("SET plan_cache_mode = force_custom_plan")
    searcher = Searcher(connection, "")
    # Loads the library: only then are its settings known.
    connection.execute("SELECT '[1]'::vector")
    connection.execute(f"SET hnsw.iterative_scan = {'relaxed_order' if scan == CHOSEN else scan}")
    if scan != CHOSEN:
        # All other plans would have to sort.
        connection.execute("SET enable_sort = off")

    def prepare(query: Floats, each: Filter) -> tuple[str, Floats, list[Any]]:
        condition, values = each.sql()
        text = f"SELECT id FROM rows WHERE {condition} ORDER BY v {OPERATORS[plan.metric][0]} %b LIMIT {K}"
        return text, query, values

    def ask(question: tuple[str, Floats, list[Any]]) -> list[tuple[Any, ...]]:
        searcher.query = question[0]
        return searcher.ask(question[1], before=question[2])

    def explain(queries: Floats, filters: tuple[Filter, ...]) -> str:
        text, query, values = prepare(queries[0], filters[0])
        told = " ".join(str(line[0]) for line in ask((f"EXPLAIN (COSTS off) {text}", query, values)))
        return ", ".join(kind for name, kind in INDEX_KINDS.items() if name in told) or "seq"

    return Contender(
        PGVECTOR,
        scan,
        efs,
        set_ef=lambda ef: _run(connection, f"SET hnsw.ef_search = {ef}"),
        prepare=prepare,
        ask=ask,
        rows=_numbers,
        plan=explain,
    )


def _run(connection: psycopg.Connection[Any], statement: str) -> None:
    connection.execute(statement)


def _numbers(answer: list[tuple[Any, ...]]) -> list[int]:
    return [int(row) for (row,) in answer]
