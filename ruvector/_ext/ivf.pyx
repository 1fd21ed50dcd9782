"""The compiled engine of inverted lists: rows, keys, centroids and codes; all long work runs without the lock.

Numbers only, as in ruvector._ext.graph: metrics and elements come as codes, keys as int64, rows and queries as bytes.
"""

from libcpp cimport bool as cbool

from ruvector._ext.sieve cimport Sieve, fill_sieve, tag_data
from ruvector._ext.typedefs cimport float32_t, int64_t, size_t, uint8_t, uint32_t, uint64_t

import numpy as np

FIGURES = ("rows", "slots", "dead", "free", "largest_list", "lists", "trainings", "row_bytes", "link_bytes",
           "table_bytes", "chunk_bytes", "trained_rows", "code_bytes", "loose", "sieve_scans",
           "sieve_walks", "sieve_rows")
cdef int HEAD = 8


cdef inline const int64_t* key_data(const int64_t[::1] keys) noexcept nogil:
    return &keys[0] if keys.shape[0] else NULL


cdef class Lists:
    """A keyed set of vectors in inverted lists.

    metric: 0 l2, 1 ip, 2 cosine, 3 l1, 4 hamming, 5 jaccard; element: 0 f32, 1 f16, 2 bits.
    """

    def __cinit__(self, *, int metric, int element, size_t dims, uint64_t seed):
        cdef ListOptions options
        options.metric, options.element, options.dims, options.seed = metric, element, dims, seed
        self.core = new CoreLists(options)
        self.dims = dims
        self.width = dims * 4 if element == 0 else dims * 2 if element == 1 else (dims + 7) // 8
        self.query_width = self.width if element == 2 else dims * 4
        self.mapped = None

    def __dealloc__(self):
        del self.core

    def __len__(self):
        return self.core.size()

    def upsert(self, const int64_t[::1] keys, const uint8_t[:, ::1] rows, *, bint loose, unsigned int threads,
               const uint32_t[::1] tags=None):
        """Insert or replace rows [n, row bytes]; returns how many were not already there as they are.

        Loose rows never lead to new centroids: ``build`` does that.
        """
        cdef size_t changed = 0, count = keys.shape[0]
        cdef const uint32_t* labels = NULL
        self.check_rows(rows.shape[0], rows.shape[1], count, self.width)
        if count:
            if tags is not None:
                labels = tag_data(tags, count)
            with nogil:
                changed = self.core.upsert(&keys[0], <const char*>&rows[0, 0], labels, count, loose, threads)
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

    def build(self, *, unsigned int threads, const uint8_t[::1] cancel=None):
        """Put loose rows into lists; when ``cancel[0]`` becomes non-zero all stays as it is."""
        cdef const uint8_t* flag = &cancel[0] if cancel is not None else NULL
        with nogil:
            self.core.build(threads, flag)

    @property
    def built_permille(self):
        """How far the running build is, in thousandths; 1000 when none runs."""
        return self.core.built_permille()

    def delete(self, const int64_t[::1] keys, *, unsigned int threads):
        """Delete rows by key; returns how many existed."""
        cdef size_t erased
        with nogil:
            erased = self.core.erase(key_data(keys), keys.shape[0])
        return erased

    def repair(self, *, unsigned int threads):
        """Make fewer lists when most rows went; places of deleted rows are never left empty."""
        with nogil:
            self.core.repair(threads)

    def clear(self):
        """Forget all rows."""
        with nogil:
            self.core.clear()
        self.mapped = None

    def search(self, const uint8_t[:, ::1] queries, *, size_t k, size_t ef, size_t scan_rows,
               unsigned int threads, const uint8_t[::1] cancel=None, sieve=None):
        """Answer queries [q, query bytes]: (keys int64 [q, k], distances f32 [q, k], counts int64 [q]).

        Up to ``scan_rows`` rows are compared one by one. None when ``cancel[0]`` became non-zero.
        """
        cdef size_t count = queries.shape[0]
        self.check_rows(count, queries.shape[1], count, self.query_width)
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
            outcome = self.core.search_many(<const char*>&queries[0, 0], count, k, ef, scan_rows, holding, threads,
                                            flag, &key_view[0, 0], &distance_view[0, 0], &count_view[0])
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
        """Return the rows of keys: (uint8 [n, row bytes], found bool [n]); rows not found are zero."""
        cdef size_t count = keys.shape[0]
        rows = np.zeros((count, self.width), dtype=np.uint8)
        found = np.zeros(count, dtype=np.uint8)
        cdef uint8_t[:, ::1] row_view = rows
        cdef uint8_t[::1] found_view = found
        if count:
            with nogil:
                self.core.rows_of(&keys[0], count, <char*>&row_view[0, 0], &found_view[0])
        return rows, found.view(np.bool_)

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
        return dict(zip(FIGURES, out.tolist()))

    def dump(self):
        """Return a consistent copy of everything as arrays; writers wait, readers go on."""
        with nogil:
            self.core.freeze()
        try:
            return self.copy_out()
        finally:
            self.core.thaw()

    def restore(self, sections, *, bint in_place, unsigned int threads):
        """Become what ``dump`` returned; None, or what is wrong with the sections (there are no rows then).

        ``in_place`` keeps rows and blocks where they lie when they are writable; the arrays are kept alive. Sections
        without lists get new ones.
        """
        cdef size_t slots = len(sections["states"]), blocks = len(sections["block_lists"])
        cdef size_t lists = len(sections["centroids"])
        shapes = {"rows": (slots, self.core.row_stride()), "states": (slots,), "keys": (slots,), "scales": (slots,),
                  "head": (HEAD,), "block_lists": (blocks,), "spreads": (lists,),
                  "center": (self.dims if lists else 0,)}
        if "tags" in sections:
            shapes["tags"] = (slots,)
        if lists:
            shapes |= {"blocks": (blocks, self.core.block_stride()), "centroids": (lists, self.core.padded())}
        elif blocks:
            return "there are blocks without lists"
        for name, shape in shapes.items():
            if sections[name].shape != shape:
                return f"section {name} has shape {sections[name].shape} instead of {shape}"
        used = {name: np.ascontiguousarray(sections[name]) for name in shapes}
        large = [used[name] for name in ("rows", "blocks") if name in used]
        in_place = in_place and all(array.flags.writeable for array in large)
        wrong = self.take_in(used, in_place, threads)
        self.mapped = large if in_place and wrong is None else None
        return wrong

    cdef int check_rows(self, size_t rows, size_t width, size_t wanted_rows, size_t wanted_width) except -1:
        if rows != wanted_rows or width != wanted_width:
            raise ValueError(f"rows of shape ({rows}, {width}) instead of ({wanted_rows}, {wanted_width})")
        return 0

    cdef size_t fill_keys(self, int64_t[::1] out) except? 0:
        cdef size_t count
        with nogil:
            count = self.core.live_keys(&out[0], out.shape[0])
        return count

    cdef dict copy_out(self):
        cdef size_t slots = self.core.slots(), blocks = self.core.used_blocks(), lists = self.core.list_count()
        cdef ListArrays arrays
        out = {
            "rows": np.empty((slots, self.core.row_stride()), dtype=np.uint8),
            "states": np.empty(slots, dtype=np.uint8),
            "keys": np.empty(slots, dtype=np.int64),
            "scales": np.empty(slots, dtype=np.float32),
            "blocks": np.empty((blocks, self.core.block_stride()), dtype=np.uint8),
            "block_lists": np.empty(blocks, dtype=np.uint32),
            "centroids": np.empty((lists, self.core.padded()), dtype=np.float32),
            "spreads": np.empty(lists, dtype=np.float32),
            "center": np.empty(self.dims if lists else 0, dtype=np.float32),
            "head": np.zeros(HEAD, dtype=np.int64),
        }
        if self.core.tagged():
            out["tags"] = np.empty(slots, dtype=np.uint32)
        if slots:
            fill_arrays(&arrays, out)
            with nogil:
                self.core.dump(arrays)
        return out

    cdef object take_in(self, dict sections, cbool in_place, unsigned int threads):
        cdef ListArrays arrays
        cdef const char* wrong = NULL
        if len(sections["states"]) == 0:
            self.core.clear()
            if "tags" in sections:
                self.start_tags()
            return "there are lists of no rows" if "blocks" in sections else None
        fill_arrays(&arrays, sections)
        with nogil:
            wrong = self.core.restore(arrays, in_place, threads)
        return None if wrong == NULL else wrong.decode()


