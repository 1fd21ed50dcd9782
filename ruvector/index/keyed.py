"""The index of one collection: checks, keys and an engine."""

from __future__ import annotations

import threading
import time
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager, nullcontext
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from ruvector import kernels, limits
from ruvector.errors import Cancelled, InternalError, InvalidParameter, StoreFormat, ensure
from ruvector.index import checks
from ruvector.index.attributes import AttributeTable, chosen_rows, refuse_filter
from ruvector.index.keys import TextKeys, key_book
from ruvector.index.opening import ResidentBound, Verification, resident_row_bytes
from ruvector.index.pages import Pages
from ruvector.index.protocol import (
    NO_TAG,
    Answers,
    BuildProgress,
    Bytes,
    Engine,
    Keys,
    KeysIn,
    MappedEngine,
    Plan,
    Sections,
    Sieve,
    TrailEngine,
    Vectors,
    VectorsIn,
)
from ruvector.sparse import SparseVectors
from ruvector.store import PageProof
from ruvector.values import Attribute, AttributeRows, ElementType, IndexKind, IndexOptions, Metric

_METRIC_CODES = {metric: code for code, metric in enumerate(Metric)}
_ELEMENT_CODES = {element: code for code, element in enumerate(ElementType)}
_Named = TypeVar("_Named")
_NAME_TRIES = 8  # a search is repeated when the keys of its rows were forgotten meanwhile; twice is rare already


def new_engine(options: IndexOptions) -> Engine:
    """Return an empty engine of the kind RUVECTOR_KERNELS chose."""
    if options.kind is IndexKind.INVERTED:
        return _new_inverted(options)
    settings: dict[str, Any] = {
        "metric": _METRIC_CODES[options.metric],
        "element": _ELEMENT_CODES[options.element],
        "dims": options.dims,
        "seed": options.seed,
    }
    if options.kind is IndexKind.IVF:
        return _new_lists(settings)
    settings |= {
        "m": options.m,
        "ef_construction": options.ef_construction,
        "linked": options.kind is IndexKind.HNSW,
    }
    if kernels.IS_COMPILED:
        from ruvector._ext.graph import Graph

        compiled: Engine = Graph(**settings)
        return compiled
    from ruvector.index.reference import ReferenceGraph

    return ReferenceGraph(**settings)


def _new_inverted(options: IndexOptions) -> Engine:
    if kernels.IS_COMPILED:
        from ruvector._ext.inverted import Inverted

        compiled: Engine = Inverted(metric=_METRIC_CODES[options.metric], dims=options.dims)
        return compiled
    from ruvector.index.reference_inverted import ReferenceInverted

    return ReferenceInverted(metric=_METRIC_CODES[options.metric], dims=options.dims)


def _new_lists(settings: dict[str, Any]) -> Engine:
    if kernels.IS_COMPILED:
        from ruvector._ext.ivf import Lists

        compiled: Engine = Lists(**settings)
        return compiled
    from ruvector.index.reference_lists import ReferenceLists

    return ReferenceLists(**settings)


