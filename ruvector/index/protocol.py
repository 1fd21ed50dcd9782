"""What an index is to the rest of the product, and what an engine is to an index."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, runtime_checkable

import numpy as np
import numpy.typing as npt

from ruvector.sparse import SparseVectors
from ruvector.store import PageProof
from ruvector.values import Attribute, AttributeRows, IndexOptions

if TYPE_CHECKING:
    from ruvector.index.pages import Pages


class CsrMatrix(Protocol):
    """A sparse matrix by rows, as scipy has it: what of it is read."""

    @property
    def indptr(self) -> npt.NDArray[Any]:
        """Return where each row begins."""
        ...

    @property
    def indices(self) -> npt.NDArray[Any]:
        """Return the column of each element."""
        ...

    @property
    def data(self) -> npt.NDArray[Any]:
        """Return the value of each element."""
        ...

    @property
    def shape(self) -> tuple[int, ...]:
        """Return the numbers of rows and columns."""
        ...


Keys: TypeAlias = "npt.NDArray[np.int64] | list[str]"
KeysIn: TypeAlias = "npt.ArrayLike | Sequence[str]"
VectorsIn: TypeAlias = "npt.ArrayLike | SparseVectors | CsrMatrix"
Vectors: TypeAlias = "npt.NDArray[Any] | SparseVectors"
Sections: TypeAlias = "dict[str, npt.NDArray[Any]]"
Bytes: TypeAlias = "npt.NDArray[np.uint8]"
Rows: TypeAlias = Any  # of an engine: uint8 [n, row bytes], or SparseVectors for sparse elements
Answers: TypeAlias = "tuple[npt.NDArray[np.int64], npt.NDArray[np.float32], npt.NDArray[np.int64]]"
Tags: TypeAlias = "npt.NDArray[np.uint32]"

NO_TAG = 0xFFFFFFFF  # of a key that has no row


class Plan(IntEnum):
    """How the rows that pass a filter are searched. All give min(k, passing rows) rows."""

    AUTO = 0  # the cheapest by the engine's own estimate
    SCAN = 1  # compare every row that passes, nothing else
    HOP = 2  # walk the graph from passing row to passing row, over at most one other in between
    WALK = 3  # walk the graph as without a filter, and keep what passes


@dataclass(frozen=True, slots=True, eq=False)
class Sieve:
    """Which rows may be in an answer: by tags, or the keys themselves.

    ``bits`` is uint64[ceil(tags / 64)]; bit t % 64 of word t // 64 says whether the row with tag t passes, and
    ``count`` how many do. ``members`` are keys as numbers, int64[n], instead. Unless ``is_exact`` some rows pass only
    because nobody here knows better.
    """

    bits: npt.NDArray[np.uint64] | None = None
    count: int = 0
    members: npt.NDArray[np.int64] | None = None
    plan: Plan = Plan.AUTO
    is_exact: bool = True


@dataclass(frozen=True, slots=True)
class BuildProgress:
    """How far a build is: share from 0 to 1, seconds since it began, seconds it may still take (None: unknown yet)."""

    share: float
    seconds: float
    eta_seconds: float | None


class VectorIndex(Protocol):
    """Keyed vectors with a search. Any number of threads may search while others write; writers take turns."""

    @property
    def options(self) -> IndexOptions:
        """Return what the index was made with."""
        ...

    def __len__(self) -> int:
        """Return the number of rows."""
        ...

    def upsert(
        self, keys: KeysIn, vectors: VectorsIn, *, defer: bool = False, attributes: AttributeRows | None = None
    ) -> int:
        """Insert or replace rows; returns how many changed. Twice equals once; of a repeated key the last counts.

        Deferred rows are found by comparing them all, until ``build`` links them.
        """
        ...

    @property
    def attributes(self) -> tuple[Attribute, ...]:
        """Return the attributes in order of their names."""
        ...

    def set_attributes(self, attributes: Sequence[Attribute], *, is_strict: bool = False) -> None:
        """Have exactly these attributes; what is new knows none of the rows that are there."""
        ...

    def fill_attributes(self, keys: KeysIn, attributes: AttributeRows) -> None:
        """Set the attributes of rows that are there."""
        ...

    def mark_filled(self) -> None:
        """Note that the attributes of all rows were set since the last one was added or removed."""
        ...

    @property
    def is_filled(self) -> bool:
        """Tell whether the attributes of all rows were set since the last one was added or removed."""
        ...

    def attribute_hashes(self, keys: KeysIn) -> npt.NDArray[np.int64]:
        """Return the hashes that the attributes of rows came with; 0 for unknown rows."""
        ...

    def build(self, *, on_progress: Callable[[BuildProgress], None] | None = None) -> None:
        """Link deferred rows, all at once; an exception of ``on_progress`` ends the build and is raised."""
        ...

    def delete(self, keys: KeysIn) -> int:
        """Delete rows; returns how many existed. No search that starts afterwards returns them."""
        ...

    def clear(self) -> None:
        """Delete all rows."""
        ...

    def compact(self) -> None:
        """Give back what deleted rows still hold."""
        ...

    def passing(
        self, filter_: Mapping[str, Any] | None, members: KeysIn | None, plan: Plan
    ) -> AbstractContextManager[Sieve | None]:
        """Give what filter and members let pass, for the time of searches with it; None: every row."""
        ...

    def search(
        self,
        query: VectorsIn,
        k: int,
        *,
        ef: int | None = None,
        cancel: Bytes | None = None,
        filter: Mapping[str, Any] | None = None,  # noqa: A002 - the name of the SQL argument
        members: KeysIn | None = None,
        plan: Plan = Plan.AUTO,
        sieve: Sieve | None = None,
    ) -> tuple[Keys, npt.NDArray[np.float32]]:
        """Return the nearest rows that pass, ascending; fewer than k only when fewer do.

        ``sieve``: what ``passing`` gave, instead of filter, members and plan.
        """
        ...

    def pages(
        self,
        query: VectorsIn,
        *,
        ef: int | None = None,
        filter: Mapping[str, Any] | None = None,  # noqa: A002 - the name of the SQL argument
        members: KeysIn | None = None,
        plan: Plan = Plan.AUTO,
        sieve: Sieve | None = None,
    ) -> Pages:
        """Return a search that goes on page after page."""
        ...

    def search_many(
        self,
        queries: VectorsIn,
        k: int,
        *,
        ef: int | None = None,
        threads: int = 1,
        cancel: Bytes | None = None,
        filter: Mapping[str, Any] | None = None,  # noqa: A002 - the name of the SQL argument
        members: KeysIn | None = None,
        plan: Plan = Plan.AUTO,
    ) -> list[tuple[Keys, npt.NDArray[np.float32]]]:
        """Answer several queries; each as ``search`` does."""
        ...

    def search_table(
        self,
        queries: VectorsIn,
        k: int,
        *,
        ef: int | None = None,
        threads: int = 1,
        filter: Mapping[str, Any] | None = None,  # noqa: A002 - the name of the SQL argument
        members: KeysIn | None = None,
        plan: Plan = Plan.AUTO,
    ) -> tuple[npt.NDArray[Any], npt.NDArray[np.float32]]:
        """Answer several queries as tables: keys [q, k] and distances [q, k]; -1 (None) and infinity where none is."""
        ...

    def contains(self, key: int | str) -> bool:
        """Tell whether a key has a row."""
        ...

    def vectors_of(self, keys: KeysIn) -> tuple[Vectors, npt.NDArray[np.bool_]]:
        """Return the stored vectors [n, dims] and which of the keys were found (others are zero)."""
        ...

    def keys(self) -> Keys:
        """Return all keys, in no order that means anything."""
        ...

    def sections(self) -> Sections:
        """Return a consistent copy of the index as arrays."""
        ...

    def verified(self, timeout: float | None = None) -> bool:
        """Wait until what was opened unread is verified, at most ``timeout`` seconds; tell whether it is."""
        ...

    def stats(self) -> dict[str, Any]:
        """Return counters and sizes."""
        ...


class Engine(Protocol):
    """Rows and int64 keys with a search over them; it trusts what it is given.

    A graph (ruvector._ext.graph.Graph), lists (ruvector._ext.ivf.Lists), inverted lists of sparse rows
    (ruvector._ext.inverted.Inverted), or the numpy twin of one of them.
    """

    def __len__(self) -> int:
        """Return the number of rows."""
        ...

    @property
    def built_permille(self) -> int:
        """Return how far the running build is; 1000 when none runs."""
        ...

    def upsert(
        self, keys: npt.NDArray[np.int64], rows: Rows, *, loose: bool, threads: int, tags: Tags | None = None
    ) -> int:
        """Insert or replace rows; returns how many were not already there as they are.

        Once there are tags every upsert brings one for each row: below the number of tags in use, no two keys the same,
        and the one that a key has already.
        """
        ...

    def start_tags(self) -> int:
        """Give every row a tag, 0 to n - 1 in the order of ``keys``, and return n. Once for an index."""
        ...

    def tags_of(self, keys: npt.NDArray[np.int64]) -> Tags:
        """Return the tag of each key, NO_TAG for one without a row; only when there are tags."""
        ...

    def build(self, *, threads: int, cancel: Bytes | None = None) -> None:
        """Link loose rows; when cancelled the rest stays loose."""
        ...

    def delete(self, keys: npt.NDArray[np.int64], *, threads: int) -> int:
        """Delete rows; returns how many existed."""
        ...

    def repair(self, *, threads: int) -> None:
        """Give back what deleted rows still hold."""
        ...

    def clear(self) -> None:
        """Forget all rows."""
        ...

    def search(
        self,
        queries: Rows,
        *,
        k: int,
        ef: int,
        scan_rows: int,
        threads: int,
        cancel: Bytes | None = None,
        sieve: Sieve | None = None,
    ) -> Answers | None:
        """Answer queries: keys [q, k], distances [q, k], counts [q]; None when cancelled.

        Under a sieve only rows that pass are in the answers, min(k, rows that pass) of them.
        """
        ...

    def contains(self, keys: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
        """Tell for each key whether it has a row."""
        ...

    def rows_of(self, keys: npt.NDArray[np.int64]) -> tuple[Rows, npt.NDArray[np.bool_]]:
        """Return the rows of keys and which were found."""
        ...

    def keys(self) -> npt.NDArray[np.int64]:
        """Return all keys."""
        ...

    def figures(self) -> dict[str, int]:
        """Return counters and sizes by name."""
        ...

    def dump(self) -> Sections:
        """Return a consistent copy of everything as arrays."""
        ...

    def restore(self, sections: Mapping[str, npt.NDArray[Any]], *, in_place: bool, threads: int) -> str | None:
        """Become what ``dump`` returned; None, or what is wrong."""
        ...


class Trail(Protocol):
    """One search of an engine that goes on."""

    def next(
        self, count: int, *, ef: int, scan_rows: int, cancel: Bytes | None = None
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]] | None:
        """Return keys and distances of the next rows, ``count`` or more; fewer when it finds no more.

        None when it cannot go on, when comparing all rows is cheaper, or when cancelled.
        """
        ...


@runtime_checkable
class TrailEngine(Engine, Protocol):
    """An engine whose searches can go on from where they stood."""

    def trail(self, query: Bytes, *, sieve: Sieve | None = None) -> Trail:
        """Return a search for a query, uint8 [query bytes], that has not begun."""
        ...


@runtime_checkable
class MappedEngine(Engine, Protocol):
    """An engine that can work on sections in mapped files, and verify them while it answers."""

    def restore(
        self,
        sections: Mapping[str, npt.NDArray[Any]],
        *,
        in_place: bool,
        threads: int,
        proofs: Mapping[str, PageProof] | None = None,
    ) -> str | None:
        """Become what ``dump`` returned; None, or what is wrong. Pages with proofs are verified as they are touched."""
        ...

    @property
    def is_verified(self) -> bool:
        """Return whether everything restored was verified."""
        ...

    def warm(self, *, rows: bool) -> int:
        """Bring what lies in mapped files into memory; returns its bytes."""
        ...

    def evict(self) -> None:
        """Give rows in mapped files back to the system, those that were written excepted."""
        ...

    def row_place(self) -> tuple[int, int]:
        """Return address and bytes of rows in a mapped file, or (0, 0)."""
        ...

    def check_next(self) -> bool:
        """Verify some more; False when nothing is left. Raises StoreDamaged."""
        ...
