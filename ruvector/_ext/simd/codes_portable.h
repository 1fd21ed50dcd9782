// Kernels written once and compiled for each instruction set: the including file defines CODE_TARGET.
//
// Sums of floats run in sixteen fixed lanes, so that the width of the registers does not change the result.
#ifndef CODE_TARGET
#error "define CODE_TARGET before including this file"
#endif

#include <cmath>

namespace ruvector {
namespace {

constexpr size_t LANES = 16;

#ifndef CODE_TRANSFORM  // the including file has none of its own
CODE_TARGET void transform_lanes(float* block) {  // the transform of sixteen
    for (size_t half = 1; half < LANES; half *= 2) {
        float other[LANES];
        for (size_t lane = 0; lane < LANES; ++lane) {
            float mine = (lane & half) ? -block[lane] : block[lane];
            other[lane] = block[lane ^ half] + mine;
        }
        for (size_t lane = 0; lane < LANES; ++lane) block[lane] = other[lane];
    }
}
#endif

CODE_TARGET void hadamard(float* values, size_t count) {
    for (size_t start = 0; start < count; start += LANES) transform_lanes(values + start);
    for (size_t half = LANES; half < count; half *= 2) {
        for (size_t start = 0; start < count; start += 2 * half) {
            float* left = values + start;
            float* right = left + half;
            for (size_t at = 0; at < half; ++at) {
                float sum = left[at] + right[at], difference = left[at] - right[at];
                left[at] = sum;
                right[at] = difference;
            }
        }
    }
}

CODE_TARGET float lane_sum(const float* lanes) {
    float half[8], quarter[4];
    for (size_t at = 0; at < 8; ++at) half[at] = lanes[at] + lanes[at + 8];
    for (size_t at = 0; at < 4; ++at) quarter[at] = half[at] + half[at + 4];
    return (quarter[0] + quarter[2]) + (quarter[1] + quarter[3]);
}

CODE_TARGET void extend(float value, float& square, float& largest) {
    float size = std::fabs(value);
    square += value * value;
    largest = size > largest ? size : largest;
}

CODE_TARGET Extent extent(const float* values, size_t count) {
    float squares[LANES] = {}, largest[LANES] = {};
    size_t whole = count / LANES * LANES;
    for (size_t start = 0; start < whole; start += LANES) {
        for (size_t lane = 0; lane < LANES; ++lane) extend(values[start + lane], squares[lane], largest[lane]);
    }
    for (size_t lane = 0; lane < count - whole; ++lane) extend(values[whole + lane], squares[lane], largest[lane]);
    Extent out{0.0f, lane_sum(squares)};
    for (float size : largest) out.largest = size > out.largest ? size : out.largest;
    return out;
}

CODE_TARGET float level_of(float value, float inverse) {
    float level = value * inverse + 8.0f;
    level = level < 0.0f ? 0.0f : level;
    return level > 15.0f ? 15.0f : level;
}

CODE_TARGET void weigh_level(float value, float inverse, float& product, float& length) {
    float number = float(int32_t(level_of(value, inverse))) - 7.5f;
    product += number * value;
    length += number * number;
}

// Levels are -7.5, -6.5 ... 7.5 steps. The scale that keeps most of the direction wins: what counts is the cosine of
// row and decoded row, as in RaBitQ (Gao et al., arXiv 2409.09913), over a few scales near the best for a Gaussian.
CODE_TARGET NibbleFit fit_nibbles(const float* row, size_t dims, uint8_t* code) {
    constexpr float SCALES[] = {0.27f, 0.31f, 0.34f, 0.38f, 0.43f};
    float square = extent(row, dims).square;
    float spread = std::sqrt(square / float(dims));
    NibbleFit best{square, 0.0f, 0.0f, 0.0f};
    float best_cosine = -1.0f;
    size_t whole = dims / LANES * LANES;
    for (float scale : SCALES) {
        float step = spread * scale;
        if (!(step > 0.0f)) break;
        float inverse = 1.0f / step;
        float products[LANES] = {}, lengths[LANES] = {};
        for (size_t start = 0; start < whole; start += LANES) {
            for (size_t lane = 0; lane < LANES; ++lane) {
                weigh_level(row[start + lane], inverse, products[lane], lengths[lane]);
            }
        }
        for (size_t lane = 0; lane < dims - whole; ++lane) {
            weigh_level(row[whole + lane], inverse, products[lane], lengths[lane]);
        }
        float product = lane_sum(products), length = lane_sum(lengths);
        float cosine = product / std::sqrt(length);
        if (cosine > best_cosine) {
            best_cosine = cosine;
            best = {square, step, length * step * step, product * step};
        }
    }
    float inverse = best.step > 0.0f ? 1.0f / best.step : 0.0f;
    size_t half = dims / 2;
    for (size_t at = 0; at < half; ++at) {
        float low = level_of(row[at], inverse), high = level_of(row[at + half], inverse);
        code[at] = uint8_t(int32_t(low) | int32_t(high) << 4);
    }
    return best;
}

CODE_TARGET int32_t fit_bytes(const float* row, size_t dims, float inverse, float limit, int8_t* code) {
    int32_t sum = 0;
    float offset = limit + 0.5f;
    for (size_t at = 0; at < dims; ++at) {
        float shifted = row[at] * inverse + offset;  // positive, so that cutting off rounds to nearest
        shifted = shifted < 0.5f ? 0.5f : shifted;
        shifted = shifted > 2.0f * limit + 0.5f ? 2.0f * limit + 0.5f : shifted;
        int32_t number = int32_t(shifted) - int32_t(limit);
        code[at] = int8_t(number);
        sum += number;
    }
    return sum;
}

// Bit i tells whether a row may be nearer than the limit; see scan_near.
CODE_TARGET uint32_t near_mask(const uint16_t* sums, const ScanTerms& terms, const float* add, const float* mul,
                               const float* error) {
    uint32_t mask = 0;
    for (size_t row = 0; row < 32; ++row) {
        float product = terms.step * float(sums[row]) + terms.base;
        float least = ((terms.start + add[row]) + mul[row] * product) - error[row] * terms.length;
        mask |= uint32_t(least < terms.limit) << row;
    }
    return mask;
}

}  // namespace
}  // namespace ruvector
