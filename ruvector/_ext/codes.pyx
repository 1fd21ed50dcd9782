"""The kernels over quantized vectors, one call each, of any instruction set this CPU runs: for tests.

The index calls them from C++ (hnsw/codes.hpp, hnsw/bulk.hpp); ruvector.kernels.reference_codes has their numpy twins.
"""

from ruvector._ext.typedefs cimport float32_t, int8_t, int32_t, uint8_t, uint16_t

import numpy as np

from ruvector.errors import ensure

cdef enum:
    ROWS_MAX = 64


cdef const CodeKernels* kernels_of(str level) except NULL:
    cdef const Kernels* found = kernels_named(level.encode("ascii"))
    ensure(found != NULL, "this CPU does not run the kernels asked for")
    return found.codes


def name_of(str level):
    """Return which code kernels go with a level of RUVECTOR_SIMD."""
    return kernels_of(level).name.decode("ascii")


def nibble_dots(const uint8_t[:, ::1] rows, const int8_t[::1] low, const int8_t[::1] high, *, str level):
    """Return int32 [rows]: the sums of low nibbles times ``low`` and of high nibbles times ``high``."""
    cdef const CodeKernels* kernels = kernels_of(level)
    cdef size_t count = rows.shape[0], width = rows.shape[1], row
    cdef const uint8_t* pointers[ROWS_MAX]
    ensure(0 < count <= ROWS_MAX and width > 0 and width % 32 == 0, "rows do not suit the kernel")
    ensure(low.shape[0] == rows.shape[1] and high.shape[0] == rows.shape[1], "query and rows must have one width")
    out = np.empty(count, dtype=np.int32)
    cdef int32_t[::1] view = out
    for row in range(count):
        pointers[row] = &rows[row, 0]
    kernels.nibble_dots(pointers, count, &low[0], &high[0], width, width, &view[0])
    return out


def byte_dots(const uint8_t[::1] left, const int8_t[:, ::1] rights, *, str level):
    """Return int32 [rights]: the inner products of ``left`` with each of ``rights``."""
    cdef const CodeKernels* kernels = kernels_of(level)
    cdef size_t count = rights.shape[0], width = rights.shape[1], row
    cdef const int8_t* pointers[ROWS_MAX]
    ensure(0 < count <= ROWS_MAX and width > 0 and width % 64 == 0, "rows do not suit the kernel")
    ensure(left.shape[0] == rights.shape[1], "both sides must have one width")
    out = np.empty(count, dtype=np.int32)
    cdef int32_t[::1] view = out
    for row in range(count):
        pointers[row] = &rights[row, 0]
    kernels.byte_dots(&left[0], pointers, count, width, &view[0])
    return out


def byte_tile(const uint8_t[:, ::1] lefts, const int8_t[:, ::1] rights, *, str level):
    """Return int32 [4, 4]: the inner products of four with four."""
    cdef const CodeKernels* kernels = kernels_of(level)
    cdef size_t width = rights.shape[1], row
    cdef const uint8_t* left_pointers[4]
    cdef const int8_t* right_pointers[4]
    ensure(lefts.shape[0] == 4 and rights.shape[0] == 4, "a tile has four rows on both sides")
    ensure(lefts.shape[1] == rights.shape[1] and width > 0 and width % 64 == 0, "rows do not suit the kernel")
    out = np.empty((4, 4), dtype=np.int32)
    cdef int32_t[:, ::1] view = out
    for row in range(4):
        left_pointers[row] = &lefts[row, 0]
        right_pointers[row] = &rights[row, 0]
    kernels.byte_tile(left_pointers, right_pointers, width, &view[0, 0])
    return out


def scan_block(const uint8_t[:, ::1] block, const uint8_t[:, ::1] lut, *, str level):
    """Return uint16 [32]: for each code of a block [groups, 16] the sum of its entries in lut [groups, 16]."""
    cdef const CodeKernels* kernels = kernels_of(level)
    cdef size_t groups = block.shape[0]
    ensure(groups > 0 and groups % 4 == 0 and lut.shape[0] == block.shape[0], "groups come in fours")
    ensure(block.shape[1] == 16 and lut.shape[1] == 16, "a group has 16 bytes")
    out = np.empty(32, dtype=np.uint16)
    cdef uint16_t[::1] view = out
    kernels.scan_block(&block[0, 0], &lut[0, 0], groups, &view[0])
    return out


def scan_near(const uint8_t[:, ::1] block, const uint8_t[:, ::1] lut, const float32_t[::1] terms,
              const float32_t[:, ::1] factors, *, str level):
    """Return 32 bits: which rows of a block may be nearer than a limit.

    terms: step, base, start, length and limit; factors [3, 32]: add, mul and error of each row.
    """
    cdef const CodeKernels* kernels = kernels_of(level)
    cdef size_t groups = block.shape[0]
    cdef ScanTerms scan
    ensure(groups > 0 and groups % 4 == 0 and lut.shape[0] == block.shape[0], "groups come in fours")
    ensure(block.shape[1] == 16 and lut.shape[1] == 16, "a group has 16 bytes")
    ensure(terms.shape[0] == 5, "there are five terms")
    ensure(factors.shape[0] == 3 and factors.shape[1] == 32, "a row has three factors")
    scan.step, scan.base, scan.start, scan.length, scan.limit = terms[0], terms[1], terms[2], terms[3], terms[4]
    return kernels.scan_near(&block[0, 0], &lut[0, 0], groups, scan, &factors[0, 0], &factors[1, 0], &factors[2, 0])


def hadamard(const float32_t[::1] values, *, str level):
    """Return the Walsh-Hadamard transform f32 [n] of values; n is a power of two of at least 16."""
    cdef const CodeKernels* kernels = kernels_of(level)
    cdef size_t count = values.shape[0]
    ensure(count >= 16 and count & (count - 1) == 0, "a transform needs a power of two")
    out = np.array(values)
    cdef float32_t[::1] view = out
    kernels.hadamard(&view[0], count)
    return out


def extent(const float32_t[::1] values, *, str level):
    """Return the largest absolute value and the sum of squares."""
    cdef const CodeKernels* kernels = kernels_of(level)
    ensure(values.shape[0] > 0, "there are no values")
    cdef Extent found = kernels.extent(&values[0], values.shape[0])
    return np.float32(found.largest), np.float32(found.square)


def fit_nibbles(const float32_t[::1] row, *, str level):
    """Return the code uint8 [dims / 2] of a row and f32 square, step, length and product."""
    cdef const CodeKernels* kernels = kernels_of(level)
    ensure(row.shape[0] > 0 and row.shape[0] % 2 == 0, "dimensions come in pairs")
    code = np.empty(row.shape[0] // 2, dtype=np.uint8)
    cdef uint8_t[::1] view = code
    cdef NibbleFit fit = kernels.fit_nibbles(&row[0], row.shape[0], &view[0])
    return code, np.array([fit.square, fit.step, fit.length, fit.product], dtype=np.float32)


def fit_bytes(const float32_t[::1] row, *, float32_t inverse, float32_t limit, str level):
    """Return the code int8 [dims] of a row and the sum of it."""
    cdef const CodeKernels* kernels = kernels_of(level)
    ensure(row.shape[0] > 0, "a row has dimensions")
    code = np.empty(row.shape[0], dtype=np.int8)
    cdef int8_t[::1] view = code
    cdef int32_t total = kernels.fit_bytes(&row[0], row.shape[0], inverse, limit, &view[0])
    return code, total
