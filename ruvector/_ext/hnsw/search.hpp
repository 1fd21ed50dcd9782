// Searching: greedy through the upper levels, a beam on the lowest, or a scan of all rows.
#ifndef RUVECTOR_HNSW_SEARCH_HPP
#define RUVECTOR_HNSW_SEARCH_HPP

#include "hnsw/graph.hpp"

namespace ruvector {

inline Graph::Graph(const Options& options)
    : options_(options),
      space_(Metric(options.metric), Element(options.element), options.dims),
      base_links_(options.linked ? 2 * options.m : 0),
      level_scale_(options.linked ? 1.0 / std::log(double(options.m)) : 0.0),
      rows_((space_.row_bytes() + 15) / 16 * 16),
      links_(options.linked ? size_t(base_links_) * sizeof(uint32_t) : 1) {
    // The first lines are fetched ahead; the hardware follows the rest of a row by itself.
    prefetch_bytes_ = std::min<size_t>(space_.row_bytes(), 512);
}

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

// Collect the unseen neighbours of a node into scratch.around, ended by EMPTY.
inline void Graph::gather(uint32_t slot, uint32_t level, Scratch& scratch) const {
    const uint32_t* list = links(slot, level);
    uint32_t* around = scratch.around.data();
    uint32_t limit = room(level), count = 0;
    while (count < limit && list[count] != EMPTY) scratch.visited.prefetch(list[count++]);
    size_t unseen = 0;
    for (uint32_t at = 0; at < count; ++at) {
        around[unseen] = list[at];
        unseen += scratch.visited.mark(list[at]);
    }
    around[unseen] = EMPTY;
}

// Expand the pool until its nearest unexpanded node is farther than all it holds; false when cancelled.
template <class Pool>
bool Graph::beam(const Probe& probe, uint32_t level, Pool& pool, Scratch& scratch, bool weighted,
                 const volatile uint8_t* cancel) const {
    constexpr size_t AHEAD = 3;
    const uint32_t* around = scratch.around.data();
    size_t hops = 0;
    for (uint32_t slot; pool.next(&slot);) {
        if (++hops % CANCEL_HOPS == 0 && cancel != nullptr && *cancel) return false;
        gather(slot, level, scratch);
        for (size_t at = 0; at < AHEAD && around[at] != EMPTY; ++at) prefetch_row(around[at]);
        bool more = around[0] != EMPTY && around[1] != EMPTY && around[2] != EMPTY;
        for (size_t at = 0; around[at] != EMPTY; ++at) {
            more = more && around[at + AHEAD] != EMPTY;
            if (more) prefetch_row(around[at + AHEAD]);
            float apart = distance(probe, around[at]);
            if (!pool.admits(apart)) continue;
            if (level == 0) __builtin_prefetch(links_.at(around[at]));
            pool.push(apart, around[at], weighted ? members_[around[at]] : 1);
        }
    }
    return true;
}

// Walk greedily from the entry down to level `stop`; returns the nearest node met and its distance.
inline uint32_t Graph::descend(const Probe& probe, uint32_t stop, float* best) const {
    uint32_t here = entry_;
    *best = distance(probe, here);
    for (uint32_t level = top_; level > stop; --level) {
        for (bool moved = true; moved;) {
            moved = false;
            const uint32_t* list = links(here, level);
            for (uint32_t at = 0; at < options_.m && list[at] != EMPTY; ++at) prefetch_row(list[at]);
            for (uint32_t at = 0; at < options_.m && list[at] != EMPTY; ++at) {
                float apart = distance(probe, list[at]);
                if (apart < *best) {
                    *best = apart;
                    here = list[at];
                    moved = true;
                }
            }
        }
    }
    return here;
}

template <class Pool>
int64_t Graph::walk(const Probe& probe, size_t k, size_t ef, Pool& pool, Scratch& scratch,
                    const volatile uint8_t* cancel, int64_t* keys, float* distances) const {
    float best;
    bool weighted = odd_count_ != 0;
    uint32_t start = descend(probe, 0, &best);
    scratch.visited.begin(slots_);
    scratch.visited.mark(start);
    pool.begin(ef);
    pool.push(best, start, weighted ? members_[start] : 1);
    if (!beam(probe, 0, pool, scratch, weighted, cancel)) return -1;
    size_t found = 0;
    for (const Candidate& item : pool.sorted()) {
        float shown = space_.shown(item.distance);
        if (states_[item.slot] == LIVE && found < k) {
            keys[found] = keys_[item.slot];
            distances[found++] = shown;
        }
        for (uint32_t twin = twin_next_[item.slot]; twin != EMPTY && found < k; twin = twin_next_[twin]) {
            keys[found] = keys_[twin];
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
    std::sort(heap.begin(), heap.end(), nearer);
    for (size_t at = 0; at < heap.size(); ++at) {
        keys[at] = keys_[heap[at].slot];
        distances[at] = space_.shown(heap[at].distance);
    }
    return int64_t(heap.size());
}

inline int64_t Graph::search(const char* query, size_t k, size_t ef, size_t scan_rows,
                             const volatile uint8_t* cancel, int64_t* keys, float* distances) {
    std::unique_ptr<Scratch> scratch = borrow();
    int64_t found = 0;
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
            found = ef <= SORTED_WIDTH_MAX
                        ? walk(probe, k, ef, scratch->pool, *scratch, cancel, keys, distances)
                        : walk(probe, k, ef, scratch->heap, *scratch, cancel, keys, distances);
            // The walk may end early where deletions cut the graph; an answer shorter than k must mean "all rows".
            if (found >= 0 && size_t(found) < wanted) found = scan(probe, wanted, *scratch, cancel, keys, distances);
        }
    }
    give_back(std::move(scratch));
    return found;
}

// Answer `count` queries into rows of k places; -1 when cancelled.
inline int64_t Graph::search_many(const char* queries, size_t count, size_t k, size_t ef, size_t scan_rows,
                                  unsigned threads, const volatile uint8_t* cancel, int64_t* keys,
                                  float* distances, int64_t* counts) {
    std::atomic<bool> cancelled{false};
    parallel_for(count, threads, [&](unsigned, size_t at) {
        if (cancelled.load()) return;
        counts[at] = search(queries + at * space_.query_bytes(), k, ef, scan_rows, cancel, keys + at * k,
                            distances + at * k);
        if (counts[at] < 0) cancelled = true;
    });
    return cancelled.load() ? -1 : 0;
}

inline void Graph::contains(const int64_t* keys, size_t count, uint8_t* found) {
    std::shared_lock<FairLock> guard(lock_);
    for (size_t at = 0; at < count; ++at) found[at] = slot_of(keys[at]) != EMPTY;
}

inline void Graph::rows_of(const int64_t* keys, size_t count, char* rows, uint8_t* found) {
    std::shared_lock<FairLock> guard(lock_);
    for (size_t at = 0; at < count; ++at) {
        uint32_t slot = slot_of(keys[at]);
        found[at] = slot != EMPTY;
        if (slot != EMPTY) std::memcpy(rows + at * space_.row_bytes(), rows_.at(slot), space_.row_bytes());
    }
}

// Write up to `room` keys in slot order; returns how many there are.
inline size_t Graph::live_keys(int64_t* keys, size_t room) {
    std::shared_lock<FairLock> guard(lock_);
    size_t count = 0;
    for (uint32_t slot = 0; slot < slots_; ++slot) {
        if (states_[slot] != LIVE && states_[slot] != TWIN) continue;
        if (count < room) keys[count] = keys_[slot];
        ++count;
    }
    return count;
}

}  // namespace ruvector

#endif
