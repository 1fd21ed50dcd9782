"""The client: one connection to the user's database, and the product's SQL functions as methods."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import numpy as np
import psycopg
from numpy.typing import ArrayLike
from psycopg import sql
from psycopg.rows import dict_row

from ruvector import db, limits
from ruvector.capture.collections import load_collections
from ruvector.capture.indexes import rebuild_indexes
from ruvector.client.backfill import Backfilled, backfill
from ruvector.client.names import ColumnName, parse_column
from ruvector.clock import Clock, SystemClock
from ruvector.errors import (
    CollectionNotFound,
    DatabaseUnreachable,
    InvalidParameter,
    InvalidVector,
    NotInstalled,
    SidecarUnreachable,
)
from ruvector.sparse import SparseVectors
from ruvector.values import Collection, Hit

# Numbers; one row of SparseVectors; or the text of any: 0 and 1 are a bit string, {1:0.5}/9 is a sparse vector.
Query = ArrayLike | SparseVectors | str
_METRICS = ("l2", "ip", "cosine", "l1", "hamming", "jaccard")


@dataclass(frozen=True, slots=True)
class Attached:
    """What an attach did, or would do: the arguments of ruvector_register_collection and where the metric is from."""

    name: str
    column: ColumnName
    metric: str
    metric_source: str
    dims: int | None
    options: Mapping[str, object]
    id: int | None = None


def connect(
    dsn: str | None = None, *, application_name: str = "ruvector client", on_notice: Callable[[str], None] | None = None
) -> Client:
    """Open a client.

    Args:
        dsn: a connection string; when left out RUVECTOR_DSN, else libpq's PG* variables.
        application_name: shown in pg_stat_activity.
        on_notice: called with each notice of the database: a search that the index could not answer says so there.

    Raises:
        DatabaseUnreachable: nothing answers, or the login is refused.
        NotInstalled: the database has no functions of ruvector.
    """
    connection = db.connect(dsn, application_name=application_name)
    try:
        return Client(connection, on_notice=on_notice)
    except BaseException:
        connection.close()
        raise


class Client:
    """Owns one connection; not for use by several threads at once. Close it, or use it as a context manager."""

    def __init__(
        self,
        connection: db.Connection,
        *,
        on_notice: Callable[[str], None] | None = None,
        clock: Clock | None = None,
    ) -> None:
        self.connection = connection
        self._clock = clock if clock is not None else SystemClock()
        with db.translated():
            row = connection.execute(db.query("client", "api_schema").encode()).fetchone()
        if row is None:
            raise NotInstalled(f'database "{connection.info.dbname}" has no functions of ruvector')
        self._api = sql.Identifier(row[0])
        if on_notice is not None:
            connection.add_notice_handler(lambda diagnostic: on_notice(diagnostic.message_primary or ""))

    @property
    def api(self) -> sql.Identifier:
        """Return the schema of the functions ruvector_*."""
        return self._api

    def __enter__(self) -> Self:
        """Return the client; the connection is closed at the end of the block."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection."""
        self.connection.close()

    # ---- collections ---------------------------------------------------------------------------------------------

    def attach(
        self,
        column: str,
        *,
        name: str | None = None,
        metric: str | None = None,
        columns: Sequence[str] = (),
        m: int | None = None,
        ef_construction: int | None = None,
        dims: int | None = None,
        dry_run: bool = False,
        on_wait: Callable[[int], None] | None = None,
    ) -> Attached:
        """Register a column SCHEMA.TABLE.COLUMN, install its triggers, have the sidecar copy it.

        Args:
            column: the column as SQL writes it; quoted parts keep their case.
            name: of the collection, TABLE_COLUMN when left out.
            metric: l2, cosine, ip, l1, hamming or jaccard; when left out that of the column's pgvector index, else l2
                (hamming for bit strings).
            columns: columns that filters may use, as the catalog has them.
            m: links per node of the index.
            ef_construction: candidates per insertion.
            dims: only for a column whose type does not declare them.
            dry_run: check, take no lock, change nothing.
            on_wait: called with the number of the try when the table is locked by somebody else.

        Raises:
            DatabaseError: the column cannot be attached; message and hint say why and what to do.
            InvalidParameter: a name or the metric cannot be used.
        """
        found = parse_column(column)
        chosen, source = (metric, "given") if metric is not None else self._metric_of(found)
        if chosen not in _METRICS:
            raise InvalidParameter(f'unknown metric "{chosen}"', hint=f"Metrics are {', '.join(_METRICS)}.")
        options = {"m": m, "ef_construction": ef_construction, "columns": list(columns) or None}
        plan = Attached(
            name=name if name is not None else default_name(found),
            column=found,
            metric=chosen,
            metric_source=source,
            dims=dims,
            options={key: value for key, value in options.items() if value is not None},
        )
        parts = {"table_schema": found.schema, "table_name": found.table, "column_name": found.column}
        if dry_run:
            declared = self._one("check_column", parts)["dims"]
            if declared is None and dims is None:
                raise InvalidParameter(
                    f"column {column} does not declare its dimensions", hint="Give them with --dims."
                )
            return _with(plan, dims=declared or dims)
        values = {**parts, "name": plan.name, "dims": dims, "metric": chosen, "options": json.dumps(plan.options)}
        number = self._with_patience("register", values, on_wait=on_wait)
        return _with(plan, number=number, dims=self.collection(plan.name).options.dims)

    def detach(self, name: str, *, on_wait: Callable[[int], None] | None = None) -> None:
        """Remove a collection with its triggers and bookkeeping; the sidecar removes its files, the table stays."""
        self.collection(name)
        self._with_patience("unregister", {"name": name}, on_wait=on_wait)

    def collections(self) -> list[Collection]:
        """Return every attached column, oldest first."""
        return load_collections(self.connection)

    def collection(self, name: str) -> Collection:
        """Return one attached column, or raise CollectionNotFound."""
        for collection in self.collections():
            if collection.name == name:
                return collection
        raise CollectionNotFound(name)

    def index_stats(self, name: str) -> dict[str, Any]:
        """Return size, dimensions, options and state of the index of a collection."""
        return dict(self._one("index_stats", {"name": name})["ruvector_index_stats"])

    # ---- search --------------------------------------------------------------------------------------------------

    def search(
        self,
        collection: str,
        query: Query,
        *,
        k: int = 10,
        filter: Mapping[str, object] | None = None,  # noqa: A002 - the name of the SQL argument
        ef: int | None = None,
        exactness: str | None = None,
        keys: Sequence[str | int] | None = None,
        max_distance: float | None = None,
    ) -> list[Hit]:
        """Return the k rows nearest to a vector [dims], nearest first, as this connection's snapshot sees the table.

        A sparse query is one row of SparseVectors; ``ef`` does not apply to it, its index is exact. ``keys`` are the
        only rows that may be in the answer; rows that are farther than ``max_distance`` are left out.

        Raises:
            InvalidVector: NaN, infinity, or not one row of numbers.
            DatabaseError: unknown collection (42704), wrong dimensions or k (22023), wrong filter (42703, 22023).
        """
        text = vector_text(query)
        is_bits, is_sparse = set(text) <= {"0", "1"}, text.lstrip().startswith("{")
        name = "search_bits" if is_bits else "search_sparse" if is_sparse else "search"
        values = {
            "collection": collection,
            "query": text,
            "k": k,
            "ef": ef,
            "filter": None if filter is None else json.dumps(filter),
            "exactness": exactness,
            "keys": None if keys is None else [str(key) for key in keys],
            "max_distance": max_distance,
        }
        return [Hit(**row) for row in self._all(name, values)]

    def search_batch(self, collection: str, queries: ArrayLike, *, k: int = 10) -> list[list[Hit]]:
        """Return the k nearest rows for each vector of [queries, dims]; a batch does not tell the tier."""
        rows = np.asarray(queries, dtype=np.float32)
        if rows.ndim != 2:
            raise InvalidVector(f"the queries have {rows.ndim} axes, not 2", hint="Give an array [queries, dims].")
        answers: list[list[Hit]] = [[] for _ in range(len(rows))]
        texts = "{" + ",".join(f'"{vector_text(row)}"' for row in rows) + "}"
        for row in self._all("search_batch", {"collection": collection, "queries": texts, "k": k}):
            answers[row["query_idx"]].append(Hit(row["id"], row["distance"], row["score"], "", is_exact=True))
        return answers

    def explain(
        self,
        collection: str,
        query: Query,
        *,
        k: int = 10,
        filter: Mapping[str, object] | None = None,  # noqa: A002 - the name of the SQL argument
        ef: int | None = None,
        keys: Sequence[str | int] | None = None,
        max_distance: float | None = None,
    ) -> dict[str, Any]:
        """Run one search and return how it was answered: plan, engine, candidates, reason, times."""
        values = {
            "collection": collection,
            "query": vector_text(query),
            "k": k,
            "ef": ef,
            "filter": None if filter is None else json.dumps(filter),
            "keys": None if keys is None else [str(key) for key in keys],
            "max_distance": max_distance,
        }
        return self._one("explain", values)

    def vector_of(self, collection: str, key: str) -> str:
        """Return the vector of the row with this key, as PostgreSQL writes it."""
        found = self.collection(collection)
        values = [key] if len(found.key_columns) == 1 else _composite(key, found)
        match = sql.SQL(" AND ").join(
            sql.SQL("i.{} = {}::{}").format(sql.Identifier(name), sql.Literal(value), sql.SQL(kind))
            for name, value, kind in zip(found.key_columns, values, found.key_types, strict=True)
        )
        statement = sql.SQL(db.query("client", "vector_of")).format(
            column=sql.Identifier(found.column_name),
            table=sql.Identifier(found.table_schema, found.table_name),
            match=match,
        )
        with db.translated():
            row = self.connection.execute(statement).fetchone()
        if row is None or row[0] is None:
            lacks = "has no row" if row is None else "has no vector in the row"
            raise InvalidParameter(f"{found.table_ref} {lacks} with key {key}", hint="Give the key as ids are printed.")
        return str(row[0])

    # ---- another model -------------------------------------------------------------------------------------------

    def backfill(
        self,
        column: str,
        *,
        using: str,
        batch: int = 1_000,
        pause_ms: float = 0.0,
        dry_run: bool = False,
        on_progress: Callable[[str, int, int], None] | None = None,
    ) -> Backfilled:
        """Set a vector column to an expression in every row where it is NULL: for another model, or vectors in real[].

        Args:
            column: SCHEMA.TABLE.COLUMN as SQL writes it; the table has a key that an attach would take.
            using: the vector as SQL over the columns of the row, executed with the rights of this connection.
            batch: rows in one transaction; what is done stays done when it ends for whatever reason.
            pause_ms: after each batch.
            dry_run: do all of it in one transaction, and take that back.
            on_progress: called with the column, how many rows are filled, and how many there are to fill.

        Raises:
            DatabaseError: there is no such column, or the expression fails.
        """
        found = parse_column(column)
        parts = {"table_schema": found.schema, "table_name": found.table, "column_name": found.column}
        keys = self._one("check_column", parts)["key_columns"]
        how: dict[str, Any] = {
            "using": using,
            "batch": batch,
            "pause_seconds": pause_ms / 1000,
            "sleep": self._clock.sleep,
            "on_progress": on_progress,
        }
        if not dry_run:
            return backfill(self.connection, found, keys, **how)
        with self.connection.transaction(force_rollback=True):
            return backfill(self.connection, found, keys, **how)

    # ---- cutover -------------------------------------------------------------------------------------------------

    def shadow_start(
        self,
        collection: str,
        sample_rate: float = limits.SHADOW_SAMPLE_RATE,
        *,
        reason: str | None = None,
        dry_run: bool = False,
    ) -> bool:
        """Let pgvector answer all searches, and compare this share of them with the index in the background.

        Raises:
            DatabaseError: 55000, the index is not live.
        """
        values = {"collection": collection, "sample_rate": sample_rate, "reason": reason}
        with self.connection.transaction(force_rollback=dry_run):
            return bool(self._one("shadow_start", values)["started"])

    def shadow_report(self, collection: str, *, since: str | None = None) -> dict[str, Any]:
        """Return how index and pgvector compare since a time (ISO 8601), or since the latest step."""
        return dict(self._one("shadow_report", {"collection": collection, "since": since})["report"])

    def cutover(
        self,
        collection: str,
        percent: int,
        guard: Mapping[str, float] | None = None,
        *,
        reason: str | None = None,
        dry_run: bool = False,
    ) -> dict[str, Any]:
        """Let the index answer this share of all searches, in percent, and pgvector the others; return the step.

        Where a sample of the searches breaks the guard (min_recall, max_p99_ratio, max_error_rate; None for the usual
        one, {} for none), the sidecar rolls back by itself.

        Raises:
            DatabaseError: 55000, the index is not live; 22023, there is no such guard.
        """
        values = {
            "collection": collection,
            "percent": percent,
            "guard": None if guard is None else json.dumps(dict(guard)),
            "reason": reason,
        }
        return self._step("cutover", values, dry_run=dry_run)

    def cutover_complete(
        self, collection: str, *, drop_pgvector_index: bool = False, reason: str | None = None, dry_run: bool = False
    ) -> dict[str, Any]:
        """End a cutover that stands at 100 percent; return the step.

        drop_pgvector_index frees the space of pgvector's indexes for the metric: the step then has "dropped", a list of
        index, bytes and scans. They are built again after a rollback, by the sidecar or by `rebuild_indexes`.

        Raises:
            DatabaseError: 55000, it does not stand at 100 percent; 55P03, the table stayed locked.
        """
        values = {"collection": collection, "drop": drop_pgvector_index, "reason": reason}
        if drop_pgvector_index and not dry_run:
            return dict(self._with_patience("cutover_complete", values, on_wait=None))
        return self._step("cutover_complete", values, dry_run=dry_run)

    def rebuild_indexes(self, collection: str) -> list[str] | None:
        """Build the indexes again that a completed cutover dropped; return them, None while somebody else builds.

        They are built CONCURRENTLY, which may take as long as the first time. The role must own the table. Nothing is
        built while the collection is complete.
        """
        return rebuild_indexes(self.connection, name=collection)

    def rollback(self, collection: str, *, reason: str | None = None, dry_run: bool = False) -> dict[str, Any]:
        """Let pgvector answer all searches, from the next one on in every session; return the step."""
        return self._step("rollback", {"collection": collection, "reason": reason}, dry_run=dry_run)

    def cutover_status(self, name: str | None = None) -> list[dict[str, Any]]:
        """Return who answers the searches of every collection, or of one, and who changed it last."""
        return self._all("cutover_status", {"name": name})

    # ---- consistency ---------------------------------------------------------------------------------------------

    def wait_applied(self, collection: str, *, timeout_ms: int = 1000) -> bool:
        """Wait until the index holds everything committed before the call; return whether it does."""
        row = self._one("wait_applied", {"collection": collection, "timeout_ms": timeout_ms})
        return bool(row["ruvector_wait_applied"])

    def verify(
        self, collection: str, *, sample: int = 1000, full: bool = False, repair: bool = False
    ) -> dict[str, Any]:
        """Compare table and mirror; return counts of checked, missing, stale, orphan and repaired rows.

        Raises:
            SidecarUnreachable: no sidecar answers.
            NotLive: inside DatabaseError 55000, the mirror is still being built.
        """
        values = {"collection": collection, "sample": sample, "full": full, "repair": repair}
        report = self._one("verify", values)["ruvector_verify"]
        return dict(report)

    def status(self, name: str | None = None) -> list[dict[str, Any]]:
        """Return state, freshness and size of every mirror, or of one."""
        if name is not None:
            self.collection(name)
        return self._all("mirrors", {"name": name}, group="status")

    def health(self) -> list[dict[str, Any]]:
        """Return for every mirror what doctor looks at: state, table, triggers, definition, changelog."""
        return self._all("collections", {"alarm_seconds": limits.ALARM_SECONDS}, group="doctor")

    def simd_info(self) -> str:
        """Return the line in which the sidecar names its kernels; raise SidecarUnreachable when none answers."""
        return str(self._one("simd_info", {})["ruvector_simd_info"])

    # ---- statements ----------------------------------------------------------------------------------------------

    def _all(self, name: str, values: Mapping[str, object], *, group: str = "client") -> list[dict[str, Any]]:
        statement = sql.SQL(db.query(group, name)).format(api=self._api)
        with self._translated(), self.connection.cursor(row_factory=dict_row) as cursor:
            return cursor.execute(statement, values).fetchall()

    def _step(self, name: str, values: Mapping[str, object], *, dry_run: bool) -> dict[str, Any]:
        with self.connection.transaction(force_rollback=dry_run):
            return dict(self._one(name, values)["step"])

    def _one(self, name: str, values: Mapping[str, object]) -> dict[str, Any]:
        return self._all(name, values)[0]

    def _with_patience(self, name: str, values: Mapping[str, object], *, on_wait: Callable[[int], None] | None) -> Any:
        """Run a function that locks the user's table; it gives up after 2 s, so that writers never queue for long."""
        statement = sql.SQL(db.query("client", name)).format(api=self._api)
        for attempt in range(1, limits.ATTACH_TRIES + 1):
            try:
                with self.connection.transaction():
                    row = self.connection.execute(statement, values).fetchone()
                return row[0] if row else None
            except (psycopg.errors.LockNotAvailable, psycopg.errors.DeadlockDetected) as error:
                if attempt == limits.ATTACH_TRIES:
                    with db.translated():
                        raise error from None
                if on_wait is not None:
                    on_wait(attempt)
                self._clock.sleep(limits.ATTACH_PAUSE_SECONDS)
            except psycopg.Error as error:
                with db.translated():
                    raise error from None
        return None

    def _metric_of(self, column: ColumnName) -> tuple[str, str]:
        parts = {"table_schema": column.schema, "table_name": column.table, "column_name": column.column}
        classes = [row["opcname"] for row in self._all("operator_classes", parts)]
        metrics = {name.removesuffix("_ops").rpartition("_")[2] for name in classes}
        if len(metrics) > 1:
            raise InvalidParameter(
                f"the column has pgvector indexes of different metrics: {', '.join(sorted(metrics))}",
                hint="Choose one with --metric.",
            )
        if metrics:
            return metrics.pop(), f"pgvector index ({classes[0]})"
        types = [row["typname"] for row in self._all("column_type", parts)]
        return ("hamming" if types == ["bit"] else "l2"), "default"

    @contextmanager
    def _translated(self) -> Iterator[None]:
        """Translate errors; class 08 from a server that still answers is about the sidecar, not about the database."""
        try:
            with db.translated():
                yield
        except DatabaseUnreachable as error:
            if self.connection.broken or self.connection.closed:
                raise
            raise SidecarUnreachable(error.message, detail=error.detail) from error


