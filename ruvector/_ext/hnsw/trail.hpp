// Searching on: the nearest rows, then those after them, for as long as somebody asks.
//
// A trail keeps what a walk has seen between two pages: the nodes it has not expanded yet, and those whose rows it has
// not given yet. A page widens the walk until as many nodes as a search of its width would hold lie nearer than the
// nearest one not expanded; what it gives it never gives again. Pages follow each other as the walk finds them: a row
// that an earlier page should have had may come in a later one.
//
// No lock is held between two pages. Rows may come meanwhile, which are met when lists lead to them, and go, which are
// left out. When a slot was given to another row, or all codes were made anew, what the trail knows of it is wrong and
// the trail ends; whoever holds it begins another one, and leaves out what was given.
#ifndef RUVECTOR_HNSW_TRAIL_HPP
#define RUVECTOR_HNSW_TRAIL_HPP

#include "hnsw/graph.hpp"

namespace ruvector {

constexpr double TRAIL_SHARE = 0.2;  // of the rows; where fewer pass a sieve, walking to all of them does not pay

struct Trail {
    std::vector<char> query;
    std::unique_ptr<Scratch> scratch;  // borrowed: what was visited, and the codes of the query
    std::vector<Edge> seen;            // nodes whose rows were not given; marked where they were expanded
    std::vector<Edge> guides;          // nodes without rows to give, not expanded: a heap, the nearest on top
    uint64_t moves = 0, frees = 0;     // of the graph at the last page
    bool has_begun = false;
    bool by_code = false;              // else distances are those of rows
    // the last page
    std::vector<int64_t> keys;
    std::vector<float> distances;
};

// The beam of one page, a sorted array like NarrowPool; what falls out of it is kept for the next page.
class TrailPool {
  public:
    explicit TrailPool(Trail& trail) : seen_(trail.seen), guides_(trail.guides) {}
    // Hold the nearest of what was seen.
    void begin(size_t width) {
        width_ = width;
        count_ = cursor_ = 0;
        items_.resize(width + 1);
        size_t taken = std::min(width, seen_.size());
        auto end = seen_.begin() + ptrdiff_t(taken);
        if (taken < seen_.size()) std::nth_element(seen_.begin(), end, seen_.end(), nearer);
        std::sort(seen_.begin(), end, nearer);
        std::copy(seen_.begin(), end, items_.begin());
        seen_.erase(seen_.begin(), end);
        count_ = taken;
        reach_ = count_ == width_ ? items_[width_ - 1].distance : std::numeric_limits<float>::infinity();
    }
    bool admits(float) const { return true; }
    void push(float distance, uint32_t slot, uint32_t weight) {
        if (weight == 0) {
            guides_.push_back({distance, slot});
            std::push_heap(guides_.begin(), guides_.end(), farther);
            return;
        }
        if (distance >= reach_) {
            seen_.push_back({distance, slot});
            return;
        }
        Edge* items = items_.data();
        size_t place = count_within(items, count_, distance);
        if (count_ == width_) {
            seen_.push_back(items[--count_]);
        }
        std::memmove(items + place + 1, items + place, (count_ - place) * sizeof(Edge));
        items[place] = {distance, slot};
        cursor_ = std::min(cursor_, place);
        if (++count_ == width_) reach_ = items[width_ - 1].distance;
    }
    bool next(uint32_t* slot) {
        Edge* items = items_.data();
        while (cursor_ < count_ && (items[cursor_].slot & EXPANDED)) ++cursor_;
        float nearest = cursor_ < count_ ? items[cursor_].distance : reach_;
        if (!guides_.empty() && guides_.front().distance < nearest) {
            *slot = guides_.front().slot;
            std::pop_heap(guides_.begin(), guides_.end(), farther);
            guides_.pop_back();
            return true;
        }
        if (cursor_ == count_) return false;
        *slot = items[cursor_].slot;
        items[cursor_++].slot |= EXPANDED;
        return true;
    }
    size_t finish() const { return count_; }
    Edge found(size_t at) const { return {items_[at].distance, items_[at].slot & ~EXPANDED}; }
    // Keep what was not given.
    void end(const std::vector<Edge>& given) {
        std::vector<uint32_t> slots;
        for (const Edge& edge : given) slots.push_back(edge.slot);
        std::sort(slots.begin(), slots.end());
        for (size_t at = 0; at < count_; ++at) {
            if (!std::binary_search(slots.begin(), slots.end(), found(at).slot)) seen_.push_back(items_[at]);
        }
    }
    static uint32_t slot_of(const Edge& edge) { return edge.slot & ~EXPANDED; }

  private:
    static constexpr uint32_t EXPANDED = 0x80000000u;  // slots are smaller: SLOTS_MAX

