// Reading: add up the lists of the query's dimensions, measure what may be nearest, fill up with rows that share none.
#ifndef RUVECTOR_INVERTED_SEARCH_HPP
#define RUVECTOR_INVERTED_SEARCH_HPP

#include <optional>

#include "inverted/inverted.hpp"

namespace ruvector {

inline std::unique_ptr<Inverted::Scratch> Inverted::borrow() {
    std::lock_guard<std::mutex> guard(idle_lock_);
    if (idle_.empty()) return std::make_unique<Scratch>();
    std::unique_ptr<Scratch> scratch = std::move(idle_.back());
    idle_.pop_back();
    return scratch;
}

inline void Inverted::give_back(std::unique_ptr<Scratch> scratch) {
    std::lock_guard<std::mutex> guard(idle_lock_);
    if (idle_.size() < SPARSE_SCRATCH_KEPT) idle_.push_back(std::move(scratch));
}

// Products and differences of two floats are exact in a double, so a sum depends on the row and the query alone:
// its terms come in the order of the dimensions, wherever the row stands in the lists.
inline bool Inverted::add_up(const Query& query, Scratch& scratch, const volatile uint8_t* cancel) const {
    scratch.touched.clear();
    if (scratch.tallies.size() < rows_.size()) scratch.tallies.resize(rows_.capacity(), Tally{0.0, 0});
    if (++scratch.round == 0) {
        std::fill(scratch.tallies.begin(), scratch.tallies.end(), Tally{0.0, 0});
        scratch.round = 1;
    }
    Tally* tallies = scratch.tallies.data();
    for (size_t term = 0; term < query.count; ++term) {
        const std::vector<Posting>* list = postings_.find(query.dims[term]);
        if (list == nullptr) continue;
        const double asked = query.values[term];
        for (size_t first = 0; first < list->size(); first += SPARSE_CANCEL_POSTINGS) {
            if (cancel != nullptr && *cancel) return false;
            const size_t last = std::min(list->size(), first + SPARSE_CANCEL_POSTINGS);
            for (size_t at = first; at < last; ++at) {
                const Posting posting = (*list)[at];
                const double held = posting.value;
                const double part = metric_ == SPARSE_L1
                                        ? std::fabs(asked - held) - std::fabs(asked) - std::fabs(held)
                                        : asked * held;
                Tally& tally = tallies[posting.slot];
                if (tally.round != scratch.round) {
                    tally = {0.0, scratch.round};
                    scratch.touched.push_back(posting.slot);
                }
                tally.sum += part;
            }
        }
    }
    return true;
}

// The rank of a row that shares no dimension with the query, from its weight.
inline double Inverted::apart(const Query& query, double weight) const {
    if (metric_ == SPARSE_IP) return 0.0;
    if (metric_ == SPARSE_COSINE) return 1.0;
    return query.weight + weight;
}

// The rank of a row from its sum: squared under l2, else the distance.
inline double Inverted::estimate(const Query& query, const Row& row, double sum) const {
    if (metric_ == SPARSE_L2) return query.weight + row.weight - 2.0 * sum;
    if (metric_ == SPARSE_L1) return query.weight + row.weight + sum;
    if (metric_ == SPARSE_IP) return -sum;
    return 1.0 - sum / (query.length * std::sqrt(row.weight));
}

// How far an estimate can be from the truth: every addition rounds once, at most by half an epsilon of its outcome.
inline double Inverted::doubt(const Query& query, const Row& row) const {
    const double share = (double(query.count) + double(row.length) + 16.0) * DBL_EPSILON * 2.0;
    if (metric_ == SPARSE_IP) return share * std::sqrt(query.weight * row.weight);
    if (metric_ == SPARSE_COSINE) return share;
    return share * (query.weight + row.weight);
}

// The rank of a row from its elements, without the difference of large sums.
inline double Inverted::exact(const Query& query, const Row& row) const {
    const bool together = metric_ == SPARSE_IP || metric_ == SPARSE_COSINE;
    double sum = 0.0;
    size_t left = 0, right = 0;
    while (left < query.count || right < row.length) {
        const bool takes_left =
            right == row.length || (left < query.count && query.dims[left] <= row.elements[right].dim);
        const bool takes_right =
            left == query.count || (right < row.length && row.elements[right].dim <= query.dims[left]);
        const double asked = takes_left ? double(query.values[left]) : 0.0;
        const double held = takes_right ? double(row.elements[right].value) : 0.0;
        sum += together ? asked * held
               : metric_ == SPARSE_L1 ? std::fabs(asked - held)
                                      : (asked - held) * (asked - held);
        left += takes_left;
        right += takes_right;
    }
    if (metric_ == SPARSE_IP) return 0.0 - sum;
    if (metric_ != SPARSE_COSINE) return sum;
    const double cosine = sum / (query.length * std::sqrt(row.weight));
    return cosine > 1.0 ? 0.0 : cosine < -1.0 ? 2.0 : 1.0 - cosine;
}

inline float Inverted::shown(double value) const {
    if (metric_ == SPARSE_L2) value = std::sqrt(value);
    if (value > double(FLT_MAX)) return std::numeric_limits<float>::infinity();
    return value < -double(FLT_MAX) ? -std::numeric_limits<float>::infinity() : float(value);
}

// Put the k nearest of the touched rows into scratch.nearest, a heap with the farthest on top.
inline bool Inverted::measure_touched(const Query& query, size_t k, const Passing* passing, Scratch& scratch,
                                      const volatile uint8_t* cancel) const {
    std::vector<double>& bounds = scratch.bounds;  // the k least upper bounds, the largest on top
    bounds.clear();
    scratch.candidates.clear();
    scratch.nearest.clear();
    for (uint32_t slot : scratch.touched) {
        const Row& row = rows_[slot];
        if (row.state != LIVE || (passing != nullptr && !passing->row(slot))) continue;
        const double value = estimate(query, row, scratch.tallies[slot].sum), error = doubt(query, row);
        if (bounds.size() == k && value - error > bounds.front()) continue;
        scratch.candidates.push_back({value - error, slot});
        if (bounds.size() == k) {
            if (value + error >= bounds.front()) continue;
            std::pop_heap(bounds.begin(), bounds.end());
            bounds.pop_back();
        }
        bounds.push_back(value + error);
        std::push_heap(bounds.begin(), bounds.end());
    }
    const double limit = bounds.size() == k ? bounds.front() : std::numeric_limits<double>::infinity();
    size_t measured = 0;
    for (const Ranked& candidate : scratch.candidates) {
        if (candidate.value > limit) continue;
        if (++measured % SPARSE_CANCEL_ROWS == 0 && cancel != nullptr && *cancel) return false;
        scratch.nearest.push_back({exact(query, rows_[candidate.slot]), candidate.slot});
    }
    std::vector<Ranked>& nearest = scratch.nearest;
    if (nearest.size() > k) {
        std::nth_element(nearest.begin(), nearest.begin() + ptrdiff_t(k), nearest.end());
        nearest.resize(k);
    }
    std::make_heap(nearest.begin(), nearest.end());
    return true;
}

// Let the rows that share no dimension with the query compete for the places in scratch.nearest.
inline bool Inverted::add_untouched(const Query& query, size_t k, const Passing* passing, Scratch& scratch,
                                    const volatile uint8_t* cancel) const {
    std::vector<Ranked>& nearest = scratch.nearest;
    for (size_t block = 0; block < floors_.size(); ++block) {
        if (cancel != nullptr && *cancel) return false;
        const size_t first = block * SPARSE_BLOCK_ROWS;
        const size_t last = std::min(first + SPARSE_BLOCK_ROWS, rows_.size());
        const Ranked least{apart(query, floors_[block]), uint32_t(first)};
        if (std::isinf(floors_[block]) || (nearest.size() == k && nearest.front() < least)) continue;
        for (size_t slot = first; slot < last; ++slot) {
            const Row& row = rows_[slot];
            if (row.state != LIVE || scratch.tallies[slot].round == scratch.round) continue;
            if (passing != nullptr && !passing->row(uint32_t(slot))) continue;
            const Ranked ranked{apart(query, row.weight), uint32_t(slot)};
            if (nearest.size() == k) {
                if (!(ranked < nearest.front())) continue;
                std::pop_heap(nearest.begin(), nearest.end());
                nearest.pop_back();
            }
            nearest.push_back(ranked);
            std::push_heap(nearest.begin(), nearest.end());
        }
    }
    return true;
}

// Put the k nearest of all that pass into scratch.nearest, each measured from its elements.
inline bool Inverted::measure_passing(const Query& query, size_t k, const Passing& passing, Scratch& scratch,
                                      const volatile uint8_t* cancel) const {
    std::vector<Ranked>& nearest = scratch.nearest;
    nearest.clear();
    size_t measured = 0;
    return passing.each([&](uint32_t slot) {
        if (++measured % SPARSE_CANCEL_ROWS == 0 && cancel != nullptr && *cancel) return false;
        nearest.push_back({exact(query, rows_[slot]), slot});
        std::push_heap(nearest.begin(), nearest.end());
        if (nearest.size() > k) {
            std::pop_heap(nearest.begin(), nearest.end());
            nearest.pop_back();
        }
        return true;
    });
}

// How many postings a search adds up.
inline size_t Inverted::postings_of(const Query& query) const {
    size_t postings = 0;
    for (size_t term = 0; term < query.count; ++term) {
        const std::vector<Posting>* list = postings_.find(query.dims[term]);
        if (list != nullptr) postings += list->size();
    }
    return postings;
}

inline int64_t Inverted::search(const Query& query, size_t k, const Sieve* sieve, Scratch& scratch,
                                const volatile uint8_t* cancel, int64_t* keys, float* distances) {
    if (cancel != nullptr && *cancel) return -1;
    k = std::min(k, live_count_.load());
    std::optional<Passing> chosen;
    bool scans = false;
    if (sieve != nullptr && k != 0) {
        auto find = [&](int64_t key) { return slot_of(key); };
        chosen.emplace(*sieve, tags_, rows_.size(), scratch.mask, scratch.listed, find);
        k = std::min(k, chosen->count());
        const size_t elements = live_elements_ / std::max<size_t>(1, live_count_.load()) + query.count;
        scans = sieve->plan == PLAN_SCAN ||
                (sieve->plan == PLAN_AUTO && chosen->count() * elements <= postings_of(query));
        sieve_rows_.fetch_add(chosen->count(), std::memory_order_relaxed);
        (scans ? sieve_scans_ : sieve_walks_).fetch_add(1, std::memory_order_relaxed);
    }
    if (k == 0) return 0;
    const Passing* passing = chosen ? &*chosen : nullptr;
    bool done = scans ? measure_passing(query, k, *passing, scratch, cancel)
                      : add_up(query, scratch, cancel) && measure_touched(query, k, passing, scratch, cancel) &&
                            add_untouched(query, k, passing, scratch, cancel);
    if (!done) return -1;
    std::vector<Ranked>& nearest = scratch.nearest;
    std::sort(nearest.begin(), nearest.end());
    for (size_t at = 0; at < nearest.size(); ++at) {
        keys[at] = rows_[nearest[at].slot].key;
        distances[at] = shown(nearest[at].value);
    }
    return int64_t(nearest.size());
}

inline int64_t Inverted::search_many(const SparseRows& queries, size_t k, const Sieve* sieve, unsigned threads,
                                     const volatile uint8_t* cancel, int64_t* keys, float* distances,
                                     int64_t* counts) {
    std::atomic<bool> cancelled{false};
    parallel_for(queries.count, threads, [&](unsigned, size_t at) {
        if (cancelled.load()) return;
        const int64_t start = queries.starts[at];
        Query query{queries.dims + start, queries.values + start, size_t(queries.starts[at + 1] - start), 0.0, 0.0};
        query.weight = sparse_weight(metric_, query.values, query.count);
        query.length = std::sqrt(query.weight);
        std::unique_ptr<Scratch> scratch = borrow();
        {
            std::shared_lock<FairLock> guard(lock_);
            counts[at] = search(query, k, sieve, *scratch, cancel, keys + at * k, distances + at * k);
        }
        give_back(std::move(scratch));
        if (counts[at] < 0) cancelled = true;
    });
    return cancelled.load() ? -1 : 0;
}

// Give every row a tag, in slot order; returns how many there are.
inline size_t Inverted::start_tags() {
    std::lock_guard<std::mutex> turn(writer_);
    std::unique_lock<FairLock> guard(lock_);
    uint32_t next = 0;
    tags_.reserve(rows_.size(), live_count_.load());
    tags_.start();
    for (size_t slot = 0; slot < rows_.size(); ++slot) {
        if (rows_[slot].state == LIVE) tags_.put(uint32_t(slot), next++);
    }
    return next;
}

inline void Inverted::tags_of(const int64_t* keys, size_t count, uint32_t* tags) {
    std::shared_lock<FairLock> guard(lock_);
    for (size_t at = 0; at < count; ++at) {
        const uint32_t slot = slot_of(keys[at]);
        tags[at] = slot == EMPTY ? EMPTY : tags_.of(slot);
    }
}

inline void Inverted::contains(const int64_t* keys, size_t count, uint8_t* found) {
    std::shared_lock<FairLock> guard(lock_);
    for (size_t at = 0; at < count; ++at) found[at] = slot_of(keys[at]) != EMPTY;
}

inline void Inverted::rows_of(const int64_t* keys, size_t count, int64_t* starts, std::vector<uint32_t>& dims,
                              std::vector<float>& values, uint8_t* found) {
    std::shared_lock<FairLock> guard(lock_);
    starts[0] = 0;
    for (size_t at = 0; at < count; ++at) {
        const uint32_t slot = slot_of(keys[at]);
        found[at] = slot != EMPTY;
        for (size_t element = 0; found[at] && element < rows_[slot].length; ++element) {
            dims.push_back(rows_[slot].elements[element].dim);
            values.push_back(rows_[slot].elements[element].value);
        }
        starts[at + 1] = int64_t(dims.size());
    }
}

// Write up to `room` keys in slot order; returns how many there are.
inline size_t Inverted::live_keys(int64_t* keys, size_t room) {
    std::shared_lock<FairLock> guard(lock_);
    size_t count = 0;
    for (const Row& row : rows_) {
        if (row.state != LIVE) continue;
        if (count < room) keys[count] = row.key;
        ++count;
    }
    return count;
}

inline void Inverted::figures(int64_t* out) {
    std::shared_lock<FairLock> guard(lock_);
    const int64_t numbers[FIGURES] = {
        int64_t(live_count_.load()),
        int64_t(rows_.size()),
        int64_t(dead_count_),
        int64_t(free_.size()),
        int64_t(postings_.dims()),
        int64_t(postings_.count()),
        int64_t(repairs_),
        int64_t(live_elements_ * sizeof(SparseElement)),
        int64_t(postings_.count() * sizeof(Posting)),
        int64_t(rows_.capacity() * sizeof(Row) + floors_.size() * sizeof(double) + by_key_.bytes() +
                postings_.table_bytes() + tags_.bytes()),
        int64_t(sieve_scans_.load()),
        int64_t(sieve_walks_.load()),
        int64_t(sieve_rows_.load()),
    };
    std::copy(numbers, numbers + FIGURES, out);
}

}  // namespace ruvector

#endif
