"""The numpy twin of the compiled engine for sparse rows: the same answers and sections, one lock, no speed."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from ruvector.errors import UserError
from ruvector.index.protocol import Answers, Bytes, Sections, Sieve, Tags
from ruvector.index.reference_tags import ReferenceTags
from ruvector.sparse import SparseVectors
from ruvector.values import Metric

_TYPES = {"keys": np.int64, "starts": np.int64, "dims": np.uint32, "values": np.float32, "head": np.int64}


class ReferenceInverted:
    """A keyed set of sparse rows; codes as in ruvector._ext.inverted. A search compares every row."""

    def __init__(self, *, metric: int, dims: int) -> None:
        """Start empty."""
        self._metric = list(Metric)[metric]
        self._dims = dims
        self._rows: dict[int, tuple[npt.NDArray[np.uint32], npt.NDArray[np.float32]]] = {}
        self._joined: SparseVectors | None = None  # all rows as one, until the next change
        self._tags = ReferenceTags()
        self._lock = threading.RLock()

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self._rows)

    @property
    def built_permille(self) -> int:
        """Return 1000: no row is ever loose."""
        return 1000

    def build(self, *, threads: int, cancel: Bytes | None = None) -> None:
        """Do nothing."""

    def start_tags(self) -> int:
        """Give each row a tag, in the order of ``keys``; returns how many rows there are."""
        with self._lock:
            return self._tags.start(self.keys())

    def tags_of(self, keys: npt.NDArray[np.int64]) -> Tags:
        """Return the tag of each key, NO_TAG for one without a row."""
        with self._lock:
            return self._tags.of(keys)

    def upsert(
        self, keys: npt.NDArray[np.int64], rows: SparseVectors, *, loose: bool, threads: int, tags: Tags | None = None
    ) -> int:
        """Insert or replace rows; returns how many were not already there as they are."""
        with self._lock:
            self._tags.put(keys, tags)
            changed = 0
            for key, at in {key: at for at, key in enumerate(keys.tolist())}.items():
                part = slice(rows.indptr[at], rows.indptr[at + 1])
                row = (rows.indices[part], rows.values[part])
                before = self._rows.get(key)
                if before is not None and all(map(np.array_equal, before, row)):
                    continue
                self._rows.pop(key, None)
                self._rows[key] = row
                changed += 1
            self._joined = None
            return changed

    def delete(self, keys: npt.NDArray[np.int64], *, threads: int) -> int:
        """Delete rows by key; returns how many existed."""
        with self._lock:
            self._joined = None
            self._tags.drop(keys.tolist())
            return sum(self._rows.pop(key, None) is not None for key in keys.tolist())

    def repair(self, *, threads: int) -> None:
        """Do nothing: deleted rows hold nothing here."""

    def clear(self) -> None:
        """Forget all rows."""
        with self._lock:
            self._rows.clear()
            self._tags.clear()
            self._joined = None

    def search(
        self,
        queries: SparseVectors,
        *,
        k: int,
        ef: int,
        scan_rows: int,
        threads: int,
        cancel: Bytes | None = None,
        sieve: Sieve | None = None,
    ) -> Answers | None:
        """Answer queries: keys [q, k], distances [q, k], counts [q]; None when cancelled."""
        keys = np.full((len(queries), k), -1, dtype=np.int64)
        distances = np.full((len(queries), k), np.inf, dtype=np.float32)
        counts = np.zeros(len(queries), dtype=np.int64)
        for at in range(len(queries)):
            if cancel is not None and cancel[0]:
                return None
            with self._lock:
                held = np.fromiter(self._rows, dtype=np.int64, count=len(self._rows))
                found = self._nearest(queries[at : at + 1], k if sieve is None else len(held))
                if sieve is not None:
                    passes = self._tags.passing(held, sieve)
                    found = [edge for edge in found if passes[edge[1]]][:k]
            counts[at] = len(found)
            keys[at, : len(found)] = held[[row for _, row in found]]
            distances[at, : len(found)] = [apart for apart, _ in found]
        return keys, distances, counts

    def _nearest(self, query: SparseVectors, k: int) -> list[tuple[float, int]]:
        """Return (distance, row) of the nearest, ascending."""
        rows = self._all()
        if not len(rows):
            return []
        numbers = np.repeat(np.arange(len(rows)), rows.lengths)
        places = np.searchsorted(query.indices, rows.indices)
        shared = np.zeros(len(numbers), dtype=np.bool_)
        if len(query.indices):
            places = np.minimum(places, len(query.indices) - 1)
            shared = query.indices[places] == rows.indices
        held, asked = rows.values[shared].astype(np.float64), query.values[places[shared]].astype(np.float64)
        weights = np.bincount(numbers, self._weigh(rows.values), minlength=len(rows))
        terms = np.abs(asked - held) - np.abs(asked) - np.abs(held) if self._metric is Metric.L1 else asked * held
        sums = np.bincount(numbers[shared], terms, minlength=len(rows))
        own = float(self._weigh(query.values).sum())
        if self._metric is Metric.IP:
            return self._first(-sums, k)
        if self._metric is Metric.COSINE:
            return self._first(1 - sums / np.sqrt(own * weights), k)
        ranks = own + weights + (sums if self._metric is Metric.L1 else -2 * sums)
        # Estimates lose small distances between large numbers: what may be nearest by their error is measured.
        doubts = (len(query.values) + rows.lengths + 16) * 2 * np.finfo(np.float64).eps * (own + weights)
        bound = np.partition(ranks + doubts, min(k, len(ranks)) - 1)[min(k, len(ranks)) - 1]
        measured = np.full(len(ranks), np.inf)
        for row in np.flatnonzero(ranks - doubts <= bound).tolist():
            measured[row] = self._measure(query, rows, row)
        return self._first(measured, k)

    def _first(self, ranks: npt.NDArray[Any], k: int) -> list[tuple[float, int]]:
        return [(self._shown(float(ranks[row])), int(row)) for row in np.argsort(ranks, kind="stable")[:k]]

    def _weigh(self, values: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
        numbers = values.astype(np.float64)
        return np.abs(numbers) if self._metric is Metric.L1 else numbers**2

    def _measure(self, query: SparseVectors, rows: SparseVectors, row: int) -> float:
        """Return the rank of a row from its elements, over the dimensions of both."""
        part = slice(rows.indptr[row], rows.indptr[row + 1])
        dims = np.union1d(query.indices, rows.indices[part])
        apart = np.zeros(len(dims))
        apart[np.searchsorted(dims, query.indices)] = query.values
        apart[np.searchsorted(dims, rows.indices[part])] -= rows.values[part]
        return float((np.abs(apart) if self._metric is Metric.L1 else apart**2).sum())

    def _shown(self, rank: float) -> float:
        if self._metric is Metric.L2:
            rank = float(np.sqrt(rank))
        if self._metric is Metric.COSINE:
            rank = min(max(rank, 0.0), 2.0)
        with np.errstate(over="ignore"):
            return float(np.float32(rank + 0.0))

    def contains(self, keys: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
        """Tell for each key whether it has a row."""
        with self._lock:
            return np.array([key in self._rows for key in keys.tolist()], dtype=np.bool_)

    def rows_of(self, keys: npt.NDArray[np.int64]) -> tuple[SparseVectors, npt.NDArray[np.bool_]]:
        """Return the rows of keys and which were found; others are empty."""
        nothing = (np.zeros(0, dtype=np.uint32), np.zeros(0, dtype=np.float32))
        with self._lock:
            return self._join([self._rows.get(key, nothing) for key in keys.tolist()]), self.contains(keys)

    def keys(self) -> npt.NDArray[np.int64]:
        """Return all keys."""
        with self._lock:
            return np.fromiter(self._rows, dtype=np.int64, count=len(self._rows))

    def figures(self) -> dict[str, int]:
        """Return the counters of the compiled engine."""
        with self._lock:
            rows = self._all()
            elements = len(rows.values)
            return {
                "rows": len(rows),
                "slots": len(rows),
                "dead": 0,
                "free": 0,
                "terms": len(np.unique(rows.indices)),
                "postings": elements,
                "repairs": 0,
                "row_bytes": 8 * elements,
                "link_bytes": 0,
                "loose": 0,
                "code_bytes": 0,
                "table_bytes": 100 * len(rows),
                "sieve_scans": 0,
                "sieve_walks": 0,
                "sieve_rows": 0,
            }

    def dump(self) -> Sections:
        """Return a copy of everything as arrays, as the compiled engine has them."""
        with self._lock:
            rows = self._all()
            tags = {"tags": self._tags.of(self.keys())} if self._tags.is_started else {}
            return tags | {
                "keys": self.keys(),
                "starts": rows.indptr.copy(),
                "dims": rows.indices.copy(),
                "values": rows.values.copy(),
                "head": np.array([len(rows), self._dims], dtype=np.int64),
            }

    def restore(self, sections: Mapping[str, npt.NDArray[Any]], *, in_place: bool, threads: int) -> str | None:
        """Become what ``dump`` returned; None, or what is wrong with the sections."""
        self.clear()
        for name, dtype in _TYPES.items():
            if sections[name].dtype != dtype or sections[name].ndim != 1:
                return f"section {name} is {sections[name].dtype} with {sections[name].ndim} axes"
        keys = sections["keys"]
        if sections["head"].tolist() != [len(keys), self._dims]:
            return "the number of rows or dimensions differs"
        try:
            rows = SparseVectors(sections["starts"], sections["dims"], sections["values"], self._dims)
        except UserError as error:
            return error.message
        if len(rows) != len(keys) or len(rows.values) != len(sections["values"]):
            return "a row is missing, or holds a zero"
        if self._metric is Metric.COSINE and not rows.lengths.all():
            return "a row is all zeros"
        wrong = self._tags.take(keys, sections.get("tags"))
        if wrong is not None:
            return wrong
        self.upsert(keys, rows, loose=False, threads=1, tags=sections.get("tags"))
        if len(self) != len(keys):
            self.clear()
            return "a key occurs twice"
        return None

    def _all(self) -> SparseVectors:
        if self._joined is None:
            self._joined = self._join(list(self._rows.values()))
        return self._joined

    def _join(self, rows: list[tuple[npt.NDArray[np.uint32], npt.NDArray[np.float32]]]) -> SparseVectors:
        indptr = np.cumsum([0, *(len(indices) for indices, _ in rows)])
        indices = np.concatenate([np.zeros(0, dtype=np.uint32), *(indices for indices, _ in rows)])
        values = np.concatenate([np.zeros(0, dtype=np.float32), *(values for _, values in rows)])
        return SparseVectors(indptr, indices, values, self._dims)
