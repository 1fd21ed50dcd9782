// What one search keeps for itself: which slots it has seen and the nearest it has found.
#ifndef RUVECTOR_HNSW_BEAM_HPP
#define RUVECTOR_HNSW_BEAM_HPP

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <limits>
#include <vector>

#include "hnsw/codes.hpp"

namespace ruvector {

struct Edge {
    float distance;
    uint32_t slot;
};

// A total order, so that a result never depends on how a sort treats equal distances.
inline bool nearer(const Edge& left, const Edge& right) {
    return left.distance < right.distance || (left.distance == right.distance && left.slot < right.slot);
}

// The same the other way round, for heaps with the nearest on top.
inline bool farther(const Edge& left, const Edge& right) { return nearer(right, left); }

struct Candidate {
    float distance;
    uint32_t slot;
    uint32_t weight;  // 0 when deleted, else 1
    uint32_t expanded;
};

inline bool nearer_candidate(const Candidate& left, const Candidate& right) {
    return left.distance < right.distance || (left.distance == right.distance && left.slot < right.slot);
}

// How many of the sorted items are not farther than a distance. Halved without a branch, which would be guessed wrong
// every other time.
template <class Item>
size_t count_within(const Item* items, size_t count, float distance) {
    size_t within = 0;
    while (count > 0) {
        size_t half = (count + 1) / 2;
        within += items[within + half - 1].distance <= distance ? half : 0;
        count -= half;
    }
    return within;
}

// Marks that are forgotten by counting up instead of clearing.
class Visited {
  public:
    void begin(size_t slots) {
        if (marks_.size() < slots) marks_.resize(slots, 0);
        if (++epoch_ == 0) {
            std::fill(marks_.begin(), marks_.end(), uint16_t(0));
            epoch_ = 1;
        }
    }
    // Make room for slots that came since; they have not been seen.
    void reach(size_t slots) {
        if (marks_.size() < slots) marks_.resize(slots, 0);
    }
    bool mark(uint32_t slot) {  // true the first time
        bool first = marks_[slot] != epoch_;
        marks_[slot] = epoch_;  // in any case: a branch would be guessed wrong every other time
        return first;
    }
    bool seen(uint32_t slot) const { return marks_[slot] == epoch_; }
    void prefetch(uint32_t slot) const { __builtin_prefetch(&marks_[slot]); }

  private:
    std::vector<uint16_t> marks_;
    uint16_t epoch_ = 0;
};

// The beam as one sorted array: best for the usual widths, where moving a few hundred bytes beats a heap.
// It holds the nearest candidates whose weights reach `width`; deleted ones weigh nothing and only guide.
class SortedPool {
  public:
    void begin(size_t width) {
        items_.clear();
        items_.reserve(width + 1);
        width_ = width;
        weight_ = 0;
        cursor_ = 0;
    }
    bool admits(float distance) const { return weight_ < width_ || distance < items_.back().distance; }
    void push(float distance, uint32_t slot, uint32_t weight) {
        size_t place = count_within(items_.data(), items_.size(), distance);
        cursor_ = std::min(cursor_, place);
        items_.insert(items_.begin() + ptrdiff_t(place), {distance, slot, weight, 0});
        weight_ += weight;
        while (weight_ - items_.back().weight >= width_) {
            weight_ -= items_.back().weight;
            items_.pop_back();
        }
    }
    bool next(uint32_t* slot) {
        while (cursor_ < items_.size() && items_[cursor_].expanded) ++cursor_;
        if (cursor_ == items_.size()) return false;
        items_[cursor_].expanded = 1;
        *slot = items_[cursor_++].slot;
        return true;
    }
    size_t finish() const { return items_.size(); }
    size_t weight() const { return weight_; }
    Edge found(size_t at) const { return {items_[at].distance, items_[at].slot}; }

