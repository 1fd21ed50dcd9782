// Tags of rows, and which of them a filter lets pass.
#ifndef RUVECTOR_TAGS_HPP
#define RUVECTOR_TAGS_HPP

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <stdexcept>
#include <vector>

#include "hnsw/slots.hpp"

namespace ruvector {

// The small number under which others know a row, whatever slot it stands in. Only live rows are found by their tags;
// the tag of any other slot means nothing.
class Tags {
  public:
    bool started() const { return started_; }
    size_t count() const { return slots_.size(); }  // above all tags
    uint32_t of(uint32_t slot) const { return of_slot_[slot]; }
    uint32_t slot(size_t tag) const { return tag < slots_.size() ? slots_[tag] : EMPTY; }

    void start() { started_ = true; }
    // Room for slots and tags; nothing else fails.
    void reserve(size_t slots, size_t tags) {
        if (of_slot_.size() < slots) of_slot_.resize(slots, EMPTY);
        if (slots_.size() < tags) slots_.resize(tags, EMPTY);
    }
    void put(uint32_t slot, uint32_t tag) {
        of_slot_[slot] = tag;
        slots_[tag] = slot;
    }
    // The row of a slot is gone, or another slot holds it already.
    void drop(uint32_t slot) {
        if (started_ && slots_[of_slot_[slot]] == slot) slots_[of_slot_[slot]] = EMPTY;
    }
    void exchange(uint32_t left, uint32_t right) {
        if (!started_) return;
        uint32_t of_left = of_slot_[left], of_right = of_slot_[right];
        bool left_is_live = holds(left), right_is_live = holds(right);
        of_slot_[left] = of_right;
        of_slot_[right] = of_left;
        if (left_is_live) slots_[of_left] = right;
        if (right_is_live) slots_[of_right] = left;
    }
    // Become what was dumped for so many slots, in those with a row; null, or what is wrong.
    template <class HasRow>
    const char* take(const uint32_t* tags, size_t slots, HasRow has_row) {
        start();
        reserve(slots, 0);
        for (size_t slot = 0; slot < slots; ++slot) {
            if (!has_row(uint32_t(slot))) continue;
            // Tags are dense: never more than there were rows at once, and slots are used again before there are more.
            if (tags[slot] >= 2 * slots + SLACK) return "a row has no tag";
            if (this->slot(tags[slot]) != EMPTY) return "two rows have one tag";
            reserve(slots, size_t(tags[slot]) + 1);
            put(uint32_t(slot), tags[slot]);
        }
        return nullptr;
    }
    void clear() {
        of_slot_.clear();
        slots_.clear();
        started_ = false;
    }
    // Forget all rows, but go on to ask for tags.
    void forget() {
        bool started = started_;
        clear();
        started_ = started;
    }
    size_t bytes() const { return (of_slot_.size() + slots_.size()) * sizeof(uint32_t); }

  private:
    static constexpr size_t SLACK = 1024;  // tags that may be unused where there are few rows
    bool holds(uint32_t slot) const { return of_slot_[slot] < slots_.size() && slots_[of_slot_[slot]] == slot; }

    Column<uint32_t> of_slot_, slots_;
    bool started_ = false;
};

// What tags need room for: one more than the largest. Throws when it cannot be a tag.
inline size_t tags_end(const uint32_t* tags, size_t count) {
    uint32_t largest = 0;
    for (size_t at = 0; at < count; ++at) largest = std::max(largest, tags[at]);
    if (count != 0 && largest >= (1u << 31)) throw std::length_error("a tag is out of range");
    return count == 0 ? 0 : size_t(largest) + 1;
}

enum SievePlan { PLAN_AUTO = 0, PLAN_SCAN = 1, PLAN_HOP = 2, PLAN_WALK = 3 };

// Which rows may be in an answer: a bit for every tag, or keys.
struct Sieve {
    const uint64_t* bits;  // null: members
    size_t words;
    size_t count;          // bits that are set
    const int64_t* members;
    size_t member_count;
    int plan;
};

inline const std::vector<uint32_t> NONE_LISTED;
inline const uint64_t NO_BITS = 0;  // what empty arrays point at
inline const uint32_t NO_TAG = EMPTY;

// The same for one search while it holds the lock, by tag or by slot.
class Passing {
  public:
    // `slot_of` finds the slot of a key, `mask` is memory of the search.
    template <class SlotOf>
    Passing(const Sieve& sieve, const Tags& tags, size_t slots, std::vector<uint64_t>& mask,
            std::vector<uint32_t>& listed, SlotOf slot_of)
        : tags_(tags), by_tag_(sieve.bits != nullptr), listed_(listed) {
        if (by_tag_) {
            bits_ = sieve.bits;
            limit_ = std::min(sieve.words * 64, tags.count());
            count_ = sieve.count;
            return;
        }
        mask.assign((slots + 63) / 64, 0);
        listed.clear();
        for (size_t at = 0; at < sieve.member_count; ++at) {
            uint32_t slot = slot_of(sieve.members[at]);
            if (slot == EMPTY || (mask[slot / 64] >> (slot % 64) & 1)) continue;
            mask[slot / 64] |= uint64_t(1) << (slot % 64);
            listed.push_back(slot);
        }
        bits_ = mask.data();
        limit_ = slots;
        count_ = listed.size();
    }

    Passing(const std::vector<uint64_t>& mask, size_t slots, size_t count, const Tags& tags)
        : tags_(tags), by_tag_(false), listed_(NONE_LISTED), bits_(mask.data()), limit_(slots), count_(count) {}

    // How many rows pass; when rows come and go meanwhile it may be a few more or less.
    size_t count() const { return count_; }
    bool row(uint32_t slot) const {  // of a live row
        size_t at = by_tag_ ? tags_.of(slot) : slot;
        return at < limit_ && (bits_[at / 64] >> (at % 64) & 1);
    }
    // Call `work` with each slot of a live row that passes, until it returns false; then return false.
    template <class Work>
    bool each(Work work) const {
        if (!by_tag_) {
            for (uint32_t slot : listed_) {
                if (!work(slot)) return false;
            }
            return true;
        }
        for (size_t word = 0; word * 64 < limit_; ++word) {
            for (uint64_t bits = bits_[word]; bits != 0; bits &= bits - 1) {
                uint32_t slot = tags_.slot(word * 64 + size_t(__builtin_ctzll(bits)));
                if (slot != EMPTY && !work(slot)) return false;
            }
        }
        return true;
    }
    // A few of them, spread over all; the same for the same sieve.
    template <class Work>
    void some(size_t wanted, Work work) const {
        if (!by_tag_) {
            size_t step = std::max<size_t>(1, listed_.size() / std::max<size_t>(1, wanted));
            for (size_t at = 0; at < listed_.size(); at += step) work(listed_[at]);
            return;
        }
        size_t words = (limit_ + 63) / 64;
        for (size_t turn = 0, found = 0; words != 0 && turn < 16 * wanted && found < wanted; ++turn) {
            size_t word = size_t(mix64(turn + 1) % words);
            uint64_t bits = bits_[word];
            uint32_t slot = bits == 0 ? EMPTY : tags_.slot(word * 64 + size_t(__builtin_ctzll(bits)));
            if (slot == EMPTY) continue;
            work(slot);
            ++found;
        }
    }

  private:
    const Tags& tags_;
    const bool by_tag_;
    const std::vector<uint32_t>& listed_;
    const uint64_t* bits_ = nullptr;
    size_t limit_ = 0;
    size_t count_ = 0;
};

}  // namespace ruvector

#endif
