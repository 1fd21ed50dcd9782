// A small code for every row, so that a search touches a tenth of the bytes: 4 bits a dimension after a random rotation.
//
// A row is centred, rotated and rounded to sixteen levels of a scale of its own; what a search needs to estimate a
// distance without bias, and how far the estimate may be off, stands beside the levels. The idea is RaBitQ's (Gao and
// Long, SIGMOD 2024, arXiv 2405.12497; several bits: arXiv 2409.09913), the rotation a few rounds of random signs and
// Hadamard transforms. There is no code book, so nothing has to be trained but the mean, and any row can be coded alone.
#ifndef RUVECTOR_HNSW_CODES_HPP
#define RUVECTOR_HNSW_CODES_HPP

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <limits>
#include <vector>

#include "hnsw/slots.hpp"
#include "hnsw/space.hpp"
#include "simd/kernels.h"

namespace ruvector {

constexpr size_t CODE_DIMS_MIN = 32;         // below, a row is hardly larger than its code
constexpr size_t CODE_SAMPLE_ROWS = 8192;    // rows the mean is taken of
constexpr float CODE_ERROR_DEVIATIONS = 3.0f;  // standard deviations an estimate is trusted not to be off by
constexpr float CODE_SQUARE_MAX = 1e30f;     // beyond, sums of squares could overflow on their way
constexpr float CODE_SQUARE_MIN = 1e-30f;    // below, they lose their digits

// Stands behind the levels of a row.
struct CodeFactors {
    float add;    // estimate = query.add + add + mul * (levels . query)
    float mul;
    float error;  // times the length of the query: how far the estimate may be off
};

// A query as the codes see it.
struct CodeProbe {
    // Rotated, 8 bits: the first half meets the low nibbles, the second half the high ones. Zeros behind each half meet
    // what kernels read of a record beyond its levels.
    std::vector<int8_t> levels;
    std::vector<float> rotated;
    float scale = 0.0f;   // of one level
    float shift = 0.0f;   // 7.5 times the sum of the levels, scaled
    float add = 0.0f;
    float length = 0.0f;  // of the rotated query
};

class Codes {
  public:
    // `step`: codes have a multiple of so many dimensions, and CODE_DIMS_STEP at least.
    Codes(Metric metric, Element element, size_t dims, uint64_t seed, size_t step)
        : metric_(metric),
          dims_(dims),
          padded_(std::max((dims + step - 1) / step * step, CODE_DIMS_STEP)),
          usable_(element != Element::BIT && metric != Metric::L1 && dims >= CODE_DIMS_MIN),
          kernels_(kernels().codes) {
        if (!usable_) return;
        while (block_ * 2 <= padded_) block_ *= 2;
        rounds_ = block_ == padded_ ? 2 : 4;
        signs_.resize(rounds_ * padded_);
        float scale = float(1.0 / std::sqrt(double(block_)));
        for (size_t at = 0; at < signs_.size(); ++at) {
            bool inside = (at / padded_ % 2 == 0) ? at % padded_ < block_ : at % padded_ >= padded_ - block_;
            float size = inside ? scale : 1.0f;  // the transform multiplies lengths by the root of its size
            signs_[at] = (mix64(seed * 0x9E3779B97F4A7C15ull + at + 1) & 1) ? size : -size;
        }
    }

    bool usable() const { return usable_; }
    bool ready() const { return !center_.empty(); }
    size_t padded() const { return padded_; }
    size_t level_bytes() const { return padded_ / 2; }
    size_t read_bytes() const { return (level_bytes() + 31) / 32 * 32; }  // of a record, by nibble_dots
    size_t record_bytes() const {
        return (std::max(level_bytes() + sizeof(CodeFactors), read_bytes()) + 15) / 16 * 16;
    }
    const std::vector<float>& center() const { return center_; }
    void set_center(std::vector<float> center) { center_ = std::move(center); }
    void forget() { center_.clear(); }
    const CodeKernels& kernels_of() const { return *kernels_; }

    // The mean of up to CODE_SAMPLE_ROWS of `count` rows, spread evenly; row(i) gives numbers and scale as a Probe.
    template <class RowAt>
    std::vector<float> mean(size_t count, RowAt row) const {
        std::vector<double> sums(dims_, 0.0);
        size_t taken = std::min(count, CODE_SAMPLE_ROWS);
        for (size_t at = 0; at < taken; ++at) {
            Probe probe = row(at * count / taken);
            const float* numbers = static_cast<const float*>(probe.data);
            for (size_t dim = 0; dim < dims_; ++dim) sums[dim] += double(numbers[dim]) * double(probe.scale);
        }
        std::vector<float> out(dims_);
        for (size_t dim = 0; dim < dims_; ++dim) {
            out[dim] = float(sums[dim] / double(std::max<size_t>(taken, 1)));
            if (!std::isfinite(out[dim]) || std::fabs(out[dim]) > 1e14f) out[dim] = 0.0f;
        }
        // A few long rows can draw the mean away from all others, whose codes would hold little but that distance: it
        // has to bring the rows nearer by their own measure.
        double gain = 0.0;
        for (size_t at = 0; at < taken; ++at) {
            Probe probe = row(at * count / taken);
            const float* numbers = static_cast<const float*>(probe.data);
            double before = 1e-60, after = 1e-60;
            for (size_t dim = 0; dim < dims_; ++dim) {
                double number = double(numbers[dim]) * double(probe.scale), rest = number - double(out[dim]);
                before += number * number;
                after += rest * rest;
            }
            gain += std::log(before / after);
        }
        if (gain < 0.0) std::fill(out.begin(), out.end(), 0.0f);
        return out;
    }

