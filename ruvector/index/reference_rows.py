"""The rows of the numpy engine: their bytes, states and keys, and how far apart two of them are."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from ruvector.index.protocol import Bytes
from ruvector.values import ElementType, Metric

FREE, LIVE, DEAD, TWIN = range(4)  # as in hnsw/graph.hpp
Edge: TypeAlias = "tuple[float, int]"
Floats: TypeAlias = "npt.NDArray[np.float32]"

_TYPES: dict[ElementType, type[np.generic]] = {
    ElementType.F32: np.float32,
    ElementType.F16: np.float16,
    ElementType.BIT: np.uint8,
}


class Rows:
    """Slots with rows; slots of deleted rows are used again."""

    def __init__(self, *, metric: int, element: int, dims: int) -> None:
        """Start empty."""
        self.metric = list(Metric)[metric]
        self.element = list(ElementType)[element]
        self.dims = dims
        self.dtype = np.dtype(_TYPES[self.element])
        self.width = (dims + 7) // 8 if self.element is ElementType.BIT else dims * self.dtype.itemsize
        self.clear()

    def clear(self) -> None:
        """Forget all rows."""
        self.data = np.zeros((0, self.width), dtype=np.uint8)
        # What distances are computed from: numbers as f32, bits as 0 and 1, under cosine brought to length 1.
        self.vectors = np.zeros((0, 8 * self.width if self.metric.is_binary else self.dims), dtype=np.float32)
        self.states: list[int] = []
        self.keys: list[int] = []
        self.slot_of: dict[int, int] = {}  # of live rows
        self.head_of: dict[bytes, int] = {}  # identity to node
        self.twin_head: dict[int, int] = {}
        self.twins: dict[int, list[int]] = {}
        self._free: list[int] = []

    def take(self, key: int, row: Bytes) -> int:
        """Put a row into a slot and return it; its state is still FREE."""
        slot = self._free.pop() if self._free else len(self.states)
        if slot == len(self.states):
            self.states.append(FREE)
            self.keys.append(key)
        if slot >= len(self.data):
            more = max(64, slot)
            self.data = np.concatenate((self.data, np.zeros((more, self.width), dtype=np.uint8)))
            self.vectors = np.concatenate((self.vectors, np.zeros((more, self.vectors.shape[1]), dtype=np.float32)))
        self.data[slot], self.keys[slot] = row, key
        self.vectors[slot] = self._directed(self._numbers(self.values([slot])[0]))
        return slot

    def free(self, slot: int) -> None:
        """Give a slot back."""
        if self.head_of.get(self.identity(slot)) == slot:
            del self.head_of[self.identity(slot)]
        self.states[slot] = FREE
        self.twin_head.pop(slot, None)
        self._free.append(slot)

    def weight(self, slot: int) -> int:
        """Return how many live rows a node stands for."""
        return (self.states[slot] == LIVE) + len(self.twins.get(slot, ()))

    def live_rows(self, slot: int) -> list[int]:
        """Return the live rows a node stands for."""
        return ([slot] if self.states[slot] == LIVE else []) + self.twins.get(slot, [])

    def values(self, slots: Any) -> npt.NDArray[Any]:
        """Return rows as numbers, or as packed bits."""
        values: npt.NDArray[Any] = self.data[slots].view(self.dtype)
        return values

    def identity(self, slot: int) -> bytes:
        """Return bytes that are equal for rows no query can tell apart."""
        if self.element is ElementType.BIT:
            return bytes(self.data[slot])
        values = self.values([slot])[0].astype(np.float64)
        if self.metric is Metric.COSINE:
            values *= 1.0 / np.sqrt(np.sum(values * values))
        return bytes((values.astype(np.float32) + np.float32(0.0)).tobytes())

    def adopt(self, data: Bytes) -> None:
        """Take over the bytes of all rows."""
        self.data = np.array(data)
        self.vectors = np.stack([self._directed(self._numbers(row)) for row in self.values(slice(None))])

    def query(self, data: Bytes) -> Floats:
        """Return a query as a probe from its bytes."""
        return self._directed(self._numbers(data if self.metric.is_binary else data.view(np.float32)))

    def _numbers(self, row: npt.NDArray[Any]) -> Floats:
        return np.unpackbits(row).astype(np.float32) if self.metric.is_binary else row.astype(np.float32)

    def _directed(self, row: Floats) -> Floats:
        length = float(np.sqrt(np.sum(row.astype(np.float64) ** 2))) if self.metric is Metric.COSINE else 0.0
        return (row.astype(np.float64) / length).astype(np.float32) if length else row

    def distances(self, probe: Floats, slots: list[int]) -> list[float]:
        """Return the distances of a probe to rows, with pgvector's signs; overflow is infinite, never NaN."""
        if not slots:
            return []
        with np.errstate(all="ignore"):
            found = self._apart(probe, self.vectors[slots])
        return [float(value) for value in np.where(np.isnan(found), np.inf, found)]

    def _apart(self, probe: Floats, rows: Floats) -> Floats:
        if self.metric is Metric.L2:
            rows = rows - probe
            return np.asarray(np.sqrt(np.einsum("ij,ij->i", rows, rows)))
        if self.metric is Metric.L1:
            return np.asarray(np.abs(rows - probe).sum(axis=1))
        # Not rows @ probe: there the digits of one row depend on which rows stand beside it.
        common = np.einsum("ij,j->i", rows, probe)
        if self.metric is Metric.IP:
            return np.asarray(-common)
        if self.metric is Metric.COSINE:
            return np.asarray(np.clip(1 - common, 0, 2))
        either = rows.sum(axis=1) + probe.sum() - common
        if self.metric is Metric.HAMMING:
            return np.asarray(either - common)
        return np.asarray(np.where(either > 0, 1 - common / np.maximum(either, 1), 1))
