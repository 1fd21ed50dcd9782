// A graph as flat arrays, and back; what comes back is checked before anything follows a link of it.
#ifndef RUVECTOR_HNSW_SECTIONS_HPP
#define RUVECTOR_HNSW_SECTIONS_HPP

#include "hnsw/graph.hpp"

namespace ruvector {

inline size_t Graph::upper_links() const {
    size_t lists = 0;
    for (uint32_t slot = 0; slot < slots_; ++slot) lists += levels_[slot];
    return lists * options_.m;
}

inline void Graph::dump(char* rows, uint32_t* links_out, uint8_t* levels, uint8_t* states, int64_t* keys,
                        float* scales, uint64_t* fingerprints, uint32_t* twin_heads, uint32_t* upper,
                        int64_t* head) const {
    rows_.copy_out(rows, slots_);
    if (options_.linked) links_.copy_out(reinterpret_cast<char*>(links_out), slots_);
    std::copy_n(levels_.begin(), slots_, levels);
    std::copy_n(states_.begin(), slots_, states);
    std::copy_n(keys_.begin(), slots_, keys);
    std::copy_n(scales_.begin(), slots_, scales);
    std::copy_n(fingerprints_.begin(), slots_, fingerprints);
    std::copy_n(twin_head_.begin(), slots_, twin_heads);
    for (uint32_t slot = 0; slot < slots_; ++slot) {
        // What was in memory before a slot was used, or was there until it was freed, is nobody's business.
        if (states_[slot] == FREE) std::memset(rows + size_t(slot) * rows_.stride(), 0, rows_.stride());
        if (states_[slot] == FREE || states_[slot] == TWIN) {
            std::fill_n(links_out + size_t(slot) * base_links_, base_links_, EMPTY);
        }
        if (states_[slot] == FREE) {
            keys[slot] = 0;
            scales[slot] = 1.0f;
            fingerprints[slot] = 0;
        }
        upper = std::copy_n(upper_[slot], size_t(levels_[slot]) * options_.m, upper);
    }
    std::fill_n(head, HEAD, int64_t(0));
    head[0] = entry_ == EMPTY ? -1 : int64_t(entry_);
    head[1] = int64_t(top_);
    head[2] = int64_t(draws_);
    head[3] = int64_t(repairs_.load());
    head[4] = int64_t(live_count_.load());
}

inline const char* Graph::restore(char* rows, uint32_t* links_in, bool in_place, const uint8_t* levels,
                                  const uint8_t* states, const int64_t* keys, const float* scales,
                                  const uint64_t* fingerprints, const uint32_t* twin_heads, const uint32_t* upper,
                                  size_t upper_count, const int64_t* head, size_t slots) {
    std::lock_guard<std::mutex> turn(writer_);
    std::lock_guard<FairLock> guard(lock_);
    release();
    if (slots > SLOTS_MAX) return "too many slots";
    if (in_place) {
        rows_.adopt(rows, slots);
        if (options_.linked) links_.adopt(reinterpret_cast<char*>(links_in), slots);
    } else {
        rows_.reserve(slots);
        if (options_.linked) links_.reserve(slots);
        for (uint32_t slot = 0; slot < slots; ++slot) {
            std::memcpy(rows_.at(slot), rows + size_t(slot) * rows_.stride(), rows_.stride());
            if (options_.linked) std::copy_n(links_in + size_t(slot) * base_links_, base_links_, links(slot, 0));
        }
    }
    scales_.assign(scales, scales + slots);
    states_.assign(states, states + slots);
    levels_.assign(levels, levels + slots);
    keys_.assign(keys, keys + slots);
    fingerprints_.assign(fingerprints, fingerprints + slots);
    twin_head_.assign(twin_heads, twin_heads + slots);
    upper_.assign(slots, nullptr);
    members_.assign(slots, 0);
    twin_next_.assign(slots, EMPTY);
    twin_before_.assign(slots, EMPTY);
    free_.reserve(slots);
    slots_ = uint32_t(slots);
    entry_ = head[0] < 0 || head[0] >= int64_t(slots) ? EMPTY : uint32_t(head[0]);
    top_ = uint32_t(head[1]);
    draws_ = uint64_t(head[2]);
    repairs_ = uint64_t(head[3]);
    const char* wrong = rebuild(upper, upper_count);
    if (wrong == nullptr && int64_t(live_count_.load()) != head[4]) wrong = "the number of rows differs";
    if (wrong == nullptr && options_.linked) wrong = check_links();
    if (wrong != nullptr) release();
    return wrong;
}

// Derive the tables, the chains of twins and the free slots.
inline const char* Graph::rebuild(const uint32_t* upper, size_t upper_count) {
    auto by_key = [this](uint32_t slot) { return key_hash(slot); };
    auto by_row = [this](uint32_t slot) { return fingerprints_[slot]; };
    by_key_.reserve(slots_, by_key);
    if (options_.linked) by_row_.reserve(slots_, by_row);
    size_t used = 0;
    for (uint32_t slot = 0; slot < slots_; ++slot) {
        uint8_t state = states_[slot];
        if (state > TWIN || (!options_.linked && state > LIVE)) return "a slot has an unknown state";
        bool node = state == LIVE || state == DEAD;
        if (levels_[slot] > LEVEL_MAX || (levels_[slot] != 0 && !(node && options_.linked))) {
            levels_[slot] = 0;
            return "a slot has a wrong level";
        }
        if (!std::isfinite(scales_[slot])) return "a row has a wrong scale";
        size_t links = size_t(levels_[slot]) * options_.m;
        if (links > upper_count - used) return "upper links are missing";
        if (links != 0) {
            upper_[slot] = new uint32_t[links];
            std::copy_n(upper + used, links, upper_[slot]);
            used += links;
        }
        if (node && options_.linked) by_row_.insert(slot, by_row);
        members_[slot] = state == LIVE;
        if (state != LIVE && state != TWIN) continue;
        if (slot_of(keys_[slot]) != EMPTY) return "a key occurs twice";
        by_key_.insert(slot, by_key);
        ++live_count_;
    }
    if (used != upper_count) return "there are too many upper links";
    for (uint32_t slot = slots_; slot-- > 0;) {
        uint32_t head = twin_head_[slot];
        if (states_[slot] == FREE) free_.push_back(slot);
        if (states_[slot] != TWIN) {
            twin_head_[slot] = EMPTY;
            continue;
        }
        if (head >= slots_ || (states_[head] != LIVE && states_[head] != DEAD)) return "a twin hangs on no node";
        twin_before_[slot] = head;
        twin_next_[slot] = twin_next_[head];
        if (twin_next_[head] != EMPTY) twin_before_[twin_next_[head]] = slot;
        twin_next_[head] = slot;
        ++members_[head];
    }
    for (uint32_t slot = 0; slot < slots_; ++slot) {
        if (states_[slot] != LIVE && states_[slot] != DEAD) continue;
        dead_count_ += members_[slot] == 0;
        odd_count_ += members_[slot] != 1;
    }
    return nullptr;
}

inline const char* Graph::check_links() const {
    bool any = false;
    for (uint32_t slot = 0; slot < slots_; ++slot) {
        if (states_[slot] != LIVE && states_[slot] != DEAD) continue;
        any = true;
        for (uint32_t level = 0; level <= levels_[slot]; ++level) {
            const uint32_t* list = links(slot, level);
            for (uint32_t at = 0; at < room(level) && list[at] != EMPTY; ++at) {
                bool node = list[at] < slots_ && (states_[list[at]] == LIVE || states_[list[at]] == DEAD);
                if (!node || levels_[list[at]] < level) return "a link leads to no node of its level";
            }
        }
    }
    if (!any) return entry_ == EMPTY ? nullptr : "the entry is no node";
    if (entry_ == EMPTY) return "the entry is missing";
    if (states_[entry_] != LIVE && states_[entry_] != DEAD) return "the entry is no node";
    return levels_[entry_] == top_ ? nullptr : "the entry is on another level";
}

}  // namespace ruvector

#endif
