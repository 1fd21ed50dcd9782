# The distance kernels and the loops over rows, for other extensions.
from ruvector._ext.typedefs cimport float32_t, size_t, uint8_t, uint16_t

cdef extern from "simd/kernels.h" namespace "ruvector" nogil:
    ctypedef float32_t (*PairF32)(const float32_t* left, const float32_t* right, size_t dims) noexcept nogil
    ctypedef float32_t (*PairF16)(const float32_t* query, const uint16_t* row, size_t dims) noexcept nogil
    ctypedef float32_t (*PairBits)(const uint8_t* left, const uint8_t* right, size_t bytes) noexcept nogil
    ctypedef float32_t (*SelfF16)(const uint16_t* row, size_t dims) noexcept nogil

    cdef struct Kernels:
        const char* name
        PairF32 l2_squared_f32
        PairF32 dot_f32
        PairF32 l1_f32
        PairF16 l2_squared_f16
        PairF16 dot_f16
        PairF16 l1_f16
        PairBits hamming
        PairBits jaccard
        SelfF16 norm_squared_f16

    const Kernels& kernels() noexcept
    const Kernels* kernels_named(const char* name) noexcept
    const char* cpu_features() noexcept

cdef extern from "rows.hpp" namespace "ruvector" nogil:
    cdef struct Rows:
        const uint8_t* data
        Py_ssize_t stride
        size_t count
        size_t width

    void distances_f32(int metric, const float32_t* query, Rows rows, float32_t* out) noexcept
    void distances_f16(int metric, const float32_t* query, Rows rows, float32_t* out) noexcept
    void distances_bits(int metric, const uint8_t* query, Rows rows, float32_t* out) noexcept
    Py_ssize_t first_nonfinite_f32(Rows rows) noexcept
    Py_ssize_t first_nonfinite_f16(Rows rows) noexcept
    void norms_f32(Rows rows, float32_t* out) noexcept
    void norms_f16(Rows rows, float32_t* out) noexcept
    Py_ssize_t normalize_f32(Rows rows, float32_t* out) noexcept
    Py_ssize_t normalize_f16(Rows rows, float32_t* out) noexcept
