// Loops over rows: one query against many rows, norms, and the search for values that are not numbers.
//
// Results depend on the row and the query only, never on chunk size, thread count, stride or alignment.
#ifndef RUVECTOR_ROWS_HPP
#define RUVECTOR_ROWS_HPP

#include <cfloat>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>

#include "simd/kernels.h"

namespace ruvector {

// The order is that of METRIC_CODES in distance.pyx.
enum MetricCode { METRIC_L2, METRIC_IP, METRIC_COSINE, METRIC_L1, METRIC_HAMMING, METRIC_JACCARD };

// `count` rows of `width` elements (bytes for bits), `stride` bytes apart; a row may start at any address.
struct Rows {
    const uint8_t* data;
    ptrdiff_t stride;
    size_t count;
    size_t width;
};

namespace {

struct Float32 {
    using Element = float;
    static PairF32 l2_squared() { return kernels().l2_squared_f32; }
    static PairF32 dot() { return kernels().dot_f32; }
    static PairF32 l1() { return kernels().l1_f32; }
    static float norm_squared(const float* row, size_t dims) { return kernels().dot_f32(row, row, dims); }
    static double value(const uint8_t* row, size_t at) {
        float value;
        std::memcpy(&value, row + at * sizeof value, sizeof value);
        return value;
    }
    // The sign bit of the answer is set when the value is infinite or NaN: adding one carries a full exponent into it.
    static uint32_t nonfinite_mark(const uint8_t* row, size_t at) {
        uint32_t bits;
        std::memcpy(&bits, row + at * sizeof bits, sizeof bits);
        return ((bits & 0x7f800000u) + 0x00800000u) & 0x80000000u;
    }
};

struct Float16 {
    using Element = uint16_t;
    static PairF16 l2_squared() { return kernels().l2_squared_f16; }
    static PairF16 dot() { return kernels().dot_f16; }
    static PairF16 l1() { return kernels().l1_f16; }
    static float norm_squared(const uint16_t* row, size_t dims) { return kernels().norm_squared_f16(row, dims); }
    static double value(const uint8_t* row, size_t at) {
        uint16_t half;
        std::memcpy(&half, row + at * sizeof half, sizeof half);
        const int exponent = (half >> 10) & 0x1f;
        const int mantissa = half & 0x3ff;
        double value = NAN;
        if (exponent == 0) {
            value = std::ldexp(mantissa, -24);
        } else if (exponent < 31) {
            value = std::ldexp(mantissa + 1024, exponent - 25);
        } else if (mantissa == 0) {
            value = INFINITY;
        }
        return (half & 0x8000) != 0 ? -value : value;
    }
    static uint16_t nonfinite_mark(const uint8_t* row, size_t at) {
        uint16_t half;
        std::memcpy(&half, row + at * sizeof half, sizeof half);
        return static_cast<uint16_t>(((half & 0x7c00u) + 0x0400u) & 0x8000u);
    }
};

inline const uint8_t* row_at(const Rows& rows, size_t at) {
    return rows.data + static_cast<ptrdiff_t>(at) * rows.stride;
}

template <class Type>
inline const typename Type::Element* elements(const uint8_t* row) {
    return reinterpret_cast<const typename Type::Element*>(row);
}

// std::isfinite may be compiled away under fast-math; the bits cannot.
inline bool is_finite(float value) {
    return Float32::nonfinite_mark(reinterpret_cast<const uint8_t*>(&value), 0) == 0;
}

template <class Type>
double norm_squared_double(const uint8_t* row, size_t dims) {
    // Four sums in flight: one would wait for itself at every step.
    double sums[4] = {};
    size_t at = 0;
    for (; at + 4 <= dims; at += 4) {
        for (size_t lane = 0; lane < 4; ++lane) {
            sums[lane] += Type::value(row, at + lane) * Type::value(row, at + lane);
        }
    }
    for (; at < dims; ++at) sums[0] += Type::value(row, at) * Type::value(row, at);
    return (sums[0] + sums[1]) + (sums[2] + sums[3]);
}

// One distance in double precision, for rows whose squares leave the range of a float.
template <class Type>
double distance_double(int metric, const float* query, const uint8_t* row, size_t dims) {
    const auto* query_bytes = reinterpret_cast<const uint8_t*>(query);
    double sum = 0;
    for (size_t at = 0; at < dims; ++at) {
        const double left = Float32::value(query_bytes, at);
        const double right = Type::value(row, at);
        if (metric == METRIC_L2) {
            sum += (left - right) * (left - right);
        } else if (metric == METRIC_L1) {
            sum += std::fabs(left - right);
        } else {
            sum += left * right;
        }
    }
    if (metric == METRIC_L2) return std::sqrt(sum);
    if (metric == METRIC_L1) return sum;
    if (metric == METRIC_IP) return -sum;
    const double cosine = sum / (std::sqrt(norm_squared_double<Float32>(query_bytes, dims)) *
                                 std::sqrt(norm_squared_double<Type>(row, dims)));
    return cosine > 1 ? 0 : cosine < -1 ? 2 : 1 - cosine;  // NaN, of a zero vector, stays NaN
}

template <class Type, class Pair>
void apply(Pair pair, const float* query, const Rows& rows, float* out) {
    for (size_t at = 0; at < rows.count; ++at) {
        out[at] = pair(query, elements<Type>(row_at(rows, at)), rows.width);
    }
}

template <class Type>
void fill_cosine(const float* query, const Rows& rows, float* out) {
    const auto dot = Type::dot();
    const float query_norm = Float32::norm_squared(query, rows.width);
    for (size_t at = 0; at < rows.count; ++at) {
        const auto* row = elements<Type>(row_at(rows, at));
        const float row_norm = Type::norm_squared(row, rows.width);
        // Norms outside a float's normal range are left to the double-precision pass.
        const bool is_safe =
            query_norm >= FLT_MIN && query_norm <= FLT_MAX && row_norm >= FLT_MIN && row_norm <= FLT_MAX;
        const double cosine =
            dot(query, row, rows.width) / std::sqrt(static_cast<double>(query_norm) * static_cast<double>(row_norm));
        const double distance = cosine > 1 ? 0 : cosine < -1 ? 2 : 1 - cosine;
        out[at] = is_safe ? static_cast<float>(distance) : NAN;
    }
}

template <class Type>
void fill_distances(int metric, const float* query, const Rows& rows, float* out) {
    if (metric == METRIC_L2) {
        apply<Type>(Type::l2_squared(), query, rows, out);
        for (size_t at = 0; at < rows.count; ++at) out[at] = std::sqrt(out[at]);
    } else if (metric == METRIC_IP) {
        apply<Type>(Type::dot(), query, rows, out);
        for (size_t at = 0; at < rows.count; ++at) out[at] = -out[at];
    } else if (metric == METRIC_L1) {
        apply<Type>(Type::l1(), query, rows, out);
    } else {
        fill_cosine<Type>(query, rows, out);
    }
    for (size_t at = 0; at < rows.count; ++at) {
        if (is_finite(out[at])) continue;
        out[at] = static_cast<float>(distance_double<Type>(metric, query, row_at(rows, at), rows.width));
    }
}

template <class Type>
ptrdiff_t find_nonfinite(const Rows& rows) {
    for (size_t at = 0; at < rows.count; ++at) {
        const uint8_t* row = row_at(rows, at);
        decltype(Type::nonfinite_mark(row, 0)) marks = 0;
        for (size_t dim = 0; dim < rows.width; ++dim) marks |= Type::nonfinite_mark(row, dim);
        if (marks != 0) return static_cast<ptrdiff_t>(at);
    }
    return -1;
}

template <class Type>
void fill_norms(const Rows& rows, float* out) {
    for (size_t at = 0; at < rows.count; ++at) {
        out[at] = static_cast<float>(std::sqrt(norm_squared_double<Type>(row_at(rows, at), rows.width)));
    }
}

template <class Type>
ptrdiff_t fill_normalized(const Rows& rows, float* out) {
    for (size_t at = 0; at < rows.count; ++at, out += rows.width) {
        const uint8_t* row = row_at(rows, at);
        const double norm = std::sqrt(norm_squared_double<Type>(row, rows.width));
        if (!(norm > 0 && norm <= DBL_MAX)) return static_cast<ptrdiff_t>(at);
        for (size_t dim = 0; dim < rows.width; ++dim) out[dim] = static_cast<float>(Type::value(row, dim) / norm);
    }
    return -1;
}

}  // namespace

// Distances with pgvector's signs; a zero vector under cosine gives NaN, as in pgvector.
inline void distances_f32(int metric, const float* query, Rows rows, float* out) noexcept {
    fill_distances<Float32>(metric, query, rows, out);
}
inline void distances_f16(int metric, const float* query, Rows rows, float* out) noexcept {
    fill_distances<Float16>(metric, query, rows, out);
}
inline void distances_bits(int metric, const uint8_t* query, Rows rows, float* out) noexcept {
    const PairBits pair = metric == METRIC_HAMMING ? kernels().hamming : kernels().jaccard;
    for (size_t at = 0; at < rows.count; ++at) out[at] = pair(query, row_at(rows, at), rows.width);
}

// The number of the first row with NaN or infinity, or -1.
inline ptrdiff_t first_nonfinite_f32(Rows rows) noexcept { return find_nonfinite<Float32>(rows); }
inline ptrdiff_t first_nonfinite_f16(Rows rows) noexcept { return find_nonfinite<Float16>(rows); }

// Lengths of the rows, summed in double precision.
inline void norms_f32(Rows rows, float* out) noexcept { fill_norms<Float32>(rows, out); }
inline void norms_f16(Rows rows, float* out) noexcept { fill_norms<Float16>(rows, out); }

// Writes rows of length 1; stops at the first row without a direction and returns its number, else -1.
inline ptrdiff_t normalize_f32(Rows rows, float* out) noexcept { return fill_normalized<Float32>(rows, out); }
inline ptrdiff_t normalize_f16(Rows rows, float* out) noexcept { return fill_normalized<Float16>(rows, out); }

}  // namespace ruvector

#endif