    std::vector<Edge>& seen_;
    std::vector<Edge>& guides_;
    std::vector<Edge> items_;
    size_t width_ = 0, count_ = 0, cursor_ = 0;
    float reach_ = 0.0f;
};

// Go on with a trail, or begin it, until the pool is full; false when cancelled, or when a list must not be followed.
template <class Measure, class Weight>
bool Graph::follow(const Measure& measure, Trail& trail, TrailPool& pool, Scratch& scratch, const Weight& weight,
                   const volatile uint8_t* cancel) const {
    if (trail.has_begun) return beam(measure, 0, pool, scratch, weight, cancel);
    trail.has_begun = true;
    return set_out(measure, pool, scratch, weight, cancel);
}

// One page.
template <class Weight>
int64_t Graph::turn_page(Trail& trail, size_t wanted, size_t ef, Scratch& scratch, const Weight& weight,
                         const volatile uint8_t* cancel) const {
    Probe probe{trail.query.data(), space_.query_scale(trail.query.data())};
    if (!trail.has_begun) trail.by_code = coded_ && told_.load() && codes_.prepare(probe, scratch.code);
    if (uint64_t frees = frees_.load(); trail.frees != frees) {
        auto gone = [&](const Edge& edge) { return !is_node(TrailPool::slot_of(edge), 0); };
        trail.seen.erase(std::remove_if(trail.seen.begin(), trail.seen.end(), gone), trail.seen.end());
        trail.guides.erase(std::remove_if(trail.guides.begin(), trail.guides.end(), gone), trail.guides.end());
        std::make_heap(trail.guides.begin(), trail.guides.end(), farther);
        trail.frees = frees;
    }
    scratch.visited.reach(slots_);
    TrailPool pool(trail);
    size_t width = std::max(ef, wanted);
    auto following = [&](const auto& measure) { return follow(measure, trail, pool, scratch, weight, cancel); };
    if (trail.by_code) {
        bool begins = !trail.has_begun;
        pool.begin(width + width / 16 + CODE_SLACK);
        if (!guarded(CodeMeasure{*this, scratch.code}, Guard::CODES, following)) return -1;
        refine(probe, wanted, pool, scratch, weight);
        if (begins && !scratch.nearest.empty() && !codes_decide(scratch.nearest.back(), scratch.code.length)) {
            trail.has_begun = trail.by_code = false;  // from the beginning, by the rows themselves
            trail.seen.clear();
            trail.guides.clear();
            pool.begin(width);
        }
    } else {
        pool.begin(width);
    }
    if (!trail.by_code) {
        if (!guarded(RowMeasure{*this, probe}, Guard::ROWS, following)) return -1;
        scratch.nearest.clear();
        size_t rows = 0;
        for (size_t at = 0, count = pool.finish(); at < count && rows < wanted; ++at) {
            scratch.nearest.push_back(pool.found(at));
            rows += weight.rows(pool.found(at).slot);
        }
    }
    if (scratch.is_spent) return TRAIL_ENDS;
    pool.end(scratch.nearest);
    size_t rows = 0;
    for (const Edge& edge : scratch.nearest) rows += rows_of_node(edge.slot);
    trail.keys.resize(rows);
    trail.distances.resize(rows);
    return name_rows(scratch.nearest, rows, weight, trail.keys.data(), trail.distances.data());
}

inline int64_t Graph::next_page(Trail& trail, size_t wanted, size_t ef, size_t scan_rows, const Sieve* sieve,
                                const volatile uint8_t* cancel) {
    if (sieve != nullptr && sieve->bits == nullptr && !ready_tables()) return DAMAGED;
    if (trail.scratch == nullptr) trail.scratch = borrow();
    Scratch& scratch = *trail.scratch;
    int64_t found = TRAIL_ENDS;
    scratch.compared = scratch.reranked = 0;
    scratch.budget = SIZE_MAX;
    scratch.is_spent = false;
    {
        std::shared_lock<FairLock> guard(lock_);
        size_t live = live_count_.load();
        if (!trail.has_begun) trail.moves = moves_.load();
        bool holds = trail.moves == moves_.load() && (told_.load() || !trail.by_code);
        bool walks = holds && options_.linked && live > scan_rows && wanted * 2 < live;
        if (walks && sieve == nullptr) {
            found = turn_page(trail, wanted, ef, scratch, Held{*this}, cancel);
        } else if (walks) {
            Passing passing(*sieve, tags_, slots_, scratch.mask, scratch.listed,
                            [&](int64_t key) { return slot_of(key); });
            double rows = double(passing.count());
            if (sieve->plan == PLAN_AUTO) scratch.budget = size_t(rows * double(costs_.scan) / double(costs_.walk));
            if (sieve->plan == PLAN_WALK || (sieve->plan == PLAN_AUTO && rows > TRAIL_SHARE * double(live))) {
                found = turn_page(trail, wanted, ef, scratch, Let{*this, passing, odd_count_ == 0}, cancel);
            }
        }
        if (watch_ != nullptr && watch_->is_damaged()) found = DAMAGED;
    }
    searches_.fetch_add(1, std::memory_order_relaxed);
    compared_.fetch_add(scratch.compared, std::memory_order_relaxed);
    reranked_.fetch_add(scratch.reranked, std::memory_order_relaxed);
    return found;
}

// Take back what a trail borrowed.
inline void Graph::end_trail(Trail& trail) {
    if (trail.scratch != nullptr) give_back(std::move(trail.scratch));
}

}  // namespace ruvector

#endif
