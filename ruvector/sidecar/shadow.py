"""Shadow traffic: a sample of the real searches, asked of the index and of pgvector in the background."""

from __future__ import annotations

import json
import logging
import queue
import threading
from collections import Counter
from dataclasses import dataclass

import psycopg

from ruvector import db, limits
from ruvector.clock import Clock
from ruvector.errors import DatabaseError, DatabaseUnreachable, InvalidParameter
from ruvector.systems.cutover.measures import Answer, pair_of

logger = logging.getLogger(__name__)
_NO_RIGHT = "42501"
_NO_ANSWER = dict.fromkeys(
    ("index_ms", "overlap", "rank_correlation", "distance_error", "truth", "pgvector_recall", "index_recall")
)


@dataclass(frozen=True, slots=True)
class Sample:
    """One search of a user, as ruvector.sample sends it."""

    mirror_id: int
    database: tuple[str, int]  # when its server was started, and its OID
    query: str
    k: int
    ef: int | None
    filter: str | None

    @classmethod
    def parse(cls, document: bytes) -> Sample:
        """Read a sample; InvalidParameter when it is none."""
        try:
            given = json.loads(document)
            ef, filter_ = given["ef"], given["filter"]
            return cls(
                int(given["mirror"]),
                (str(given["started"]), int(given["database"])),
                str(given["query"]),
                int(given["k"]),
                None if ef is None else int(ef),
                None if filter_ is None else json.dumps(filter_),
            )
        except (ValueError, TypeError, KeyError, RecursionError) as problem:
            raise InvalidParameter(f"malformed sample: {type(problem).__name__}") from None


