// Kernels for AVX2 with FMA and F16C: eight floats at a time, four independent sums.
//
// Instruction sets are enabled per function, so nothing here can leak into code other CPUs run.
#include "tables.h"

#if RUVECTOR_X86

#include <immintrin.h>

#include <cstring>

#define TARGET __attribute__((target("avx2,fma,f16c,popcnt")))
#define HELPER TARGET static inline __attribute__((always_inline))

namespace ruvector {
namespace {

alignas(32) const int32_t TAIL_MASKS[16] = {-1, -1, -1, -1, -1, -1, -1, -1, 0, 0, 0, 0, 0, 0, 0, 0};

HELPER __m256 load(const float* values) { return _mm256_loadu_ps(values); }
HELPER __m256 load(const uint16_t* values) {
    return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(values)));
}
// The last 1 to 7 values; zeros behind them. Reads nothing past the end.
HELPER __m256 load_tail(const float* values, size_t count) {
    const __m256i mask = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(TAIL_MASKS + 8 - count));
    return _mm256_maskload_ps(values, mask);
}
HELPER __m256 load_tail(const uint16_t* values, size_t count) {
    alignas(16) uint16_t padded[8] = {};
    std::memcpy(padded, values, count * sizeof(uint16_t));
    return _mm256_cvtph_ps(_mm_load_si128(reinterpret_cast<const __m128i*>(padded)));
}

struct SquaredDifference {
    HELPER __m256 add(__m256 sum, __m256 left, __m256 right) {
        const __m256 difference = _mm256_sub_ps(left, right);
        return _mm256_fmadd_ps(difference, difference, sum);
    }
};
struct Product {
    HELPER __m256 add(__m256 sum, __m256 left, __m256 right) { return _mm256_fmadd_ps(left, right, sum); }
};
struct AbsoluteDifference {
    HELPER __m256 add(__m256 sum, __m256 left, __m256 right) {
        const __m256 difference = _mm256_sub_ps(left, right);
        return _mm256_add_ps(sum, _mm256_andnot_ps(_mm256_set1_ps(-0.0F), difference));
    }
};

HELPER float total(__m256 sum) {
    __m128 half = _mm_add_ps(_mm256_castps256_ps128(sum), _mm256_extractf128_ps(sum, 1));
    half = _mm_add_ps(half, _mm_movehl_ps(half, half));
    return _mm_cvtss_f32(_mm_add_ss(half, _mm_movehdup_ps(half)));
}

template <class Term, class Left, class Right>
HELPER float sum_of(const Left* left, const Right* right, size_t dims) {
    __m256 sum0 = _mm256_setzero_ps();
    __m256 sum1 = _mm256_setzero_ps();
    __m256 sum2 = _mm256_setzero_ps();
    __m256 sum3 = _mm256_setzero_ps();
    size_t at = 0;
    for (; at + 32 <= dims; at += 32) {
        sum0 = Term::add(sum0, load(left + at), load(right + at));
        sum1 = Term::add(sum1, load(left + at + 8), load(right + at + 8));
        sum2 = Term::add(sum2, load(left + at + 16), load(right + at + 16));
        sum3 = Term::add(sum3, load(left + at + 24), load(right + at + 24));
    }
    for (; at + 8 <= dims; at += 8) sum0 = Term::add(sum0, load(left + at), load(right + at));
    if (at < dims) sum1 = Term::add(sum1, load_tail(left + at, dims - at), load_tail(right + at, dims - at));
    return total(_mm256_add_ps(_mm256_add_ps(sum0, sum1), _mm256_add_ps(sum2, sum3)));
}

TARGET float l2_squared_f32(const float* left, const float* right, size_t dims) {
    return sum_of<SquaredDifference>(left, right, dims);
}
TARGET float dot_f32(const float* left, const float* right, size_t dims) {
    return sum_of<Product>(left, right, dims);
}
TARGET float l1_f32(const float* left, const float* right, size_t dims) {
    return sum_of<AbsoluteDifference>(left, right, dims);
}
TARGET float l2_squared_f16(const float* query, const uint16_t* row, size_t dims) {
    return sum_of<SquaredDifference>(query, row, dims);
}
TARGET float dot_f16(const float* query, const uint16_t* row, size_t dims) {
    return sum_of<Product>(query, row, dims);
}
TARGET float l1_f16(const float* query, const uint16_t* row, size_t dims) {
    return sum_of<AbsoluteDifference>(query, row, dims);
}
TARGET float norm_squared_f16(const uint16_t* row, size_t dims) { return sum_of<Product>(row, row, dims); }

