# What the C++ graph looks like from Cython; hnsw/graph.hpp explains it.
from libcpp cimport bool as cbool
from libcpp.vector cimport vector

from ruvector._ext.sieve cimport Sieve
from ruvector._ext.typedefs cimport float32_t, int64_t, size_t, uint8_t, uint32_t, uint64_t


cdef extern from "hnsw/graph.hpp" namespace "ruvector" nogil:
    cdef cppclass Options:
        int metric
        int element
        size_t dims
        uint32_t m
        uint32_t ef_construction
        uint64_t seed
        cbool linked

    cdef struct Arrays:
        char* rows
        uint32_t* links
        char* codes
        uint8_t* levels
        uint8_t* states
        int64_t* keys
        float32_t* scales
        uint32_t* fingerprints
        uint32_t* twin_heads
        uint32_t* upper
        size_t upper_count
        float32_t* center
        int64_t* head
        uint32_t* tags
        size_t slots

    cdef struct Proof:
        const char* data
        size_t bytes
        size_t head_bytes
        const uint32_t* checksums
        int descriptor

    void populate(const Proof& proof)

    cdef cppclass Finding "ruvector::Guard::Finding":
        int part
        int64_t page
        const char* reason

    cdef cppclass CoreTrail "ruvector::Trail":
        vector[char] query
        vector[int64_t] keys
        vector[float32_t] distances

    cdef cppclass CoreGraph "ruvector::Graph":
        CoreGraph(const Options& options) except +
        size_t upsert(const int64_t* keys, const char* rows, const uint32_t* tags, size_t count, cbool loose,
                      unsigned int threads) except +
        size_t start_tags() except +
        void tags_of(const int64_t* keys, size_t count, uint32_t* tags) except +
        cbool tagged()
        void build(unsigned int threads, const uint8_t* cancel) except +
        size_t erase(const int64_t* keys, size_t count, unsigned int threads) except +
        void repair(unsigned int threads) except +
        void clear() except +
        int64_t search_many(const char* queries, size_t count, size_t k, size_t ef, size_t scan_rows,
                            const Sieve* sieve, unsigned int threads, const uint8_t* cancel, int64_t* keys,
                            float32_t* distances, int64_t* counts) except +
        int64_t next_page(CoreTrail& trail, size_t wanted, size_t ef, size_t scan_rows, const Sieve* sieve,
                          const uint8_t* cancel) except +
        void end_trail(CoreTrail& trail) except +
        void contains(const int64_t* keys, size_t count, uint8_t* found) except +
        void rows_of(const int64_t* keys, size_t count, char* rows, uint8_t* found) except +
        size_t live_keys(int64_t* keys, size_t room) except +
        size_t size()
        uint32_t built_permille()
        void figures(int64_t* out) except +
        void freeze() except +
        void thaw()
        size_t slots()
        size_t upper_links()
        size_t row_stride()
        size_t base_links()
        cbool coded()
        size_t record_stride()
        void dump(const Arrays& arrays)
        const char* restore(const Arrays& arrays, cbool in_place, unsigned int threads, const Proof* proofs) except +
        cbool check_next(size_t pages) except +
        cbool is_watched()
        void evict()
        Finding finding()


cdef class Graph:
    cdef CoreGraph* core
    cdef size_t dims
    cdef size_t width        # bytes of a row
    cdef size_t query_width  # bytes of a query
    cdef object mapped       # the arrays whose memory is used in place, by name
    cdef object proofs       # what vouches for them

    cdef int check_rows(self, size_t rows, size_t width, size_t wanted_rows, size_t wanted_width) except -1
    cdef size_t fill_keys(self, int64_t[::1] out) except? 0
    cdef dict copy_out(self)
    cdef object take_in(self, dict sections, cbool in_place, unsigned int threads, const Proof* proofs)
    cdef int refuse_damage(self) except -1


cdef class Trail:
    cdef CoreTrail* core
    cdef Graph graph
    cdef object sieve