  private:
    std::vector<Candidate> items_;
    size_t width_ = 0;
    size_t weight_ = 0;
    size_t cursor_ = 0;
};

// The sorted array where every node stands for one row: eight bytes a candidate, half as much to move.
class NarrowPool {
  public:
    void begin(size_t width) {
        if (items_.size() < width + 1) items_.resize(width + 1);
        width_ = width;
        count_ = cursor_ = 0;
        reach_ = std::numeric_limits<float>::infinity();
    }
    bool admits(float distance) const { return distance < reach_ || count_ < width_; }
    void push(float distance, uint32_t slot, uint32_t) {
        Edge* items = items_.data();
        size_t place = count_within(items, count_, distance);
        if (place == width_) return;
        if (count_ < width_) ++count_;
        std::memmove(items + place + 1, items + place, (count_ - 1 - place) * sizeof(Edge));
        items[place] = {distance, slot};
        cursor_ = std::min(cursor_, place);
        if (count_ == width_) reach_ = items[width_ - 1].distance;
    }
    bool next(uint32_t* slot) {
        Edge* items = items_.data();
        while (cursor_ < count_ && (items[cursor_].slot & EXPANDED)) ++cursor_;
        if (cursor_ == count_) return false;
        *slot = items[cursor_].slot;
        items[cursor_++].slot |= EXPANDED;
        return true;
    }
    size_t finish() const { return count_; }
    Edge found(size_t at) const { return {items_[at].distance, items_[at].slot & ~EXPANDED}; }

  private:
    static constexpr uint32_t EXPANDED = 0x80000000u;  // slots are smaller: SLOTS_MAX

    std::vector<Edge> items_;
    size_t width_ = 0;
    size_t count_ = 0;
    size_t cursor_ = 0;
    float reach_ = 0.0f;
};

// The same beam as two heaps, for widths where moving the array would be quadratic.
class HeapPool {
  public:
    void begin(size_t width) {
        frontier_.clear();
        found_.clear();
        width_ = width;
        weight_ = 0;
    }
    bool admits(float distance) const { return weight_ < width_ || distance < found_.front().distance; }
    void push(float distance, uint32_t slot, uint32_t weight) {
        frontier_.push_back({distance, slot});
        std::push_heap(frontier_.begin(), frontier_.end(), farther);
        if (weight == 0) return;
        found_.push_back({distance, slot, weight, 0});
        std::push_heap(found_.begin(), found_.end(), nearer_candidate);
        weight_ += weight;
        while (weight_ - found_.front().weight >= width_) {
            weight_ -= found_.front().weight;
            std::pop_heap(found_.begin(), found_.end(), nearer_candidate);
            found_.pop_back();
        }
    }
    bool next(uint32_t* slot) {
        if (frontier_.empty()) return false;
        if (weight_ >= width_ && frontier_.front().distance > found_.front().distance) return false;
        std::pop_heap(frontier_.begin(), frontier_.end(), farther);
        *slot = frontier_.back().slot;
        frontier_.pop_back();
        return true;
    }
    size_t weight() const { return weight_; }
    size_t finish() {
        std::sort(found_.begin(), found_.end(), nearer_candidate);
        return found_.size();
    }
    Edge found(size_t at) const { return {found_[at].distance, found_[at].slot}; }

  private:
    std::vector<Edge> frontier_;
    std::vector<Candidate> found_;
    size_t width_ = 0;
    size_t weight_ = 0;
};

// Everything a worker needs, kept between searches so that a hop allocates nothing.
struct Scratch {
    Visited visited;
    NarrowPool narrow;
    SortedPool pool;
    HeapPool heap;
    CodeProbe code;
    std::vector<uint32_t> around;   // unseen neighbours of the node at hand
    std::vector<float> apart;       // how far they are
    std::vector<const uint8_t*> records;  // their codes
    std::vector<int32_t> dots;      // what the kernel made of them
    std::vector<Edge> edges;        // candidates of one list of links
    std::vector<Edge> chosen;       // those the diversity rule keeps
    std::vector<Edge> hidden;       // those it does not
    std::vector<uint32_t> dead;     // deleted nodes on the way of a repair
    std::vector<Edge> nearest;      // the exact answer while candidates are looked at
    std::vector<float> reach;       // the k least estimates, a heap with the farthest on top
    std::vector<uint32_t> fringe;   // passing nodes to be compared
    std::vector<uint32_t> seeds;    // nodes near the probe, from which a hopping search sets out
    std::vector<uint64_t> mask;     // of slots that pass
    std::vector<uint32_t> listed;   // the same as a list
    size_t tested = 0;              // rows looked at under a sieve without being compared
    size_t budget = SIZE_MAX;       // what a search under a sieve may spend on walking
    bool is_spent = false;          // ... and whether it has
    size_t compared = 0;            // nodes whose codes or rows were compared in this search
    size_t reranked = 0;            // of them those whose rows were read to rank them again
    std::vector<float> probe;       // a widened f16 row
    std::vector<float> candidate;   // another one
};

}  // namespace ruvector

#endif