class KeyedIndex:
    """Keyed vectors behind one engine, of one of four kinds.

    hnsw: a graph over the rows; the engine for most collections.
    ivf: inverted lists, built several times as fast, for few dimensions, many queries at once or a first answer soon. A
    search scans the ef / 2 nearest lists, more when they hold fewer than ef rows. There are lists from 2,048 rows on;
    fewer, l1, bits and less than 32 dimensions are compared row by row, and ``stats()["lists"]`` is 0.
    flat: neither; every search compares every row.

    Sparse vectors stand in inverted lists instead (kind inverted: exact, too); wherever others take arrays of vectors
    they take SparseVectors or a scipy CSR matrix.

    Deleted rows vanish from answers at once and from the graph when they are many or ``compact`` is called.
    A build gives the same index for every number of threads. Writers take turns; readers only meet the engine's own
    short locks.
    """

    def __init__(self, options: IndexOptions, *, threads: int = 0, scan_factor: int = limits.SCAN_FACTOR) -> None:
        """Start empty; ``threads`` build it (0: all cores).

        A search compares every row instead of walking when there are at most ``scan_factor`` times ef of them: a walk
        would visit as many.

        Raises:
            InvalidParameter: the options are outside their range.
        """
        checks.check_options(options)
        self.options = options
        self._threads = checks.worker_count(threads)
        self._scan_factor = scan_factor
        self._engine = new_engine(options)
        self._mapped = self._engine if isinstance(self._engine, MappedEngine) else None
        self._walker = self._engine if isinstance(self._engine, TrailEngine) else None
        self._keys = key_book(options.key_kind)
        self._attributes: AttributeTable | None = None  # once there are attributes
        self._writer = threading.Lock()
        self.verification: Verification | None = None  # of an index whose sections came with proofs
        self._resident: ResidentBound | None = None

    @classmethod
    def from_sections(
        cls,
        options: IndexOptions,
        sections: Sections,
        *,
        threads: int = 0,
        in_place: bool = False,
        proofs: Mapping[str, PageProof] | None = None,
    ) -> KeyedIndex:
        """Return the index that ``sections`` of one with the same options described.

        The arrays are copied, so their files may go; ``in_place`` keeps rows and links where they lie (the arrays
        must be writable, as private mappings are, and stay alive with the index).

        With ``proofs`` of the UNREAD sections these stay in place without being read. Searches answer at once,
        each from pages it has verified, while a thread verifies the rest; writers, and whoever wants the sections,
        wait for its end. ``verification`` tells how it went. The index closes the proofs once this returned.

        Raises:
            StoreFormat: the sections do not fit together or belong to other options.
            StoreDamaged: a page that had to be read is not as it was written.
        """
        index = cls(options, threads=threads)
        index._restore(sections, in_place=in_place, proofs=proofs)
        if proofs and index._mapped is not None:
            index.verification = Verification(index._mapped, proofs)
            weakref.finalize(index, index.verification.stop).atexit = False
        return index

    def bound_memory(self, bytes_max: int) -> None:
        """Give rows in mapped files back to the system when more than this of all mapped files is resident."""
        if self._mapped is not None:
            self._resident = ResidentBound(self._mapped, bytes_max)

    def warm(self, *, rows: bool = False) -> int:
        """Bring links and codes that lie in mapped files into memory, on demand rows too; returns their bytes."""
        return 0 if self._mapped is None else self._mapped.warm(rows=rows)

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self._engine)

    def upsert(
        self, keys: KeysIn, vectors: VectorsIn, *, defer: bool = False, attributes: AttributeRows | None = None
    ) -> int:
        """Insert or replace rows: keys int64 [n] or n texts, vectors [n, dims] (bits: uint8 [n, bytes]).

        Returns how many rows changed: one that is there with the same vector does not. Of a repeated key the last
        vector counts. Rows become visible in blocks, a replaced row in the same moment as its old vector goes.
        With ``defer`` they are not linked yet: searches compare them all, until ``build`` links them all at once,
        which is several times as fast as one after the other. Rows that come without it are linked alone.
        ``attributes`` of the rows are what filters see of them; without, any filter lets the rows pass.

        Raises:
            DimensionMismatch, InvalidVector, InvalidParameter: nothing was changed.
        """
        # Numbers are given to new texts only once the vectors are known to be good.
        rows = checks.row_bytes(vectors, options=self.options, count=_length(keys))
        with self._writer:
            self._settle()
            numbers = self._keys.for_write(keys)
            if self._attributes is None:
                return self._engine.upsert(numbers, rows, loose=defer, threads=self._threads)
            return self._upsert_tagged(self._attributes, numbers, rows, attributes, defer=defer)

    def _upsert_tagged(
        self, table: AttributeTable, numbers: Any, rows: Any, attributes: AttributeRows | None, *, defer: bool
    ) -> int:
        before = self._engine.tags_of(numbers)
        tags = table.place(numbers, before)
        try:
            changed = table.write(tags, attributes)
            return max(changed, self._engine.upsert(numbers, rows, loose=defer, threads=self._threads, tags=tags))
        finally:
            # What did not get into the index, because memory ran out.
            table.release(tags[self._engine.tags_of(numbers) != tags])

    def set_attributes(self, attributes: Sequence[Attribute], *, is_strict: bool = False) -> None:
        """Have exactly these attributes; what is new knows none of the rows that are there: all pass filters on it.

        ``is_strict``: values in filters that do not fit their column are refused. Without, somebody else checked them,
        and what is not understood lets rows pass.
        """
        with self._writer:
            self._settle()
            if self._attributes is None:
                if attributes:
                    rows = self._engine.start_tags()
                    self._attributes = AttributeTable(attributes, rows=rows, is_strict=is_strict)
            else:
                self._attributes.set_attributes(attributes)

    def fill_attributes(self, keys: KeysIn, attributes: AttributeRows) -> None:
        """Set the attributes of rows that are there; others are left out."""
        with self._writer:
            self._settle()
            if self._attributes is not None:
                tags = self._engine.tags_of(self._keys.for_read(keys))
                is_here = tags != NO_TAG
                self._attributes.write(tags[is_here], chosen_rows(attributes, is_here))

    def mark_filled(self) -> None:
        """Note that the attributes of all rows were set since the last one was added or removed."""
        with self._writer:
            if self._attributes is not None:
                self._attributes.mark_filled()

    @property
    def attributes(self) -> tuple[Attribute, ...]:
        """Return the attributes in order of their names."""
        return () if self._attributes is None else self._attributes.attributes

    @property
    def is_filled(self) -> bool:
        """Tell whether the attributes of all rows were set since the last one was added or removed."""
        return self._attributes is None or self._attributes.is_filled

    def attribute_hashes(self, keys: KeysIn) -> npt.NDArray[np.int64]:
        """Return what the attributes of rows were hashed to by whoever wrote them: int64 [n], 0 for unknown rows."""
        numbers = self._keys.for_read(keys)
        if self._attributes is None:
            return np.zeros(len(numbers), dtype=np.int64)
        return self._attributes.hashes(self._engine.tags_of(numbers))

    def build(self, *, on_progress: Callable[[BuildProgress], None] | None = None) -> None:
        """Link deferred rows; searches go on, other writers wait.

        ``on_progress`` is called about every BUILD_PROGRESS_SECONDS from this thread; an exception it raises ends the
        build early (what was not linked stays deferred) and is raised here.
        """
        with self._writer:
            self._settle()
            if on_progress is None:
                self._engine.build(threads=self._threads)
            else:
                self._build_watched(on_progress)

    def _build_watched(self, on_progress: Callable[[BuildProgress], None]) -> None:
        cancel = np.zeros(1, dtype=np.uint8)
        started = time.monotonic()
        with ThreadPoolExecutor(1, thread_name_prefix="ruvector-build") as pool:
            building = pool.submit(self._engine.build, threads=self._threads, cancel=cancel)
            try:
                while not building.done():
                    wait([building], limits.BUILD_PROGRESS_SECONDS)
                    share, seconds = self._engine.built_permille / 1000, time.monotonic() - started
                    if not building.done():
                        eta = seconds / share - seconds if share > 0 else None
                        on_progress(BuildProgress(share, seconds, eta))
            except BaseException:
                cancel[0] = 1
                raise
            building.result()
        on_progress(BuildProgress(1.0, time.monotonic() - started, 0.0))

    def delete(self, keys: KeysIn) -> int:
        """Delete rows; returns how many existed. No search that starts afterwards returns them."""
        with self._writer:
            self._settle()
            numbers = self._keys.for_read(keys)
            tags = None if self._attributes is None else self._engine.tags_of(numbers)
            deleted = self._engine.delete(numbers, threads=self._threads)
            if self._attributes is not None and tags is not None:
                self._attributes.release(tags)
            self._keys.forget(deleted, live=len(self._engine), contains=self._engine.contains)
            return deleted

    def clear(self) -> None:
        """Delete all rows."""
        with self._writer:
            self._settle()
            self._engine.clear()
            self._keys.clear()
            if self._attributes is not None:
                self._attributes.clear()

    def compact(self) -> None:
        """Give back what deleted rows still hold; searches go on."""
        with self._writer:
            self._settle()
            self._engine.repair(threads=self._threads)

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
        """Return a search of query [dims] that goes on page after page; the rest is as in ``search``."""
        queries = checks.query_bytes(checks.one_query(query, options=self.options), options=self.options)
        ef = self.options.ef_search if ef is None else checks.check_range("ef", ef, low=1, high=limits.EF_MAX)
        passing = self.passing(filter, members, plan) if sieve is None else nullcontext(sieve)
        return Pages(
            self._engine, self._keys, queries, passing, walker=self._walker, ef=ef, scan_factor=self._scan_factor
        )

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
        """Answer queries [q, dims] on several threads (0: all cores); each answer as ``search`` gives it."""
        with self.passing(filter, members, plan) as sieve:
            return self._search(queries, k, ef=ef, threads=threads, cancel=cancel, named=self._named, sieve=sieve)

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
        """Answer queries [q, dims] as two tables: keys [q, k] and distances [q, k].

        Where there are fewer than k rows the key is -1 (None for text keys) and the distance infinite.
        """
        named = self._table_of_texts if isinstance(self._keys, TextKeys) else _table
        with self.passing(filter, members, plan) as sieve:
            keys, distances = self._search(queries, k, ef=ef, threads=threads, cancel=None, named=named, sieve=sieve)
        places = keys.shape[1]
        if places == k:
            return keys, distances
        wide_keys = np.full((len(keys), k), -1 if keys.dtype == np.int64 else None, dtype=keys.dtype)
        wide_distances = np.full((len(keys), k), np.inf, dtype=np.float32)
        wide_keys[:, :places], wide_distances[:, :places] = keys, distances
        return wide_keys, wide_distances

    def _search(
        self,
        queries: VectorsIn,
        k: int,
        *,
        ef: int | None,
        threads: int,
        cancel: Bytes | None,
        named: Callable[[Answers], _Named | None],
        sieve: Sieve | None = None,
    ) -> _Named:
        k = checks.check_range("k", k, low=1, high=limits.WANTED_MAX)
        ef = self.options.ef_search if ef is None else checks.check_range("ef", ef, low=1, high=limits.EF_MAX)
        data = checks.query_bytes(queries, options=self.options)
        workers = checks.worker_count(threads)
        # Places for as many rows as there are; a writer may add some meanwhile, then they were too few.
        places = min(k, len(self._engine) + limits.BATCH_QUERIES_MAX)
        for _ in range(_NAME_TRIES):
            answers = self._engine.search(
                data,
                k=places,
                ef=max(ef, k),
                scan_rows=self._scan_factor * max(ef, k),
                threads=workers,
                cancel=cancel,
                sieve=sieve,
            )
            if answers is None:
                raise Cancelled("the search was cancelled")
            if places < k and (answers[2] == places).any():
                places = k
                continue
            if self._resident is not None:
                self._resident.check()
            whole = named(answers)
            if whole is not None:
                return whole
        raise InternalError(f"the keys of a search were forgotten {_NAME_TRIES} times in a row")

    def _named(self, answers: Answers) -> list[tuple[Keys, npt.NDArray[np.float32]]] | None:
        """Return keys and distances of each query; None when a key was forgotten meanwhile."""
        out: list[tuple[Keys, npt.NDArray[np.float32]]] = []
        for numbers, distances, count in zip(answers[0], answers[1], answers[2].tolist(), strict=True):
            names = self._keys.names(numbers[:count])
            if names is None:
                return None
            out.append((names, distances[:count]))
        return out

    def _table_of_texts(self, answers: Answers) -> tuple[npt.NDArray[Any], npt.NDArray[np.float32]] | None:
        named = self._named(answers)
        if named is None:
            return None
        keys: npt.NDArray[Any] = np.full(answers[0].shape, None, dtype=object)
        for at, (names, distances) in enumerate(named):
            keys[at, : len(distances)] = names
        return keys, answers[1]

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
        """Return the nearest k rows of query [dims]: keys and distances in pgvector's signs, ascending.

        Fewer than k come back only when the index holds fewer. A larger ``ef`` finds more of the true
        neighbours (default: the options' ef_search; at least k).
        ``cancel`` is a uint8 array of one element; setting it ends the search.
        ``sieve``: what ``passing`` gave, instead of filter, members and plan.

        Raises:
            DimensionMismatch, InvalidVector, InvalidParameter: the query, k or ef cannot be used.
            Cancelled: ``cancel`` was set.
            StoreDamaged: a page of an index opened unread is damaged.
        """
        queries = checks.one_query(query, options=self.options)
        with self.passing(filter, members, plan) if sieve is None else nullcontext(sieve) as held:
            return self._search(queries, k, ef=ef, threads=1, cancel=cancel, named=self._named, sieve=held)[0]

    @contextmanager
    def passing(self, filter_: Mapping[str, Any] | None, members: KeysIn | None, plan: Plan) -> Iterator[Sieve | None]:
        """Give what filter and members let pass, for the time of searches with it; None: every row."""
        if filter_ is None or filter_ == {}:
            numbers = None if members is None else self._keys.for_read(members)
            yield None if numbers is None else Sieve(members=numbers, plan=plan)
            return
        table = self._attributes
        if table is None:
            raise refuse_filter()
        with table.search():
            if members is None:
                yield table.sieve(filter_, plan)
                return
            numbers = self._keys.for_read(members)
            passing, is_exact = table.passing(filter_, self._engine.tags_of(numbers))
            yield Sieve(members=np.ascontiguousarray(numbers[passing]), plan=plan, is_exact=is_exact)

    def contains(self, key: int | str) -> bool:
        """Tell whether a key has a row."""
        return bool(self._engine.contains(self._keys.for_read([key]))[0])

    def vectors_of(self, keys: KeysIn) -> tuple[Vectors, npt.NDArray[np.bool_]]:
        """Return the stored vectors [n, dims] (bits: uint8 [n, bytes]) and found bool [n]; others are zero."""
        rows, found = self._engine.rows_of(self._keys.for_read(keys))
        return rows if isinstance(rows, SparseVectors) else rows.view(checks.DTYPES[self.options.element]), found

    def keys(self) -> Keys:
        """Return all keys, in no order that means anything."""
        for _ in range(_NAME_TRIES):
            names = self._keys.names(self._engine.keys())
            if names is not None:
                return names
        with self._writer:
            names = self._keys.names(self._engine.keys())
        ensure(names is not None, "a row has no key")
        return names if names is not None else []

    def sections(self) -> Sections:
        """Return a consistent copy of the index as arrays; writers wait for it, searches do not."""
        with self._writer:
            self._settle()
            attributes = {} if self._attributes is None else self._attributes.sections()
            return self._engine.dump() | self._keys.sections(self._engine.keys()) | attributes

    def verified(self, timeout: float | None = None) -> bool:
        """Wait until all that was opened unread is verified, at most ``timeout`` seconds; tell whether it is.

        Raises:
            StoreDamaged: a page is not as it was written, or links or keys do not fit together.
        """
        return self.verification is None or self.verification.wait(timeout)

    def _settle(self) -> None:
        """Wait until everything is verified: what is changed or written must be right."""
        self.verified()

    def _restore(self, sections: Sections, *, in_place: bool, proofs: Mapping[str, PageProof] | None) -> None:
        """Become what ``sections`` returned; the index must be new. Raises StoreFormat when they do not fit."""
        with self._writer:
            try:
                if proofs and self._mapped is not None:
                    wrong = self._mapped.restore(sections, in_place=True, threads=self._threads, proofs=proofs)
                else:
                    wrong = self._engine.restore(sections, in_place=in_place, threads=self._threads)
                if wrong is None and isinstance(self._keys, TextKeys):
                    self._keys.restore(sections)
                    wrong = None if self._keys.knows_all(self._engine.keys()) else "a row has no text key"
                if wrong is None:
                    self._restore_attributes(sections)
            except (KeyError, ValueError) as error:
                wrong = f"a section is missing or of another type: {error}"
            if wrong is not None:
                self._engine.clear()
                self._keys.clear()
                raise StoreFormat(f"the sections of the index do not fit together: {wrong}")

    def _restore_attributes(self, sections: Sections) -> None:
        table = AttributeTable.from_sections(sections)
        if (table is None) != ("tags" not in sections):
            raise StoreFormat("the index has tags without attributes, or attributes without tags")
        if table is not None:
            tags, states = sections["tags"], sections.get("states")
            table.check_tags(tags if states is None else tags[tags != NO_TAG])
        self._attributes = table

    def stats(self) -> dict[str, Any]:
        """Return options, counters and sizes in bytes."""
        figures = self._engine.figures()
        options = self.options
        resident = figures["row_bytes"]
        if self._mapped is not None:
            resident = resident_row_bytes(self._mapped, resident)
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
            "resident_row_bytes": resident,
            "attributes": [attribute.name for attribute in self.attributes],
            "is_filled": self.is_filled,
            "attribute_bytes": 0 if self._attributes is None else self._attributes.nbytes,
            "bytes": sum(figures[name] for name in ("row_bytes", "link_bytes", "code_bytes", "table_bytes")),
        }


def _table(answers: Answers) -> tuple[npt.NDArray[Any], npt.NDArray[np.float32]]:
    return answers[0], answers[1]  # the engine fills what is missing with -1 and infinity


def _length(keys: KeysIn) -> int:
    try:
        return len(keys)  # type: ignore[arg-type]
    except TypeError:
        raise InvalidParameter(f"keys must be a list, this is {type(keys).__name__}") from None
