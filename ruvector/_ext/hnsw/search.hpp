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

// What a node fills of a pool, and how many rows it stands for in an answer. One row each ...
struct Graph::One {
    uint32_t operator()(uint32_t) const { return 1; }
    size_t rows(uint32_t) const { return 1; }
};

// ... or those it holds, none when it was deleted. In a pool equal rows count once: estimates must not decide which one
// of two such nodes fills it alone.
struct Graph::Held {
    const Graph& graph;

    uint32_t operator()(uint32_t slot) const { return graph.members_[slot] != 0; }
    size_t rows(uint32_t slot) const { return graph.members_[slot]; }
    bool row(uint32_t) const { return true; }
};

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
template <class Measure, class Pool, class Weight>
bool Graph::beam(const Measure& measure, uint32_t level, Pool& pool, Scratch& scratch, const Weight& weight,
                 const volatile uint8_t* cancel) const {
    const uint32_t* around = scratch.around.data();
    float* apart = scratch.apart.data();
    size_t hops = 0;
    for (uint32_t slot;;) {
        scratch.is_spent = scratch.compared > scratch.budget;  // so far; going on later takes up where this ended
        if (scratch.is_spent || !pool.next(&slot)) return true;
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
            pool.push(apart[at], around[at], weight(around[at]));
        }
    }
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
template <class Measure, class Pool, class Weight>
bool Graph::explore(const Measure& measure, size_t ef, Pool& pool, Scratch& scratch, const Weight& weight,
                    const volatile uint8_t* cancel) const {
    pool.begin(ef);
    return set_out(measure, pool, scratch, weight, cancel);
}

// The same with a pool that has begun.
template <class Measure, class Pool, class Weight>
bool Graph::set_out(const Measure& measure, Pool& pool, Scratch& scratch, const Weight& weight,
                    const volatile uint8_t* cancel) const {
    scratch.visited.begin(slots_);
    if (entry_ != EMPTY) {
        float best;
        uint32_t start = descend(measure, 0, &best, scratch);
        if (start == EMPTY) return false;
        scratch.visited.mark(start);
        pool.push(best, start, weight(start));
        if (!beam(measure, 0, pool, scratch, weight, cancel)) return false;
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
            pool.push(scratch.apart[at], slots[at], weight(slots[at]));
        }
    }
    return true;
}

// Put the nodes that `work` fills a pool with into scratch.nearest, as the rows rank them; false when it ends early. It
// gets a measure and the width of the pool. `decided` tells whether the codes could tell the nearest apart.
template <class Pool, class Weight, class Work>
bool Graph::fill(const Probe& probe, size_t k, size_t ef, Pool& pool, Scratch& scratch, const Weight& weight,
                 const Work& work, bool* decided) const {
    *decided = true;
    if (coded_ && told_.load() && codes_.prepare(probe, scratch.code)) {
        size_t width = ef + ef / 16 + CODE_SLACK;
        auto filling = [&](const auto& measure) { return work(measure, width); };
        if (!guarded(CodeMeasure{*this, scratch.code}, Guard::CODES, filling)) return false;
        if (scratch.is_spent) return true;
        refine(probe, k, pool, scratch, weight);
        *decided = scratch.nearest.empty() || codes_decide(scratch.nearest.back(), scratch.code.length);
        return true;
    }
    auto filling = [&](const auto& measure) { return work(measure, ef); };
    if (!guarded(RowMeasure{*this, probe}, Guard::ROWS, filling)) return false;
    list_found(pool, scratch);
    return true;
}

template <class Pool>
void Graph::list_found(Pool& pool, Scratch& scratch) {
    scratch.nearest.clear();
    for (size_t at = 0, count = pool.finish(); at < count; ++at) scratch.nearest.push_back(pool.found(at));
}

template <class Pool, class Weight>
bool Graph::walk(const Probe& probe, size_t k, size_t ef, Pool& pool, Scratch& scratch, const Weight& weight,
                 const volatile uint8_t* cancel) const {
    bool decided;
    auto exploring = [&](const auto& measure, size_t width) {
        return explore(measure, width, pool, scratch, weight, cancel);
    };
    if (!fill(probe, k, ef, pool, scratch, weight, exploring, &decided)) return false;
    return decided || walk_on(probe, ef, pool, scratch, weight, cancel);
}

