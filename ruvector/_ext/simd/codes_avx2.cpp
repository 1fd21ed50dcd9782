// Code kernels for AVX2: byte products by VPMADDUBSW, whose 16-bit sums cannot overflow with these value ranges.
#include "codes.h"
#include "tables.h"

#if RUVECTOR_X86

#include <immintrin.h>

#define TARGET __attribute__((target("avx2")))
#define CODE_TARGET TARGET static inline
#define CODE_TRANSFORM

namespace ruvector {
namespace {

// Lanes whose sign bit the mask sets are subtracted from their partners, the others added.
CODE_TARGET __m256 butterfly(__m256 values, __m256 partners, __m256 signs) {
    return _mm256_add_ps(partners, _mm256_xor_ps(values, signs));
}

CODE_TARGET void transform_lanes(float* block) {
    const __m256 odd = _mm256_setr_ps(0.0f, -0.0f, 0.0f, -0.0f, 0.0f, -0.0f, 0.0f, -0.0f);
    const __m256 pairs = _mm256_setr_ps(0.0f, 0.0f, -0.0f, -0.0f, 0.0f, 0.0f, -0.0f, -0.0f);
    const __m256 halves = _mm256_setr_ps(0.0f, 0.0f, 0.0f, 0.0f, -0.0f, -0.0f, -0.0f, -0.0f);
    __m256 parts[2] = {_mm256_loadu_ps(block), _mm256_loadu_ps(block + 8)};
    for (__m256& part : parts) {
        part = butterfly(part, _mm256_permute_ps(part, 0xB1), odd);
        part = butterfly(part, _mm256_permute_ps(part, 0x4E), pairs);
        part = butterfly(part, _mm256_permute2f128_ps(part, part, 1), halves);
    }
    _mm256_storeu_ps(block, _mm256_add_ps(parts[1], parts[0]));
    _mm256_storeu_ps(block + 8, _mm256_sub_ps(parts[0], parts[1]));
}

}  // namespace
}  // namespace ruvector

#include "codes_portable.h"
#define HELPER TARGET static inline __attribute__((always_inline))

