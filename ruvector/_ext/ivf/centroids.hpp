// The centroids of the lists, and how near they are to rows and queries: 7 bits a number, four vectors at a time.
#ifndef RUVECTOR_IVF_CENTROIDS_HPP
#define RUVECTOR_IVF_CENTROIDS_HPP

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <vector>

#include "hnsw/lock.hpp"
#include "hnsw/slots.hpp"
#include "simd/kernels.h"

namespace ruvector {

constexpr float SEVEN_BITS = 63.0f;
constexpr float SPREAD_SHARE = 0.4f;  // measured: 0.25 to 0.5 need a third fewer lists than 0
constexpr float REACH_SHARE = 0.3f;   // measured: better than 0.1 and 0.6

// A vector in 7 bits, moved to 1..127.
struct ShiftedCode {
    uint8_t* levels;
    float step = 0.0f;
    float square = 0.0f;

    void take(const CodeKernels& kernels, const float* values, size_t padded) {
        Extent extent = kernels.extent(values, padded);
        square = extent.square;
        bool usable = extent.largest > 1e-15f;
        step = usable ? extent.largest / SEVEN_BITS : 0.0f;
        auto* plain = reinterpret_cast<int8_t*>(levels);
        kernels.fit_bytes(values, padded, usable ? SEVEN_BITS / extent.largest : 0.0f, SEVEN_BITS, plain);
        uint8_t* __restrict to = levels;
        for (size_t at = 0; at < padded; ++at) to[at] = uint8_t(to[at] + 64);
    }
};

struct Centroids {
    size_t count = 0;
    size_t padded = 0;
    std::vector<float> places;  // [count * padded], rotated
    std::vector<float> spreads;  // mean square of the rows' distances to their centroid
    std::vector<int8_t> codes;
    std::vector<float> squares, steps, shifts;  // shift: 64 times the sum of the code
    std::vector<float> ranks;                   // what a query's order of lists adds to its products

    size_t line() const { return (count + 3) / 4 * 4; }
    const float* place(size_t list) const { return places.data() + list * padded; }

    void refresh(const CodeKernels& kernels) {
        codes.assign(line() * padded, 0);
        squares.assign(line(), 0.0f);
        steps.assign(line(), 0.0f);
        shifts.assign(line(), 0.0f);
        for (size_t list = 0; list < count; ++list) {
            Extent extent = kernels.extent(place(list), padded);
            bool usable = extent.largest > 1e-15f;
            squares[list] = extent.square;
            steps[list] = usable ? extent.largest / SEVEN_BITS : 0.0f;
            int32_t sum = kernels.fit_bytes(place(list), padded, usable ? SEVEN_BITS / extent.largest : 0.0f,
                                            SEVEN_BITS, codes.data() + list * padded);
            shifts[list] = 64.0f * float(sum);
        }
    }

    // Of two lists as near to a query, the one whose rows lie closer together holds more neighbours; by inner product
    // (not centred) the one whose rows lie farther apart, and the more so the longer the query.
    void weigh_spreads(bool centred) {
        ranks.assign(line(), 0.0f);
        for (size_t list = 0; list < count; ++list) {
            float spread = spreads[list];
            ranks[list] = centred ? squares[list] + SPREAD_SHARE * spread : -REACH_SHARE * std::sqrt(spread);
        }
    }

    // out[line() * i + list] = weights[i] * terms[list] - 2 <vector i, centroid> for four vectors.
    void compare(const CodeKernels& kernels, const ShiftedCode* four, const float* terms, const float* weights,
                 float* out) const {
        const uint8_t* lefts[4] = {four[0].levels, four[1].levels, four[2].levels, four[3].levels};
        const int8_t* rights[4];
        int32_t tile[16];
        size_t width = line();
        for (size_t first = 0; first < width; first += 4) {
            for (size_t at = 0; at < 4; ++at) rights[at] = codes.data() + (first + at) * padded;
            kernels.byte_tile(lefts, rights, padded, tile);
            // Whole numbers until all are there: then they become floats, several at a time.
            for (size_t vector = 0; vector < 4; ++vector) {
                std::memcpy(out + vector * width + first, tile + vector * 4, 4 * sizeof(int32_t));
            }
        }
        for (size_t vector = 0; vector < 4; ++vector) {
            float scale = -2.0f * four[vector].step, weight = weights[vector];
            float* line = out + vector * width;
            for (size_t list = 0; list < width; ++list) {
                int32_t dot;
                std::memcpy(&dot, line + list, sizeof dot);
                line[list] = weight * terms[list] + scale * steps[list] * (float(dot) - shifts[list]);
            }
        }
    }
};

// Vectors to find centroids of, in 7 bits.
struct Sample {
    size_t count = 0;
    size_t padded = 0;
    std::vector<uint8_t> levels;
    std::vector<float> steps, squares;

