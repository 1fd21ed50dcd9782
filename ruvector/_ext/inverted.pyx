"""The compiled engine for sparse rows: keys, rows and inverted lists; all long work runs without the interpreter lock.

The methods are those of ruvector._ext.graph.Graph, with SparseVectors for rows and queries. What does not apply to
exact lists (``ef``, ``scan_rows``, ``loose``, threads of a build, ``in_place``) is taken and left alone.
"""

from libcpp.vector cimport vector

from ruvector._ext.sieve cimport Sieve, fill_sieve, tag_data
from ruvector._ext.typedefs cimport float32_t, int64_t, size_t, uint8_t, uint32_t

import numpy as np

from ruvector.sparse import SparseVectors

FIGURES = ("rows", "slots", "dead", "free", "terms", "postings", "repairs", "row_bytes", "link_bytes", "table_bytes",
           "sieve_scans", "sieve_walks", "sieve_rows")


cdef inline const int64_t* key_data(const int64_t[::1] keys) noexcept nogil:
    return &keys[0] if keys.shape[0] else NULL


cdef class Inverted:
    """A keyed set of sparse rows. metric: 0 l2, 1 ip, 2 cosine, 3 l1."""

    def __cinit__(self, *, int metric, size_t dims):
        self.core = new CoreInverted(metric)
        self.dims = dims
        self.directed = metric == 2

    def __dealloc__(self):
        del self.core

    def __len__(self):
        return self.core.size()

    @property
    def built_permille(self):
        """Return 1000: every row is in its lists at once."""
        return 1000

    def build(self, *, unsigned int threads, const uint8_t[::1] cancel=None):
        """Do nothing: no row is ever loose."""

    def upsert(self, const int64_t[::1] keys, rows, *, bint loose, unsigned int threads,
               const uint32_t[::1] tags=None):
        """Insert or replace rows; returns how many were not already there as they are."""
        cdef const int64_t[::1] starts = rows.indptr
        cdef const uint32_t[::1] dims = rows.indices
        cdef const float32_t[::1] values = rows.values
        cdef SparseRows view = self.view_of(starts, dims, values, keys.shape[0])
        cdef const uint32_t* labels = NULL
        cdef size_t changed
        if tags is not None:
            labels = tag_data(tags, keys.shape[0])
        with nogil:
            changed = self.core.upsert(key_data(keys), view, labels)
        return changed

    def start_tags(self):
        """Give each row a tag, in the order of ``keys``; returns how many rows there are."""
        cdef size_t count
        with nogil:
            count = self.core.start_tags()
        return count

    def tags_of(self, const int64_t[::1] keys):
        """Return the tag of each key, 0xFFFFFFFF for one without a row: uint32 [n]; only when there are tags."""
        tags = np.empty(keys.shape[0], dtype=np.uint32)
        cdef uint32_t[::1] view = tags
        if keys.shape[0]:
            with nogil:
                self.core.tags_of(&keys[0], keys.shape[0], &view[0])
        return tags

    def delete(self, const int64_t[::1] keys, *, unsigned int threads):
        """Delete rows by key; returns how many existed."""
        cdef size_t erased
        with nogil:
            erased = self.core.erase(key_data(keys), keys.shape[0])
        return erased

    def repair(self, *, unsigned int threads):
        """Take deleted rows out of the lists now and free their slots."""
        with nogil:
            self.core.compact()

    def clear(self):
        """Forget all rows."""
        with nogil:
            self.core.clear()

    def search(self, queries, *, size_t k, size_t ef, size_t scan_rows, unsigned int threads,
               const uint8_t[::1] cancel=None, sieve=None):
        """Answer queries: (keys int64 [q, k], distances f32 [q, k], counts int64 [q]).

        None when ``cancel[0]`` became non-zero.
        """
        cdef size_t count = len(queries)
        cdef const int64_t[::1] starts = queries.indptr
        cdef const uint32_t[::1] dims = queries.indices
        cdef const float32_t[::1] values = queries.values
        cdef SparseRows view = self.view_of(starts, dims, values, count)
        keys = np.full((count, k), -1, dtype=np.int64)
        distances = np.full((count, k), np.inf, dtype=np.float32)
        counts = np.zeros(count, dtype=np.int64)
        if count == 0 or k == 0:
            return keys, distances, counts
        cdef int64_t[:, ::1] key_view = keys
        cdef float32_t[:, ::1] distance_view = distances
        cdef int64_t[::1] count_view = counts
        cdef const uint8_t* flag = &cancel[0] if cancel is not None else NULL
        cdef int64_t outcome
        cdef Sieve held
        cdef const Sieve* holding = NULL
        if sieve is not None:
            fill_sieve(&held, sieve, self.core.tagged())
            holding = &held
        with nogil:
            outcome = self.core.search_many(view, k, holding, threads, flag, &key_view[0, 0], &distance_view[0, 0],
                                            &count_view[0])
        return None if outcome < 0 else (keys, distances, counts)

    def contains(self, const int64_t[::1] keys):
        """Tell for each key whether it has a row: bool [n]."""
        found = np.zeros(keys.shape[0], dtype=np.uint8)
        cdef uint8_t[::1] found_view = found
        if keys.shape[0]:
            with nogil:
                self.core.contains(&keys[0], keys.shape[0], &found_view[0])
        return found.view(np.bool_)

    def rows_of(self, const int64_t[::1] keys):
        """Return the rows of keys: (SparseVectors, found bool [n]); rows not found are empty."""
        cdef size_t count = keys.shape[0]
        starts = np.zeros(count + 1, dtype=np.int64)
        found = np.zeros(count, dtype=np.uint8)
        cdef int64_t[::1] start_view = starts
        cdef uint8_t[::1] found_view = found
        cdef vector[uint32_t] dims
        cdef vector[float32_t] values
        if count:
            with nogil:
                self.core.rows_of(&keys[0], count, &start_view[0], dims, values, &found_view[0])
        indices = np.asarray(<uint32_t[:dims.size()]> dims.data()) if dims.size() else np.zeros(0, dtype=np.uint32)
        numbers = np.asarray(<float32_t[:values.size()]> values.data()) if values.size() else np.zeros(0, np.float32)
        return SparseVectors(starts, indices, numbers, self.dims), found.view(np.bool_)

    def keys(self):
        """Return all keys: int64 [n], in slot order."""
        cdef size_t room = self.core.size(), count
        while True:  # ends when no writer added rows in between
            out = np.empty(room + 1, dtype=np.int64)
            count = self.fill_keys(out)
            if count <= room:
                return out[:count]
            room = count + count // 8

    def figures(self):
        """Return counters and sizes by name (FIGURES)."""
        out = np.zeros(len(FIGURES), dtype=np.int64)
        cdef int64_t[::1] view = out
        with nogil:
            self.core.figures(&view[0])
        return dict(zip(FIGURES, out.tolist())) | {"loose": 0, "code_bytes": 0}  # what only a graph has

    def dump(self):
        """Return a consistent copy of everything as arrays; writers wait, readers go on."""
        with nogil:
            self.core.freeze()
        try:
            return self.copy_out()
        finally:
            self.core.thaw()

    def restore(self, sections, *, bint in_place, unsigned int threads):
        """Become what ``dump`` returned; None, or what is wrong with the sections (the index is empty then)."""
        # Typed views check the kind of number; a section of another one raises here.
        cdef const int64_t[::1] keys = np.ascontiguousarray(sections["keys"])
        cdef const int64_t[::1] starts = np.ascontiguousarray(sections["starts"])
        cdef const uint32_t[::1] dims = np.ascontiguousarray(sections["dims"])
        cdef const float32_t[::1] values = np.ascontiguousarray(sections["values"])
        cdef const int64_t[::1] head = np.ascontiguousarray(sections["head"])
        if head.shape[0] != 2 or head[0] != keys.shape[0] or head[1] != <int64_t> self.dims:
            return "the number of rows or dimensions differs"
        cdef const uint32_t[::1] tags
        cdef SparseRows view
        try:
            view = self.view_of(starts, dims, values, keys.shape[0])
        except ValueError as error:
            return str(error)
        cdef const uint32_t* labels = NULL
        if "tags" in sections:
            wrong = wrong_tags(sections["tags"], keys.shape[0])
            if wrong is not None:
                return wrong
            tags = sections["tags"]
            labels = tag_data(tags, keys.shape[0])
        with nogil:
            self.core.clear()
            if labels != NULL:
                self.core.start_tags()
            self.core.upsert(key_data(keys), view, labels)
        if self.core.size() != <size_t> keys.shape[0]:
            self.clear()
            return "a key occurs twice"
        return None

    # Rows as the core takes them, after a look at every one: it follows what they say.
    cdef SparseRows view_of(self, const int64_t[::1] starts, const uint32_t[::1] dims, const float32_t[::1] values,
                            size_t count) except *:
        cdef SparseRows view
        cdef const char* wrong
        cdef size_t elements = dims.shape[0]
        if <size_t> starts.shape[0] != count + 1 or dims.shape[0] != values.shape[0]:
            raise ValueError(f"{starts.shape[0]} row starts, {dims.shape[0]} dimensions and {values.shape[0]} values "
                             f"for {count} rows")
        view.starts, view.count = &starts[0], count
        view.dims = &dims[0] if elements else NULL
        view.values = &values[0] if elements else NULL
        with nogil:
            wrong = check_sparse(view, elements, self.dims, self.directed)
        if wrong != NULL:
            raise ValueError(wrong.decode())
        return view

    cdef size_t fill_keys(self, int64_t[::1] out) except? 0:
        cdef size_t count
        with nogil:
            count = self.core.live_keys(&out[0], out.shape[0])
        return count

    cdef dict copy_out(self):
        cdef size_t rows = self.core.size(), elements = self.core.elements()
        # One place more than needed, so that there is a first one to point at.
        out = {
            "keys": np.empty(rows + 1, dtype=np.int64),
            "starts": np.empty(rows + 1, dtype=np.int64),
            "dims": np.empty(elements + 1, dtype=np.uint32),
            "values": np.empty(elements + 1, dtype=np.float32),
        }
        cdef int64_t[::1] keys = out["keys"], starts = out["starts"]
        cdef uint32_t[::1] dims = out["dims"]
        cdef float32_t[::1] values = out["values"]
        out["tags"] = np.empty(rows + 1, dtype=np.uint32)
        cdef uint32_t[::1] tags = out["tags"]
        with nogil:
            self.core.dump(&keys[0], &starts[0], &dims[0], &values[0], &tags[0])
        sizes = {"keys": rows, "starts": rows + 1, "dims": elements, "values": elements, "tags": rows}
        if not self.core.tagged():
            del out["tags"]
        sections = {name: array[:sizes[name]] for name, array in out.items()}
        return sections | {"head": np.array([rows, self.dims], dtype=np.int64)}


def wrong_tags(tags, Py_ssize_t rows):
    """Say what is wrong with the tags of so many rows; None when nothing is."""
    if tags.dtype != np.uint32 or tags.shape != (rows,):
        return f"section tags is {tags.dtype} {tags.shape} instead of one number a row"
    if rows and int(tags.max()) >= 2 * rows + 1024:
        return "a row has no tag"
    return None if len(np.unique(tags)) == rows else "two rows have one tag"
