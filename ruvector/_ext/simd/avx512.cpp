// Kernels for AVX-512 F, BW and VL: sixteen floats at a time; masked loads make tails as cheap as full vectors.
#include "tables.h"

#if RUVECTOR_X86

// gcc 12 takes the "undefined" starting values inside its own intrinsics for mistakes of ours.
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif

#include <immintrin.h>

#define TARGET __attribute__((target("avx512f,avx512bw,avx512vl,avx2,fma,f16c")))
#define TARGET_POPCOUNT __attribute__((target("avx512f,avx512bw,avx512vl,avx512vpopcntdq,avx2,fma,f16c")))
#define HELPER TARGET static inline __attribute__((always_inline))
#define HELPER_POPCOUNT TARGET_POPCOUNT static inline __attribute__((always_inline))

namespace ruvector {
namespace {

HELPER __m512 load(const float* values) { return _mm512_loadu_ps(values); }
HELPER __m512 load(const uint16_t* values) {
    return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(values)));
}
// The values the mask names, zeros elsewhere; what is masked out is not read.
HELPER __m512 load_tail(const float* values, __mmask16 mask) { return _mm512_maskz_loadu_ps(mask, values); }
HELPER __m512 load_tail(const uint16_t* values, __mmask16 mask) {
    return _mm512_cvtph_ps(_mm256_maskz_loadu_epi16(mask, values));
}

struct SquaredDifference {
    HELPER __m512 add(__m512 sum, __m512 left, __m512 right) {
        const __m512 difference = _mm512_sub_ps(left, right);
        return _mm512_fmadd_ps(difference, difference, sum);
    }
};
struct Product {
    HELPER __m512 add(__m512 sum, __m512 left, __m512 right) { return _mm512_fmadd_ps(left, right, sum); }
};
struct AbsoluteDifference {
    HELPER __m512 add(__m512 sum, __m512 left, __m512 right) {
        return _mm512_add_ps(sum, _mm512_abs_ps(_mm512_sub_ps(left, right)));
    }
};

template <class Term, class Left, class Right>
HELPER float sum_of(const Left* left, const Right* right, size_t dims) {
    __m512 sum0 = _mm512_setzero_ps();
    __m512 sum1 = _mm512_setzero_ps();
    __m512 sum2 = _mm512_setzero_ps();
    __m512 sum3 = _mm512_setzero_ps();
    size_t at = 0;
    for (; at + 64 <= dims; at += 64) {
        sum0 = Term::add(sum0, load(left + at), load(right + at));
        sum1 = Term::add(sum1, load(left + at + 16), load(right + at + 16));
        sum2 = Term::add(sum2, load(left + at + 32), load(right + at + 32));
        sum3 = Term::add(sum3, load(left + at + 48), load(right + at + 48));
    }
    for (; at + 16 <= dims; at += 16) sum0 = Term::add(sum0, load(left + at), load(right + at));
    if (at < dims) {
        const auto mask = static_cast<__mmask16>((1U << (dims - at)) - 1U);
        sum1 = Term::add(sum1, load_tail(left + at, mask), load_tail(right + at, mask));
    }
    return _mm512_reduce_add_ps(_mm512_add_ps(_mm512_add_ps(sum0, sum1), _mm512_add_ps(sum2, sum3)));
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

HELPER __m512i load_bits(const uint8_t* bytes, size_t at, size_t end) {
    const __mmask64 mask = end - at >= 64 ? ~0ULL : (1ULL << (end - at)) - 1ULL;
    return _mm512_maskz_loadu_epi8(mask, bytes + at);
}
HELPER uint64_t total_bits(__m512i sums) { return static_cast<uint64_t>(_mm512_reduce_add_epi64(sums)); }

// Set bits of every 8-byte lane on CPUs without VPOPCNTDQ: a table lookup per half byte, then a sum over bytes.
HELPER __m512i popcount_by_table(__m512i bits) {
    const __m512i table = _mm512_broadcast_i32x4(_mm_setr_epi8(0, 1, 1, 2, 1, 2, 2, 3, 1, 2, 2, 3, 2, 3, 3, 4));
    const __m512i low = _mm512_set1_epi8(0x0f);
    const __m512i counts =
        _mm512_add_epi8(_mm512_shuffle_epi8(table, _mm512_and_si512(bits, low)),
                        _mm512_shuffle_epi8(table, _mm512_and_si512(_mm512_srli_epi16(bits, 4), low)));
    return _mm512_sad_epu8(counts, _mm512_setzero_si512());
}

HELPER float share_missing(uint64_t common, uint64_t any) {
    if (common == 0) return 1.0F;
    return static_cast<float>(1.0 - static_cast<double>(common) / static_cast<double>(any));
}

TARGET float hamming_by_table(const uint8_t* left, const uint8_t* right, size_t bytes) {
    __m512i sums = _mm512_setzero_si512();
    for (size_t at = 0; at < bytes; at += 64) {
        const __m512i different = _mm512_xor_si512(load_bits(left, at, bytes), load_bits(right, at, bytes));
        sums = _mm512_add_epi64(sums, popcount_by_table(different));
    }
    return static_cast<float>(total_bits(sums));
}

TARGET float jaccard_by_table(const uint8_t* left, const uint8_t* right, size_t bytes) {
    __m512i both = _mm512_setzero_si512();
    __m512i any = _mm512_setzero_si512();
    for (size_t at = 0; at < bytes; at += 64) {
        const __m512i left_bits = load_bits(left, at, bytes);
        const __m512i right_bits = load_bits(right, at, bytes);
        both = _mm512_add_epi64(both, popcount_by_table(_mm512_and_si512(left_bits, right_bits)));
        any = _mm512_add_epi64(any, popcount_by_table(_mm512_or_si512(left_bits, right_bits)));
    }
    return share_missing(total_bits(both), total_bits(any));
}

TARGET_POPCOUNT float hamming(const uint8_t* left, const uint8_t* right, size_t bytes) {
    __m512i sums = _mm512_setzero_si512();
    for (size_t at = 0; at < bytes; at += 64) {
        const __m512i different = _mm512_xor_si512(load_bits(left, at, bytes), load_bits(right, at, bytes));
        sums = _mm512_add_epi64(sums, _mm512_popcnt_epi64(different));
    }
    return static_cast<float>(total_bits(sums));
}

TARGET_POPCOUNT float jaccard(const uint8_t* left, const uint8_t* right, size_t bytes) {
    __m512i both = _mm512_setzero_si512();
    __m512i any = _mm512_setzero_si512();
    for (size_t at = 0; at < bytes; at += 64) {
        const __m512i left_bits = load_bits(left, at, bytes);
        const __m512i right_bits = load_bits(right, at, bytes);
        both = _mm512_add_epi64(both, _mm512_popcnt_epi64(_mm512_and_si512(left_bits, right_bits)));
        any = _mm512_add_epi64(any, _mm512_popcnt_epi64(_mm512_or_si512(left_bits, right_bits)));
    }
    return share_missing(total_bits(both), total_bits(any));
}

}  // namespace

const Kernels AVX512_KERNELS = {
    "avx512",       l2_squared_f32, dot_f32, l1_f32, l2_squared_f16, dot_f16, l1_f16, hamming_by_table,
    jaccard_by_table, norm_squared_f16, &AVX2_CODES,
};
const Kernels AVX512_POPCOUNT_KERNELS = {
    "avx512", l2_squared_f32, dot_f32, l1_f32, l2_squared_f16, dot_f16, l1_f16, hamming, jaccard, norm_squared_f16,
    &AVX512_CODES,
};

}  // namespace ruvector

#endif
