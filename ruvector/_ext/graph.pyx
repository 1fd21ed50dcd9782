"""The compiled engine: rows, keys and the HNSW graph over them; all long work runs without the interpreter lock.

Numbers only: metrics and elements come as codes, keys as int64, rows and queries as bytes. ruvector.index checks
what users give and turns it into this.
"""

from libcpp cimport bool as cbool

from ruvector._ext.sieve cimport Sieve, fill_sieve, tag_data
from ruvector._ext.typedefs cimport float32_t, int64_t, size_t, uint8_t, uint32_t, uint64_t

import numpy as np

from ruvector.errors import StoreDamaged

FIGURES = ("rows", "slots", "dead", "free", "twins", "top_level", "repairs", "row_bytes", "link_bytes",
           "table_bytes", "chunk_bytes", "degree_thousandths", "code_bytes", "loose",
           "searches", "compared", "reranked", "sieve_scans", "sieve_hops", "sieve_walks",
           "sieve_rows")
cdef int HEAD = 8
# The order is that of Guard::Part in hnsw/guard.hpp; all but the last may be used where they are mapped.
PARTS = ("rows", "links", "codes", "fingerprints", "keys", "upper")
cdef int PROVEN = 5
cdef size_t CHECKED_PAGES = 8192  # 32 MiB: a few milliseconds
cdef object NOTHING = np.empty(0, dtype=np.uint8)
cdef object NO_CENTER = np.empty(0, dtype=np.float32)
cdef object NO_TAGS = np.empty(0, dtype=np.uint32)


cdef inline const int64_t* key_data(const int64_t[::1] keys) noexcept nogil:
    return &keys[0] if keys.shape[0] else NULL