    double center_product(const float* numbers) const {
        double product = 0.0;
        for (size_t dim = 0; dim < dims_; ++dim) product += double(numbers[dim]) * double(center_[dim]);
        return product;
    }

    // Centre and rotate numbers [dims] into out [padded].
    void rotate_row(const Probe& row, float* out) const {
        const float* numbers = static_cast<const float*>(row.data);
        for (size_t dim = 0; dim < dims_; ++dim) out[dim] = numbers[dim] * row.scale - center_[dim];
        std::fill(out + dims_, out + padded_, 0.0f);
        rotate(out);
    }

    // Write the record of a rotated row; false when it is too long or too short for a code that could tell anything.
    bool encode(const float* rotated, char* record) const {
        auto* levels = reinterpret_cast<uint8_t*>(record);
        CodeFactors factors{std::numeric_limits<float>::max(), 0.0f, std::numeric_limits<float>::infinity()};
        Extent extent = kernels_->extent(rotated, padded_);
        bool usable = extent.square < CODE_SQUARE_MAX && (extent.square > CODE_SQUARE_MIN || extent.largest == 0.0f);
        if (!usable) {
            std::memset(levels, 0x88, level_bytes());
        } else {
            NibbleFit fit = kernels_->fit_nibbles(rotated, padded_, levels);
            float twice = metric_ == Metric::L2 ? 2.0f : 1.0f;
            factors.add = metric_ == Metric::L2 ? fit.square : metric_ == Metric::COSINE ? fit.square / 2.0f : 0.0f;
            factors.error = 0.0f;
            if (fit.product > 0.0f) {
                factors.mul = -twice * fit.square / fit.product * fit.step;
                float off = (fit.length / fit.product) * (fit.square / fit.product) - 1.0f;  // squared tangent
                factors.error = twice * CODE_ERROR_DEVIATIONS *
                                std::sqrt(fit.square * std::max(off, 0.0f) / float(padded_ - 1));
            }
        }
        std::memset(record + level_bytes(), 0, record_bytes() - level_bytes());
        std::memcpy(record + level_bytes(), &factors, sizeof factors);
        return usable;
    }
    bool is_coded(const char* record) const { return std::isfinite(factors(record).error); }

    // False when the query is too long for the codes and must be compared with the rows themselves.
    bool prepare(const Probe& query, CodeProbe& out) const {
        out.rotated.resize(padded_);
        const float* numbers = static_cast<const float*>(query.data);
        out.add = 0.0f;
        if (metric_ == Metric::IP) {
            out.add = -float(center_product(numbers));
            std::copy_n(numbers, dims_, out.rotated.begin());
            std::fill(out.rotated.begin() + ptrdiff_t(dims_), out.rotated.end(), 0.0f);
            rotate(out.rotated.data());
        } else {
            rotate_row(query, out.rotated.data());
        }
        return quantize(out);
    }

    // The same for a row that is rotated already (not by inner product, where queries are not centred).
    bool quantize(CodeProbe& out) const {
        Extent extent = kernels_->extent(out.rotated.data(), padded_);
        if (!(extent.square < CODE_SQUARE_MAX)) return false;
        out.length = std::sqrt(extent.square);
        if (metric_ == Metric::L2) out.add = extent.square;
        if (metric_ == Metric::COSINE) out.add = extent.square / 2.0f;
        out.scale = extent.largest / 127.0f;
        float inverse = extent.largest > 1e-30f ? 127.0f / extent.largest : 0.0f;
        out.levels.assign(2 * read_bytes(), 0);
        int32_t sum = 0;
        for (size_t half = 0; half < 2; ++half) {
            sum += kernels_->fit_bytes(out.rotated.data() + half * level_bytes(), level_bytes(), inverse, 127.0f,
                                       out.levels.data() + half * read_bytes());
        }
        out.shift = 7.5f * float(sum) * out.scale;
        return true;
    }

    static float estimate(const CodeProbe& probe, const CodeFactors& factors, int32_t dot) {
        return probe.add + factors.add + factors.mul * (probe.scale * float(dot) - probe.shift);
    }
    CodeFactors factors(const char* record) const {
        CodeFactors out;
        std::memcpy(&out, record + level_bytes(), sizeof out);
        return out;
    }

  private:
    // Signs, then the transform of a power of two: by turns of the first and the last dimensions, so that all mix.
    void rotate(float* values) const {
        for (size_t round = 0; round < rounds_; ++round) {
            const float* signs = signs_.data() + round * padded_;
            for (size_t dim = 0; dim < padded_; ++dim) values[dim] *= signs[dim];
            kernels_->hadamard(round % 2 == 0 ? values : values + (padded_ - block_), block_);
            if (block_ == padded_) continue;
            size_t half = padded_ / 2;
            for (size_t dim = 0; dim < half; ++dim) {
                float left = values[dim], right = values[dim + half];
                values[dim] = (left + right) * 0.70710678f;
                values[dim + half] = (left - right) * 0.70710678f;
            }
        }
    }

    Metric metric_;
    size_t dims_;
    size_t padded_;
    bool usable_;
    const CodeKernels* kernels_;
    size_t block_ = 64;
    size_t rounds_ = 0;
    std::vector<float> signs_;
    std::vector<float> center_;
};

}  // namespace ruvector

#endif
