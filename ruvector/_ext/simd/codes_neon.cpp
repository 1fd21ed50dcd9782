// Code kernels for NEON; all factors fit signed bytes, so plain widening multiplications serve every ARM CPU.
#include "codes.h"
#include "tables.h"

#if defined(__aarch64__)

#include <arm_neon.h>

#define CODE_TARGET static inline
#include "codes_portable.h"

namespace ruvector {
namespace {

constexpr size_t AHEAD = 8;  // rows fetched before they are needed

inline void fetch(const uint8_t* row, size_t reach) {
    for (size_t byte = 0; byte < reach; byte += 64) __builtin_prefetch(row + byte);
}

// |sum| of one 16-bit lane: 2 * 127 * 127 = 32,258.
inline int32x4_t add_products(int32x4_t sums, int8x16_t left, int8x16_t right) {
    int16x8_t products = vmull_s8(vget_low_s8(left), vget_low_s8(right));
    products = vmlal_s8(products, vget_high_s8(left), vget_high_s8(right));
    return vpadalq_s16(sums, products);
}

void nibble_dots(const uint8_t* const* rows, size_t count, const int8_t* low, const int8_t* high, size_t bytes,
                 size_t reach, int32_t* out) {
    const uint8x16_t mask = vdupq_n_u8(15);
    for (size_t row = 0; row < count && row < AHEAD; ++row) fetch(rows[row], reach);
    for (size_t row = 0; row < count; ++row) {
        if (row + AHEAD < count) fetch(rows[row + AHEAD], reach);
        int32x4_t sums = vdupq_n_s32(0), more = vdupq_n_s32(0);
        for (size_t at = 0; at < bytes; at += 16) {
            const uint8x16_t both = vld1q_u8(rows[row] + at);
            sums = add_products(sums, vreinterpretq_s8_u8(vandq_u8(both, mask)), vld1q_s8(low + at));
            more = add_products(more, vreinterpretq_s8_u8(vshrq_n_u8(both, 4)), vld1q_s8(high + at));
        }
        out[row] = vaddvq_s32(vaddq_s32(sums, more));
    }
}

int32_t byte_dot(const uint8_t* left, const int8_t* right, size_t bytes) {
    int32x4_t sums = vdupq_n_s32(0);
    for (size_t at = 0; at < bytes; at += 16) {
        sums = add_products(sums, vreinterpretq_s8_u8(vld1q_u8(left + at)), vld1q_s8(right + at));
    }
    return vaddvq_s32(sums);
}

void byte_dots(const uint8_t* left, const int8_t* const* rights, size_t count, size_t bytes, int32_t* out) {
    for (size_t row = 0; row < count; ++row) out[row] = byte_dot(left, rights[row], bytes);
}

void byte_tile(const uint8_t* const* lefts, const int8_t* const* rights, size_t bytes, int32_t* out) {
    for (size_t at = 0; at < 16; ++at) out[at] = byte_dot(lefts[at / 4], rights[at % 4], bytes);
}

void scan_block(const uint8_t* block, const uint8_t* lut, size_t groups, uint16_t* out) {
    const uint8x16_t mask = vdupq_n_u8(15);
    uint16x8_t sums[4] = {vdupq_n_u16(0), vdupq_n_u16(0), vdupq_n_u16(0), vdupq_n_u16(0)};
    for (size_t group = 0; group < groups; ++group) {
        const uint8x16_t codes = vld1q_u8(block + group * 16), table = vld1q_u8(lut + group * 16);
        const uint8x16_t low = vqtbl1q_u8(table, vandq_u8(codes, mask));
        const uint8x16_t high = vqtbl1q_u8(table, vshrq_n_u8(codes, 4));
        sums[0] = vaddw_u8(sums[0], vget_low_u8(low));
        sums[1] = vaddw_u8(sums[1], vget_high_u8(low));
        sums[2] = vaddw_u8(sums[2], vget_low_u8(high));
        sums[3] = vaddw_u8(sums[3], vget_high_u8(high));
    }
    for (size_t part = 0; part < 4; ++part) vst1q_u16(out + part * 8, sums[part]);
}

uint32_t scan_near(const uint8_t* block, const uint8_t* lut, size_t groups, const ScanTerms& terms, const float* add,
                   const float* mul, const float* error) {
    uint16_t sums[32];
    scan_block(block, lut, groups, sums);
    return near_mask(sums, terms, add, mul, error);
}

}  // namespace

const CodeKernels NEON_CODES = {
    "neon", nibble_dots, byte_dots, byte_tile, scan_block, hadamard, extent, fit_nibbles, fit_bytes,
    scan_near,
};

}  // namespace ruvector

#endif
