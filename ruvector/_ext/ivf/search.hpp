// Searching: choose lists, scan their bits, weigh what is left by its levels, compare the last few rows themselves.
#ifndef RUVECTOR_IVF_SEARCH_HPP
#define RUVECTOR_IVF_SEARCH_HPP

#include <optional>

#include "ivf/lists.hpp"

namespace ruvector {

struct Lists::Query {
    Probe probe;
    const CodeProbe* code;
    const float* apart;  // of the lists
    // Sums of the table become products with signs: step * sum + base.
    float step = 0.0f;
    float base = 0.0f;
    float limit = std::numeric_limits<float>::infinity();  // the k-th least estimate so far
};

inline Lists::Lists(const ListOptions& options)
    : options_(options),
      space_(Metric(options.metric), Element(options.element), options.dims),
      codes_(Metric(options.metric), Element(options.element), options.dims, options.seed, CODE_DIMS_STEP),
      prefetch_bytes_(std::min<size_t>(space_.row_bytes(), 512)),
      rows_((space_.row_bytes() + 15) / 16 * 16),
      blocks_(Metric(options.metric), codes_.padded()) {}

inline std::unique_ptr<ListScratch> Lists::borrow() {
    {
        std::lock_guard<std::mutex> guard(idle_lock_);
        if (!idle_.empty()) {
            std::unique_ptr<ListScratch> scratch = std::move(idle_.back());
            idle_.pop_back();
            return scratch;
        }
    }
    auto scratch = std::make_unique<ListScratch>();
    scratch->probes.resize(QUERIES_AT_ONCE);
    scratch->shifted.resize(QUERIES_AT_ONCE * codes_.padded());
    scratch->table.resize(codes_.padded() * 4);
    scratch->rotated.resize(codes_.padded());
    scratch->difference.resize(codes_.padded());
    if (options_.element == int(Element::F16)) scratch->row.resize(options_.dims);
    return scratch;
}

inline void Lists::give_back(std::unique_ptr<ListScratch> scratch) {
    std::lock_guard<std::mutex> guard(idle_lock_);
    if (idle_.size() < SCRATCH_MAX) idle_.push_back(std::move(scratch));
}

// Two candidates stand for one list: with 3 * sqrt(rows) lists that finds most neighbours at an ef of 10 and nearly all
// at an ef of some hundreds. More lists are scanned when these hold fewer than ef rows.
inline size_t Lists::lists_for(size_t ef, size_t lists) { return std::min(lists, (ef + 1) / 2); }

// Put the `wanted` nearest lists first, in order. A sample tells how near they are likely to be, so that only few
// have to be sorted.
inline void Lists::choose_lists(size_t wanted, const float* apart, ListScratch& scratch) const {
    constexpr size_t STEP = 8;
    size_t count = centroids_.count, rank = wanted / STEP + wanted / (2 * STEP) + 3;
    if (count < 128 || rank * STEP * 2 > count) {
        sort_lists(apart, scratch);
        return;
    }
    scratch.sampled.clear();
    for (size_t list = 0; list < count; list += STEP) scratch.sampled.push_back(apart[list]);
    std::nth_element(scratch.sampled.begin(), scratch.sampled.begin() + ptrdiff_t(rank), scratch.sampled.end());
    float bound = scratch.sampled[rank];
    if (scratch.order.size() < count) scratch.order.resize(count);
    Near* order = scratch.order.data();
    size_t found = 0;
    for (size_t list = 0; list < count; ++list) {
        order[found] = {apart[list], uint32_t(list)};
        found += apart[list] <= bound;
    }
    if (found < wanted) {
        sort_lists(apart, scratch);
        return;
    }
    scratch.ordered = found;
    std::sort(order, order + found, NearerRow{});
}

inline void Lists::sort_lists(const float* apart, ListScratch& scratch) const {
    scratch.ordered = centroids_.count;
    if (scratch.order.size() < scratch.ordered) scratch.order.resize(scratch.ordered);
    for (size_t list = 0; list < scratch.ordered; ++list) scratch.order[list] = {apart[list], uint32_t(list)};
    std::sort(scratch.order.begin(), scratch.order.begin() + ptrdiff_t(scratch.ordered), NearerRow{});
}

// For every four dimensions the sums of plus or minus the query's numbers, in steps that suit the widest four.
inline void Lists::fill_table(Query& query, ListScratch& scratch) const {
    const float* rotated = query.code->rotated.data();
    size_t groups = blocks_.groups();
    float widest = 0.0f, sizes = 0.0f;
    for (size_t group = 0; group < groups; ++group) {
        const float* four = rotated + group * 4;
        float size = (std::fabs(four[0]) + std::fabs(four[1])) + (std::fabs(four[2]) + std::fabs(four[3]));
        widest = std::max(widest, size);
        sizes += size;
    }
    float levels = std::min(255.0f, std::floor(65535.0f / float(groups)));
    query.step = 2.0f * widest / levels;
    // Rounding moves a sum by so much at most but in one case of twenty; the sign of mul makes it count downwards.
    query.base = 2.0f * query.step * std::sqrt(float(groups) / 12.0f) - sizes;
    float inverse = widest > 1e-30f ? levels / (2.0f * widest) : 0.0f;
    for (size_t group = 0; group < groups; ++group) {
        float sums[16] = {0.5f};  // the least sum lies at 0; a half, because cutting off shall round to nearest
        for (size_t at = 0; at < 4; ++at) {
            float number = rotated[group * 4 + at] * inverse, size = std::fabs(number);
            float plus = size + number, minus = size - number;
            size_t half = size_t(1) << at;
            for (size_t entry = 0; entry < half; ++entry) {
                sums[entry + half] = sums[entry] + plus;
                sums[entry] += minus;
            }
        }
        uint8_t* table = scratch.table.data() + group * 16;
        for (size_t entry = 0; entry < 16; ++entry) table[entry] = uint8_t(int32_t(std::min(sums[entry], levels)));
    }
}

// Fill scratch.nearest from the nearest lists; false when cancelled. scratch.order is what choose_lists left.
inline bool Lists::walk(Query& query, size_t wanted, size_t ef, const Passing* passing, ListScratch& scratch,
                        const volatile uint8_t* cancel) const {
    fill_table(query, scratch);
    scratch.suspects.clear();
    scratch.reach.clear();
    for (uint32_t slot : loose_) {
        if (passing != nullptr && !passing->row(slot)) continue;
        float apart = distance(query.probe, slot);
        scratch.suspects.push_back({apart, -std::numeric_limits<float>::infinity(), slot});
        tighten(query, apart, wanted, scratch);
    }
    size_t lists = lists_for(ef, centroids_.count), seen = loose_.size(), scanned = 0;
    for (size_t rank = 0; rank < centroids_.count && (rank < lists || seen < std::max(wanted, ef)); ++rank) {
        if (rank >= scratch.ordered) sort_lists(query.apart, scratch);
        prefetch_list(scratch.order.data() + rank, scratch.ordered - rank);
        uint32_t list = scratch.order[rank].slot;
        size_t before = scanned;
        seen += lists_[list].rows;
        scanned += lists_[list].blocks.size();
        if (before / SCANNED_BETWEEN != scanned / SCANNED_BETWEEN && cancel != nullptr && *cancel) return false;
        scan_list(query, list, wanted, passing, scratch);
    }
    refine(query, wanted, scratch);
    return true;
}

// Fetch what the next lists need: a list, then its first block and centroid, each once the one before it has come.
inline void Lists::prefetch_list(const Near* next, size_t count) const {
    if (count > 6) __builtin_prefetch(&lists_[next[6].slot]);
    if (count > 4) __builtin_prefetch(lists_[next[4].slot].blocks.data());
    if (count <= 2 || lists_[next[2].slot].blocks.empty()) return;
    const char* place = reinterpret_cast<const char*>(centroids_.place(next[2].slot));
    for (size_t byte = 0; byte < codes_.padded() * sizeof(float); byte += 64) __builtin_prefetch(place + byte);
    prefetch_block(lists_[next[2].slot].blocks.front());
}

inline void Lists::prefetch_block(uint32_t block) const {
    const char* bits = blocks_.all().at(block);
    size_t bytes = std::min<size_t>(sizeof(BlockHead) + blocks_.groups() * 16, 2048);  // then the hardware follows
    for (size_t byte = 0; byte < bytes; byte += 64) __builtin_prefetch(bits + byte);
}

inline void Lists::scan_list(Query& query, uint32_t list, size_t wanted, const Passing* passing,
                             ListScratch& scratch) const {
    const float* rotated = query.code->rotated.data();
    const float* place = centroids_.place(list);
    ScanTerms terms{query.step, query.base, 0.0f, query.code->length, query.limit};
    if (space_.metric() == Metric::IP) {
        terms.start = query.code->add - kernels().dot_f32(rotated, place, codes_.padded());
    } else {
        float square = kernels().l2_squared_f32(rotated, place, codes_.padded());
        terms.start = space_.metric() == Metric::L2 ? square : square * 0.5f;
        terms.length = std::sqrt(square);
    }
    const std::vector<uint32_t>& blocks = lists_[list].blocks;
    for (size_t at = 0; at < blocks.size(); ++at) {
        if (at + 1 < blocks.size()) prefetch_block(blocks[at + 1]);
        uint32_t block = blocks[at];
        const BlockHead& head = blocks_.head(block);
        uint32_t left = codes_.kernels_of().scan_near(blocks_.bits(block), scratch.table.data(), blocks_.groups(),
                                                      terms, head.add, head.mul, head.error);
        for (; left != 0; left &= left - 1) {
            size_t lane = size_t(__builtin_ctz(left));
            if (passing != nullptr && !passing->row(head.slots[lane])) continue;
            scratch.records.push_back(blocks_.record(block, lane));
            scratch.record_slots.push_back(head.slots[lane]);
        }
        if (scratch.records.size() < LANES_MAX) continue;
        weigh_records(query, terms, wanted, scratch);
        terms.limit = query.limit;
    }
    weigh_records(query, terms, wanted, scratch);
}

// Estimate by their levels how far the rows are that the bits left over.
inline void Lists::weigh_records(Query& query, const ScanTerms& terms, size_t wanted, ListScratch& scratch) const {
    size_t count = scratch.records.size(), bytes = codes_.padded() / 2;
    if (count == 0) return;
    const CodeProbe& code = *query.code;
    // How far the query's own 8 bits may move a product of levels: all of the error where rows lie close together.
    float blur = NIBBLE_DEVIATIONS * LEVEL_SPREAD * code.scale * std::sqrt(float(codes_.padded()) / 12.0f);
    scratch.dots.resize(std::max(scratch.dots.size(), count));
    codes_.kernels_of().nibble_dots(scratch.records.data(), count, code.levels.data(), code.levels.data() + bytes,
                                    bytes, blocks_.record_bytes(), scratch.dots.data());
    for (size_t at = 0; at < count; ++at) {
        CodeFactors factors = blocks_.factors(scratch.records[at]);
        float product = code.scale * float(scratch.dots[at]) - code.shift;
        float apart = terms.start + factors.add + factors.mul * product;
        float error = factors.error * terms.length, own = factors.mul * blur;
        float least = apart - std::sqrt(error * error + own * own);
        if (least >= query.limit) continue;
        scratch.suspects.push_back({apart, least, scratch.record_slots[at]});
        tighten(query, apart, wanted, scratch);
    }
    scratch.records.clear();
    scratch.record_slots.clear();
}

// Keep the k least estimates; the greatest of them is the limit.
inline void Lists::tighten(Query& query, float apart, size_t wanted, ListScratch& scratch) {
    std::vector<float>& reach = scratch.reach;
    if (reach.size() < wanted) {
        reach.push_back(apart);
        std::push_heap(reach.begin(), reach.end());
    } else if (apart < reach.front()) {
        std::pop_heap(reach.begin(), reach.end());
        reach.back() = apart;
        std::push_heap(reach.begin(), reach.end());
    }
    if (reach.size() == wanted) query.limit = reach.front();
}

// Compare the suspects' rows, least estimate first, as long as one may still belong to the k nearest.
inline void Lists::refine(const Query& query, size_t wanted, ListScratch& scratch) const {
    constexpr size_t AHEAD = 4;
    std::vector<Suspect>& suspects = scratch.suspects;
    // Estimates that tightened the limit lie below it, so k suspects are left at least.
    auto gone = [&](const Suspect& suspect) { return suspect.least > query.limit; };
    suspects.erase(std::remove_if(suspects.begin(), suspects.end(), gone), suspects.end());
    std::sort(suspects.begin(), suspects.end(), [](const Suspect& left, const Suspect& right) {
        return left.distance < right.distance || (left.distance == right.distance && left.slot < right.slot);
    });
    scratch.nearest.clear();
    for (size_t at = 0; at < suspects.size() && at < AHEAD; ++at) prefetch_row(suspects[at].slot);
    for (size_t at = 0; at < suspects.size(); ++at) {
        if (at + AHEAD < suspects.size()) prefetch_row(suspects[at + AHEAD].slot);
        bool full = scratch.nearest.size() == wanted;
        if (full && suspects[at].least > scratch.nearest.front().distance) continue;
        keep_nearest({distance(query.probe, suspects[at].slot), suspects[at].slot}, wanted, scratch.nearest);
    }
}

inline void Lists::keep_nearest(const Near& near, size_t wanted, std::vector<Near>& nearest) {
    if (nearest.size() < wanted) {
        nearest.push_back(near);
        std::push_heap(nearest.begin(), nearest.end(), NearerRow{});
    } else if (NearerRow{}(near, nearest.front())) {
        std::pop_heap(nearest.begin(), nearest.end(), NearerRow{});
        nearest.back() = near;
        std::push_heap(nearest.begin(), nearest.end(), NearerRow{});
    }
}

// Compare every row, or every one that passes; false when cancelled.
inline bool Lists::scan(const Probe& probe, size_t wanted, const Passing* passing, ListScratch& scratch,
                        const volatile uint8_t* cancel) const {
    scratch.nearest.clear();
    size_t compared = 0;
    auto compare = [&](uint32_t slot) {
        if (compared++ % SCANNED_BETWEEN == 0 && cancel != nullptr && *cancel) return false;
        if (states_[slot] != 0) keep_nearest({distance(probe, slot), slot}, wanted, scratch.nearest);
        return true;
    };
    if (passing != nullptr) return passing->each(compare);
    for (uint32_t slot = 0; slot < slots_; ++slot) {
        if (!compare(slot)) return false;
    }
    return true;
}

// About how many rows the lists hold that are scanned for an ef.
inline size_t Lists::rows_scanned(size_t ef, size_t live, size_t lists) {
    return lists == 0 ? live : std::max(ef, lists_for(ef, lists) * (live / lists + 1));
}

inline int64_t Lists::name_rows(ListScratch& scratch, int64_t* keys, float* distances) const {
    std::sort(scratch.nearest.begin(), scratch.nearest.end(), NearerRow{});
    for (size_t at = 0; at < scratch.nearest.size(); ++at) {
        keys[at] = keys_[scratch.nearest[at].slot];
        distances[at] = space_.shown(scratch.nearest[at].distance);
    }
    return int64_t(scratch.nearest.size());
}

// Answer up to QUERIES_AT_ONCE queries; false when cancelled. The lock is held.
inline bool Lists::answer(const char* queries, size_t count, size_t k, size_t ef, size_t scan_rows, const Sieve* sieve,
                          ListScratch& scratch, const volatile uint8_t* cancel, int64_t* keys, float* distances,
                          int64_t* counts) {
    size_t live = live_count_.load(), wanted = std::min(k, live);
    ef = std::max(ef, k);
    bool exact = !has_lists() || live <= scan_rows || wanted * 2 >= live || ef * 2 >= live;
    std::optional<Passing> chosen;
    if (sieve != nullptr) {
        chosen.emplace(*sieve, tags_, slots_, scratch.mask, scratch.listed, [&](int64_t key) { return slot_of(key); });
        size_t rows = std::min(chosen->count(), live);
        wanted = std::min(wanted, rows);
        // So many of the nearest rows have to be seen for ef that pass.
        if (rows != 0) ef = size_t(std::min(double(live), double(ef) * double(live) / double(rows)));
        bool is_cheaper = rows * ROW_COST <= rows_scanned(ef, live, centroids_.count);
        exact = exact || wanted * 2 >= rows || sieve->plan == PLAN_SCAN || (sieve->plan == PLAN_AUTO && is_cheaper);
        sieve_rows_.fetch_add(count * rows, std::memory_order_relaxed);
        (exact ? sieve_scans_ : sieve_walks_).fetch_add(count, std::memory_order_relaxed);
    }
    const Passing* passing = chosen ? &*chosen : nullptr;
    ShiftedCode codes[QUERIES_AT_ONCE];
    bool coded[QUERIES_AT_ONCE] = {};
    for (size_t at = 0; at < QUERIES_AT_ONCE && !exact; ++at) {
        codes[at].levels = scratch.shifted.data() + at * codes_.padded();
        if (at >= count) continue;
        const char* query = queries + at * space_.query_bytes();
        coded[at] = codes_.prepare({query, space_.query_scale(query)}, scratch.probes[at]);
        if (coded[at]) codes[at].take(codes_.kernels_of(), scratch.probes[at].rotated.data(), codes_.padded());
    }
    if (!exact) {
        scratch.apart.resize(std::max(scratch.apart.size(), QUERIES_AT_ONCE * centroids_.line()));
        float weights[QUERIES_AT_ONCE];
        for (size_t at = 0; at < QUERIES_AT_ONCE; ++at) {
            weights[at] = space_.metric() == Metric::IP ? std::sqrt(codes[at].square) : 1.0f;
        }
        centroids_.compare(codes_.kernels_of(), codes, centroids_.ranks.data(), weights, scratch.apart.data());
    }
    for (size_t at = 0; at < count; ++at) {
        if (cancel != nullptr && *cancel) return false;
        const char* raw = queries + at * space_.query_bytes();
        Query query{{raw, space_.query_scale(raw)}, &scratch.probes[at], scratch.apart.data() + at * centroids_.line()};
        bool done = true;
        scratch.nearest.clear();
        if (wanted != 0 && !coded[at]) {
            done = scan(query.probe, wanted, passing, scratch, cancel);
        } else if (wanted != 0) {
            choose_lists(lists_for(ef, centroids_.count), query.apart, scratch);
            done = walk(query, wanted, ef, passing, scratch, cancel);
            // Fewer than wanted must mean all that pass.
            if (done && passing != nullptr && scratch.nearest.size() < wanted) {
                done = scan(query.probe, wanted, passing, scratch, cancel);
            }
        }
        if (!done) return false;
        counts[at] = name_rows(scratch, keys + at * k, distances + at * k);
    }
    return true;
}

// Answer `count` queries into rows of k places; -1 when cancelled.
inline int64_t Lists::search_many(const char* queries, size_t count, size_t k, size_t ef, size_t scan_rows,
                                  const Sieve* sieve, unsigned threads, const volatile uint8_t* cancel, int64_t* keys,
                                  float* distances, int64_t* counts) {
    std::atomic<bool> cancelled{false};
    parallel_for((count + QUERIES_AT_ONCE - 1) / QUERIES_AT_ONCE, threads, [&](unsigned, size_t part) {
        if (cancelled.load()) return;
        size_t first = part * QUERIES_AT_ONCE;
        std::unique_ptr<ListScratch> scratch = borrow();
        bool done;
        {
            std::shared_lock<FairLock> guard(lock_);
            done = answer(queries + first * space_.query_bytes(), std::min(QUERIES_AT_ONCE, count - first), k, ef,
                          scan_rows, sieve, *scratch, cancel, keys + first * k, distances + first * k, counts + first);
        }
        give_back(std::move(scratch));
        if (!done) cancelled = true;
    });
    return cancelled.load() ? -1 : 0;
}

// Give every row a tag, in slot order; returns how many there are.
inline size_t Lists::start_tags() {
    std::lock_guard<std::mutex> turn(writer_);
    std::lock_guard<FairLock> guard(lock_);
    uint32_t next = 0;
    tags_.reserve(slots_, live_count_.load());
    tags_.start();
    for (uint32_t slot = 0; slot < slots_; ++slot) {
        if (states_[slot] != 0) tags_.put(slot, next++);
    }
    return next;
}

inline void Lists::tags_of(const int64_t* keys, size_t count, uint32_t* tags) {
    std::shared_lock<FairLock> guard(lock_);
    for (size_t at = 0; at < count; ++at) {
        uint32_t slot = slot_of(keys[at]);
        tags[at] = slot == EMPTY ? EMPTY : tags_.of(slot);
    }
}

inline void Lists::contains(const int64_t* keys, size_t count, uint8_t* found) {
    std::shared_lock<FairLock> guard(lock_);
    for (size_t at = 0; at < count; ++at) found[at] = slot_of(keys[at]) != EMPTY;
}

inline void Lists::rows_of(const int64_t* keys, size_t count, char* rows, uint8_t* found) {
    std::shared_lock<FairLock> guard(lock_);
    for (size_t at = 0; at < count; ++at) {
        uint32_t slot = slot_of(keys[at]);
        found[at] = slot != EMPTY;
        if (slot != EMPTY) std::memcpy(rows + at * space_.row_bytes(), rows_.at(slot), space_.row_bytes());
    }
}

// Write up to `room` keys in slot order; returns how many there are.
inline size_t Lists::live_keys(int64_t* keys, size_t room) {
    std::shared_lock<FairLock> guard(lock_);
    size_t count = 0;
    for (uint32_t slot = 0; slot < slots_; ++slot) {
        if (states_[slot] == 0) continue;
        if (count < room) keys[count] = keys_[slot];
        ++count;
    }
    return count;
}

}  // namespace ruvector

#endif
