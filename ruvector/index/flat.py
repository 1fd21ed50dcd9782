"""The exact index: every search compares every row."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from ruvector.errors import InvalidParameter
from ruvector.index.body import Body
from ruvector.index.protocol import Bytes, Keys, KeysIn, Sections
from ruvector.values import IndexKind, IndexOptions


class FlatIndex:
    """Keyed vectors without a graph: exact answers, no build."""

    def __init__(self, options: IndexOptions, *, threads: int = 0) -> None:
        """Start empty; ``threads`` build it (0: all cores).

        Raises:
            InvalidParameter: the options are of another kind or outside their range.
        """
        if options.kind is not IndexKind.FLAT:
            raise InvalidParameter(f"these are options of a {options.kind} index, not of a flat one")
        self._body = Body(options, threads=threads, scan_factor=0)

    @classmethod
    def from_sections(
        cls, options: IndexOptions, sections: Sections, *, threads: int = 0, in_place: bool = False
    ) -> FlatIndex:
        """Return the index that ``sections`` of one with the same options described.

        The arrays are copied, so their files may go; ``in_place`` keeps rows where they lie (the arrays
        must be writable, as private mappings are, and stay alive with the index).

        Raises:
            StoreFormat: the sections do not fit together or belong to other options.
        """
        index = cls(options, threads=threads)
        index._body.restore(sections, in_place=in_place)
        return index

    @property
    def options(self) -> IndexOptions:
        """Return what the index was made with."""
        return self._body.options

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self._body)

    def upsert(self, keys: KeysIn, vectors: npt.ArrayLike) -> int:
        """Insert or replace rows: keys int64 [n] or n texts, vectors [n, dims] (bits: uint8 [n, bytes]).

        Returns how many rows changed: one that is there with the same vector does not. Of a repeated key the last
        vector counts. Rows become visible in blocks, a replaced row in the same moment as its old vector goes.

        Raises:
            DimensionMismatch, InvalidVector, InvalidParameter: nothing was changed.
        """
        return self._body.upsert(keys, vectors)

    def delete(self, keys: KeysIn) -> int:
        """Delete rows; returns how many existed. No search that starts afterwards returns them."""
        return self._body.delete(keys)

    def clear(self) -> None:
        """Delete all rows."""
        self._body.clear()

    def compact(self) -> None:
        """Give back what deleted rows still hold; searches go on."""
        self._body.compact()

    def search(
        self, query: npt.ArrayLike, k: int, *, ef: int | None = None, cancel: Bytes | None = None
    ) -> tuple[Keys, npt.NDArray[np.float32]]:
        """Return the truly nearest k rows of query [dims]: keys and distances in pgvector's signs, ascending.

        Fewer than k come back only when the index holds fewer. ``ef`` is checked and ignored.
        ``cancel`` is a uint8 array of one element; setting it ends the search.

        Raises:
            DimensionMismatch, InvalidVector, InvalidParameter: the query, k or ef cannot be used.
            Cancelled: ``cancel`` was set.
        """
        return self._body.search(query, k, ef=ef, cancel=cancel)

    def search_many(
        self,
        queries: npt.ArrayLike,
        k: int,
        *,
        ef: int | None = None,
        threads: int = 1,
        cancel: Bytes | None = None,
    ) -> list[tuple[Keys, npt.NDArray[np.float32]]]:
        """Answer queries [q, dims] on several threads (0: all cores); each answer as ``search`` gives it."""
        return self._body.search_many(queries, k, ef=ef, threads=threads, cancel=cancel)

    def contains(self, key: int | str) -> bool:
        """Tell whether a key has a row."""
        return self._body.contains(key)

    def vectors_of(self, keys: KeysIn) -> tuple[npt.NDArray[Any], npt.NDArray[np.bool_]]:
        """Return the stored vectors [n, dims] (bits: uint8 [n, bytes]) and found bool [n]; others are zero."""
        return self._body.vectors_of(keys)

    def keys(self) -> Keys:
        """Return all keys, in no order that means anything."""
        return self._body.keys()

    def sections(self) -> Sections:
        """Return a consistent copy of the index as arrays; writers wait for it, searches do not."""
        return self._body.sections()

    def stats(self) -> dict[str, Any]:
        """Return options, counters and sizes in bytes."""
        return self._body.stats()