def default_name(column: ColumnName) -> str:
    """Return TABLE_COLUMN, or raise InvalidParameter when it is too long for a name."""
    size = len(column.collection.encode())
    if size > limits.IDENTIFIER_BYTES_MAX:
        raise InvalidParameter(
            f'the default name "{column.collection}" has {size} bytes, more than {limits.IDENTIFIER_BYTES_MAX}',
            hint="Choose a name with --name.",
        )
    return column.collection


def vector_text(query: Query) -> str:
    """Return a vector as PostgreSQL reads it; a text is passed on as it is."""
    if isinstance(query, str):
        return query
    if isinstance(query, SparseVectors):
        if len(query) != 1:
            raise InvalidVector(f"the query has {len(query)} rows, not 1", hint="Give one row: vectors[0:1].")
        return query.texts()[0]
    numbers = np.asarray(query, dtype=np.float32)
    if numbers.ndim != 1:
        raise InvalidVector(f"the query has {numbers.ndim} axes, not 1", hint="Give one vector [dims].")
    if not np.isfinite(numbers).all():
        raise InvalidVector(
            f"element {int(np.flatnonzero(~np.isfinite(numbers))[0])} of the query is not a finite number"
        )
    return "[" + ",".join(map(repr, numbers.tolist())) + "]"


def _composite(key: str, collection: Collection) -> list[str]:
    try:
        values = json.loads(key, parse_float=str, parse_int=str)
    except ValueError:
        values = None
    if not isinstance(values, list) or len(values) != len(collection.key_columns):
        raise InvalidParameter(
            f"the key of {collection.table_ref} has {len(collection.key_columns)} columns",
            hint='Give it as ids are printed: a JSON array such as [7, "a"].',
        )
    return [str(value) for value in values]


def _with(plan: Attached, *, dims: int | None, number: int | None = None) -> Attached:
    return Attached(plan.name, plan.column, plan.metric, plan.metric_source, dims, plan.options, number)
