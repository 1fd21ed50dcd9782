// Finding centroids for all rows, and filling the lists anew.
//
// A few rounds of Lloyd's k-means over a sample, on 7-bit codes; then every row goes to the list of its nearest
// centroid. Sums run in the order of rows, never of threads, so a build can be repeated.
#ifndef RUVECTOR_IVF_TRAIN_HPP
#define RUVECTOR_IVF_TRAIN_HPP

#include "ivf/lists.hpp"

namespace ruvector {

constexpr size_t SAMPLE_PER_LIST = 20;  // rows looked at for one centroid
constexpr size_t ROUNDS = 5;
constexpr size_t LIST_ROWS_LEAST = 32;  // rows of a list on average, when there are few

struct Lists::Training {
    explicit Training(const Codes& standing, Metric metric) : codes(standing), blocks(metric, standing.padded()) {}

    std::vector<uint32_t> slots;  // all rows, in order
    Codes codes;
    Centroids centroids;
    Blocks blocks;
    std::vector<List> lists;
    std::vector<uint32_t> list_of, at;  // by slot
    std::vector<uint32_t> loose;
    size_t block_count = 0;
};

// New centroids and lists of all rows. Readers have the old ones meanwhile.
inline void Lists::train(unsigned threads, const volatile uint8_t* cancel) {
    Training next(codes_, space_.metric());
    for (uint32_t slot = 0; slot < slots_; ++slot) {
        if (states_[slot] != 0) next.slots.push_back(slot);
    }
    std::vector<float> buffer(options_.dims);
    next.codes.set_center(next.codes.mean(next.slots.size(), [&](size_t at) {
        return space_.probe(rows_.at(next.slots[at]), scales_[next.slots[at]], buffer.data());
    }));
    built_permille_ = 0;
    if (find_centroids(next, threads, cancel) && fill_lists(next, threads, cancel)) {
        std::lock_guard<FairLock> guard(lock_);
        codes_.set_center(next.codes.center());
        std::swap(centroids_, next.centroids);
        blocks_.all().swap(next.blocks.all());
        blocks_known_ = next.block_count;
        lists_.swap(next.lists);
        list_of_.swap(next.list_of);
        at_.swap(next.at);
        loose_.swap(next.loose);
        free_blocks_.clear();
        free_blocks_.reserve(blocks_known_);
        trained_rows_ = next.slots.size();
        uncoded_rows_ = loose_.size();
        ++trainings_;
    }
    built_permille_ = 1000;
}

inline void Lists::take_codes(Training& training, const std::vector<uint32_t>& slots, Sample& sample,
                              unsigned threads) {
    size_t padded = codes_.padded();
    sample.resize(slots.size(), padded);
    std::vector<std::unique_ptr<ListScratch>> scratch;
    for (unsigned worker = 0; worker < std::max(1u, threads); ++worker) scratch.push_back(borrow());
    parallel_for(slots.size(), threads, [&](unsigned worker, size_t at) {
        float* rotated = scratch[worker]->rotated.data();
        rotate(training.codes, slots[at], *scratch[worker], rotated);
        ShiftedCode code{sample.levels.data() + at * padded};
        code.take(codes_.kernels_of(), rotated, padded);
        sample.steps[at] = code.step;
        sample.squares[at] = code.square;
    });
    for (auto& one : scratch) give_back(std::move(one));
}

// False when cancelled.
inline bool Lists::find_centroids(Training& training, unsigned threads, const volatile uint8_t* cancel) {
    size_t rows = training.slots.size(), padded = codes_.padded();
    size_t lists = std::min(size_t(std::lround(LISTS_SCALE * std::sqrt(double(rows)))), rows / LIST_ROWS_LEAST);
    size_t taken = std::min(rows, lists * SAMPLE_PER_LIST);
    std::vector<uint32_t> slots(taken);
    for (size_t at = 0; at < taken; ++at) slots[at] = training.slots[at * rows / taken];
    uint64_t seed = options_.seed;
    for (size_t at = 0; at < lists; ++at) {  // the first of a shuffled sample are the first centroids
        seed = mix64(seed + 0x9E3779B97F4A7C15ull);
        std::swap(slots[at], slots[at + seed % (taken - at)]);
    }
    Sample sample;
    take_codes(training, slots, sample, threads);
    Centroids& centroids = training.centroids;
    centroids.count = lists;
    centroids.padded = padded;
    centroids.places.resize(lists * padded);
    for (size_t list = 0; list < lists; ++list) {
        for (size_t dim = 0; dim < padded; ++dim) {
            float level = float(sample.levels[list * padded + dim]) - 64.0f;
            centroids.places[list * padded + dim] = sample.steps[list] * level;
        }
    }
    centroids.refresh(codes_.kernels_of());
    std::vector<uint32_t> nearest;
    std::vector<float> apart;
    for (size_t round = 0; round < ROUNDS; ++round) {
        if (cancel != nullptr && *cancel) return false;
        nearest_centroids(codes_.kernels_of(), centroids, sample, threads, nearest, apart);
        move_centroids(codes_.kernels_of(), centroids, sample, nearest, apart, threads);
        built_permille_ = uint32_t(500 * (round + 1) / ROUNDS);
    }
    return true;
}

inline bool Lists::fill_lists(Training& training, unsigned threads, const volatile uint8_t* cancel) {
    size_t padded = codes_.padded(), count = training.slots.size();
    const CodeKernels& kernels = codes_.kernels_of();
    std::vector<uint32_t> nearest;
    {
        constexpr size_t PART = 16384;  // rows coded at once
        Sample sample;
        std::vector<uint32_t> part, lists;
        std::vector<float> apart;
        for (size_t first = 0; first < count; first += PART) {
            if (cancel != nullptr && *cancel) return false;
            size_t last = std::min(count, first + PART);
            part.assign(training.slots.begin() + ptrdiff_t(first), training.slots.begin() + ptrdiff_t(last));
            take_codes(training, part, sample, threads);
            nearest_centroids(kernels, training.centroids, sample, threads, lists, apart);
            for (size_t at = 0; at < part.size(); ++at) {
                if (!(sample.squares[at] < CODE_SQUARE_MAX)) lists[at] = EMPTY;
            }
            nearest.insert(nearest.end(), lists.begin(), lists.end());
            built_permille_ = uint32_t(500 + 250 * last / count);
        }
    }
    training.lists.resize(training.centroids.count);
    training.list_of.assign(list_of_.size(), EMPTY);
    training.at.assign(at_.size(), 0);
    training.loose.reserve(loose_.capacity());
    std::vector<std::vector<uint32_t>> members(training.centroids.count);
    for (size_t at = 0; at < count; ++at) {
        uint32_t slot = training.slots[at];
        if (nearest[at] == EMPTY) {
            training.at[slot] = uint32_t(training.loose.size());
            training.loose.push_back(slot);
            continue;
        }
        training.list_of[slot] = nearest[at];
        training.at[slot] = uint32_t(members[nearest[at]].size());
        members[nearest[at]].push_back(slot);
    }
    for (size_t list = 0; list < members.size(); ++list) {
        training.lists[list].rows = members[list].size();
        for (size_t at = 0; at < members[list].size(); at += LANES_MAX) {
            training.lists[list].blocks.push_back(uint32_t(training.block_count++));
        }
    }
    training.blocks.all().reserve(training.block_count);
    training.centroids.spreads.assign(training.centroids.count, 0.0f);
    std::vector<std::unique_ptr<ListScratch>> scratch;
    std::vector<RowCode> codes(std::max(1u, threads));
    for (unsigned worker = 0; worker < std::max(1u, threads); ++worker) scratch.push_back(borrow());
    parallel_for(members.size(), threads, [&](unsigned worker, size_t list) {
        const float* place = training.centroids.place(list);
        float* row = scratch[worker]->rotated.data();
        double spread = 0.0;
        for (size_t at = 0; at < members[list].size(); ++at) {
            uint32_t block = training.lists[list].blocks[at / LANES_MAX];
            if (at % LANES_MAX == 0) training.blocks.open(block);
            rotate(training.codes, members[list][at], *scratch[worker], row);
            for (size_t dim = 0; dim < padded; ++dim) row[dim] -= place[dim];
            spread += double(training.blocks.encode(row, place, codes[worker]));
            training.blocks.put(block, at % LANES_MAX, members[list][at], codes[worker]);
        }
        training.centroids.spreads[list] = float(spread / double(std::max<size_t>(members[list].size(), 1)));
    });
    training.centroids.weigh_spreads(space_.metric() != Metric::IP);
    for (auto& one : scratch) give_back(std::move(one));
    return !(cancel != nullptr && *cancel);
}

// Numbers for people, taken between two publications.
inline void Lists::figures(int64_t* out) {
    std::shared_lock<FairLock> guard(lock_);
    std::fill_n(out, FIGURES, int64_t(0));
    size_t largest = 0;
    for (const List& list : lists_) largest = std::max(largest, list.rows);
    size_t per_slot = sizeof(float) + 1 + sizeof(int64_t) + 2 * sizeof(uint32_t);
    out[0] = int64_t(live_count_.load());
    out[1] = int64_t(slots_);
    out[3] = int64_t(free_.size());
    out[5] = int64_t(centroids_.count);
    out[6] = int64_t(trainings_.load());
    out[7] = int64_t(rows_.stride() * slots_);
    out[8] = int64_t(centroids_.places.size() * sizeof(float) + centroids_.codes.size());
    out[9] = int64_t(per_slot * slots_ + by_key_.bytes() + tags_.bytes());
    out[10] = int64_t(rows_.owned_bytes() + blocks_.all().owned_bytes());
    out[4] = int64_t(largest);
    out[11] = int64_t(trained_rows_);
    out[12] = int64_t(blocks_.stride() * blocks_known_);
    out[14] = int64_t(sieve_scans_.load());
    out[15] = int64_t(sieve_walks_.load());
    out[16] = int64_t(sieve_rows_.load());
    out[13] = is_due() ? int64_t(loose_.size()) : 0;  // what a build would change
}

}  // namespace ruvector

#endif