    void resize(size_t rows, size_t width) {
        count = rows;
        padded = width;
        levels.resize(rows * width);
        steps.resize(rows);
        squares.resize(rows);
    }
    ShiftedCode at(size_t row) const {
        return {const_cast<uint8_t*>(levels.data()) + row * padded, steps[row], squares[row]};
    }
};

// The nearest centroid of every row of a sample.
inline void nearest_centroids(const CodeKernels& kernels, const Centroids& centroids, const Sample& sample,
                              unsigned threads, std::vector<uint32_t>& lists, std::vector<float>& apart) {
    lists.resize(sample.count);
    apart.resize(sample.count);
    std::vector<std::vector<float>> lines(std::max(1u, threads), std::vector<float>(centroids.line() * 4));
    parallel_for((sample.count + 3) / 4, threads, [&](unsigned worker, size_t four) {
        ShiftedCode codes[4];
        for (size_t at = 0; at < 4; ++at) codes[at] = sample.at(std::min(four * 4 + at, sample.count - 1));
        float* line = lines[worker].data();
        const float ones[4] = {1.0f, 1.0f, 1.0f, 1.0f};
        centroids.compare(kernels, codes, centroids.squares.data(), ones, line);
        for (size_t at = 0; at < 4 && four * 4 + at < sample.count; ++at) {
            const float* first = line + at * centroids.line();
            const float* best = std::min_element(first, first + centroids.count);
            lists[four * 4 + at] = uint32_t(best - first);
            apart[four * 4 + at] = *best + codes[at].square;
        }
    });
}

// Every centroid becomes the mean of its rows; one without rows takes the row that lies worst in the largest list.
inline void move_centroids(const CodeKernels& kernels, Centroids& centroids, const Sample& sample,
                           const std::vector<uint32_t>& lists, const std::vector<float>& apart, unsigned threads) {
    std::vector<size_t> starts(centroids.count + 1, 0);
    for (uint32_t list : lists) ++starts[list + 1];
    for (size_t list = 0; list < centroids.count; ++list) starts[list + 1] += starts[list];
    std::vector<uint32_t> members(lists.size());
    std::vector<size_t> next(starts.begin(), starts.end() - 1);
    for (size_t row = 0; row < lists.size(); ++row) members[next[lists[row]]++] = uint32_t(row);
    size_t padded = sample.padded;
    parallel_for(centroids.count, threads, [&](unsigned, size_t list) {
        if (starts[list] == starts[list + 1]) return;
        float* place = centroids.places.data() + list * padded;
        std::fill_n(place, padded, 0.0f);
        for (size_t at = starts[list]; at < starts[list + 1]; ++at) {
            ShiftedCode row = sample.at(members[at]);
            const uint8_t* levels = row.levels;
            for (size_t dim = 0; dim < padded; ++dim) place[dim] += row.step * (float(levels[dim]) - 64.0f);
        }
        float share = 1.0f / float(starts[list + 1] - starts[list]);
        for (size_t dim = 0; dim < padded; ++dim) place[dim] *= share;
    });
    std::vector<size_t> sizes(centroids.count);
    for (size_t list = 0; list < centroids.count; ++list) sizes[list] = starts[list + 1] - starts[list];
    std::vector<uint8_t> taken(sample.count, 0);
    for (size_t list = 0; list < centroids.count; ++list) {
        if (starts[list] != starts[list + 1]) continue;
        size_t largest = size_t(std::max_element(sizes.begin(), sizes.end()) - sizes.begin());
        size_t worst = starts[largest];
        for (size_t at = starts[largest]; at < starts[largest + 1]; ++at) {
            bool farther = apart[members[at]] > apart[members[worst]];
            if (taken[members[worst]] || (!taken[members[at]] && farther)) worst = at;
        }
        taken[members[worst]] = 1;
        ShiftedCode row = sample.at(members[worst]);
        float* place = centroids.places.data() + list * padded;
        for (size_t dim = 0; dim < padded; ++dim) place[dim] = row.step * (float(row.levels[dim]) - 64.0f);
        sizes[largest] /= 2;
    }
    centroids.refresh(kernels);
}

}  // namespace ruvector

#endif
