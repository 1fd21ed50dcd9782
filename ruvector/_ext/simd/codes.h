// Kernels over quantized vectors: 4-bit codes that a search walks on, 7-bit codes that a build compares.
//
// All sums are whole numbers, and all floating-point steps have one fixed order of operations (the build switches
// contraction off), so every instruction set gives the same codes and the same neighbours, bit by bit.
#ifndef RUVECTOR_SIMD_CODES_H
#define RUVECTOR_SIMD_CODES_H

#include <cstddef>
#include <cstdint>

namespace ruvector {

constexpr size_t CODE_DIMS_STEP = 64;  // what byte_dots and byte_tile compare is a multiple of so many dimensions

// What a row becomes: `square` is its sum of squares, `step` the distance of two levels, `length` the sum of squares of
// the decoded row and `product` its inner product with the row.
struct NibbleFit {
    float square;
    float step;
    float length;
    float product;
};

struct Extent {
    float largest;  // absolute value
    float square;   // sum of squares
};

// Of a block that scan_near looks at, the same for all its rows.
struct ScanTerms {
    float step;    // sums become products: step * sum + base
    float base;
    float start;   // distance of query and centroid
    float length;  // what errors are relative to
    float limit;
};

struct CodeKernels {
    const char* name;
    // out[i] = sum of (low nibble j of rows[i]) * low[j] + (high nibble j) * high[j], j < bytes; bytes % 32 == 0.
    // `reach` bytes of each row are fetched ahead.
    void (*nibble_dots)(const uint8_t* const* rows, size_t count, const int8_t* low, const int8_t* high, size_t bytes,
                        size_t reach, int32_t* out);
    // out[i] = left . rights[i] with left in [0, 127] and right in [-63, 63]; bytes % 64 == 0.
    void (*byte_dots)(const uint8_t* left, const int8_t* const* rights, size_t count, size_t bytes, int32_t* out);
    // out[4 * i + j] = lefts[i] . rights[j], as above.
    void (*byte_tile)(const uint8_t* const* lefts, const int8_t* const* rights, size_t bytes, int32_t* out);
    // out[i] = sum over pairs of groups of lut[16 * g + (code of i in group g)] for the 32 codes of a block: 16 bytes
    // a group, byte p holds the code of p in the low and of p + 16 in the high nibble; groups % 4 == 0, the sum of
    // all largest entries below 65536.
    void (*scan_block)(const uint8_t* block, const uint8_t* lut, size_t groups, uint16_t* out);
    // In place fast Walsh-Hadamard transform of `count` floats, a power of two of at least 16; not normalised.
    void (*hadamard)(float* values, size_t count);
    Extent (*extent)(const float* values, size_t count);
    // Write the nibbles of the best of a few scales: byte j holds dimension j low and dimension j + dims / 2 high;
    // dims is even.
    NibbleFit (*fit_nibbles)(const float* row, size_t dims, uint8_t* code);
    // Write round(row * inverse) limited to [-limit, limit]; returns the sum of what was written.
    int32_t (*fit_bytes)(const float* row, size_t dims, float inverse, float limit, int8_t* code);
    // Bit i tells whether row i of a block may be nearer than the limit, sum(i) being what scan_block gives:
    // start + add[i] + mul[i] * (step * sum(i) + base) - error[i] * length < limit.
    uint32_t (*scan_near)(const uint8_t* block, const uint8_t* lut, size_t groups, const ScanTerms& terms,
                          const float* add, const float* mul, const float* error);
};

}  // namespace ruvector

#endif
