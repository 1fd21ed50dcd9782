// Thirty-two rows of one list side by side: a bit for every dimension, which a search scans, and 4-bit levels, which
// it looks at for the few rows that the bits do not rule out.
//
// Both code the rotated difference of a row and the centroid of its list. The rotation is the same for all lists, so a
// query is rotated, and its tables are made, once: what the centroid adds to a product stands in the row's factors.
// The estimates and their bounds are those of RaBitQ (Gao and Long, SIGMOD 2024), the scan is FastScan's (André et
// al., VLDB 2015).
#ifndef RUVECTOR_IVF_BLOCKS_HPP
#define RUVECTOR_IVF_BLOCKS_HPP

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <limits>
#include <vector>

#include "hnsw/codes.hpp"
#include "hnsw/slots.hpp"
#include "hnsw/space.hpp"
#include "simd/kernels.h"

namespace ruvector {

constexpr size_t LANES_MAX = 32;           // rows of a block
constexpr float BIT_DEVIATIONS = 2.4f;     // standard deviations a distance told by bits is trusted not to be off by
constexpr float LEVEL_SPREAD = 3.5f;       // of the sixteen levels of a row around their middle
constexpr float NIBBLE_DEVIATIONS = 3.0f;  // the same for levels: few rows are left, so caution costs little

// What stands behind the bits of a block, a lane for every row. Lanes without a row have an infinite distance.
struct BlockHead {
    float add[LANES_MAX];
    float mul[LANES_MAX];
    float error[LANES_MAX];  // times the length of query - centroid: how far the estimate may be off
    uint32_t slots[LANES_MAX];
};

// A row before it has a place.
struct RowCode {
    CodeFactors bits;              // of the signs
    std::vector<uint8_t> nibbles;  // four signs each
    std::vector<uint8_t> record;   // levels, then their factors
};

class Blocks {
  public:
    explicit Blocks(Metric metric, size_t padded)
        : metric_(metric), padded_(padded), kernels_(kernels().codes), blocks_(stride()) {}

    size_t padded() const { return padded_; }
    size_t groups() const { return padded_ / 4; }
    size_t record_bytes() const { return padded_ / 2 + sizeof(CodeFactors); }
    size_t stride() const { return sizeof(BlockHead) + groups() * 16 + LANES_MAX * record_bytes(); }
    Records& all() { return blocks_; }
    const Records& all() const { return blocks_; }

    BlockHead& head(uint32_t block) const { return *reinterpret_cast<BlockHead*>(blocks_.at(block)); }
    uint8_t* bits(uint32_t block) const {
        return reinterpret_cast<uint8_t*>(blocks_.at(block)) + sizeof(BlockHead);
    }
    uint8_t* record(uint32_t block, size_t lane) const {
        return bits(block) + groups() * 16 + lane * record_bytes();
    }
    CodeFactors factors(const uint8_t* record) const {
        CodeFactors out;
        std::memcpy(&out, record + padded_ / 2, sizeof out);
        return out;
    }

    void open(uint32_t block) {
        std::memset(blocks_.at(block), 0, stride());
        for (size_t lane = 0; lane < LANES_MAX; ++lane) vacate(block, lane);
    }

    void put(uint32_t block, size_t lane, uint32_t slot, const RowCode& code) {
        BlockHead& to = head(block);
        to.add[lane] = code.bits.add;
        to.mul[lane] = code.bits.mul;
        to.error[lane] = code.bits.error;
        to.slots[lane] = slot;
        for (size_t group = 0; group < groups(); ++group) set_nibble(block, lane, group, code.nibbles[group]);
        std::memcpy(record(block, lane), code.record.data(), record_bytes());
    }

    void move(uint32_t from, size_t from_lane, uint32_t block, size_t lane) {
        BlockHead &source = head(from), &to = head(block);
        to.add[lane] = source.add[from_lane];
        to.mul[lane] = source.mul[from_lane];
        to.error[lane] = source.error[from_lane];
        to.slots[lane] = source.slots[from_lane];
        for (size_t group = 0; group < groups(); ++group) {
            uint8_t both = bits(from)[group * 16 + from_lane % 16];
            set_nibble(block, lane, group, from_lane < 16 ? both & 15 : both >> 4);
        }
        std::memcpy(record(block, lane), record(from, from_lane), record_bytes());
    }