namespace ruvector {
namespace {

constexpr size_t AHEAD = 8;  // rows fetched before they are needed

HELPER __m256i load(const void* bytes) { return _mm256_loadu_si256(static_cast<const __m256i*>(bytes)); }

HELPER void fetch(const uint8_t* row, size_t reach) {
    for (size_t byte = 0; byte < reach; byte += 64) {
        _mm_prefetch(reinterpret_cast<const char*>(row + byte), _MM_HINT_T0);
    }
}

HELPER int32_t total(__m256i sums) {
    __m128i half = _mm_add_epi32(_mm256_castsi256_si128(sums), _mm256_extracti128_si256(sums, 1));
    half = _mm_add_epi32(half, _mm_shuffle_epi32(half, 0x4E));
    half = _mm_add_epi32(half, _mm_shuffle_epi32(half, 0xB1));
    return _mm_cvtsi128_si32(half);
}

// |sum| of one 16-bit lane and step: 2 * 2 * 15 * 127 = 7,620, so four steps fit before they are widened.
HELPER __m256i nibble_step(const uint8_t* row, const int8_t* low, const int8_t* high, __m256i mask) {
    const __m256i both = load(row);
    return _mm256_add_epi16(
        _mm256_maddubs_epi16(_mm256_and_si256(both, mask), load(low)),
        _mm256_maddubs_epi16(_mm256_and_si256(_mm256_srli_epi16(both, 4), mask), load(high)));
}

TARGET void nibble_dots(const uint8_t* const* rows, size_t count, const int8_t* low, const int8_t* high, size_t bytes,
                        size_t reach, int32_t* out) {
    const __m256i mask = _mm256_set1_epi8(15), ones = _mm256_set1_epi16(1);
    for (size_t row = 0; row < count && row < AHEAD; ++row) fetch(rows[row], reach);
    for (size_t row = 0; row < count; ++row) {
        if (row + AHEAD < count) fetch(rows[row + AHEAD], reach);
        const uint8_t* code = rows[row];
        __m256i sums = _mm256_setzero_si256();
        size_t at = 0;
        for (; at + 128 <= bytes; at += 128) {
            const __m256i first = _mm256_add_epi16(nibble_step(code + at, low + at, high + at, mask),
                                                   nibble_step(code + at + 32, low + at + 32, high + at + 32, mask));
            const __m256i second =
                _mm256_add_epi16(nibble_step(code + at + 64, low + at + 64, high + at + 64, mask),
                                 nibble_step(code + at + 96, low + at + 96, high + at + 96, mask));
            sums = _mm256_add_epi32(sums, _mm256_madd_epi16(_mm256_add_epi16(first, second), ones));
        }
        for (; at < bytes; at += 32) {
            sums = _mm256_add_epi32(sums,
                                    _mm256_madd_epi16(nibble_step(code + at, low + at, high + at, mask), ones));
        }
        out[row] = total(sums);
    }
}

// |sum| of one 16-bit lane: 2 * 127 * 63 = 16,002; two steps fit before they are widened.
HELPER int32_t byte_dot(const uint8_t* left, const int8_t* right, size_t bytes) {
    const __m256i ones = _mm256_set1_epi16(1);
    __m256i sums = _mm256_setzero_si256();
    for (size_t at = 0; at < bytes; at += 64) {
        const __m256i both = _mm256_add_epi16(_mm256_maddubs_epi16(load(left + at), load(right + at)),
                                              _mm256_maddubs_epi16(load(left + at + 32), load(right + at + 32)));
        sums = _mm256_add_epi32(sums, _mm256_madd_epi16(both, ones));
    }
    return total(sums);
}

TARGET void byte_dots(const uint8_t* left, const int8_t* const* rights, size_t count, size_t bytes, int32_t* out) {
    for (size_t row = 0; row < count; ++row) out[row] = byte_dot(left, rights[row], bytes);
}

TARGET void byte_tile(const uint8_t* const* lefts, const int8_t* const* rights, size_t bytes, int32_t* out) {
    const __m256i ones = _mm256_set1_epi16(1);
    for (size_t two = 0; two < 4; two += 2) {
        __m256i sums[2][4];
        for (auto& line : sums) {
            for (__m256i& sum : line) sum = _mm256_setzero_si256();
        }
        for (size_t at = 0; at < bytes; at += 32) {
            const __m256i left0 = load(lefts[two] + at), left1 = load(lefts[two + 1] + at);
            for (size_t right = 0; right < 4; ++right) {
                const __m256i row = load(rights[right] + at);
                sums[0][right] =
                    _mm256_add_epi32(sums[0][right], _mm256_madd_epi16(_mm256_maddubs_epi16(left0, row), ones));
                sums[1][right] =
                    _mm256_add_epi32(sums[1][right], _mm256_madd_epi16(_mm256_maddubs_epi16(left1, row), ones));
            }
        }
        for (size_t right = 0; right < 4; ++right) {
            out[two * 4 + right] = total(sums[0][right]);
            out[two * 4 + 4 + right] = total(sums[1][right]);
        }
    }
}

// Look up both nibbles of 32 codes; even and odd bytes are summed apart in 16 bits (the trick of FastScan, André et
// al., VLDB 2015): the sum of whole words less 256 times the sum of odd bytes is the sum of even bytes.
TARGET void scan_block(const uint8_t* block, const uint8_t* lut, size_t groups, uint16_t* out) {
    const __m256i mask = _mm256_set1_epi8(15);
    __m256i low_all = _mm256_setzero_si256(), low_odd = low_all, high_all = low_all, high_odd = low_all;
    for (size_t at = 0; at < groups * 16; at += 32) {
        const __m256i codes = load(block + at), table = load(lut + at);
        const __m256i low = _mm256_shuffle_epi8(table, _mm256_and_si256(codes, mask));
        const __m256i high = _mm256_shuffle_epi8(table, _mm256_and_si256(_mm256_srli_epi16(codes, 4), mask));
        low_all = _mm256_add_epi16(low_all, low);
        low_odd = _mm256_add_epi16(low_odd, _mm256_srli_epi16(low, 8));
        high_all = _mm256_add_epi16(high_all, high);
        high_odd = _mm256_add_epi16(high_odd, _mm256_srli_epi16(high, 8));
    }
    low_all = _mm256_sub_epi16(low_all, _mm256_slli_epi16(low_odd, 8));
    high_all = _mm256_sub_epi16(high_all, _mm256_slli_epi16(high_odd, 8));
    const __m256i sums[4] = {low_all, low_odd, high_all, high_odd};
    __m128i folded[4];
    for (size_t at = 0; at < 4; ++at) {
        folded[at] = _mm_add_epi16(_mm256_castsi256_si128(sums[at]), _mm256_extracti128_si256(sums[at], 1));
    }
    for (size_t half = 0; half < 2; ++half) {
        const __m128i even = folded[half * 2], odd = folded[half * 2 + 1];
        _mm_storeu_si128(reinterpret_cast<__m128i*>(out + half * 16), _mm_unpacklo_epi16(even, odd));
        _mm_storeu_si128(reinterpret_cast<__m128i*>(out + half * 16 + 8), _mm_unpackhi_epi16(even, odd));
    }
}

// As near_mask, eight rows at a time.
TARGET uint32_t scan_near(const uint8_t* block, const uint8_t* lut, size_t groups, const ScanTerms& terms,
                          const float* add, const float* mul, const float* error) {
    alignas(32) uint16_t sums[32];
    scan_block(block, lut, groups, sums);
    const __m256 step = _mm256_set1_ps(terms.step), base = _mm256_set1_ps(terms.base);
    const __m256 start = _mm256_set1_ps(terms.start), length = _mm256_set1_ps(terms.length);
    const __m256 limit = _mm256_set1_ps(terms.limit);
    uint32_t mask = 0;
    for (size_t row = 0; row < 32; row += 8) {
        const __m128i words = _mm_load_si128(reinterpret_cast<const __m128i*>(sums + row));
        const __m256 sum = _mm256_cvtepi32_ps(_mm256_cvtepu16_epi32(words));
        const __m256 product = _mm256_add_ps(_mm256_mul_ps(step, sum), base);
        __m256 least = _mm256_add_ps(start, _mm256_loadu_ps(add + row));
        least = _mm256_add_ps(least, _mm256_mul_ps(_mm256_loadu_ps(mul + row), product));
        least = _mm256_sub_ps(least, _mm256_mul_ps(_mm256_loadu_ps(error + row), length));
        mask |= uint32_t(_mm256_movemask_ps(_mm256_cmp_ps(least, limit, _CMP_LT_OQ))) << row;
    }
    return mask;
}

}  // namespace

const CodeKernels AVX2_CODES = {
    "avx2", nibble_dots, byte_dots, byte_tile, scan_block, hadamard, extent, fit_nibbles, fit_bytes,
    scan_near,
};

}  // namespace ruvector

#endif
