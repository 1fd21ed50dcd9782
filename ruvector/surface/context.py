"""What a declared function may ask of the running sidecar."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from ruvector.sparse import SparseVectors
from ruvector.surface.rows import CollectionRow, ConsistencyRow
from ruvector.values import ANY_ROW, Hit, Restriction


class Context(Protocol):
    """The sidecar as functions see it; an unknown collection raises CollectionNotFound in every method."""

    def version(self) -> str:
        """Return the version of the program."""
        ...

    def simd_info(self) -> str:
        """Return one line that names the chosen kernels."""
        ...

    def memory(self) -> Mapping[str, object]:
        """Return measured memory in bytes: of the process, and of each index."""
        ...

    def collections(self) -> Sequence[CollectionRow]:
        """Return the registered collections in order of their names."""
        ...

    def stats(self, name: str) -> Mapping[str, object]:
        """Return size, options and state of one index."""
        ...

    def consistency(self, name: str | None) -> Sequence[ConsistencyRow]:
        """Return the lag of one mirror, or of all."""
        ...

    def search(
        self, collection: str, query: NDArray[np.float32], *, k: int, ef: int | None, among: Restriction = ANY_ROW
    ) -> Sequence[Hit]:
        """Return the k nearest rows of the index, nearest first; ``ef`` None means the collection's own."""
        ...

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
        """Return the k nearest rows of an index of bit strings; ``packed`` holds ``bits`` bits, first bit highest."""
        ...

    def search_sparse(
        self, collection: str, query: SparseVectors, *, k: int, ef: int | None, among: Restriction = ANY_ROW
    ) -> Sequence[Hit]:
        """Return the k nearest rows of an index of sparse vectors; ``query`` is one row."""
        ...

    def search_batch(
        self, collection: str, queries: Sequence[NDArray[np.float32]], *, k: int
    ) -> Sequence[Sequence[Hit]]:
        """Return the k nearest rows for each query."""
        ...

    def wait_applied(self, name: str, snapshot: str | None, timeout_ms: int) -> bool:
        """Wait until everything a snapshot sees (None: everything committed now) can be found; False at the timeout."""
        ...

    def verify(self, name: str, *, sample: int, full: bool, repair: bool) -> Mapping[str, object]:
        """Compare table and mirror; ``full`` looks at every row, ``repair`` mends what differs."""
        ...
