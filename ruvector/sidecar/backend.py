"""The product behind the endpoint: logins, the database's requests, and functions called directly."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from ruvector import __version__, kernels
from ruvector.bridge.backend import CALL_COLUMNS, Access, CancelFlag, Column, Login, RowSet, Signature, Value
from ruvector.bridge.scram import ScramVerifier
from ruvector.clock import Clock
from ruvector.errors import DimensionMismatch, InvalidParameter
from ruvector.index import Vectors
from ruvector.mirror.apply import key_texts
from ruvector.mirror.state import Mirror
from ruvector.mirror.worker import MirrorWorker
from ruvector.sidecar.answers import Secrets, answer_search
from ruvector.sidecar.shadow import Sample
from ruvector.snapshot import Snapshot
from ruvector.sparse import SparseVectors
from ruvector.surface import registry
from ruvector.surface.rows import CollectionRow, ConsistencyRow
from ruvector.values import ANY_ROW, ElementType, Hit, Metric, Restriction

_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


class Workers(Protocol):
    """The mirrors that run now."""

    def by_id(self) -> Mapping[int, Mirror]:
        """Return every mirror by the number of its collection."""
        ...

    def by_name(self, name: str) -> MirrorWorker:
        """Return the worker of a collection, or raise CollectionNotFound."""
        ...

    def all(self) -> Sequence[MirrorWorker]:
        """Return the workers in order of their names."""
        ...


class ProductContext:
    """Context of the declared functions, over the running mirrors."""

    def __init__(self, workers: Workers, *, cancel: CancelFlag | None = None) -> None:
        self._workers = workers
        self._cancel = cancel

    def version(self) -> str:
        """Return the version of the program."""
        return __version__

    def simd_info(self) -> str:
        """Return one line that names the chosen kernels."""
        return kernels.simd_info()

    def memory(self) -> Mapping[str, object]:
        """Return measured memory in bytes: of the process, and of each index."""
        indexes = {worker.mirror.collection.name: worker.mirror.index.stats() for worker in self._workers.all()}
        return {"resident_bytes": resident_bytes(), "indexes": indexes}

    def collections(self) -> Sequence[CollectionRow]:
        """Return the mirrored collections in order of their names."""
        return [
            CollectionRow(c.id, c.name, c.table_ref, c.options.dims, c.options.metric.value, c.options.kind.value,
                          len(worker.mirror.index))
            for worker in self._workers.all()
            for c in (worker.mirror.collection,)
        ]  # fmt: skip

    def stats(self, name: str) -> Mapping[str, object]:
        """Return size, options and state of one index."""
        mirror = self._workers.by_name(name).mirror
        options = {key: str(value) for key, value in asdict(mirror.collection.options).items()}
        return {"collection": name, "state": mirror.state.value, "options": options, **mirror.index.stats()}

    def consistency(self, name: str | None) -> Sequence[ConsistencyRow]:
        """Return the state of one mirror, or of all; what only the database knows is null."""
        workers = self._workers.all() if name is None else [self._workers.by_name(name)]
        return [_consistency(worker.mirror) for worker in workers]

    def search(
        self, collection: str, query: NDArray[np.float32], *, k: int, ef: int | None, among: Restriction = ANY_ROW
    ) -> Sequence[Hit]:
        """Return the k nearest rows of the index, as of the mirror's position."""
        mirror = self._workers.by_name(collection).mirror
        if mirror.collection.options.metric.is_binary:
            raise InvalidParameter(f'collection "{collection}" holds bit vectors', hint="Use ruvector_search_bits.")
        if mirror.collection.options.element is ElementType.SPARSE:
            raise InvalidParameter(
                f'collection "{collection}" holds sparse vectors', hint="Use ruvector_search_sparse."
            )
        return self._hits(mirror, query, k=k, ef=ef, among=among)

    def search_bits(
        self,
        collection: str,
        packed: NDArray[np.uint8],
        *,
        bits: int,
        k: int,
        ef: int | None,
        among: Restriction = ANY_ROW,
    ) -> Sequence[Hit]:
        """Return the k nearest rows of an index of bit strings."""
        mirror = self._workers.by_name(collection).mirror
        if not mirror.collection.options.metric.is_binary:
            raise InvalidParameter(f'collection "{collection}" holds vectors, not bits', hint="Use ruvector_search.")
        if bits != mirror.collection.options.dims:
            raise DimensionMismatch(expected=mirror.collection.options.dims, got=bits)
        return self._hits(mirror, packed, k=k, ef=ef, among=among)

    def search_sparse(
        self, collection: str, query: SparseVectors, *, k: int, ef: int | None, among: Restriction = ANY_ROW
    ) -> Sequence[Hit]:
        """Return the k nearest rows of an index of sparse vectors."""
        mirror = self._workers.by_name(collection).mirror
        if mirror.collection.options.element is not ElementType.SPARSE:
            raise InvalidParameter(f'collection "{collection}" holds no sparse vectors', hint="Use ruvector_search.")
        return self._hits(mirror, query, k=k, ef=ef, among=among)

    def search_batch(
        self, collection: str, queries: Sequence[NDArray[np.float32]], *, k: int
    ) -> Sequence[Sequence[Hit]]:
        """Return the k nearest rows for each query."""
        return [self.search(collection, query, k=k, ef=None) for query in queries]

    def wait_applied(self, name: str, snapshot: str | None, timeout_ms: int) -> bool:
        """Wait until everything a snapshot sees is applied; without one, until the next read of the changelog."""
        worker = self._workers.by_name(name)
        worker.wake()
        if snapshot is None:
            raise InvalidParameter(
                "the sidecar cannot know what was committed before this call",
                hint="Call ruvector_wait_applied in the database.",
            )
        return worker.mirror.wait_until_covers(Snapshot.parse(snapshot), seconds=timeout_ms / 1000)

    def verify(self, name: str, *, sample: int, full: bool, repair: bool) -> Mapping[str, object]:
        """Compare table and mirror; the mirror's own thread does it between two batches."""
        return self._workers.by_name(name).verify(
            sample=sample, full=full, repair=repair, check=self._cancel.check if self._cancel is not None else None
        )

    def _hits(self, mirror: Mirror, query: Vectors, *, k: int, ef: int | None, among: Restriction) -> list[Hit]:
        flag = None if self._cancel is None else self._cancel.array
        keys, distances = mirror.plain_search(query, k, ef=ef, among=among, cancel=flag)
        metric = mirror.collection.options.metric
        return [
            Hit(key, distance, score(metric, distance), "hot", is_exact=True)
            for key, distance in zip(key_texts(keys), distances.tolist(), strict=True)
        ]


