// Kernels for NEON, which every 64-bit ARM CPU has: four floats at a time, four independent sums.
#include "tables.h"

#if defined(__aarch64__)

#include <arm_neon.h>

#include <cstring>

namespace ruvector {
namespace {

inline float32x4_t load(const float* values) {
    return vreinterpretq_f32_u8(vld1q_u8(reinterpret_cast<const uint8_t*>(values)));
}
inline float32x4_t load(const uint16_t* values) {
    return vcvt_f32_f16(vreinterpret_f16_u8(vld1_u8(reinterpret_cast<const uint8_t*>(values))));
}
// The last 1 to 3 values; zeros behind them. Reads nothing past the end.
template <class Element>
inline float32x4_t load_tail(const Element* values, size_t count) {
    Element padded[4] = {};
    std::memcpy(padded, values, count * sizeof(Element));
    return load(padded);
}

struct SquaredDifference {
    static float32x4_t add(float32x4_t sum, float32x4_t left, float32x4_t right) {
        const float32x4_t difference = vsubq_f32(left, right);
        return vfmaq_f32(sum, difference, difference);
    }
};
struct Product {
    static float32x4_t add(float32x4_t sum, float32x4_t left, float32x4_t right) {
        return vfmaq_f32(sum, left, right);
    }
};
struct AbsoluteDifference {
    static float32x4_t add(float32x4_t sum, float32x4_t left, float32x4_t right) {
        return vaddq_f32(sum, vabdq_f32(left, right));
    }
};

template <class Term, class Left, class Right>
inline float sum_of(const Left* left, const Right* right, size_t dims) {
    float32x4_t sum0 = vdupq_n_f32(0);
    float32x4_t sum1 = vdupq_n_f32(0);
    float32x4_t sum2 = vdupq_n_f32(0);
    float32x4_t sum3 = vdupq_n_f32(0);
    size_t at = 0;
    for (; at + 16 <= dims; at += 16) {
        sum0 = Term::add(sum0, load(left + at), load(right + at));
        sum1 = Term::add(sum1, load(left + at + 4), load(right + at + 4));
        sum2 = Term::add(sum2, load(left + at + 8), load(right + at + 8));
        sum3 = Term::add(sum3, load(left + at + 12), load(right + at + 12));
    }
    for (; at + 4 <= dims; at += 4) sum0 = Term::add(sum0, load(left + at), load(right + at));
    if (at < dims) sum1 = Term::add(sum1, load_tail(left + at, dims - at), load_tail(right + at, dims - at));
    return vaddvq_f32(vaddq_f32(vaddq_f32(sum0, sum1), vaddq_f32(sum2, sum3)));
}

float l2_squared_f32(const float* left, const float* right, size_t dims) {
    return sum_of<SquaredDifference>(left, right, dims);
}
float dot_f32(const float* left, const float* right, size_t dims) { return sum_of<Product>(left, right, dims); }
float l1_f32(const float* left, const float* right, size_t dims) {
    return sum_of<AbsoluteDifference>(left, right, dims);
}
float l2_squared_f16(const float* query, const uint16_t* row, size_t dims) {
    return sum_of<SquaredDifference>(query, row, dims);
}
float dot_f16(const float* query, const uint16_t* row, size_t dims) { return sum_of<Product>(query, row, dims); }
float l1_f16(const float* query, const uint16_t* row, size_t dims) {
    return sum_of<AbsoluteDifference>(query, row, dims);
}
float norm_squared_f16(const uint16_t* row, size_t dims) { return sum_of<Product>(row, row, dims); }

inline uint8x16_t load_bits(const uint8_t* bytes, size_t at, size_t end) {
    if (end - at >= 16) return vld1q_u8(bytes + at);
    uint8_t padded[16] = {};
    std::memcpy(padded, bytes + at, end - at);
    return vld1q_u8(padded);
}
// Adds the set bits of `bits` to two 8-byte sums.
inline uint64x2_t add_popcount(uint64x2_t sums, uint8x16_t bits) {
    return vpadalq_u32(sums, vpaddlq_u16(vpaddlq_u8(vcntq_u8(bits))));
}

float hamming(const uint8_t* left, const uint8_t* right, size_t bytes) {
    uint64x2_t sums = vdupq_n_u64(0);
    for (size_t at = 0; at < bytes; at += 16) {
        sums = add_popcount(sums, veorq_u8(load_bits(left, at, bytes), load_bits(right, at, bytes)));
    }
    return static_cast<float>(vaddvq_u64(sums));
}

float jaccard(const uint8_t* left, const uint8_t* right, size_t bytes) {
    uint64x2_t both = vdupq_n_u64(0);
    uint64x2_t any = vdupq_n_u64(0);
    for (size_t at = 0; at < bytes; at += 16) {
        const uint8x16_t left_bits = load_bits(left, at, bytes);
        const uint8x16_t right_bits = load_bits(right, at, bytes);
        both = add_popcount(both, vandq_u8(left_bits, right_bits));
        any = add_popcount(any, vorrq_u8(left_bits, right_bits));
    }
    const uint64_t common = vaddvq_u64(both);
    if (common == 0) return 1.0F;
    return static_cast<float>(1.0 - static_cast<double>(common) / static_cast<double>(vaddvq_u64(any)));
}

}  // namespace

const Kernels NEON_KERNELS = {
    "neon", l2_squared_f32, dot_f32, l1_f32, l2_squared_f16, dot_f16, l1_f16, hamming, jaccard, norm_squared_f16,
    &NEON_CODES,
};

}  // namespace ruvector

#endif