cdef class Graph:
    """A keyed set of vectors; ``linked`` false leaves out the graph and always scans.

    metric: 0 l2, 1 ip, 2 cosine, 3 l1, 4 hamming, 5 jaccard; element: 0 f32, 1 f16, 2 bits.
    """

    def __cinit__(self, *, int metric, int element, size_t dims, uint32_t m, uint32_t ef_construction,
                  uint64_t seed, bint linked):
        cdef Options options
        options.metric, options.element, options.dims = metric, element, dims
        options.m, options.ef_construction, options.seed, options.linked = m, ef_construction, seed, linked
        self.core = new CoreGraph(options)
        self.dims = dims
        self.width = dims * 4 if element == 0 else dims * 2 if element == 1 else (dims + 7) // 8
        self.query_width = self.width if element == 2 else dims * 4
        self.mapped = self.proofs = None

    def __dealloc__(self):
        del self.core

    def __len__(self):
        return self.core.size()

    def upsert(self, const int64_t[::1] keys, const uint8_t[:, ::1] rows, *, bint loose, unsigned int threads,
               const uint32_t[::1] tags=None):
        """Insert or replace rows [n, row bytes]; returns how many were not already there as they are.

        Loose rows are stored and found but not linked: ``build`` does that. Once there are tags, each row has one.
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
        tags = np.full(keys.shape[0], 0xFFFFFFFF, dtype=np.uint32)
        cdef uint32_t[::1] view = tags
        if keys.shape[0]:
            with nogil:
                self.core.tags_of(&keys[0], keys.shape[0], &view[0])
            self.refuse_damage()
        return tags

    def build(self, *, unsigned int threads, const uint8_t[::1] cancel=None):
        """Link all loose rows; when ``cancel[0]`` becomes non-zero the rest stays loose."""
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
            erased = self.core.erase(key_data(keys), keys.shape[0], threads)
        return erased

    def repair(self, *, unsigned int threads):
        """Link around deleted nodes now and free their slots."""
        with nogil:
            self.core.repair(threads)

    def clear(self):
        """Forget all rows."""
        with nogil:
            self.core.clear()
        self.mapped = self.proofs = None

    def search(self, const uint8_t[:, ::1] queries, *, size_t k, size_t ef, size_t scan_rows,
               unsigned int threads, const uint8_t[::1] cancel=None, sieve=None):
        """Answer queries [q, query bytes]: (keys int64 [q, k], distances f32 [q, k], counts int64 [q]).

        Under a sieve (see ruvector.index.protocol) with rows that pass it. Up to ``scan_rows`` rows are scanned instead
        of walked. None when ``cancel[0]`` became non-zero.
        StoreDamaged when a page of a graph that was restored with proofs is not as it was written.
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
        if outcome < -1:
            self.refuse_damage()
        return None if outcome < 0 else (keys, distances, counts)

    def trail(self, const uint8_t[::1] query, *, sieve=None):
        """Return a search that goes on page after page; see Engine in ruvector/index/protocol.py."""
        self.check_rows(1, query.shape[0], 1, self.query_width)
        cdef Trail trail = Trail.__new__(Trail)
        trail.graph, trail.sieve = self, sieve
        trail.core.query.assign(<const char*>&query[0], <const char*>&query[0] + query.shape[0])
        return trail

    def contains(self, const int64_t[::1] keys):
        """Tell for each key whether it has a row: bool [n]."""
        found = np.zeros(keys.shape[0], dtype=np.uint8)
        cdef uint8_t[::1] found_view = found
        if keys.shape[0]:
            with nogil:
                self.core.contains(&keys[0], keys.shape[0], &found_view[0])
            self.refuse_damage()
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
            self.refuse_damage()
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

    def restore(self, sections, *, bint in_place, unsigned int threads, proofs=None):
        """Become what ``dump`` returned; None, or what is wrong with the sections (the graph is empty then).

        ``in_place`` keeps rows, links and codes where they lie when they are writable; the arrays are kept alive.
        Codes that are not there are made again.

        With ``proofs`` (PageProof of ruvector.store, by name, of all UNREAD sections that are not empty) these sections
        stay in place and are not looked at: searches verify what they touch, and ``check_next`` must be called until
        it returns False before anything is written.
        """
        cdef Proof vouched[5]
        cdef const Proof* vouching = NULL
        cdef size_t slots = len(sections["states"]), base = self.core.base_links()
        cdef size_t coded = slots if len(sections.get("codes", ())) else 0
        shapes = {"rows": (slots, self.core.row_stride()), "links": (slots, base), "levels": (slots,),
                  "states": (slots,), "keys": (slots,), "scales": (slots,), "fingerprints": (slots,),
                  "twin_heads": (slots,), "head": (HEAD,), "upper": (len(sections["upper"]),)}
        if "tags" in sections:
            shapes["tags"] = (slots,)
        if coded:
            shapes |= {"codes": (slots, self.core.record_stride()), "center": (self.dims,)}
        for name, shape in shapes.items():
            if sections[name].shape != shape:
                return f"section {name} has shape {sections[name].shape} instead of {shape}"
        used = {name: np.ascontiguousarray(sections[name]) for name in shapes}
        large = {name: used[name] for name in PARTS[:PROVEN] if name in used}
        in_place = in_place and all(array.flags.writeable for array in large.values())
        if proofs and not in_place:
            raise ValueError("sections with proofs must be writable")
        if proofs:
            fill_proofs(vouched, large, proofs)
            vouching = vouched
        wrong = self.take_in(used, in_place, threads, vouching)
        self.mapped = large if in_place and wrong is None else None
        self.proofs = proofs if wrong is None else None
        self.refuse_damage()
        return wrong

    def check_next(self):
        """Verify the next pages of a graph restored with proofs, in the end its links; False when nothing is left.

        In the end links and codes are copied to memory of the graph's own where there is enough of it.
        """
        cdef cbool more
        with nogil:
            more = self.core.check_next(CHECKED_PAGES)
        self.refuse_damage()
        return more

    def warm(self, *, bint rows):
        """Bring links and codes used in place into memory, and rows too; returns how many bytes they have."""
        cdef Proof section = Proof(NULL, 0, 0, NULL, -1)
        cdef const uint8_t[::1] data
        cdef size_t total = 0
        mapped = self.mapped or {}
        for name in ("links", "codes", "rows") if rows else ("links", "codes"):
            if name not in mapped or not mapped[name].nbytes:
                continue
            data = mapped[name].reshape(-1).view(np.uint8)
            section.data, section.bytes = <const char*>&data[0], data.shape[0]
            with nogil:
                populate(section)
            total += section.bytes
        return total

    def evict(self):
        """Let the system have the memory of rows used in place and not written; searches read them again."""
        with nogil:
            self.core.evict()

    def row_place(self):
        """Return address and bytes of the rows that are used in place; (0, 0) when there are none."""
        rows = (self.mapped or {}).get("rows")
        return (0, 0) if rows is None else (rows.ctypes.data, rows.nbytes)

    @property
    def is_verified(self):
        """Whether all that was restored is known to be right."""
        cdef cbool watched
        with nogil:
            watched = self.core.is_watched()
        return not watched

    cdef int refuse_damage(self) except -1:
        """Raise StoreDamaged when a page was found damaged."""
        cdef Finding found
        with nogil:
            found = self.core.finding()
        if found.part < 0:
            return 0
        name = PARTS[found.part]
        file = self.proofs[name].file if self.proofs and name in self.proofs else f"{name}.section"
        place = f'page {found.page} of "{file}"' if found.page >= 0 else f'"{file}"'
        raise StoreDamaged(f"{place} {found.reason.decode()}")

    cdef int check_rows(self, size_t rows, size_t width, size_t wanted_rows, size_t wanted_width) except -1:
        if rows != wanted_rows or width != wanted_width:
            raise ValueError(f"rows of shape ({rows}, {width}) instead of ({wanted_rows}, {wanted_width})")
        return 0

    cdef size_t fill_keys(self, int64_t[::1] out) except? 0:
        cdef size_t count
        with nogil:
            count = self.core.live_keys(&out[0], out.shape[0])
        self.refuse_damage()
        return count

    cdef dict copy_out(self):
        cdef size_t slots = self.core.slots(), upper_count = self.core.upper_links(), base = self.core.base_links()
        cdef size_t coded = slots if self.core.coded() else 0
        cdef Arrays arrays
        out = {
            "rows": np.empty((slots, self.core.row_stride()), dtype=np.uint8),
            "links": np.empty((slots, base), dtype=np.uint32),
            "codes": np.empty((coded, self.core.record_stride()), dtype=np.uint8),
            "levels": np.empty(slots, dtype=np.uint8),
            "states": np.empty(slots, dtype=np.uint8),
            "keys": np.empty(slots, dtype=np.int64),
            "scales": np.empty(slots, dtype=np.float32),
            "fingerprints": np.empty(slots, dtype=np.uint32),
            "twin_heads": np.empty(slots, dtype=np.uint32),
            "upper": np.empty(upper_count, dtype=np.uint32),
            "center": np.empty(self.dims if coded else 0, dtype=np.float32),
            "head": np.zeros(HEAD, dtype=np.int64),
        }
        if self.core.tagged():
            out["tags"] = np.empty(slots, dtype=np.uint32)
        out["head"][0] = -1
        if slots:
            fill_arrays(&arrays, out)
            with nogil:
                self.core.dump(arrays)
        return out

    cdef object take_in(self, dict sections, cbool in_place, unsigned int threads, const Proof* proofs):
        cdef Arrays arrays
        cdef const char* wrong = NULL
        if len(sections["states"]) == 0:
            self.core.clear()
            if "tags" in sections:
                self.start_tags()
            return None
        fill_arrays(&arrays, sections)
        with nogil:
            wrong = self.core.restore(arrays, in_place, threads, proofs)
        return None if wrong == NULL else wrong.decode()