class ShadowTraffic:
    """Compares samples, one after the other, on a thread and a connection of its own.

    Each is asked of both sides in one snapshot, in turn who is first; where it costs little of the time, of an exact
    scan, too. A sample that finds the queue full is counted and left out: nobody waits.
    """

    def __init__(self, dsn: str | None, *, clock: Clock) -> None:
        self._dsn = dsn
        self._clock = clock
        self._samples: queue.Queue[Sample] = queue.Queue(limits.SHADOW_QUEUE_MAX)
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._connection: db.Connection | None = None
        self._missed: Counter[int] = Counter()
        self._kept = 0
        self._is_failing = False
        self._began_at = 0.0
        self._exact_seconds = 0.0
        self._guarded_at: dict[int, float] = {}

    def start(self) -> None:
        """Begin to compare."""
        self._began_at = self._clock.now()
        self._thread = threading.Thread(target=self._run, name="shadow", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End after the comparison under way."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()

    def offer(self, sample: Sample) -> None:
        """Take a sample, or count it as missed; returns at once."""
        try:
            self._samples.put_nowait(sample)
        except queue.Full:
            self._missed[sample.mirror_id] += 1

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                sample = self._samples.get(timeout=limits.SHADOW_POLL_SECONDS)
            except queue.Empty:
                continue
            try:
                with db.translated():
                    self._take(sample)
                self._is_failing = False
            except (DatabaseError, DatabaseUnreachable) as error:
                if not self._is_failing:
                    # Said once, and only what holds no values of a filter.
                    what = error.message if error.sqlstate == _NO_RIGHT else ""
                    logger.warning("searches cannot be compared: %s %s", error.sqlstate, what)
                self._is_failing = True
                self._missed[sample.mirror_id] += 1
                self._close()
                self._stop.wait(limits.SHADOW_POLL_SECONDS)
        self._close()

    def _close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _take(self, sample: Sample) -> None:
        if self._connection is None:
            self._connection = db.connect(self._dsn, application_name="ruvector shadow")
        pair = self._compare(self._connection, sample)
        if pair is None:
            return
        missed = self._missed.pop(sample.mirror_id, 0)
        about = {"mirror": sample.mirror_id, "k": sample.k, "is_filtered": sample.filter is not None, "missed": missed}
        try:
            self._connection.execute(db.query("shadow", "keep").encode(), {**about, **pair})
        except psycopg.errors.ForeignKeyViolation:
            return  # detached meanwhile
        self._kept += 1
        if self._kept % limits.SHADOW_TRIM_EVERY == 0:
            kept = {"mirror": sample.mirror_id, "kept": limits.SHADOW_PAIRS_KEPT}
            self._connection.execute(db.query("shadow", "trim").encode(), kept)
        self._check_guard(self._connection, sample.mirror_id)

    def _check_guard(self, connection: db.Connection, mirror_id: int) -> None:
        now = self._clock.now()
        if now - self._guarded_at.get(mirror_id, 0.0) < limits.GUARD_SECONDS:
            return
        self._guarded_at[mirror_id] = now
        row = connection.execute(db.query("shadow", "check_guard").encode(), {"mirror": mirror_id}).fetchone()
        if row is not None and row[0] is not None:
            logger.warning("the cutover of collection %d was rolled back: %s", mirror_id, row[0])

    def _compare(self, connection: db.Connection, sample: Sample) -> dict[str, object] | None:
        """Return the measures of a sample; None where nobody wants them, or the search itself is wrong."""
        try:
            with connection.transaction():
                return self._compare_in_snapshot(connection, sample)
        except (psycopg.errors.DataError, psycopg.errors.UndefinedColumn):
            return None  # its query or filter does not suit the table: the user was told

    def _compare_in_snapshot(self, connection: db.Connection, sample: Sample) -> dict[str, object] | None:
        connection.execute(db.query("shadow", "begin").encode())
        connection.execute(db.query("shadow", "settings").encode(), {"milliseconds": str(limits.SHADOW_STATEMENT_MS)})
        row = connection.execute(db.query("shadow", "is_wanted").encode(), {"mirror": sample.mirror_id}).fetchone()
        if row is None or not row[0]:
            return None
        index = self._of_index(connection, sample) if self._kept % 2 else None
        pgvector, _ = self._ask(connection, sample, side="pgvector")
        if index is None:
            index = self._of_index(connection, sample)
        if isinstance(index, str):
            return {"problem": index, "pgvector_ms": pgvector.milliseconds, **_NO_ANSWER}
        return {"problem": None, **pair_of(index, pgvector, self._exact(connection, sample))}

    def _of_index(self, connection: db.Connection, sample: Sample) -> Answer | str:
        """Return what the index answers, or why it does not."""
        try:
            with connection.transaction():
                answer, engine = self._ask(connection, sample, side="ignore")
        except psycopg.OperationalError as error:
            if connection.closed:
                raise
            return error.diag.message_primary or error.diag.sqlstate or "no answer"
        return answer if engine in ("ruvector", None) else "the index was not asked"

    def _exact(self, connection: db.Connection, sample: Sample) -> Answer | None:
        """Return the exact answer while exact scans take no more than their share of the time; None otherwise."""
        allowed = limits.SHADOW_EXACT_SHARE * (self._clock.now() - self._began_at)
        if self._exact_seconds > allowed:
            return None
        started = self._clock.now()
        try:
            with connection.transaction():
                return self._ask(connection, sample, side="pgvector", exactness="exact")[0]
        except psycopg.errors.QueryCanceled:
            return None
        finally:
            self._exact_seconds += self._clock.now() - started

    def _ask(
        self, connection: db.Connection, sample: Sample, *, side: str, exactness: str | None = None
    ) -> tuple[Answer, str | None]:
        """Return the answer of one side and the engine that gave it, None when there are no rows."""
        connection.execute(db.query("shadow", "side").encode(), {"side": side})
        values = {
            "mirror": sample.mirror_id,
            "query": sample.query,
            "k": sample.k,
            "ef": sample.ef,
            "filter": sample.filter,
            "exactness": exactness,
        }
        started = self._clock.now()
        rows = connection.execute(db.query("shadow", "answer").encode(), values).fetchall()
        elapsed = (self._clock.now() - started) * 1000
        answer = Answer([row[0] for row in rows], [row[1] for row in rows], elapsed)
        return answer, rows[0][2] if rows else None