class ProductBackend:
    """Implements the endpoint's Backend protocol; every method may be called from many threads."""

    def __init__(
        self,
        workers: Workers,
        *,
        secrets: Secrets,
        logins: Sequence[Login],
        clock: Clock,
        offer_sample: Callable[[Sample], None],
    ) -> None:
        self._workers = workers
        self._offer_sample = offer_sample
        self._secrets = secrets
        self._clock = clock
        self._logins = {login.name: login for login in logins}

    def authenticate(self, login: str) -> Login | None:
        """Return what is known about a login name."""
        return self._logins.get(login)

    def rpc_search(self, payload: bytes, cancel: CancelFlag) -> RowSet:
        """Answer a signed search of the database."""
        return answer_search(self._workers.by_id(), self._secrets.open_search(payload), cancel, clock=self._clock)

    def rpc_call(self, payload: bytes, cancel: CancelFlag) -> RowSet:
        """Answer a signed function call of the database; each row is one JSON document."""
        request = json.loads(self._secrets.open(payload))
        access = "admin" if request["access"] == "admin" else "user"
        seconds = int(request["deadline_ms"]) / 1000
        if access == "admin":
            cancel.allow(seconds)
        else:
            cancel.expire_within(seconds)
        documents = registry.invoke_json(
            str(request["function"]), ProductContext(self._workers, cancel=cancel), request["arguments"], access=access
        )
        return RowSet(CALL_COLUMNS, [("v", document, None) for document in documents])

    def rpc_sample(self, payload: bytes) -> RowSet:
        """Take a signed search to compare, unless a clone of the database sent it."""
        sample = Sample.parse(self._secrets.open(payload))
        mirror = self._workers.by_id().get(sample.mirror_id)
        if mirror is not None and mirror.database == sample.database:
            self._offer_sample(sample)
        return RowSet(CALL_COLUMNS, [])

    def describe(self, function: str) -> Signature:
        """Return the signature of a function."""
        declared = registry.get(function)
        return Signature(
            tuple(Column(argument.name, argument.type.oid) for argument in declared.arguments),
            tuple(Column(column.name, column.type.oid) for column in declared.columns),
        )

    def call(
        self, function: str, args: list[Value], kwargs: dict[str, Value], *, access: Access, cancel: CancelFlag
    ) -> RowSet:
        """Call a function that a client sent to the sidecar itself."""
        level = "admin" if access is Access.ADMIN else "user"
        columns, rows = registry.invoke(
            function, ProductContext(self._workers, cancel=cancel), args, kwargs, access=level
        )
        return RowSet(tuple(Column(column.name, column.type.oid) for column in columns), rows)


def score(metric: Metric, distance: float) -> float:
    """Return the score of a distance: larger is better (the same formula as ruvector.score in SQL)."""
    if metric is Metric.IP:
        return -distance
    if metric in (Metric.COSINE, Metric.JACCARD):
        return 1 - distance
    return 1 / (1 + distance)


def resident_bytes() -> int:
    """Return the resident memory of this process, or its highest value where /proc does not tell."""
    statm = Path("/proc/self/statm")
    if statm.exists():
        return int(statm.read_text(encoding="ascii").split()[1]) * _PAGE_BYTES
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def new_login(name: str, access: Access, password: str) -> Login:
    """Return a login that is checked by SCRAM-SHA-256."""
    return Login(name, access, ScramVerifier.from_password(password))


def _consistency(mirror: Mirror) -> ConsistencyRow:
    return ConsistencyRow(
        collection=mirror.collection.name,
        state=mirror.state.value,
        reason=mirror.reason or None,
        last_heap_lsn=None,
        last_index_lsn=mirror.position_lsn or None,
        lag_bytes=None,
        lag_ms=None,
        pending_changes=None,
        watermark=str(mirror.position) if mirror.position is not None else None,
        checkpoint_age_ms=None,
        changelog_bytes=None,
        unindexed=mirror.unindexed.counts(),
    )
