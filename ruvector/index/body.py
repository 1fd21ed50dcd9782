"""What the flat and the graph index have in common: checks, keys and an engine."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import numpy.typing as npt

from ruvector import kernels, limits
from ruvector.errors import Cancelled, InternalError, InvalidParameter, StoreFormat, ensure
from ruvector.index import checks
from ruvector.index.keys import TextKeys, key_book
from ruvector.index.protocol import Bytes, Engine, Keys, KeysIn, Sections
from ruvector.values import ElementType, IndexKind, IndexOptions, Metric

_METRIC_CODES = {metric: code for code, metric in enumerate(Metric)}
_ELEMENT_CODES = {element: code for code, element in enumerate(ElementType)}
_NAME_TRIES = 8  # a search is repeated when the keys of its rows were forgotten meanwhile; twice is rare already


def new_engine(options: IndexOptions) -> Engine:
    """Return an empty engine of the kind RUVECTOR_KERNELS chose."""
    settings: dict[str, Any] = {
        "metric": _METRIC_CODES[options.metric],
        "element": _ELEMENT_CODES[options.element],
        "dims": options.dims,
        "m": options.m,
        "ef_construction": options.ef_construction,
        "seed": options.seed,
        "linked": options.kind is IndexKind.HNSW,
    }
    if kernels.IS_COMPILED:
        from ruvector._ext.graph import Graph

        compiled: Engine = Graph(**settings)
        return compiled
    from ruvector.index.reference import ReferenceGraph

    return ReferenceGraph(**settings)


class Body:
    """An engine behind its checks. Writers take turns; readers only meet the engine's own short locks."""

    def __init__(self, options: IndexOptions, *, threads: int, scan_factor: int) -> None:
        """Check the options and start empty."""
        checks.check_options(options)
        self.options = options
        self.threads = checks.worker_count(threads)
        self._scan_factor = scan_factor
        self._engine = new_engine(options)
        self._keys = key_book(options.key_kind)
        self._writer = threading.Lock()

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self._engine)

    def upsert(self, keys: KeysIn, vectors: npt.ArrayLike) -> int:
        """Insert or replace rows; nothing is changed when a key or vector is refused."""
        # Numbers are given to new texts only once the vectors are known to be good.
        rows = checks.row_bytes(vectors, options=self.options, count=_length(keys))
        with self._writer:
            numbers = self._keys.for_write(keys)
            return self._engine.upsert(numbers, rows, threads=self.threads)

    def delete(self, keys: KeysIn) -> int:
        """Delete rows; returns how many existed."""
        with self._writer:
            deleted = self._engine.delete(self._keys.for_read(keys), threads=self.threads)
            self._keys.forget(deleted, live=len(self._engine), contains=self._engine.contains)
            return deleted

    def clear(self) -> None:
        """Delete all rows."""
        with self._writer:
            self._engine.clear()
            self._keys.clear()

    def compact(self) -> None:
        """Link around deleted rows now and free their room."""
        with self._writer:
            self._engine.repair(threads=self.threads)

    def search_many(
        self, queries: npt.ArrayLike, k: int, *, ef: int | None, threads: int, cancel: Bytes | None
    ) -> list[tuple[Keys, npt.NDArray[np.float32]]]:
        """Answer queries [q, dims], see VectorIndex.search."""
        k = checks.check_range("k", k, low=1, high=limits.WANTED_MAX)
        ef = self.options.ef_search if ef is None else checks.check_range("ef", ef, low=1, high=limits.EF_MAX)
        data = checks.query_bytes(queries, options=self.options)
        workers = checks.worker_count(threads)
        # Places for as many rows as there are; a writer may add some meanwhile, then they were too few.
        places = min(k, len(self._engine) + limits.BATCH_QUERIES_MAX)
        for _ in range(_NAME_TRIES):
            answers = self._engine.search(
                data, k=places, ef=max(ef, k), scan_rows=self._scan_factor * max(ef, k), threads=workers, cancel=cancel
            )
            if answers is None:
                raise Cancelled("the search was cancelled")
            counts = answers[2].tolist()
            if places < k and places in counts:
                places = k
                continue
            named = [
                (self._keys.names(keys[:count]), distances[:count])
                for keys, distances, count in zip(answers[0], answers[1], counts, strict=True)
            ]
            whole = [(names, distances) for names, distances in named if names is not None]
            if len(whole) == len(named):
                return whole
        raise InternalError(f"the keys of a search were forgotten {_NAME_TRIES} times in a row")

    def search(
        self, query: npt.ArrayLike, k: int, *, ef: int | None, cancel: Bytes | None
    ) -> tuple[Keys, npt.NDArray[np.float32]]:
        """Answer one query [dims]."""
        given = np.asarray(query)
        if given.ndim != 1:
            raise InvalidParameter(f"a query must have one axis, this one has {given.ndim}")
        return self.search_many(given[np.newaxis], k, ef=ef, threads=1, cancel=cancel)[0]

    def contains(self, key: int | str) -> bool:
        """Tell whether a key has a row."""
        return bool(self._engine.contains(self._keys.for_read([key]))[0])

    def vectors_of(self, keys: KeysIn) -> tuple[npt.NDArray[Any], npt.NDArray[np.bool_]]:
        """Return the stored vectors and which keys were found."""
        rows, found = self._engine.rows_of(self._keys.for_read(keys))
        return rows.view(checks.DTYPES[self.options.element]), found

    def keys(self) -> Keys:
        """Return all keys."""
        for _ in range(_NAME_TRIES):
            names = self._keys.names(self._engine.keys())
            if names is not None:
                return names
        with self._writer:
            names = self._keys.names(self._engine.keys())
        ensure(names is not None, "a row has no key")
        return names if names is not None else []

    def sections(self) -> Sections:
        """Return a consistent copy of everything."""
        with self._writer:
            return self._engine.dump() | self._keys.sections(self._engine.keys())

    def restore(self, sections: Sections, *, in_place: bool) -> None:
        """Become what ``sections`` returned; the index must be new. Raises StoreFormat when they do not fit."""
        with self._writer:
            try:
                wrong = self._engine.restore(sections, in_place=in_place)
                if wrong is None and isinstance(self._keys, TextKeys):
                    self._keys.restore(sections)
                    wrong = None if self._keys.names(self._engine.keys()) is not None else "a row has no text key"
            except (KeyError, ValueError) as error:
                wrong = f"a section is missing or of another type: {error}"
            if wrong is not None:
                self._engine.clear()
                self._keys.clear()
                raise StoreFormat(f"the sections of the index do not fit together: {wrong}")

    def stats(self) -> dict[str, Any]:
        """Return options, counters and sizes in bytes."""
        figures = self._engine.figures()
        options = self.options
        return {
            "kind": str(options.kind),
            "metric": str(options.metric),
            "element": str(options.element),
            "dims": options.dims,
            "m": options.m,
            "ef_construction": options.ef_construction,
            "ef_search": options.ef_search,
            "engine": kernels.simd_name(),
            **figures,
            "bytes": figures["row_bytes"] + figures["link_bytes"] + figures["table_bytes"],
        }


def _length(keys: KeysIn) -> int:
    try:
        return len(keys)  # type: ignore[arg-type]
    except TypeError:
        raise InvalidParameter(f"keys must be a list, this is {type(keys).__name__}") from None
