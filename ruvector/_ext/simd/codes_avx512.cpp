// Code kernels for AVX-512 with VNNI: 64 byte products and their sums in one instruction.
#include "codes.h"
#include "tables.h"

#if RUVECTOR_X86

// gcc 12 takes the "undefined" starting values inside its own intrinsics for mistakes of ours.
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif

#include <immintrin.h>

#define TARGET __attribute__((target("avx512f,avx512bw,avx512vl,avx512vnni,avx2,prefer-vector-width=512")))
#define CODE_TARGET TARGET static inline
#define CODE_TRANSFORM

namespace ruvector {
namespace {

// Lanes of the mask are subtracted from their partners, the others added.
CODE_TARGET __m512 butterfly(__m512 values, __m512 partners, __mmask16 lanes) {
    const __m512i bits = _mm512_castps_si512(values);
    const __m512i flipped = _mm512_mask_xor_epi32(bits, lanes, bits, _mm512_set1_epi32(INT32_MIN));
    return _mm512_add_ps(partners, _mm512_castsi512_ps(flipped));
}

CODE_TARGET void transform_lanes(float* block) {
    __m512 values = _mm512_loadu_ps(block);
    values = butterfly(values, _mm512_permute_ps(values, 0xB1), 0xAAAA);
    values = butterfly(values, _mm512_permute_ps(values, 0x4E), 0xCCCC);
    values = butterfly(values, _mm512_shuffle_f32x4(values, values, 0xB1), 0xF0F0);
    values = butterfly(values, _mm512_shuffle_f32x4(values, values, 0x4E), 0xFF00);
    _mm512_storeu_ps(block, values);
}

}  // namespace
}  // namespace ruvector

#include "codes_portable.h"

#define HELPER TARGET static inline __attribute__((always_inline))