// Walk on from the nearest found, by the rows themselves, where the codes could not tell them apart.
template <class Pool, class Weight>
bool Graph::walk_on(const Probe& probe, size_t ef, Pool& pool, Scratch& scratch, const Weight& weight,
                    const volatile uint8_t* cancel) const {
    scratch.visited.begin(slots_);
    pool.begin(ef);
    for (const Edge& edge : scratch.nearest) {
        scratch.visited.mark(edge.slot);
        pool.push(edge.distance, edge.slot, weight(edge.slot));
    }
    auto walking_on = [&](const auto& measure) { return beam(measure, 0, pool, scratch, weight, cancel); };
    if (!guarded(RowMeasure{*this, probe}, Guard::ROWS, walking_on)) return false;
    list_found(pool, scratch);
    return true;
}

// Whether estimates tell nodes apart that lie as near as this one to a probe of this length. They cannot where rows lie
// much closer together than to the centre of all: in a tight cluster every member looks equally near.
inline bool Graph::codes_decide(const Edge& edge, float length) const {
    if (space_.metric() == Metric::IP || edge.distance <= 0.0f) return true;
    return codes_.factors(records_.at(edge.slot)).error * length <= CODE_DOUBT * edge.distance;
}

// Measure candidates by their rows, nearest estimate first, as long as one may still belong to the k nearest.
template <class Pool, class Weight>
void Graph::refine(const Probe& probe, size_t k, Pool&& pool, Scratch& scratch, const Weight& weigh) const {
    constexpr size_t AHEAD = 4;
    std::vector<Edge>& nearest = scratch.nearest;  // a heap with the farthest on top
    nearest.clear();
    size_t weight = 0, count = pool.finish();
    for (size_t at = 0; at < count && at < AHEAD; ++at) prefetch_row(pool.found(at).slot);
    for (size_t at = 0; at < count; ++at) {
        Edge edge = pool.found(at);
        size_t members = weigh.rows(edge.slot);
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
        while (weight - weigh.rows(nearest.front().slot) >= k) {
            weight -= weigh.rows(nearest.front().slot);
            std::pop_heap(nearest.begin(), nearest.end(), nearer);
            nearest.pop_back();
        }
    }
    std::sort(nearest.begin(), nearest.end(), nearer);
}

// The rows that sorted nodes stand for, k at most.
template <class Weight>
int64_t Graph::name_rows(const std::vector<Edge>& nodes, size_t k, const Weight& weight, int64_t* keys,
                         float* distances) const {
    size_t found = 0;
    for (const Edge& edge : nodes) {
        float shown = space_.shown(edge.distance);
        if (states_[edge.slot] == LIVE && found < k && weight.row(edge.slot)) {
            keys[found] = key_of(edge.slot);
            distances[found++] = shown;
        }
        bool alone = members_[edge.slot] == (states_[edge.slot] == LIVE);
        for (uint32_t twin = alone ? EMPTY : twins_.next(edge.slot); twin != EMPTY && found < k;
             twin = twins_.next(twin)) {
            if (!weight.row(twin)) continue;
            keys[found] = key_of(twin);
            distances[found++] = shown;
        }
        if (found == k) break;
    }
    return int64_t(found);
}

// Compare every row that `each` gives; the nearest k stand in a heap with the farthest on top.
template <class Each>
int64_t Graph::scan(const Probe& probe, size_t k, Scratch& scratch, const Each& each, const volatile uint8_t* cancel,
                    int64_t* keys, float* distances) const {
    std::vector<Edge>& heap = scratch.edges;
    heap.clear();
    size_t compared = 0;
    bool damaged = false;
    bool whole = each([&](uint32_t slot) {
        if (++compared % CANCEL_HOPS == 0 && cancel != nullptr && *cancel) return false;
        damaged = watch_ != nullptr && !watch_->holds(Guard::ROWS, slot);
        if (damaged) return false;
        Edge edge{distance(probe, slot), slot};
        if (heap.size() < k) {
            heap.push_back(edge);
            std::push_heap(heap.begin(), heap.end(), nearer);
        } else if (nearer(edge, heap.front())) {
            std::pop_heap(heap.begin(), heap.end(), nearer);
            heap.back() = edge;
            std::push_heap(heap.begin(), heap.end(), nearer);
        }
        return true;
    });
    scratch.compared += compared;
    if (!whole) return damaged ? DAMAGED : -1;
    std::sort(heap.begin(), heap.end(), nearer);
    for (size_t at = 0; at < heap.size(); ++at) {
        keys[at] = key_of(heap[at].slot);
        distances[at] = space_.shown(heap[at].distance);
    }
    return int64_t(heap.size());
}