    // Leave nothing of a row behind.
    void vacate(uint32_t block, size_t lane) {
        BlockHead& to = head(block);
        to.add[lane] = std::numeric_limits<float>::infinity();
        to.mul[lane] = to.error[lane] = 0.0f;
        to.slots[lane] = EMPTY;
        for (size_t group = 0; group < groups(); ++group) set_nibble(block, lane, group, 0);
        std::memset(record(block, lane), 0, record_bytes());
    }

    // Code the difference of a rotated row and a rotated centroid; returns its square.
    float encode(const float* difference, const float* centroid, RowCode& out) const {
        float twice = metric_ == Metric::L2 ? 2.0f : 1.0f;
        bool centred = metric_ != Metric::IP;  // products with the query itself, not with query - centroid
        out.nibbles.resize(groups());
        out.record.resize(record_bytes());
        NibbleFit fit = kernels_->fit_nibbles(difference, padded_, out.record.data());
        float share = metric_ == Metric::L2 ? fit.square : metric_ == Metric::COSINE ? fit.square / 2.0f : 0.0f;
        CodeFactors levels{share, 0.0f, 0.0f};
        if (fit.product > 0.0f) {
            levels.mul = -twice * fit.square / fit.product * fit.step;
            if (centred) levels.add -= levels.mul * level_product(out.record.data(), centroid);
            levels.error = twice * deviation(fit.square, fit.length * fit.square / (fit.product * fit.product),
                                             NIBBLE_DEVIATIONS);
        }
        std::memcpy(out.record.data() + padded_ / 2, &levels, sizeof levels);
        float sizes = 0.0f, product = 0.0f;
        sign_sums(difference, centroid, &sizes, &product);
        for (size_t group = 0; group < groups(); ++group) {
            const float* four = difference + group * 4;
            out.nibbles[group] = uint8_t((four[0] > 0.0f) | (four[1] > 0.0f) << 1 | (four[2] > 0.0f) << 2 |
                                         (four[3] > 0.0f) << 3);
        }
        out.bits = {share, 0.0f, 0.0f};
        if (!(sizes > 0.0f)) return fit.square;
        out.bits.mul = -twice * fit.square / sizes;
        if (centred) out.bits.add -= out.bits.mul * product;
        out.bits.error =
            twice * deviation(fit.square, float(padded_) * fit.square / (sizes * sizes), BIT_DEVIATIONS);
        return fit.square;
    }

  private:
    static constexpr size_t SUMS = 16;  // running side by side, whatever the width of the registers

    void set_nibble(uint32_t block, size_t lane, size_t group, uint8_t nibble) {
        uint8_t& both = bits(block)[group * 16 + lane % 16];
        both = lane < 16 ? uint8_t((both & 0xF0) | nibble) : uint8_t((both & 0x0F) | nibble << 4);
    }

    // `stretch` is the squared length of the code over its part along the row: 1 for a code without error.
    float deviation(float square, float stretch, float deviations) const {
        return deviations * std::sqrt(square * std::max(stretch - 1.0f, 0.0f) / float(padded_ - 1));
    }

    float level_product(const uint8_t* levels, const float* centroid) const {
        float sums[SUMS] = {};
        size_t half = padded_ / 2;
        for (size_t start = 0; start < half; start += SUMS) {
            for (size_t at = 0; at < SUMS; ++at) {
                uint8_t both = levels[start + at];
                sums[at] += (float(both & 15) - 7.5f) * centroid[start + at] +
                            (float(both >> 4) - 7.5f) * centroid[start + at + half];
            }
        }
        return total(sums);
    }

    void sign_sums(const float* difference, const float* centroid, float* sizes, float* product) const {
        float first[SUMS] = {}, second[SUMS] = {};
        for (size_t start = 0; start < padded_; start += SUMS) {
            for (size_t at = 0; at < SUMS; ++at) {
                float number = difference[start + at], other = centroid[start + at];
                first[at] += std::fabs(number);
                second[at] += number > 0.0f ? other : -other;
            }
        }
        *sizes = total(first);
        *product = total(second);
    }

    static float total(const float* sums) {
        float all = 0.0f;
        for (size_t at = 0; at < SUMS; ++at) all += sums[at];
        return all;
    }

    Metric metric_;
    size_t padded_;
    const CodeKernels* kernels_;
    Records blocks_;
};

}  // namespace ruvector

#endif
