# What the C++ lists look like from Cython; ivf/lists.hpp explains them.
from libcpp cimport bool as cbool

from ruvector._ext.sieve cimport Sieve
from ruvector._ext.typedefs cimport float32_t, int64_t, size_t, uint8_t, uint32_t, uint64_t


cdef extern from "ivf/lists.hpp" namespace "ruvector" nogil:
    cdef cppclass ListOptions:
        int metric
        int element
        size_t dims
        uint64_t seed

    cdef struct ListArrays:
        char* rows
        uint8_t* states
        int64_t* keys
        float32_t* scales
        size_t slots
        char* blocks
        uint32_t* block_lists
        size_t block_count
        float32_t* centroids
        float32_t* spreads
        size_t list_count
        float32_t* center
        int64_t* head
        uint32_t* tags

    cdef cppclass CoreLists "ruvector::Lists":
        CoreLists(const ListOptions& options) except +
        size_t upsert(const int64_t* keys, const char* rows, const uint32_t* tags, size_t count, cbool loose,
                      unsigned int threads) except +
        size_t start_tags() except +
        void tags_of(const int64_t* keys, size_t count, uint32_t* tags) except +
        cbool tagged()
        void build(unsigned int threads, const uint8_t* cancel) except +
        size_t erase(const int64_t* keys, size_t count) except +
        void repair(unsigned int threads) except +
        void clear() except +
        int64_t search_many(const char* queries, size_t count, size_t k, size_t ef, size_t scan_rows,
                            const Sieve* sieve, unsigned int threads, const uint8_t* cancel, int64_t* keys,
                            float32_t* distances, int64_t* counts) except +
        void contains(const int64_t* keys, size_t count, uint8_t* found) except +
        void rows_of(const int64_t* keys, size_t count, char* rows, uint8_t* found) except +
        size_t live_keys(int64_t* keys, size_t room) except +
        size_t size()
        uint32_t built_permille()
        void figures(int64_t* out) except +
        void freeze() except +
        void thaw()
        size_t slots()
        size_t row_stride()
        size_t padded()
        size_t list_count()
        size_t used_blocks()
        size_t block_stride()
        void dump(const ListArrays& arrays)
        const char* restore(const ListArrays& arrays, cbool in_place, unsigned int threads) except +


cdef class Lists:
    cdef CoreLists* core
    cdef size_t dims
    cdef size_t width        # bytes of a row
    cdef size_t query_width  # bytes of a query
    cdef object mapped       # the arrays whose memory is used in place

    cdef int check_rows(self, size_t rows, size_t width, size_t wanted_rows, size_t wanted_width) except -1
    cdef size_t fill_keys(self, int64_t[::1] out) except? 0
    cdef dict copy_out(self)
    cdef object take_in(self, dict sections, cbool in_place, unsigned int threads)
