// Code kernels in plain C++, for CPUs without the instruction sets of the other files and as their reference.
#include "codes.h"
#include "tables.h"

#define CODE_TARGET static inline
#include "codes_portable.h"

namespace ruvector {
namespace {

void nibble_dots(const uint8_t* const* rows, size_t count, const int8_t* low, const int8_t* high, size_t bytes,
                 size_t, int32_t* out) {
    for (size_t row = 0; row < count; ++row) {
        int32_t sum = 0;
        for (size_t at = 0; at < bytes; ++at) {
            sum += (rows[row][at] & 15) * low[at] + (rows[row][at] >> 4) * high[at];
        }
        out[row] = sum;
    }
}

int32_t byte_dot(const uint8_t* left, const int8_t* right, size_t bytes) {
    int32_t sum = 0;
    for (size_t at = 0; at < bytes; ++at) sum += left[at] * right[at];
    return sum;
}

void byte_dots(const uint8_t* left, const int8_t* const* rights, size_t count, size_t bytes, int32_t* out) {
    for (size_t row = 0; row < count; ++row) out[row] = byte_dot(left, rights[row], bytes);
}

void byte_tile(const uint8_t* const* lefts, const int8_t* const* rights, size_t bytes, int32_t* out) {
    for (size_t at = 0; at < 16; ++at) out[at] = byte_dot(lefts[at / 4], rights[at % 4], bytes);
}

void scan_block(const uint8_t* block, const uint8_t* lut, size_t groups, uint16_t* out) {
    for (size_t row = 0; row < 32; ++row) out[row] = 0;
    for (size_t group = 0; group < groups; ++group) {
        for (size_t place = 0; place < 16; ++place) {
            uint8_t both = block[group * 16 + place];
            out[place] = uint16_t(out[place] + lut[group * 16 + (both & 15)]);
            out[place + 16] = uint16_t(out[place + 16] + lut[group * 16 + (both >> 4)]);
        }
    }
}

uint32_t scan_near(const uint8_t* block, const uint8_t* lut, size_t groups, const ScanTerms& terms, const float* add,
                   const float* mul, const float* error) {
    uint16_t sums[32];
    scan_block(block, lut, groups, sums);
    return near_mask(sums, terms, add, mul, error);
}

}  // namespace

const CodeKernels SCALAR_CODES = {
    "scalar", nibble_dots, byte_dots, byte_tile, scan_block, hadamard, extent, fit_nibbles, fit_bytes,
    scan_near,
};

}  // namespace ruvector
