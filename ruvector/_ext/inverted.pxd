# What the C++ inverted index looks like from Cython; inverted/inverted.hpp explains it.
from libcpp cimport bool as cbool
from libcpp.vector cimport vector

from ruvector._ext.sieve cimport Sieve
from ruvector._ext.typedefs cimport float32_t, int64_t, size_t, uint8_t, uint32_t, uint64_t


cdef extern from "inverted/inverted.hpp" namespace "ruvector" nogil:
    cdef struct SparseRows:
        const int64_t* starts
        const uint32_t* dims
        const float32_t* values
        size_t count

    const char* check_sparse(const SparseRows& rows, size_t elements, size_t dims, cbool directed) noexcept

    cdef cppclass CoreInverted "ruvector::Inverted":
        CoreInverted(int metric) except +
        size_t upsert(const int64_t* keys, const SparseRows& rows, const uint32_t* tags) except +
        size_t start_tags() except +
        void tags_of(const int64_t* keys, size_t count, uint32_t* tags) except +
        cbool tagged()
        size_t erase(const int64_t* keys, size_t count) except +
        void compact() except +
        void clear() except +
        int64_t search_many(const SparseRows& queries, size_t k, const Sieve* sieve, unsigned int threads,
                            const uint8_t* cancel, int64_t* keys, float32_t* distances, int64_t* counts) except +
        void contains(const int64_t* keys, size_t count, uint8_t* found) except +
        void rows_of(const int64_t* keys, size_t count, int64_t* starts, vector[uint32_t]& dims,
                     vector[float32_t]& values, uint8_t* found) except +
        size_t live_keys(int64_t* keys, size_t room) except +
        size_t size()
        void figures(int64_t* out) except +
        void freeze() except +
        void thaw()
        size_t elements()
        void dump(int64_t* keys, int64_t* starts, uint32_t* dims, float32_t* values, uint32_t* tags)


cdef class Inverted:
    cdef CoreInverted* core
    cdef size_t dims
    cdef cbool directed  # rows without a direction are wrong

    cdef SparseRows view_of(self, const int64_t[::1] starts, const uint32_t[::1] dims, const float32_t[::1] values,
                            size_t count) except *
    cdef size_t fill_keys(self, int64_t[::1] out) except? 0
    cdef dict copy_out(self)