cdef object NO_BYTES = np.empty(0, dtype=np.uint8)
cdef object NO_NUMBERS = np.empty(0, dtype=np.float32)
cdef object NO_TAGS = np.empty(0, dtype=np.uint32)


cdef int fill_arrays(ListArrays* arrays, dict sections) except -1:
    """Point at the data of contiguous sections; the typed views check the kind of number, another one raises."""
    cdef const uint8_t[::1] rows = sections["rows"].reshape(-1), states = sections["states"]
    cdef const uint8_t[::1] blocks = sections.get("blocks", NO_BYTES).reshape(-1)
    cdef const uint32_t[::1] block_lists = sections["block_lists"]
    cdef const int64_t[::1] keys = sections["keys"], head = sections["head"]
    cdef const float32_t[::1] scales = sections["scales"], center = sections["center"]
    cdef const float32_t[::1] spreads = sections["spreads"]
    cdef const float32_t[::1] centroids = sections.get("centroids", NO_NUMBERS).reshape(-1)
    cdef const uint32_t[::1] tags = sections.get("tags", NO_TAGS)
    arrays.tags = <uint32_t*>&tags[0] if tags.shape[0] else NULL
    arrays.rows = <char*>&rows[0]
    arrays.states = <uint8_t*>&states[0]
    arrays.keys = <int64_t*>&keys[0]
    arrays.scales = <float32_t*>&scales[0]
    arrays.slots = states.shape[0]
    arrays.blocks = <char*>&blocks[0] if blocks.shape[0] else NULL
    arrays.block_lists = <uint32_t*>&block_lists[0] if block_lists.shape[0] else NULL
    arrays.block_count = block_lists.shape[0]
    arrays.centroids = <float32_t*>&centroids[0] if centroids.shape[0] else NULL
    arrays.spreads = <float32_t*>&spreads[0] if spreads.shape[0] else NULL
    arrays.list_count = len(sections["centroids"]) if "centroids" in sections else 0
    arrays.center = <float32_t*>&center[0] if center.shape[0] else NULL
    arrays.head = <int64_t*>&head[0]
    return 0
