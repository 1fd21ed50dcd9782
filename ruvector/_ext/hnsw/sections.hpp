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

inline void Graph::dump(const Arrays& arrays) const {
    rows_.copy_out(arrays.rows, slots_);
    if (options_.linked) links_.copy_out(reinterpret_cast<char*>(arrays.links), slots_);
    if (coded_) {
        records_.copy_out(arrays.codes, slots_);
        std::copy(codes_.center().begin(), codes_.center().end(), arrays.center);
    }
    std::copy_n(levels_.begin(), slots_, arrays.levels);
    std::copy_n(states_.begin(), slots_, arrays.states);
    std::copy_n(keys_.begin(), slots_, arrays.keys);
    std::copy_n(scales_.begin(), slots_, arrays.scales);
    std::copy_n(fingerprints_.begin(), slots_, arrays.fingerprints);
    std::copy_n(twin_head_.begin(), slots_, arrays.twin_heads);
    uint32_t* upper = arrays.upper;
    for (uint32_t slot = 0; slot < slots_; ++slot) {
        // What was in memory before a slot was used, or was there until it was freed, is nobody's business.
        if (states_[slot] == FREE) std::memset(arrays.rows + size_t(slot) * rows_.stride(), 0, rows_.stride());
        if (states_[slot] == FREE || states_[slot] == TWIN) {
            std::fill_n(arrays.links + size_t(slot) * base_links_, base_links_, EMPTY);
            if (coded_) std::memset(arrays.codes + size_t(slot) * records_.stride(), 0, records_.stride());
        }
        if (states_[slot] == FREE) {
            arrays.keys[slot] = 0;
            arrays.scales[slot] = 1.0f;
            arrays.fingerprints[slot] = 0;
        }
        upper = std::copy_n(upper_[slot], size_t(levels_[slot]) * options_.m, upper);
    }
    std::fill_n(arrays.head, HEAD, int64_t(0));
    arrays.head[0] = entry_ == EMPTY ? -1 : int64_t(entry_);
    arrays.head[1] = int64_t(top_);
    arrays.head[2] = int64_t(draws_);
    arrays.head[3] = int64_t(repairs_.load());
    arrays.head[4] = int64_t(live_count_.load());
}

inline const char* Graph::restore(const Arrays& arrays, bool in_place, unsigned threads) {
    std::lock_guard<std::mutex> turn(writer_);
    size_t slots = arrays.slots;
    {
        std::lock_guard<FairLock> guard(lock_);
        release();
        if (slots > SLOTS_MAX) return "too many slots";
        bool coded = arrays.codes != nullptr && options_.linked && codes_.usable();
        take_in(rows_, arrays.rows, slots, in_place);
        if (options_.linked) take_in(links_, reinterpret_cast<char*>(arrays.links), slots, in_place);
        if (coded) take_in(records_, arrays.codes, slots, in_place);
        scales_.assign(arrays.scales, arrays.scales + slots);
        states_.assign(arrays.states, arrays.states + slots);
        levels_.assign(arrays.levels, arrays.levels + slots);
        keys_.assign(arrays.keys, arrays.keys + slots);
        fingerprints_.assign(arrays.fingerprints, arrays.fingerprints + slots);
        twin_head_.assign(arrays.twin_heads, arrays.twin_heads + slots);
        upper_.assign(slots, nullptr);
        members_.assign(slots, 0);
        twin_next_.assign(slots, EMPTY);
        twin_before_.assign(slots, EMPTY);
        loose_at_.assign(slots, EMPTY);
        loose_.reserve(slots);
        free_.reserve(slots);
        slots_ = uint32_t(slots);
        entry_ = arrays.head[0] < 0 || arrays.head[0] >= int64_t(slots) ? EMPTY : uint32_t(arrays.head[0]);
        top_ = uint32_t(arrays.head[1]);
        draws_ = uint64_t(arrays.head[2]);
        repairs_ = uint64_t(arrays.head[3]);
        const char* wrong = rebuild(arrays.upper, arrays.upper_count);
        if (wrong == nullptr && int64_t(live_count_.load()) != arrays.head[4]) wrong = "the number of rows differs";
        if (wrong == nullptr && options_.linked) wrong = check_links();
        if (wrong == nullptr && coded) {
            codes_.set_center(std::vector<float>(arrays.center, arrays.center + options_.dims));
            for (float number : codes_.center()) {
                if (!std::isfinite(number)) wrong = "the center of the codes is not finite";
            }
            coded_ = told_ = true;
            for (uint32_t slot : node_slots()) {
                if (!codes_.is_coded(records_.at(slot))) told_ = false;
            }
            coded_rows_ = live_count_.load();
        }
        if (wrong != nullptr) {
            release();
            return wrong;
        }
    }
    start_codes(nullptr, 0, threads);
    return nullptr;
}

inline void Graph::take_in(Records& records, char* data, size_t slots, bool in_place) {
    if (in_place) {
        records.adopt(data, slots);
    } else {
        records.reserve(slots);
        records.copy_in(data, slots);
    }
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
        if (!options_.linked || slot == entry_ || links(slot, 0)[0] != EMPTY) continue;
        loose_at_[slot] = uint32_t(loose_.size());  // a node without links is loose, only the first one is not
        loose_.push_back(slot);
    }
    return nullptr;
}

inline const char* Graph::check_links() {
    for (uint32_t slot = 0; slot < slots_; ++slot) {
        if (states_[slot] != LIVE && states_[slot] != DEAD) continue;
        for (uint32_t level = 0; level <= levels_[slot]; ++level) {
            const uint32_t* list = links(slot, level);
            for (uint32_t at = 0; at < room(level) && list[at] != EMPTY; ++at) {
                bool node = list[at] < slots_ && (states_[list[at]] == LIVE || states_[list[at]] == DEAD);
                if (!node || levels_[list[at]] < level) return "a link leads to no node of its level";
                if (is_loose(list[at])) tie(list[at]);  // what a list leads to cannot be freed as loose nodes are
            }
        }
    }
    if (by_row_.count() == loose_.size()) return entry_ == EMPTY ? nullptr : "the entry is no node";
    if (entry_ == EMPTY) return "the entry is missing";
    if (states_[entry_] != LIVE && states_[entry_] != DEAD) return "the entry is no node";
    return levels_[entry_] == top_ ? nullptr : "the entry is on another level";
}

}  // namespace ruvector

#endif
