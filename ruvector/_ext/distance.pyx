"""Distances from one query to many rows, norms and finiteness, without the interpreter lock.

Rows come as bytes: a view [rows, bytes] of an array whose rows are contiguous, any distance apart, at any address.
Callers check shapes and values (ruvector.kernels.compiled); what is checked here would otherwise read out of bounds.
"""

from ruvector._ext.typedefs cimport float32_t, uint8_t

from ruvector.errors import ensure

# The order is that of MetricCode in rows.hpp.
METRIC_CODES = {"l2": 0, "ip": 1, "cosine": 2, "l1": 3, "hamming": 4, "jaccard": 5}

LEVELS = ("scalar", "avx2", "avx512-table", "avx512", "neon")


cdef int describe(const uint8_t[:, :] rows, Py_ssize_t element_bytes, Rows* described) except -1:
    """Turn a view of rows into pointer and sizes; refuse what a kernel could not read safely."""
    ensure(rows.shape[0] > 0 and rows.shape[1] > 0, "a kernel was called without rows or without dimensions")
    ensure(rows.strides[1] == 1, "the elements of a row must be contiguous")
    ensure(rows.shape[1] % element_bytes == 0, "a row must hold whole elements")
    described.data = &rows[0, 0]
    described.stride = rows.strides[0]
    described.count = rows.shape[0]
    described.width = rows.shape[1] // element_bytes
    return 0


def scan_floats(const float32_t[::1] query, const uint8_t[:, :] rows, *, str metric, bint half, float32_t[::1] out):
    """Fill out[rows] with the distances of query[dims] to rows of f32, or of f16 if half."""
    cdef Rows described
    cdef int code = METRIC_CODES[metric]
    describe(rows, 2 if half else 4, &described)
    ensure(code < 4, "a metric of bits was asked for floats")
    ensure(query.shape[0] == <Py_ssize_t> described.width, "query and rows must have the same dimensions")
    ensure(out.shape[0] == rows.shape[0], "there must be room for one distance per row")
    with nogil:
        if half:
            distances_f16(code, &query[0], described, &out[0])
        else:
            distances_f32(code, &query[0], described, &out[0])


def scan_bits(const uint8_t[::1] query, const uint8_t[:, :] rows, *, str metric, float32_t[::1] out):
    """Fill out[rows] with the distances of query[bytes] to rows of packed bits."""
    cdef Rows described
    cdef int code = METRIC_CODES[metric]
    describe(rows, 1, &described)
    ensure(code >= 4, "a metric of floats was asked for bits")
    ensure(query.shape[0] == rows.shape[1], "query and rows must have the same number of bytes")
    ensure(out.shape[0] == rows.shape[0], "there must be room for one distance per row")
    with nogil:
        distances_bits(code, &query[0], described, &out[0])


def first_nonfinite(const uint8_t[:, :] rows, *, bint half):
    """Return the number of the first row with NaN or infinity, or -1."""
    cdef Rows described
    cdef Py_ssize_t found
    describe(rows, 2 if half else 4, &described)
    with nogil:
        found = first_nonfinite_f16(described) if half else first_nonfinite_f32(described)
    return found


def fill_norms(const uint8_t[:, :] rows, *, bint half, float32_t[::1] out):
    """Fill out[rows] with the lengths of the rows."""
    cdef Rows described
    describe(rows, 2 if half else 4, &described)
    ensure(out.shape[0] == rows.shape[0], "there must be room for one norm per row")
    with nogil:
        if half:
            norms_f16(described, &out[0])
        else:
            norms_f32(described, &out[0])


def fill_normalized(const uint8_t[:, :] rows, *, bint half, float32_t[:, ::1] out):
    """Fill out[rows, dims] with rows of length 1; return the number of the first row without a direction, or -1."""
    cdef Rows described
    cdef Py_ssize_t found
    describe(rows, 2 if half else 4, &described)
    ensure(out.shape[0] == rows.shape[0], "there must be room for every row")
    ensure(out.shape[1] == <Py_ssize_t> described.width, "there must be room for every dimension")
    with nogil:
        found = normalize_f16(described, &out[0, 0]) if half else normalize_f32(described, &out[0, 0])
    return found


def simd_name():
    """Return the name of the kernels in use: avx512, avx2, neon or scalar."""
    return kernels().name.decode("ascii")


def simd_levels():
    """Return every value of RUVECTOR_SIMD this build and this CPU can run, slowest first."""
    return tuple(level for level in LEVELS if kernels_named(level.encode("ascii")) != NULL)


def simd_features():
    """Return the instruction sets the CPU offers of those that matter here, separated by blanks."""
    return cpu_features().decode("ascii")
