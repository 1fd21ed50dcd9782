# The kernels over quantized vectors, of one instruction set by name; simd/codes.h explains them.
from ruvector._ext.typedefs cimport float32_t, int8_t, int32_t, size_t, uint8_t, uint16_t, uint32_t

cdef extern from "simd/kernels.h" namespace "ruvector" nogil:
    cdef struct NibbleFit:
        float32_t square
        float32_t step
        float32_t length
        float32_t product

    cdef struct Extent:
        float32_t largest
        float32_t square

    cdef struct ScanTerms:
        float32_t step
        float32_t base
        float32_t start
        float32_t length
        float32_t limit

    cdef struct CodeKernels:
        const char* name
        void (*nibble_dots)(const uint8_t* const* rows, size_t count, const int8_t* low, const int8_t* high,
                            size_t bytes, size_t reach, int32_t* out) noexcept nogil
        void (*byte_dots)(const uint8_t* left, const int8_t* const* rights, size_t count, size_t bytes,
                          int32_t* out) noexcept nogil
        void (*byte_tile)(const uint8_t* const* lefts, const int8_t* const* rights, size_t bytes,
                          int32_t* out) noexcept nogil
        void (*scan_block)(const uint8_t* block, const uint8_t* lut, size_t groups, uint16_t* out) noexcept nogil
        void (*hadamard)(float32_t* values, size_t count) noexcept nogil
        Extent (*extent)(const float32_t* values, size_t count) noexcept nogil
        NibbleFit (*fit_nibbles)(const float32_t* row, size_t dims, uint8_t* code) noexcept nogil
        int32_t (*fit_bytes)(const float32_t* row, size_t dims, float32_t inverse, float32_t limit,
                             int8_t* code) noexcept nogil
        uint32_t (*scan_near)(const uint8_t* block, const uint8_t* lut, size_t groups, const ScanTerms& terms,
                              const float32_t* add, const float32_t* mul, const float32_t* error) noexcept nogil

    cdef struct Kernels:
        const CodeKernels* codes

    const Kernels* kernels_named(const char* name) noexcept


cdef const CodeKernels* kernels_of(str level) except NULL