cdef class Trail:
    """One search of a Graph that goes on; not for two threads at once."""

    def __cinit__(self):
        self.core = new CoreTrail()

    def __dealloc__(self):
        if self.graph is not None:
            self.graph.core.end_trail(self.core[0])
        del self.core

    def next(self, size_t count, *, size_t ef, size_t scan_rows, const uint8_t[::1] cancel=None):
        """Return the next rows, ``count`` or more, fewer when it finds no more: (keys int64 [n], distances f32 [n]).

        None when it cannot go on, when comparing all rows is cheaper, or when ``cancel[0]`` became non-zero.
        """
        cdef const uint8_t* flag = &cancel[0] if cancel is not None else NULL
        cdef Sieve held
        cdef const Sieve* holding = NULL
        cdef int64_t found, at
        if self.sieve is not None:
            fill_sieve(&held, self.sieve, self.graph.core.tagged())
            holding = &held
        with nogil:
            found = self.graph.core.next_page(self.core[0], count, ef, scan_rows, holding, flag)
        if found == -2:
            self.graph.refuse_damage()
        if found < 0:
            return None
        keys = np.empty(found, dtype=np.int64)
        distances = np.empty(found, dtype=np.float32)
        cdef int64_t[::1] key_view = keys
        cdef float32_t[::1] distance_view = distances
        for at in range(found):
            key_view[at], distance_view[at] = self.core.keys[at], self.core.distances[at]
        return keys, distances


