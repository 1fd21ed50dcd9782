// Searching: greedy through the upper levels, a beam on the lowest, or a scan of all rows.
#ifndef RUVECTOR_HNSW_SEARCH_HPP
#define RUVECTOR_HNSW_SEARCH_HPP

#include "hnsw/graph.hpp"

namespace ruvector {

inline Graph::Graph(const Options& options)
    : options_(options),
      space_(Metric(options.metric), Element(options.element), options.dims),
      codes_(Metric(options.metric), Element(options.element), options.dims, options.seed, ROW_DIMS_STEP),
      base_links_(options.linked ? 2 * options.m : 0),
      level_scale_(options.linked ? 1.0 / std::log(double(options.m)) : 0.0),
      rows_((space_.row_bytes() + 15) / 16 * 16),
      links_(options.linked ? size_t(base_links_) * sizeof(uint32_t) : 1),
      records_(codes_.record_bytes()),
      uppers_((size_t(options.m) + 1) * sizeof(uint32_t)) {
    // The first lines are fetched ahead; the hardware follows the rest of a row by itself.
    prefetch_bytes_ = std::min<size_t>(space_.row_bytes(), 512);
}

// How far nodes are from a probe, many at a time: by their rows ...
struct Graph::RowMeasure {
    const Graph& graph;
    const Probe& probe;

    bool may_follow(uint32_t, uint32_t) const { return true; }
    void operator()(const uint32_t* slots, size_t count, float* out, Scratch&) const {
        constexpr size_t AHEAD = 3;
        for (size_t at = 0; at < count && at < AHEAD; ++at) graph.prefetch_row(slots[at]);
        for (size_t at = 0; at < count; ++at) {
            if (at + AHEAD < count) graph.prefetch_row(slots[at + AHEAD]);
            out[at] = graph.distance(probe, slots[at]);
        }
    }
};

// ... or by their codes, which estimate the same distances.
struct Graph::CodeMeasure {
    const Graph& graph;
    const CodeProbe& probe;

