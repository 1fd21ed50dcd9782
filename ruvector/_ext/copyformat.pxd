# PostgreSQL's COPY BINARY frames, for other extensions.
from ruvector._ext.typedefs cimport float32_t, int64_t, size_t, uint8_t, uint32_t

cdef extern from "copyframes.hpp" namespace "ruvector" nogil:
    cdef struct CopyLayout:
        bint has_text_keys
        int element
        size_t dims
        size_t fields

    cdef struct CopySink:
        bint is_filling
        int64_t* keys[3]
        uint8_t* vectors
        int64_t* ends
        uint32_t* indices
        float32_t* values
        size_t capacities[3]
        size_t element_capacity
        int64_t* spans[3]

    cdef struct CopyResult:
        int problem
        size_t offset
        size_t counts[3]
        size_t elements
        int last_group

    CopyResult walk_copy(const uint8_t* data, size_t size, CopyLayout layout, CopySink sink) noexcept
    int check_vector(int element, const uint8_t* field, size_t length, size_t* dims) noexcept
    void copy_elements(int element, const uint8_t* payload, size_t dims, uint8_t* out) noexcept


cdef extern from "crc32.hpp" namespace "ruvector" nogil:
    void page_checksums(const void* data, size_t bytes, size_t page_bytes, uint32_t* out) noexcept