HELPER __m256i load_bits(const uint8_t* bytes) {
    return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(bytes));
}
HELPER __m256i load_bits_tail(const uint8_t* bytes, size_t count) {
    alignas(32) uint8_t padded[32] = {};
    std::memcpy(padded, bytes, count);
    return _mm256_load_si256(reinterpret_cast<const __m256i*>(padded));
}

// Set bits of every 8-byte lane: a table lookup per half byte, then a sum over bytes.
HELPER __m256i popcount(__m256i bits) {
    const __m256i table = _mm256_setr_epi8(0, 1, 1, 2, 1, 2, 2, 3, 1, 2, 2, 3, 2, 3, 3, 4,  //
                                           0, 1, 1, 2, 1, 2, 2, 3, 1, 2, 2, 3, 2, 3, 3, 4);
    const __m256i low = _mm256_set1_epi8(0x0f);
    const __m256i counts = _mm256_add_epi8(_mm256_shuffle_epi8(table, _mm256_and_si256(bits, low)),
                                           _mm256_shuffle_epi8(table, _mm256_and_si256(_mm256_srli_epi16(bits, 4), low)));
    return _mm256_sad_epu8(counts, _mm256_setzero_si256());
}
HELPER uint64_t total_bits(__m256i sums) {
    alignas(32) uint64_t lanes[4];
    _mm256_store_si256(reinterpret_cast<__m256i*>(lanes), sums);
    return lanes[0] + lanes[1] + lanes[2] + lanes[3];
}

TARGET float hamming(const uint8_t* left, const uint8_t* right, size_t bytes) {
    __m256i sums = _mm256_setzero_si256();
    size_t at = 0;
    for (; at + 32 <= bytes; at += 32) {
        sums = _mm256_add_epi64(sums, popcount(_mm256_xor_si256(load_bits(left + at), load_bits(right + at))));
    }
    if (at < bytes) {
        const __m256i different =
            _mm256_xor_si256(load_bits_tail(left + at, bytes - at), load_bits_tail(right + at, bytes - at));
        sums = _mm256_add_epi64(sums, popcount(different));
    }
    return static_cast<float>(total_bits(sums));
}

TARGET float jaccard(const uint8_t* left, const uint8_t* right, size_t bytes) {
    __m256i both = _mm256_setzero_si256();
    __m256i any = _mm256_setzero_si256();
    size_t at = 0;
    for (; at + 32 <= bytes; at += 32) {
        const __m256i left_bits = load_bits(left + at);
        const __m256i right_bits = load_bits(right + at);
        both = _mm256_add_epi64(both, popcount(_mm256_and_si256(left_bits, right_bits)));
        any = _mm256_add_epi64(any, popcount(_mm256_or_si256(left_bits, right_bits)));
    }
    if (at < bytes) {
        const __m256i left_bits = load_bits_tail(left + at, bytes - at);
        const __m256i right_bits = load_bits_tail(right + at, bytes - at);
        both = _mm256_add_epi64(both, popcount(_mm256_and_si256(left_bits, right_bits)));
        any = _mm256_add_epi64(any, popcount(_mm256_or_si256(left_bits, right_bits)));
    }
    const uint64_t common = total_bits(both);
    if (common == 0) return 1.0F;
    return static_cast<float>(1.0 - static_cast<double>(common) / static_cast<double>(total_bits(any)));
}

}  // namespace

const Kernels AVX2_KERNELS = {
    "avx2", l2_squared_f32, dot_f32, l1_f32, l2_squared_f16, dot_f16, l1_f16, hamming, jaccard, norm_squared_f16,
    &AVX2_CODES,
};

}  // namespace ruvector

#endif