    bool may_follow(uint32_t, uint32_t) const { return true; }
    void operator()(const uint32_t* slots, size_t count, float* out, Scratch& scratch) const {
        const Codes& codes = graph.codes_;
        const uint8_t** records = scratch.records.data();
        int32_t* dots = scratch.dots.data();
        size_t levels = codes.level_bytes(), read = codes.read_bytes();
        for (size_t at = 0; at < count; ++at) {
            records[at] = reinterpret_cast<const uint8_t*>(graph.records_.at(slots[at]));
        }
        codes.kernels_of().nibble_dots(records, count, probe.levels.data(), probe.levels.data() + read, read,
                                       codes.record_bytes(), dots);
        for (size_t at = 0; at < count; ++at) {
            const auto* factors = reinterpret_cast<const CodeFactors*>(records[at] + levels);
            out[at] = Codes::estimate(probe, *factors, dots[at]);
        }
    }
};

inline std::unique_ptr<Scratch> Graph::borrow() {
    {
        std::lock_guard<std::mutex> guard(idle_lock_);
        if (!idle_.empty()) {
            std::unique_ptr<Scratch> scratch = std::move(idle_.back());
            idle_.pop_back();
            return scratch;
        }
    }
    auto scratch = std::make_unique<Scratch>();
    scratch->around.resize(base_links_ + 1);
    scratch->apart.resize(base_links_ + 1);
    scratch->records.resize(base_links_ + 1);
    scratch->dots.resize(base_links_ + 1);
    if (options_.element == int(Element::F16)) {
        scratch->probe.resize(options_.dims);
        scratch->candidate.resize(options_.dims);
    }
    return scratch;
}

inline void Graph::give_back(std::unique_ptr<Scratch> scratch) {
    std::lock_guard<std::mutex> guard(idle_lock_);
    if (idle_.size() < SCRATCH_KEPT) idle_.push_back(std::move(scratch));
}

inline std::vector<std::unique_ptr<Scratch>> Graph::scratches(unsigned threads) {
    std::vector<std::unique_ptr<Scratch>> all;
    for (unsigned worker = 0; worker < std::max(1u, threads); ++worker) all.push_back(borrow());
    return all;
}

// Collect the unseen neighbours of a node into scratch.around; returns how many they are.
inline size_t Graph::gather(uint32_t slot, uint32_t level, Scratch& scratch) const {
    const uint32_t* list = links(slot, level);
    uint32_t* around = scratch.around.data();
    uint32_t limit = room(level), count = 0;
    while (count < limit && list[count] != EMPTY) scratch.visited.prefetch(list[count++]);
    size_t unseen = 0;
    for (uint32_t at = 0; at < count; ++at) {
        around[unseen] = list[at];
        unseen += scratch.visited.mark(list[at]);
    }
    return unseen;
}

// Expand the pool until its nearest unexpanded node is farther than all it holds; false when cancelled, or when a list
// must not be followed.
template <class Measure, class Pool>
bool Graph::beam(const Measure& measure, uint32_t level, Pool& pool, Scratch& scratch, bool weighted,
                 const volatile uint8_t* cancel) const {
    const uint32_t* around = scratch.around.data();
    float* apart = scratch.apart.data();
    size_t hops = 0;
    for (uint32_t slot; pool.next(&slot);) {
        if (++hops % CANCEL_HOPS == 0 && cancel != nullptr && *cancel) return false;
        if (!measure.may_follow(slot, level)) return false;
        size_t count = gather(slot, level, scratch);
        measure(around, count, apart, scratch);
        scratch.compared += count;
        for (size_t at = 0; at < count; ++at) {
            if (!pool.admits(apart[at])) continue;
            if (level == 0) {
                const char* list = links_.at(around[at]);
                __builtin_prefetch(list);
                __builtin_prefetch(list + 64);
            }
            pool.push(apart[at], around[at], weight_of(around[at], weighted));
        }
    }
    return true;
}

// Walk greedily from the entry down to level `stop`; returns the nearest node met and its distance, or EMPTY when a list
// must not be followed.
template <class Measure>
uint32_t Graph::descend(const Measure& measure, uint32_t stop, float* best, Scratch& scratch) const {
    uint32_t here = entry_;
    measure(&here, 1, best, scratch);
    ++scratch.compared;
    for (uint32_t level = top_; level > stop; --level) {
        for (bool moved = true; moved;) {
            moved = false;
            if (!measure.may_follow(here, level)) return EMPTY;
            const uint32_t* list = links(here, level);
            size_t count = 0;
            while (count < options_.m && list[count] != EMPTY) ++count;
            measure(list, count, scratch.apart.data(), scratch);
            scratch.compared += count;
            for (size_t at = 0; at < count; ++at) {
                if (scratch.apart[at] < *best) {
                    *best = scratch.apart[at];
                    here = list[at];
                    moved = true;
                }
            }
        }
    }
    return here;
}

// Fill the pool with the ef nearest nodes, linked or loose.
template <class Measure, class Pool>
bool Graph::explore(const Measure& measure, size_t ef, Pool& pool, Scratch& scratch,
                    const volatile uint8_t* cancel) const {
    bool weighted = odd_count_ != 0;
    scratch.visited.begin(slots_);
    pool.begin(ef);
    if (entry_ != EMPTY) {
        float best;
        uint32_t start = descend(measure, 0, &best, scratch);
        if (start == EMPTY) return false;
        scratch.visited.mark(start);
        pool.push(best, start, weight_of(start, weighted));
        if (!beam(measure, 0, pool, scratch, weighted, cancel)) return false;
    }
    // The loose ones last: a pool full of them would not admit the node where the walk begins.
    size_t step = scratch.apart.size();
    for (size_t first = 0; first < loose_.size(); first += step) {
        if (first / step % CANCEL_HOPS == 0 && cancel != nullptr && *cancel) return false;
        const uint32_t* slots = loose_.data() + first;
        size_t count = std::min(step, loose_.size() - first);
        measure(slots, count, scratch.apart.data(), scratch);
        scratch.compared += count;
        for (size_t at = 0; at < count; ++at) {
            if (!scratch.visited.mark(slots[at])) continue;  // while many are being linked, lists lead to loose nodes
            if (!pool.admits(scratch.apart[at])) continue;
            pool.push(scratch.apart[at], slots[at], weight_of(slots[at], weighted));
        }
    }
    return true;
}

template <class Pool>
int64_t Graph::walk(const Probe& probe, size_t k, size_t ef, Pool& pool, Scratch& scratch,
                    const volatile uint8_t* cancel, int64_t* keys, float* distances) const {
    if (coded_ && told_.load() && codes_.prepare(probe, scratch.code)) {
        size_t width = ef + ef / 16 + CODE_SLACK;
        if (!explore_guarded(CodeMeasure{*this, scratch.code}, Guard::CODES, width, pool, scratch, cancel)) return -1;
        refine(probe, k, pool, scratch);
        bool decided = scratch.nearest.empty() || codes_decide(scratch.nearest.back(), scratch.code.length);
        if (!decided && !walk_on(probe, ef, pool, scratch, cancel)) return -1;
    } else {
        if (!explore_guarded(RowMeasure{*this, probe}, Guard::ROWS, ef, pool, scratch, cancel)) return -1;
        scratch.nearest.clear();
        for (size_t at = 0, count = pool.finish(); at < count; ++at) scratch.nearest.push_back(pool.found(at));
    }
    return name_rows(scratch.nearest, k, keys, distances);
}

// Whether estimates tell nodes apart that lie as near as this one to a probe of this length. They cannot where rows lie
// much closer together than to the centre of all: in a tight cluster every member looks equally near.
inline bool Graph::codes_decide(const Edge& edge, float length) const {
    if (space_.metric() == Metric::IP || edge.distance <= 0.0f) return true;
    return codes_.factors(records_.at(edge.slot)).error * length <= CODE_DOUBT * edge.distance;
}

// Walk on from the nearest found, by the rows themselves; false when cancelled or damaged.
template <class Pool>
bool Graph::walk_on(const Probe& probe, size_t ef, Pool& pool, Scratch& scratch, const volatile uint8_t* cancel) const {
    RowMeasure measure{*this, probe};
    bool weighted = odd_count_ != 0;
    scratch.visited.begin(slots_);
    pool.begin(ef);
    for (const Edge& edge : scratch.nearest) {
        scratch.visited.mark(edge.slot);
        pool.push(edge.distance, edge.slot, weighted ? uint32_t(members_[edge.slot] != 0) : 1u);
    }
    bool whole;
    if (watch_ == nullptr) {
        whole = beam(measure, 0, pool, scratch, weighted, cancel);
    } else {
        Guarded<RowMeasure> guarded{measure, *this, *watch_, Guard::ROWS};
        whole = beam(guarded, 0, pool, scratch, weighted, cancel);
    }
    scratch.nearest.clear();
    for (size_t at = 0, count = pool.finish(); at < count; ++at) scratch.nearest.push_back(pool.found(at));
    return whole;
}

// Measure candidates by their rows, nearest estimate first, as long as one may still belong to the k nearest.
template <class Pool>
void Graph::refine(const Probe& probe, size_t k, Pool& pool, Scratch& scratch) const {
    constexpr size_t AHEAD = 4;
    std::vector<Edge>& nearest = scratch.nearest;  // a heap with the farthest on top
    nearest.clear();
    size_t weight = 0, count = pool.finish();
    for (size_t at = 0; at < count && at < AHEAD; ++at) prefetch_row(pool.found(at).slot);
    for (size_t at = 0; at < count; ++at) {
        Edge edge = pool.found(at);
        size_t members = members_[edge.slot];
        if (members == 0) continue;
        if (weight >= k) {
            float error = codes_.factors(records_.at(edge.slot)).error * scratch.code.length;
            if (edge.distance - error > nearest.front().distance) continue;
        }
        if (at + AHEAD < count) prefetch_row(pool.found(at + AHEAD).slot);
        if (watch_ != nullptr && !watch_->holds(Guard::ROWS, edge.slot)) return;
        edge.distance = distance(probe, edge.slot);
        ++scratch.reranked;
        if (weight >= k && !nearer(edge, nearest.front())) continue;
        nearest.push_back(edge);
        std::push_heap(nearest.begin(), nearest.end(), nearer);
        weight += members;
        while (weight - members_[nearest.front().slot] >= k) {
            weight -= members_[nearest.front().slot];
            std::pop_heap(nearest.begin(), nearest.end(), nearer);
            nearest.pop_back();
        }
    }
    std::sort(nearest.begin(), nearest.end(), nearer);
}

// The rows that sorted nodes stand for, k at most.
inline int64_t Graph::name_rows(const std::vector<Edge>& nodes, size_t k, int64_t* keys, float* distances) const {
    size_t found = 0;
    for (const Edge& edge : nodes) {
        float shown = space_.shown(edge.distance);
        if (states_[edge.slot] == LIVE && found < k) {
            keys[found] = key_of(edge.slot);
            distances[found++] = shown;
        }
        bool alone = members_[edge.slot] == (states_[edge.slot] == LIVE);
        for (uint32_t twin = alone ? EMPTY : twins_.next(edge.slot); twin != EMPTY && found < k;
             twin = twins_.next(twin)) {
            keys[found] = key_of(twin);
            distances[found++] = shown;
        }
        if (found == k) break;
    }
    return int64_t(found);
}

// Compare every row; the nearest k stand in a heap with the farthest on top.
inline int64_t Graph::scan(const Probe& probe, size_t k, Scratch& scratch, const volatile uint8_t* cancel,
                           int64_t* keys, float* distances) const {
    std::vector<Edge>& heap = scratch.edges;
    heap.clear();
    for (uint32_t slot = 0; slot < slots_; ++slot) {
        if (slot % CANCEL_HOPS == 0 && cancel != nullptr && *cancel) return -1;
        if (states_[slot] != LIVE && states_[slot] != TWIN) continue;
        if (watch_ != nullptr && !watch_->holds(Guard::ROWS, slot)) return DAMAGED;
        Edge edge{distance(probe, slot), slot};
        if (heap.size() < k) {
            heap.push_back(edge);
            std::push_heap(heap.begin(), heap.end(), nearer);
        } else if (nearer(edge, heap.front())) {
            std::pop_heap(heap.begin(), heap.end(), nearer);
            heap.back() = edge;
            std::push_heap(heap.begin(), heap.end(), nearer);
        }
    }
    scratch.compared += live_count_.load();
    std::sort(heap.begin(), heap.end(), nearer);
    for (size_t at = 0; at < heap.size(); ++at) {
        keys[at] = key_of(heap[at].slot);
        distances[at] = space_.shown(heap[at].distance);
    }
    return int64_t(heap.size());
}

inline int64_t Graph::search(const char* query, size_t k, size_t ef, size_t scan_rows,
                             const volatile uint8_t* cancel, int64_t* keys, float* distances) {
    std::unique_ptr<Scratch> scratch = borrow();
    int64_t found = 0;
    scratch->compared = scratch->reranked = 0;
    {
        std::shared_lock<FairLock> guard(lock_);
        size_t live = live_count_.load();
        size_t wanted = std::min(k, live);
        ef = std::max(ef, k);
        Probe probe{query, space_.query_scale(query)};
        bool exact = !options_.linked || live <= scan_rows || wanted * 2 >= live || ef * 2 >= live;
        if (wanted == 0) {
            found = 0;
        } else if (exact) {
            found = scan(probe, wanted, *scratch, cancel, keys, distances);
        } else {
            found = ef > SORTED_WIDTH_MAX ? walk(probe, k, ef, scratch->heap, *scratch, cancel, keys, distances)
                    : odd_count_ != 0     ? walk(probe, k, ef, scratch->pool, *scratch, cancel, keys, distances)
                                          : walk(probe, k, ef, scratch->narrow, *scratch, cancel, keys, distances);
            // The walk may end early where deletions cut the graph; an answer shorter than k must mean "all rows".
            if (found >= 0 && size_t(found) < wanted) found = scan(probe, wanted, *scratch, cancel, keys, distances);
        }
        if (watch_ != nullptr && watch_->is_damaged()) found = DAMAGED;
    }
    searches_.fetch_add(1, std::memory_order_relaxed);
    compared_.fetch_add(scratch->compared, std::memory_order_relaxed);
    reranked_.fetch_add(scratch->reranked, std::memory_order_relaxed);
    give_back(std::move(scratch));
    return found;
}

// Answer `count` queries into rows of k places; -1 when cancelled, DAMAGED when a page is.
inline int64_t Graph::search_many(const char* queries, size_t count, size_t k, size_t ef, size_t scan_rows,
                                  unsigned threads, const volatile uint8_t* cancel, int64_t* keys,
                                  float* distances, int64_t* counts) {
    std::atomic<int64_t> outcome{0};
    parallel_for(count, threads, [&](unsigned, size_t at) {
        if (outcome.load() < 0) return;
        counts[at] = search(queries + at * space_.query_bytes(), k, ef, scan_rows, cancel, keys + at * k,
                            distances + at * k);
        if (counts[at] < 0) outcome = counts[at];
    });
    return outcome.load();
}

inline void Graph::contains(const int64_t* keys, size_t count, uint8_t* found) {
    if (!ready_tables()) return;
    std::shared_lock<FairLock> guard(lock_);
    for (size_t at = 0; at < count; ++at) found[at] = slot_of(keys[at]) != EMPTY;
}

inline void Graph::rows_of(const int64_t* keys, size_t count, char* rows, uint8_t* found) {
    if (!ready_tables()) return;
    std::shared_lock<FairLock> guard(lock_);
    for (size_t at = 0; at < count; ++at) {
        uint32_t slot = slot_of(keys[at]);
        found[at] = slot != EMPTY;
        if (slot != EMPTY && watch_ != nullptr && !watch_->holds(Guard::ROWS, slot)) return;
        if (slot != EMPTY) std::memcpy(rows + at * space_.row_bytes(), rows_.at(slot), space_.row_bytes());
    }
}

// Write up to `room` keys in slot order; returns how many there are.
inline size_t Graph::live_keys(int64_t* keys, size_t room) {
    std::shared_lock<FairLock> guard(lock_);
    size_t count = 0;
    for (uint32_t slot = 0; slot < slots_; ++slot) {
        if (states_[slot] != LIVE && states_[slot] != TWIN) continue;
        if (count < room) keys[count] = key_of(slot);
        ++count;
    }
    return count;
}

}  // namespace ruvector

#endif
