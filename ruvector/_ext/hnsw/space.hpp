// What a row is and how far apart two rows are.
#ifndef RUVECTOR_HNSW_SPACE_HPP
#define RUVECTOR_HNSW_SPACE_HPP

#include <cfloat>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <limits>

#include "hnsw/slots.hpp"
#include "simd/kernels.h"

namespace ruvector {

enum class Metric : int { L2 = 0, IP = 1, COSINE = 2, L1 = 3, HAMMING = 4, JACCARD = 5 };
enum class Element : int { F32 = 0, F16 = 1, BIT = 2 };

inline float half_to_float(uint16_t half) {
    uint32_t sign = uint32_t(half & 0x8000u) << 16;
    uint32_t magnitude = uint32_t(half & 0x7FFFu) << 13;
    float value;
    // Moving the exponent by multiplication also renormalises subnormal halves; no branch, so the loop vectorises.
    std::memcpy(&value, &magnitude, sizeof value);
    value *= 0x1p112f;
    uint32_t bits;
    std::memcpy(&bits, &value, sizeof bits);
    bits |= sign;
    std::memcpy(&value, &bits, sizeof value);
    return value;
}

// A query, or a stored row in the place of one: f32 numbers or bits, and the inverse of its length under cosine.
struct Probe {
    const void* data;
    float scale;
};

class Space {
  public:
    Space(Metric metric, Element element, size_t dims)
        : metric_(metric), element_(element), dims_(dims), row_bytes_(bytes_of(element, dims)) {
        const Kernels& table = kernels();
        bool l2 = metric == Metric::L2, l1 = metric == Metric::L1;
        f32_ = l2 ? table.l2_squared_f32 : l1 ? table.l1_f32 : table.dot_f32;
        f16_ = l2 ? table.l2_squared_f16 : l1 ? table.l1_f16 : table.dot_f16;
        bits_ = metric == Metric::HAMMING ? table.hamming : table.jaccard;
    }

    size_t dims() const { return dims_; }
    size_t row_bytes() const { return row_bytes_; }
    Metric metric() const { return metric_; }
    Element element() const { return element_; }
    // Bytes of a query: always f32 for numbers, so nothing is lost against f16 rows.
    size_t query_bytes() const { return element_ == Element::BIT ? row_bytes_ : dims_ * sizeof(float); }

    // The order of the metric: squared for l2, all else as pgvector has it. Overflow becomes infinity, never NaN.
    float distance(const Probe& probe, const char* row, float row_scale) const {
        float raw;
        if (element_ == Element::F32) {
            raw = f32_(static_cast<const float*>(probe.data), reinterpret_cast<const float*>(row), dims_);
        } else if (element_ == Element::F16) {
            raw = f16_(static_cast<const float*>(probe.data), reinterpret_cast<const uint16_t*>(row), dims_);
        } else {
            raw = bits_(static_cast<const uint8_t*>(probe.data), reinterpret_cast<const uint8_t*>(row), row_bytes_);
        }
        if (metric_ == Metric::COSINE) raw = 1.0f - raw * probe.scale * row_scale;
        if (metric_ == Metric::IP) raw = -raw;
        return raw == raw ? raw : std::numeric_limits<float>::infinity();
    }

    // The distance as SQL shows it.
    float shown(float distance) const {
        if (metric_ == Metric::L2) return std::sqrt(distance);
        if (metric_ == Metric::COSINE) return distance < 0.0f ? 0.0f : distance > 2.0f ? 2.0f : distance;
        return distance;
    }

    float value(const char* row, size_t dim) const {
        if (element_ == Element::F16) {
            uint16_t half;
            std::memcpy(&half, row + dim * sizeof half, sizeof half);
            return half_to_float(half);
        }
        float number;
        std::memcpy(&number, row + dim * sizeof number, sizeof number);
        return number;
    }

    // A stored row as a probe; f16 rows are widened into `buffer` (dims floats).
    Probe probe(const char* row, float row_scale, float* buffer) const {
        if (element_ != Element::F16) return {row, row_scale};
        const uint16_t* halves = reinterpret_cast<const uint16_t*>(row);
        for (size_t dim = 0; dim < dims_; ++dim) buffer[dim] = half_to_float(halves[dim]);
        return {buffer, row_scale};
    }

    double inverse_length(const char* row) const {
        double sum = 0.0;
        for (size_t dim = 0; dim < dims_; ++dim) sum += double(value(row, dim)) * double(value(row, dim));
        return sum > 0.0 ? 1.0 / std::sqrt(sum) : 0.0;
    }

    float scale_of(const char* row) const {
        if (metric_ != Metric::COSINE) return 1.0f;
        double scale = inverse_length(row);
        return scale > double(FLT_MAX) ? FLT_MAX : float(scale);
    }

    float query_scale(const void* query) const {
        if (metric_ != Metric::COSINE) return 1.0f;
        double sum = 0.0;
        const float* numbers = static_cast<const float*>(query);
        for (size_t dim = 0; dim < dims_; ++dim) sum += double(numbers[dim]) * double(numbers[dim]);
        double scale = sum > 0.0 ? 1.0 / std::sqrt(sum) : 0.0;
        return scale > double(FLT_MAX) ? FLT_MAX : float(scale);
    }

    // Equal for rows no query of the metric can tell apart: equal numbers, under cosine equal directions.
    uint64_t fingerprint(const char* row) const {
        uint64_t hash = 0x9E3779B97F4A7C15ull;
        if (element_ == Element::BIT) {
            for (size_t at = 0; at < row_bytes_; ++at) hash = mix64(hash ^ uint8_t(row[at])) + at;
            return hash;
        }
        double scale = metric_ == Metric::COSINE ? inverse_length(row) : 1.0;
        for (size_t dim = 0; dim < dims_; ++dim) {
            uint32_t bits;
            float number = canonical(row, dim, scale);
            std::memcpy(&bits, &number, sizeof bits);
            hash = (hash ^ bits) * 0x9FB21C651E98DF25ull;
            hash ^= hash >> 32;
        }
        return mix64(hash);
    }

    bool same(const char* left, const char* right) const {
        if (std::memcmp(left, right, row_bytes_) == 0) return true;
        if (element_ == Element::BIT) return false;
        double left_scale = metric_ == Metric::COSINE ? inverse_length(left) : 1.0;
        double right_scale = metric_ == Metric::COSINE ? inverse_length(right) : 1.0;
        for (size_t dim = 0; dim < dims_; ++dim) {
            if (canonical(left, dim, left_scale) != canonical(right, dim, right_scale)) return false;
        }
        return true;
    }

  private:
    static size_t bytes_of(Element element, size_t dims) {
        return element == Element::F32 ? dims * 4 : element == Element::F16 ? dims * 2 : (dims + 7) / 8;
    }
    float canonical(const char* row, size_t dim, double scale) const {
        return float(double(value(row, dim)) * scale) + 0.0f;  // + 0 turns minus zero into zero
    }

    Metric metric_;
    Element element_;
    size_t dims_;
    size_t row_bytes_;
    PairF32 f32_;
    PairF16 f16_;
    PairBits bits_;
};

}  // namespace ruvector

#endif
