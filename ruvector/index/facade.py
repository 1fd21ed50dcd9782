"""The index for programs: arrays in, arrays out, a folder to keep it in."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from enum import StrEnum
from pathlib import Path
from typing import Any, Literal, TypeAlias, TypeVar, get_args

import numpy as np
import numpy.typing as npt

from ruvector import limits
from ruvector.errors import InvalidParameter, StoreFormat
from ruvector.index import checks, inference
from ruvector.index.keyed import KeyedIndex
from ruvector.index.opening import unread_sections
from ruvector.index.options import options_from_json, options_to_json
from ruvector.index.pages import Pages
from ruvector.index.protocol import BuildProgress, Keys, KeysIn, Plan, VectorIndex, VectorsIn
from ruvector.sparse import SparseVectors
from ruvector.store import open_generation, write_generation
from ruvector.values import ElementType, IndexKind, IndexOptions, KeyKind, Metric

_SAVED_AS = "ruvector index"
Verify: TypeAlias = Literal["lazy", "full"]
_Kind = TypeVar("_Kind", bound=StrEnum)
_PLANS = {plan.name.lower(): plan for plan in Plan}


class Index:
    """Keyed vectors with nearest-neighbour search, without a database.

    >>> index = Index(dims=3, metric="cosine")
    >>> index.add([10, 11], [[1, 0, 0], [0, 1, 0]])
    2
    >>> index.search([1, 0.1, 0], k=1)[0]
    array([10])

    Sparse vectors come as SparseVectors, or as a scipy CSR matrix:

    >>> words = Index(dims=30_000, metric="ip", dtype="sparse")
    >>> words.add([10, 11], SparseVectors.from_texts(["{7:1.5,120:2}/30000", "{120:1}/30000"]))
    2
    >>> words.search(SparseVectors.from_texts(["{120:1}/30000"]), k=1)[0]
    array([[10]])
    """

    def __init__(
        self,
        dims: int,
        metric: Metric | str = "l2",
        *,
        kind: IndexKind | str | None = None,
        m: int = 16,
        ef_construction: int = 200,
        threads: int = 0,
        dtype: ElementType | str | None = None,
    ) -> None:
        """Start empty.

        Args:
            dims: numbers, or bits, of a vector.
            metric: l2, ip, cosine, l1; hamming or jaccard for bits.
            kind: hnsw, the default; ivf, whose lists are built several times as fast; or flat for exact answers. Sparse
                vectors have inverted, always exact.
            m: links per node of the graph; the other kinds have none.
            ef_construction: candidates considered for the links of a node.
            threads: threads that build; 0 means all cores. The result does not depend on it.
            dtype: f32 or f16, how numbers are stored, or sparse; bits are always bits.

        Raises:
            InvalidParameter: an option is unknown or outside its range.
        """
        the_metric = _member(Metric, metric, "metric")
        usual = ElementType.BIT if the_metric.is_binary else ElementType.F32
        element = usual if dtype is None else _member(ElementType, dtype, "dtype")
        usual_kind = IndexKind.INVERTED if element is ElementType.SPARSE else IndexKind.HNSW
        options = IndexOptions(
            dims=dims,
            metric=the_metric,
            kind=usual_kind if kind is None else _member(IndexKind, kind, "index kind"),
            element=element,
            m=m,
            ef_construction=ef_construction,
        )
        self._threads = threads
        self._opened: KeyedIndex | None = None  # the index while its data lie in files
        self._index: VectorIndex = KeyedIndex(options, threads=threads)

    @property
    def options(self) -> IndexOptions:
        """Return what the index was made with."""
        return self._index.options

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self._index)

    def __contains__(self, key: int | str) -> bool:
        """Tell whether a key has a row."""
        return isinstance(key, str) == self._has_text_keys and self._index.contains(key)

    def add(
        self, keys: KeysIn, vectors: VectorsIn, *, defer: bool = False, attributes: Mapping[str, Any] | None = None
    ) -> int:
        """Insert or replace rows: keys whole numbers or texts [n], vectors [n, dims]; returns how many changed.

        The first keys decide which of the two all keys are. Many rows in one call build several times as fast as the
        same rows in many calls; where they do not fit one call, ``defer`` them and ``build`` in the end. Deferred rows
        are found meanwhile, by comparing them all, and rows added without ``defer`` are linked alone.

        ``attributes`` are what searches can be filtered by: a list or array of n values for each name. The first rows
        decide which there are, and of which types: bool, whole numbers, floats, texts, dates, times, UUIDs, or lists of
        texts or whole numbers. None, or a masked value, is NULL, and so is what is left out.

        Raises:
            DimensionMismatch, InvalidVector, InvalidParameter: nothing was changed.
        """
        texts = _are_texts(keys)
        if texts != self._has_text_keys and len(self._index) == 0:
            options = self.options
            kind = KeyKind.TEXT if texts else KeyKind.INT64
            changed = options_from_json(options_to_json(options) | {"key_kind": str(kind)})
            self._index = KeyedIndex(changed, threads=self._threads)
        if attributes and not self._index.attributes:
            if len(self._index):
                raise InvalidParameter(
                    "the rows of this index have no attributes", hint="Give them with the first rows that are added."
                )
            self._index.set_attributes(inference.infer(attributes), is_strict=True)
        if not self._index.attributes:
            return self._index.upsert(keys, vectors, defer=defer)
        count = len(keys)  # type: ignore[arg-type]
        rows = inference.rows_of(attributes or {}, self._index.attributes, count)
        return self._index.upsert(keys, vectors, defer=defer, attributes=rows)

    def build(self, *, on_progress: Callable[[BuildProgress], None] | None = None) -> None:
        """Link deferred rows on the threads of the index; searches go on.

        ``on_progress`` is called a few times a second with share, seconds and ETA; raising from it, or Ctrl+C, ends
        the build and leaves an index that is whole: what was not linked stays deferred.
        """
        self._index.build(on_progress=on_progress or (lambda _: None))

    def delete(self, keys: KeysIn) -> int:
        """Delete rows; returns how many existed."""
        return self._index.delete(keys)

    def search(
        self,
        queries: VectorsIn,
        k: int = 10,
        *,
        ef: int | None = None,
        threads: int = 1,
        filter: Mapping[str, Any] | None = None,  # noqa: A002 - the name of the SQL argument
        keys: KeysIn | None = None,
        plan: str = "auto",
        max_distance: float | None = None,
    ) -> tuple[npt.NDArray[Any], npt.NDArray[np.float32]]:
        """Return keys and distances of the nearest rows: [k] for a query [dims], [q, k] for queries [q, dims].

        Sparse queries are a table always, also a single one.
        Distances have pgvector's signs and ascend. Where the index holds fewer than k rows the key is -1 (None for
        text keys) and the distance infinite.

        With a ``filter`` (docs/filters.md: {"price": {"$lt": 50}, "category": ["a", "b"]}) only rows whose attributes
        pass are in the answers, min(k, rows that pass) of them; with ``keys`` only rows with these. Texts are ordered
        by code points. ``plan`` forces how they are searched: scan, hop or walk; auto takes the cheapest. Rows that
        are farther than ``max_distance`` are left out; where few are nearer, a large k costs little.

        Raises:
            DimensionMismatch, InvalidVector: a query cannot be compared.
            InvalidParameter, LimitExceeded: k, ef, threads, plan, max_distance or filter cannot be used.
        """
        k = checks.check_range("k", k, low=1, high=limits.K_MAX)
        is_single = False
        if self.options.element is not ElementType.SPARSE:
            queries = np.asarray(queries)
            if queries.ndim not in (1, 2):
                raise InvalidParameter(f"queries must have one or two axes, these have {queries.ndim}")
            is_single = queries.ndim == 1
            queries = np.atleast_2d(queries)
        how: dict[str, Any] = {"ef": ef, "filter": filter, "members": keys, "plan": _plan(plan)}
        if max_distance is None:
            found, distances = self._index.search_table(queries, k, threads=threads, **how)
        else:
            found, distances = self._search_within(queries, k, max_distance, threads, how)
        return (found[0], distances[0]) if is_single else (found, distances)

    def _search_within(
        self, queries: VectorsIn, k: int, most: float, threads: int, how: Mapping[str, Any]
    ) -> tuple[npt.NDArray[Any], npt.NDArray[np.float32]]:
        if math.isnan(most):
            raise InvalidParameter("max_distance is not a number")
        table: Any = queries
        if self.options.element is ElementType.SPARSE:
            table = SparseVectors.of(queries, dims=self.options.dims)
        is_row = isinstance(table, np.ndarray)

        def answer(at: int) -> tuple[Keys, npt.NDArray[np.float32]]:
            with self._index.pages(table[at] if is_row else table[at : at + 1], **how) as pages:
                return pages.within(k, most)

        found = np.full(
            (len(table), k), None if self._has_text_keys else -1, dtype=object if self._has_text_keys else np.int64
        )
        distances = np.full((len(table), k), np.inf, dtype=np.float32)
        with ThreadPoolExecutor(checks.worker_count(threads)) as pool:
            for at, (names, apart) in enumerate(pool.map(answer, range(len(table)))):
                found[at, : len(apart)], distances[at, : len(apart)] = names, apart
        return found, distances

    def pages(
        self,
        query: VectorsIn,
        *,
        ef: int | None = None,
        filter: Mapping[str, Any] | None = None,  # noqa: A002 - the name of the SQL argument
        keys: KeysIn | None = None,
        plan: str = "auto",
    ) -> Pages:
        """Return a search that goes on: ``next(n)`` gives the next n rows of one query, in the end fewer.

        The walk continues where it stood instead of starting again. For one thread; close it, or use it with ``with``:

            with index.pages(query, filter={"category": "a"}) as pages:
                keys, distances = pages.next(10)
                more_keys, more_distances = pages.next(10)

        The arguments are those of ``search``, and so are the errors.
        """
        return self._index.pages(query, ef=ef, filter=filter, members=keys, plan=_plan(plan))

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the index as a new folder; it must not exist. Survives a power failure once this returns.

        Raises:
            StoreError: the folder exists, or it cannot be written.
        """
        meta = {"content": _SAVED_AS, "options": options_to_json(self.options)}
        write_generation(Path(path), self._index.sections(), meta=meta)

    @classmethod
    def open(
        cls,
        path: str | os.PathLike[str],
        *,
        verify: Verify = "lazy",
        warm: bool = False,
        resident_bytes: int | None = None,
        threads: int = 0,
    ) -> Index:
        """Return the index saved in a folder, ready to answer.

        Rows stay in their file, mapped privately: the system may drop those from memory that no search asks for. Links
        and codes do so until they are verified and then move to memory of the index. The files may be removed while the
        index is open, but not made shorter: the system ends a program that touches what is no longer there. Damage that
        files take while the index is open is not noticed.

        Args:
            path: the folder.
            verify: "lazy" reads little more than states of rows. Every search verifies the checksums of the pages it
                touches, and a thread those of all others and the links; writers wait for it, as ``verified`` does.
                "full" does that before it returns.
            warm: bring links and codes into memory first, so that no search waits for the disk because of them.
            resident_bytes: when more than this of mapped files is resident after a search, rows are given back to the
                system and read again when they are needed. Links and codes stay, and so do rows added after opening.
                Only where the system has /proc. None: the system decides.
            threads: threads that build.

        Raises:
            StoreDamaged, StoreFormat: a file is truncated, changed, foreign or of another version. With "lazy" the
                first search that would have used a damaged page raises StoreDamaged, and so does everything after it.
        """
        if verify not in get_args(Verify):
            raise InvalidParameter(f'unknown verify "{verify}"', hint="Use lazy or full.")
        with open_generation(Path(path), unread=unread_sections) as generation:
            if generation.meta.get("content") != _SAVED_AS or not isinstance(generation.meta.get("options"), dict):
                raise StoreFormat(f"{path} holds no saved index")
            options = options_from_json(generation.meta["options"])
            try:
                checks.check_options(options)
            except InvalidParameter as error:
                raise StoreFormat(f"{path} was saved with options this version does not know: {error}") from None
            sections = {name: generation.section(name) for name in generation.names}
            index = cls(options.dims, options.metric, kind=options.kind, threads=threads, dtype=options.element)
            opened = KeyedIndex.from_sections(options, sections, threads=threads, proofs=generation.proofs or None)
            generation.keep_proofs()
            index._index = index._opened = opened
        if resident_bytes is not None:
            opened.bound_memory(checks.check_range("resident_bytes", resident_bytes, low=1, high=1 << 62))
        if warm:
            opened.warm()
        if verify == "full":
            index.verified()
        return index

    def warm(self, *, rows: bool = False) -> int:
        """Bring links and codes of an opened index into memory, on demand rows too; returns how many bytes that is.

        Zero for an index that was not opened: all of it is in memory.
        """
        return 0 if self._opened is None else self._opened.warm(rows=rows)

    def verified(self, timeout: float | None = None) -> bool:
        """Wait until all of an opened index is verified, at most ``timeout`` seconds; tell whether it is.

        Raises:
            StoreDamaged: a page is not as it was written, or links or keys do not fit together.
        """
        return self._opened is None or self._opened.verified(timeout)

    def stats(self) -> dict[str, Any]:
        """Return options, counters and sizes in bytes."""
        return self._index.stats()

    @property
    def _has_text_keys(self) -> bool:
        return self.options.key_kind is KeyKind.TEXT


def _plan(name: str) -> Plan:
    if name not in _PLANS:
        raise InvalidParameter(f'unknown plan "{name}"', hint=f"Use one of {', '.join(_PLANS)}.")
    return _PLANS[name]


def _member(kinds: type[_Kind], value: str, name: str) -> _Kind:
    try:
        return kinds(value)
    except ValueError:
        names = ", ".join(kinds)
        raise InvalidParameter(f'unknown {name} "{value}"', hint=f"Use one of {names}.") from None


def _are_texts(keys: KeysIn) -> bool:
    first = next(iter(keys), 0) if np.ndim(keys) == 1 else 0  # type: ignore[arg-type]
    return isinstance(first, str)