cdef int fill_proofs(Proof* out, dict sections, proofs) except -1:
    """Point at the sections and the checksums of their pages; both are kept by the graph."""
    cdef const uint8_t[::1] data
    cdef const uint32_t[::1] checksums
    cdef int part
    for part in range(PROVEN):
        out[part] = Proof(NULL, 0, 0, NULL, -1)
        array = sections.get(PARTS[part])
        proof = proofs.get(PARTS[part])
        if proof is None or array is None or array.nbytes == 0:
            continue
        data = array.reshape(-1).view(np.uint8)
        checksums = proof.checksums
        if checksums.shape[0] != (data.shape[0] + 4095) // 4096:
            raise ValueError(f"section {PARTS[part]} has {checksums.shape[0]} checksums")
        out[part].data, out[part].bytes = <const char*>&data[0], data.shape[0]
        out[part].head_bytes, out[part].descriptor = proof.head_bytes, proof.descriptor
        out[part].checksums = &checksums[0]
    return 0


cdef int fill_arrays(Arrays* arrays, dict sections) except -1:
    """Point at the data of contiguous sections; the typed views check the kind of number, another one raises."""
    cdef const uint8_t[::1] rows = sections["rows"].reshape(-1), levels = sections["levels"]
    cdef const uint8_t[::1] states = sections["states"], codes = sections.get("codes", NOTHING).reshape(-1)
    cdef const uint32_t[::1] links = sections["links"].reshape(-1), upper = sections["upper"]
    cdef const uint32_t[::1] twins = sections["twin_heads"], prints = sections["fingerprints"]
    cdef const int64_t[::1] keys = sections["keys"], head = sections["head"]
    cdef const float32_t[::1] scales = sections["scales"]
    cdef const float32_t[::1] center = sections.get("center", NO_CENTER)
    cdef const uint32_t[::1] tags = sections.get("tags", NO_TAGS)
    arrays.rows = <char*>&rows[0]
    arrays.links = <uint32_t*>&links[0] if links.shape[0] else NULL
    arrays.codes = <char*>&codes[0] if codes.shape[0] else NULL
    arrays.levels = <uint8_t*>&levels[0]
    arrays.states = <uint8_t*>&states[0]
    arrays.keys = <int64_t*>&keys[0]
    arrays.scales = <float32_t*>&scales[0]
    arrays.fingerprints = <uint32_t*>&prints[0]
    arrays.twin_heads = <uint32_t*>&twins[0]
    arrays.upper = <uint32_t*>&upper[0] if upper.shape[0] else NULL
    arrays.upper_count = upper.shape[0]
    arrays.center = <float32_t*>&center[0] if center.shape[0] else NULL
    arrays.head = <int64_t*>&head[0]
    arrays.tags = <uint32_t*>&tags[0] if tags.shape[0] else NULL
    arrays.slots = states.shape[0]
    return 0
