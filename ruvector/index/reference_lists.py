"""The numpy twin of the inverted lists: it has none and compares every row, so its answers are exact."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from ruvector.index.protocol import Answers, Bytes, Sections, Sieve, Tags
from ruvector.index.reference import ReferenceGraph

_KEPT = ("rows", "states", "keys", "scales")  # sections that mean the same in both engines
_LANES = 32  # rows of a block, as in ivf/blocks.hpp


class ReferenceLists:
    """A keyed set of vectors; codes as in ruvector._ext.ivf. It reads what lists wrote, and they read what it wrote."""

    def __init__(self, *, metric: int, element: int, dims: int, seed: int) -> None:
        """Start empty."""
        self._flat = ReferenceGraph(
            metric=metric, element=element, dims=dims, m=2, ef_construction=1, seed=seed, linked=False
        )
        self._padded = -(-dims // 64) * 64

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self._flat)

    @property
    def built_permille(self) -> int:
        """Return 1000: there is nothing to build."""
        return 1000

    def start_tags(self) -> int:
        """Give each row a tag, in the order of ``keys``; returns how many rows there are."""
        return self._flat.start_tags()

    def tags_of(self, keys: npt.NDArray[np.int64]) -> Tags:
        """Return the tag of each key, NO_TAG for one without a row."""
        return self._flat.tags_of(keys)

    def upsert(
        self, keys: npt.NDArray[np.int64], rows: Bytes, *, loose: bool, threads: int, tags: Tags | None = None
    ) -> int:
        """Insert or replace rows; returns how many were not already there as they are."""
        return self._flat.upsert(keys, rows, loose=loose, threads=threads, tags=tags)

    def build(self, *, threads: int, cancel: Bytes | None = None) -> None:
        """Do nothing: there are no lists."""

    def delete(self, keys: npt.NDArray[np.int64], *, threads: int) -> int:
        """Delete rows by key; returns how many existed."""
        return self._flat.delete(keys, threads=threads)

    def repair(self, *, threads: int) -> None:
        """Do nothing: no deleted row is left anywhere."""

    def clear(self) -> None:
        """Forget all rows."""
        self._flat.clear()

    def search(
        self,
        queries: Bytes,
        *,
        k: int,
        ef: int,
        scan_rows: int,
        threads: int,
        cancel: Bytes | None = None,
        sieve: Sieve | None = None,
    ) -> Answers | None:
        """Compare every row that passes: keys [q, k], distances [q, k], counts [q]; None when cancelled."""
        return self._flat.search(queries, k=k, ef=ef, scan_rows=scan_rows, threads=threads, cancel=cancel, sieve=sieve)

    def contains(self, keys: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
        """Tell for each key whether it has a row."""
        return self._flat.contains(keys)

    def rows_of(self, keys: npt.NDArray[np.int64]) -> tuple[Bytes, npt.NDArray[np.bool_]]:
        """Return the rows of keys and which were found."""
        return self._flat.rows_of(keys)

    def keys(self) -> npt.NDArray[np.int64]:
        """Return all keys in slot order."""
        return self._flat.keys()

    def figures(self) -> dict[str, int]:
        """Return the counters of the compiled engine; what belongs to lists is 0."""
        kept = ("rows", "slots", "dead", "free", "row_bytes", "link_bytes", "table_bytes", "chunk_bytes", "code_bytes",
                "loose")  # fmt: skip
        figures = self._flat.figures()
        none = {"largest_list": 0, "lists": 0, "trainings": 0, "trained_rows": 0}
        return {name: figures[name] for name in kept} | none | {"sieve_scans": 0, "sieve_walks": 0, "sieve_rows": 0}

    def dump(self) -> Sections:
        """Return a copy of everything as arrays, as the compiled engine has it before there are lists."""
        flat = self._flat.dump()
        stride = 16 * _LANES + 4 * self._padded + _LANES * (self._padded // 2 + 12)
        head = np.zeros(8, dtype=np.int64)
        head[0] = len(self)
        tags = {"tags": flat["tags"]} if "tags" in flat else {}
        return (
            {name: flat[name] for name in _KEPT}
            | tags
            | {
                "blocks": np.zeros((0, stride), dtype=np.uint8),
                "block_lists": np.zeros(0, dtype=np.uint32),
                "centroids": np.zeros((0, self._padded), dtype=np.float32),
                "spreads": np.zeros(0, dtype=np.float32),
                "center": np.zeros(0, dtype=np.float32),
                "head": head,
            }
        )

    def restore(self, sections: Mapping[str, npt.NDArray[Any]], *, in_place: bool, threads: int) -> str | None:
        """Become what ``dump`` of either engine returned, without the lists; None, or what is wrong."""
        states = sections["states"]
        if (states > 1).any():
            return "a slot has an unknown state"
        if len(np.unique(sections["keys"][states == 1])) != (states == 1).sum():
            return "a key occurs twice"
        if sections["head"].shape != (8,):
            return "the head has another size"
        slots = len(states)
        head = np.array([-1, 0, 0, 0, sections["head"][0], 0, 0, 0], dtype=np.int64)
        empty: Sections = {
            "links": np.zeros((slots, 0), dtype=np.uint32),
            "levels": np.zeros(slots, dtype=np.uint8),
            "fingerprints": np.zeros(slots, dtype=np.uint32),
            "twin_heads": np.full(slots, 0xFFFFFFFF, dtype=np.uint32),
            "upper": np.zeros(0, dtype=np.uint32),
            "head": head,
        }
        kept = {name: sections[name] for name in (*_KEPT, "tags") if name in sections}
        return self._flat.restore(kept | empty, in_place=in_place, threads=threads)