inline int64_t Graph::search(const char* query, size_t k, size_t ef, size_t scan_rows, const Sieve* sieve,
                             const volatile uint8_t* cancel, int64_t* keys, float* distances) {
    if (sieve != nullptr && sieve->bits == nullptr && !ready_tables()) return DAMAGED;
    std::unique_ptr<Scratch> scratch = borrow();
    int64_t found = 0;
    scratch->compared = scratch->reranked = 0;
    scratch->budget = SIZE_MAX;
    scratch->is_spent = false;
    {
        std::shared_lock<FairLock> guard(lock_);
        size_t live = live_count_.load();
        size_t wanted = std::min(k, live);
        ef = std::max(ef, k);
        Probe probe{query, space_.query_scale(query)};
        bool exact = !options_.linked || live <= scan_rows || wanted * 2 >= live || ef * 2 >= live;
        auto scan_all = [&] {
            auto each = [&](const auto& work) {
                for (uint32_t slot = 0; slot < slots_; ++slot) {
                    if ((states_[slot] == LIVE || states_[slot] == TWIN) && !work(slot)) return false;
                }
                return true;
            };
            return scan(probe, wanted, *scratch, each, cancel, keys, distances);
        };
        auto walk_in = [&](auto& pool, const auto& weight) {
            bool whole = walk(probe, k, ef, pool, *scratch, weight, cancel);
            return whole ? name_rows(scratch->nearest, k, Held{*this}, keys, distances) : int64_t(-1);
        };
        if (wanted == 0) {
            found = 0;
        } else if (sieve != nullptr) {
            found = search_sieved(probe, wanted, ef, *sieve, *scratch, cancel, keys, distances);
        } else if (exact) {
            found = scan_all();
        } else {
            found = ef > SORTED_WIDTH_MAX ? walk_in(scratch->heap, Held{*this})
                    : odd_count_ != 0     ? walk_in(scratch->pool, Held{*this})
                                          : walk_in(scratch->narrow, One{});
            // The walk may end early where deletions cut the graph; an answer shorter than k must mean "all rows".
            if (found >= 0 && size_t(found) < wanted) found = scan_all();
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
                                  const Sieve* sieve, unsigned threads, const volatile uint8_t* cancel, int64_t* keys,
                                  float* distances, int64_t* counts) {
    std::atomic<int64_t> outcome{0};
    parallel_for(count, threads, [&](unsigned, size_t at) {
        if (outcome.load() < 0) return;
        counts[at] = search(queries + at * space_.query_bytes(), k, ef, scan_rows, sieve, cancel, keys + at * k,
                            distances + at * k);
        if (counts[at] < 0) outcome = counts[at];
    });
    return outcome.load();
}

// Give every row a tag, in slot order; returns how many there are.
inline size_t Graph::start_tags() {
    std::lock_guard<std::mutex> turn(writer_);
    std::lock_guard<FairLock> guard(lock_);
    uint32_t next = 0;
    tags_.reserve(slots_, live_count_.load());
    tags_.start();
    for (uint32_t slot = 0; slot < slots_; ++slot) {
        if (states_[slot] == LIVE || states_[slot] == TWIN) tags_.put(slot, next++);
    }
    return next;
}

inline void Graph::tags_of(const int64_t* keys, size_t count, uint32_t* tags) {
    std::fill_n(tags, count, EMPTY);
    if (!ready_tables()) return;
    std::shared_lock<FairLock> guard(lock_);
    for (size_t at = 0; at < count; ++at) {
        uint32_t slot = slot_of(keys[at]);
        if (slot != EMPTY) tags[at] = tags_.of(slot);
    }
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
