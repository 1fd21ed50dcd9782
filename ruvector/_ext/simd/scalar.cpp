// Kernels in plain C++: the fallback of every CPU, and what the faster ones are compared with.
#include <cmath>
#include <cstring>

#include "tables.h"

namespace ruvector {
namespace {

// Independent sums: they let the compiler use whatever vectors the baseline has, and they keep the rounding
// error of 16,000 dimensions as small as that of 1,000.
constexpr size_t LANES = 16;

// Rows may start at any byte (mapped files, COPY buffers), so every load goes through memcpy.
inline float load(const float* values, size_t at) {
    float value;
    std::memcpy(&value, reinterpret_cast<const unsigned char*>(values) + at * sizeof(float), sizeof value);
    return value;
}

inline float float_of(uint32_t bits) {
    float value;
    std::memcpy(&value, &bits, sizeof value);
    return value;
}

// Subnormal halves are made by subtraction, not by scaling a subnormal float: the result is then the same in
// processes that flush subnormals to zero.
inline float load(const uint16_t* values, size_t at) {
    uint16_t half;
    std::memcpy(&half, reinterpret_cast<const unsigned char*>(values) + at * sizeof half, sizeof half);
    const uint32_t magnitude = (half & 0x7fffu) << 13;
    const uint32_t sign = (half & 0x8000u) << 16;
    const float subnormal = float_of(0x38800000u + magnitude) - float_of(0x38800000u);
    uint32_t bits = magnitude + 0x38000000u;
    if (magnitude >= 0x0f800000u) bits = magnitude | 0x7f800000u;  // infinity and NaN
    uint32_t subnormal_bits;
    std::memcpy(&subnormal_bits, &subnormal, sizeof subnormal_bits);
    if (magnitude < 0x00800000u) bits = subnormal_bits;
    return float_of(bits | sign);
}

struct SquaredDifference {
    static float of(float left, float right) { return (left - right) * (left - right); }
};
struct Product {
    static float of(float left, float right) { return left * right; }
};
struct AbsoluteDifference {
    static float of(float left, float right) { return std::fabs(left - right); }
};

template <class Term, class Left, class Right>
inline float sum_of(const Left* left, const Right* right, size_t dims) {
    float sums[LANES] = {};
    size_t at = 0;
    for (; at + LANES <= dims; at += LANES) {
        for (size_t lane = 0; lane < LANES; ++lane) {
            sums[lane] += Term::of(load(left, at + lane), load(right, at + lane));
        }
    }
    for (size_t lane = 0; at < dims; ++at, ++lane) {
        sums[lane] += Term::of(load(left, at), load(right, at));
    }
    for (size_t width = LANES / 2; width > 0; width /= 2) {
        for (size_t lane = 0; lane < width; ++lane) sums[lane] += sums[lane + width];
    }
    return sums[0];
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

// Without the POPCNT instruction the compiler would call a table lookup; adding neighbours in place is faster.
inline uint32_t popcount(uint64_t word) {
    word -= (word >> 1) & 0x5555555555555555u;
    word = (word & 0x3333333333333333u) + ((word >> 2) & 0x3333333333333333u);
    word = (word + (word >> 4)) & 0x0f0f0f0f0f0f0f0fu;
    return static_cast<uint32_t>((word * 0x0101010101010101u) >> 56);
}

// The up to eight bytes at `at`, zero-filled: no read passes the end of a row.
inline uint64_t load_word(const uint8_t* bytes, size_t at, size_t end) {
    uint64_t word = 0;
    const size_t count = end - at < sizeof word ? end - at : sizeof word;
    std::memcpy(&word, bytes + at, count);
    return word;
}

float hamming(const uint8_t* left, const uint8_t* right, size_t bytes) {
    uint64_t different = 0;
    for (size_t at = 0; at < bytes; at += 8) {
        different += popcount(load_word(left, at, bytes) ^ load_word(right, at, bytes));
    }
    return static_cast<float>(different);
}

float jaccard(const uint8_t* left, const uint8_t* right, size_t bytes) {
    uint64_t both = 0;
    uint64_t any = 0;
    for (size_t at = 0; at < bytes; at += 8) {
        const uint64_t left_word = load_word(left, at, bytes);
        const uint64_t right_word = load_word(right, at, bytes);
        both += popcount(left_word & right_word);
        any += popcount(left_word | right_word);
    }
    if (both == 0) return 1.0F;
    return static_cast<float>(1.0 - static_cast<double>(both) / static_cast<double>(any));
}

}  // namespace

const Kernels SCALAR_KERNELS = {
    "scalar", l2_squared_f32, dot_f32, l1_f32, l2_squared_f16, dot_f16, l1_f16, hamming, jaccard, norm_squared_f16,
    &SCALAR_CODES,
};

}  // namespace ruvector