namespace ruvector {
namespace {

constexpr size_t AHEAD = 8;  // rows fetched before they are needed

HELPER void fetch(const uint8_t* row, size_t reach) {
    for (size_t byte = 0; byte < reach; byte += 64) {
        _mm_prefetch(reinterpret_cast<const char*>(row + byte), _MM_HINT_T0);
    }
}

HELPER __m256i fold(__m512i sums) {
    return _mm256_add_epi32(_mm512_castsi512_si256(sums), _mm512_extracti64x4_epi64(sums, 1));
}

// The totals of four sums at once.
HELPER __m128i totals(__m512i first, __m512i second, __m512i third, __m512i fourth) {
    const __m256i left = _mm256_hadd_epi32(fold(first), fold(second));
    const __m256i right = _mm256_hadd_epi32(fold(third), fold(fourth));
    const __m256i all = _mm256_hadd_epi32(left, right);
    return _mm_add_epi32(_mm256_castsi256_si128(all), _mm256_extracti128_si256(all, 1));
}

HELPER __m512i nibble_step(__m512i sums, __m512i both, __m512i low, __m512i high, __m512i mask) {
    sums = _mm512_dpbusd_epi32(sums, _mm512_and_si512(both, mask), low);
    return _mm512_dpbusd_epi32(sums, _mm512_and_si512(_mm512_srli_epi16(both, 4), mask), high);
}

HELPER __m512i load_part(const void* bytes, __mmask64 part) { return _mm512_maskz_loadu_epi8(part, bytes); }

TARGET void nibble_dots(const uint8_t* const* rows, size_t count, const int8_t* low, const int8_t* high, size_t bytes,
                        size_t reach, int32_t* out) {
    const __m512i mask = _mm512_set1_epi8(15);
    const __mmask64 rest = 0xFFFFFFFFULL;  // bytes come in steps of 32
    for (size_t row = 0; row < count && row < AHEAD; ++row) fetch(rows[row], reach);
    size_t row = 0;
    for (; row + 4 <= count; row += 4) {
        for (size_t next = row + AHEAD; next < row + AHEAD + 4 && next < count; ++next) fetch(rows[next], reach);
        const uint8_t *row0 = rows[row], *row1 = rows[row + 1], *row2 = rows[row + 2], *row3 = rows[row + 3];
        __m512i sum0 = _mm512_setzero_si512(), sum1 = sum0, sum2 = sum0, sum3 = sum0;
        size_t at = 0;
        for (; at + 64 <= bytes; at += 64) {
            const __m512i lows = _mm512_loadu_si512(low + at), highs = _mm512_loadu_si512(high + at);
            sum0 = nibble_step(sum0, _mm512_loadu_si512(row0 + at), lows, highs, mask);
            sum1 = nibble_step(sum1, _mm512_loadu_si512(row1 + at), lows, highs, mask);
            sum2 = nibble_step(sum2, _mm512_loadu_si512(row2 + at), lows, highs, mask);
            sum3 = nibble_step(sum3, _mm512_loadu_si512(row3 + at), lows, highs, mask);
        }
        if (at < bytes) {
            const __m512i lows = load_part(low + at, rest), highs = load_part(high + at, rest);
            sum0 = nibble_step(sum0, load_part(row0 + at, rest), lows, highs, mask);
            sum1 = nibble_step(sum1, load_part(row1 + at, rest), lows, highs, mask);
            sum2 = nibble_step(sum2, load_part(row2 + at, rest), lows, highs, mask);
            sum3 = nibble_step(sum3, load_part(row3 + at, rest), lows, highs, mask);
        }
        _mm_storeu_si128(reinterpret_cast<__m128i*>(out + row), totals(sum0, sum1, sum2, sum3));
    }
    for (; row < count; ++row) {
        __m512i sums = _mm512_setzero_si512();
        size_t at = 0;
        for (; at + 64 <= bytes; at += 64) {
            sums = nibble_step(sums, _mm512_loadu_si512(rows[row] + at), _mm512_loadu_si512(low + at),
                               _mm512_loadu_si512(high + at), mask);
        }
        if (at < bytes) {
            sums = nibble_step(sums, load_part(rows[row] + at, rest), load_part(low + at, rest),
                               load_part(high + at, rest), mask);
        }
        out[row] = _mm512_reduce_add_epi32(sums);
    }
}

TARGET void byte_dots(const uint8_t* left, const int8_t* const* rights, size_t count, size_t bytes, int32_t* out) {
    size_t row = 0;
    for (; row + 4 <= count; row += 4) {
        __m512i sum0 = _mm512_setzero_si512(), sum1 = sum0, sum2 = sum0, sum3 = sum0;
        for (size_t at = 0; at < bytes; at += 64) {
            const __m512i part = _mm512_loadu_si512(left + at);
            sum0 = _mm512_dpbusd_epi32(sum0, part, _mm512_loadu_si512(rights[row] + at));
            sum1 = _mm512_dpbusd_epi32(sum1, part, _mm512_loadu_si512(rights[row + 1] + at));
            sum2 = _mm512_dpbusd_epi32(sum2, part, _mm512_loadu_si512(rights[row + 2] + at));
            sum3 = _mm512_dpbusd_epi32(sum3, part, _mm512_loadu_si512(rights[row + 3] + at));
        }
        _mm_storeu_si128(reinterpret_cast<__m128i*>(out + row), totals(sum0, sum1, sum2, sum3));
    }
    for (; row < count; ++row) {
        __m512i sums = _mm512_setzero_si512();
        for (size_t at = 0; at < bytes; at += 64) {
            sums = _mm512_dpbusd_epi32(sums, _mm512_loadu_si512(left + at), _mm512_loadu_si512(rights[row] + at));
        }
        out[row] = _mm512_reduce_add_epi32(sums);
    }
}

TARGET void byte_tile(const uint8_t* const* lefts, const int8_t* const* rights, size_t bytes, int32_t* out) {
    __m512i sums[4][4];
    for (auto& line : sums) {
        for (__m512i& sum : line) sum = _mm512_setzero_si512();
    }
    for (size_t at = 0; at < bytes; at += 64) {
        const __m512i right0 = _mm512_loadu_si512(rights[0] + at), right1 = _mm512_loadu_si512(rights[1] + at),
                      right2 = _mm512_loadu_si512(rights[2] + at), right3 = _mm512_loadu_si512(rights[3] + at);
        for (size_t line = 0; line < 4; ++line) {
            const __m512i left = _mm512_loadu_si512(lefts[line] + at);
            sums[line][0] = _mm512_dpbusd_epi32(sums[line][0], left, right0);
            sums[line][1] = _mm512_dpbusd_epi32(sums[line][1], left, right1);
            sums[line][2] = _mm512_dpbusd_epi32(sums[line][2], left, right2);
            sums[line][3] = _mm512_dpbusd_epi32(sums[line][3], left, right3);
        }
    }
    for (size_t line = 0; line < 4; ++line) {
        _mm_storeu_si128(reinterpret_cast<__m128i*>(out + line * 4),
                         totals(sums[line][0], sums[line][1], sums[line][2], sums[line][3]));
    }
}

HELPER __m128i fold_words(__m512i sums) {
    const __m256i half = _mm256_add_epi16(_mm512_castsi512_si256(sums), _mm512_extracti64x4_epi64(sums, 1));
    return _mm_add_epi16(_mm256_castsi256_si128(half), _mm256_extracti128_si256(half, 1));
}

// As in codes_avx2.cpp, four groups at a time.
TARGET void scan_block(const uint8_t* block, const uint8_t* lut, size_t groups, uint16_t* out) {
    const __m512i mask = _mm512_set1_epi8(15);
    __m512i low_all = _mm512_setzero_si512(), low_odd = low_all, high_all = low_all, high_odd = low_all;
    for (size_t at = 0; at < groups * 16; at += 64) {
        const __m512i codes = _mm512_loadu_si512(block + at), table = _mm512_loadu_si512(lut + at);
        const __m512i low = _mm512_shuffle_epi8(table, _mm512_and_si512(codes, mask));
        const __m512i high = _mm512_shuffle_epi8(table, _mm512_and_si512(_mm512_srli_epi16(codes, 4), mask));
        low_all = _mm512_add_epi16(low_all, low);
        low_odd = _mm512_add_epi16(low_odd, _mm512_srli_epi16(low, 8));
        high_all = _mm512_add_epi16(high_all, high);
        high_odd = _mm512_add_epi16(high_odd, _mm512_srli_epi16(high, 8));
    }
    low_all = _mm512_sub_epi16(low_all, _mm512_slli_epi16(low_odd, 8));
    high_all = _mm512_sub_epi16(high_all, _mm512_slli_epi16(high_odd, 8));
    const __m128i low_even = fold_words(low_all), low_rest = fold_words(low_odd);
    const __m128i high_even = fold_words(high_all), high_rest = fold_words(high_odd);
    __m128i* place = reinterpret_cast<__m128i*>(out);
    _mm_storeu_si128(place, _mm_unpacklo_epi16(low_even, low_rest));
    _mm_storeu_si128(place + 1, _mm_unpackhi_epi16(low_even, low_rest));
    _mm_storeu_si128(place + 2, _mm_unpacklo_epi16(high_even, high_rest));
    _mm_storeu_si128(place + 3, _mm_unpackhi_epi16(high_even, high_rest));
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

const CodeKernels AVX512_CODES = {
    "avx512", nibble_dots, byte_dots, byte_tile, scan_block, hadamard, extent, fit_nibbles, fit_bytes,
    scan_near,
};

}  // namespace ruvector

#endif
