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
    levels_.copy_out(arrays.levels, slots_);
    states_.copy_out(arrays.states, slots_);
    keys_.copy_out(arrays.keys, slots_);
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
        }
        bool is_used = states_[slot] != FREE;
        arrays.scales[slot] = is_used ? scale(slot) : 1.0f;
        arrays.fingerprints[slot] = is_used && options_.linked ? fingerprints_[slot] : 0;
        if (tags_.started()) {
            bool is_row = states_[slot] == LIVE || states_[slot] == TWIN;
            arrays.tags[slot] = is_row ? tags_.of(slot) : EMPTY;
        }
        arrays.twin_heads[slot] = states_[slot] == TWIN ? twins_.head(slot) : EMPTY;
        for (uint32_t level = 1; level <= levels_[slot]; ++level) {
            upper = std::copy_n(links(slot, level), options_.m, upper);
        }
    }
    std::fill_n(arrays.head, HEAD, int64_t(0));
    arrays.head[0] = entry_ == EMPTY ? -1 : int64_t(entry_);
    arrays.head[1] = int64_t(top_);
    arrays.head[2] = int64_t(draws_);
    arrays.head[3] = int64_t(repairs_.load());
    arrays.head[4] = int64_t(live_count_.load());
    arrays.head[6] = int64_t(untold_);
    arrays.head[5] = 1;  // and the nodes that are loose when this is restored, so that it need not look for them
    for (uint32_t slot = 0; options_.linked && slot < slots_; ++slot) {
        arrays.head[5] += is_node(slot, 0) && slot != entry_ && arrays.links[size_t(slot) * base_links_] == EMPTY;
    }
}

inline const char* Graph::restore(const Arrays& arrays, bool in_place, unsigned threads, const Proof* proofs) {
    std::lock_guard<std::mutex> turn(writer_);
    size_t slots = arrays.slots;
    {
        std::lock_guard<FairLock> guard(lock_);
        release();
        if (slots > SLOTS_MAX) return "too many slots";
        bool coded = arrays.codes != nullptr && options_.linked && codes_.usable();
        if (proofs != nullptr) start_guard(proofs);
        take_in(rows_, arrays.rows, slots, in_place);
        if (options_.linked) take_in(links_, reinterpret_cast<char*>(arrays.links), slots, in_place);
        if (coded) take_in(records_, arrays.codes, slots, in_place);
        if (space_.metric() == Metric::COSINE) scales_.assign(arrays.scales, slots);
        states_.assign(arrays.states, slots);
        levels_.assign(arrays.levels, slots);
        members_.resize(slots, 0);
        if (options_.linked) upper_.resize(slots, EMPTY);
        mapped_keys_ = arrays.keys;
        mapped_prints_ = arrays.fingerprints;
        slots_ = fresh_ = uint32_t(slots);
        entry_ = arrays.head[0] < 0 || arrays.head[0] >= int64_t(slots) ? EMPTY : uint32_t(arrays.head[0]);
        top_ = uint32_t(arrays.head[1]);
        draws_ = uint64_t(arrays.head[2]);
        repairs_ = uint64_t(arrays.head[3]);
        const char* wrong = rebuild(arrays);
        if (wrong == nullptr && arrays.tags != nullptr) {
            auto has_row = [&](uint32_t slot) { return states_[slot] == LIVE || states_[slot] == TWIN; };
            wrong = tags_.take(arrays.tags, slots_, has_row);
        }
        if (wrong == nullptr && int64_t(live_count_.load()) != arrays.head[4]) wrong = "the number of rows differs";
        uint32_t at = EMPTY;
        if (wrong == nullptr && watch_ == nullptr) wrong = derive_rest();
        if (wrong == nullptr && options_.linked) wrong = watch_ != nullptr ? check_entry() : check_links(&at);
        if (wrong == nullptr && watch_ == nullptr) tie_linked();
        tables_ready_ = watch_ == nullptr;
        if (wrong == nullptr && coded) {
            codes_.set_center(std::vector<float>(arrays.center, arrays.center + options_.dims));
            for (float number : codes_.center()) {
                if (!std::isfinite(number)) wrong = "the center of the codes is not finite";
            }
            coded_ = true;
            untold_ = size_t(std::max<int64_t>(arrays.head[6], 0));
            told_ = untold_ == 0;
            coded_rows_ = live_count_.load();
        }
        if (wrong != nullptr) {
            release();
            return wrong;
        }
    }
    bool uncoded = !coded_ && options_.linked && codes_.usable() && live_count_.load() >= CODE_ROWS_MIN;
    if (uncoded && watch_ != nullptr && !watch_->holds_all(Guard::ROWS)) return nullptr;  // the finding tells
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

// Derive what searches need: upper lists, chains of twins, loose slots.
inline const char* Graph::rebuild(const Arrays& arrays) {
    size_t used = 0, live = 0, twins = 0;
    uppers_.reserve(arrays.upper_count / options_.m);
    for (uint32_t slot = 0; slot < slots_; ++slot) {
        uint8_t state = states_[slot];
        if (state > TWIN || (!options_.linked && state > LIVE)) return "a slot has an unknown state";
        bool node = state == LIVE || state == DEAD;
        if (levels_[slot] > LEVEL_MAX || (levels_[slot] != 0 && !(node && options_.linked))) {
            return "a slot has a wrong level";
        }
        if (!std::isfinite(arrays.scales[slot])) return "a row has a wrong scale";
        size_t links = size_t(levels_[slot]) * options_.m;
        if (links > arrays.upper_count - used) return "upper links are missing";
        if (levels_[slot] != 0) take_uppers(slot, levels_[slot]);
        for (uint32_t level = 1; level <= levels_[slot]; ++level, used += options_.m) {
            std::copy_n(arrays.upper + used, options_.m, this->links(slot, level));
        }
        members_[slot] = state == LIVE;
        live += state == LIVE || state == TWIN;
        twins += state == TWIN;
    }
    live_count_ = live;
    if (used != arrays.upper_count) return "there are too many upper links";
    if (twins != 0) twins_.reserve(twins);
    for (uint32_t slot = slots_; slot-- > 0;) {
        if (states_[slot] != TWIN) continue;
        uint32_t head = arrays.twin_heads[slot];
        if (!is_node(head, 0)) return "a twin hangs on no node";
        twins_.hang(slot, head);
        if (members_[head] < MEMBERS_MAX) ++members_[head];
    }
    for (uint32_t slot = 0; slot < slots_; ++slot) {
        if (!is_node(slot, 0)) continue;
        dead_count_ += members_[slot] == 0;
        odd_count_ += members_[slot] != 1;
    }
    if (!options_.linked || (watch_ != nullptr && arrays.head[5] == 1)) return nullptr;  // none is loose
    if (watch_ != nullptr && !watch_->holds_all(Guard::LINKS)) return nullptr;           // the finding tells
    for (uint32_t slot = 0; slot < slots_; ++slot) {
        if (!is_node(slot, 0) || slot == entry_ || links(slot, 0)[0] != EMPTY) continue;
        loose_.push_back(slot);  // a node without links is loose, only the first one is not
    }
    return nullptr;
}

// Derive what only writers and lookups need: keys and fingerprints of our own, the free slots, the tables. No reader looks at any of it before the tables are said to be ready.
inline const char* Graph::derive_rest() {
    auto by_key = [this](uint32_t slot) { return key_hash(slot); };
    auto by_row = [this](uint32_t slot) { return row_hash(slot); };
    keys_.assign(mapped_keys_, slots_);
    if (options_.linked) fingerprints_.assign(mapped_prints_, slots_);
    if (!loose_.empty()) loose_at_.resize(slots_, EMPTY);
    for (size_t at = 0; at < loose_.size(); ++at) loose_at_[loose_[at]] = uint32_t(at);
    free_slot_ = EMPTY;
    free_count_ = 0;
    for (uint32_t slot = slots_; slot-- > 0;) {
        if (states_[slot] == FREE) chain_free(slot);
    }
    by_key_.clear();
    by_row_.clear();
    by_key_.reserve(slots_, by_key);
    if (options_.linked) by_row_.reserve(slots_, by_row);
    for (uint32_t slot = 0; slot < slots_; ++slot) {
        if (is_node(slot, 0) && options_.linked) by_row_.insert(slot, by_row);
        if (states_[slot] != LIVE && states_[slot] != TWIN) continue;
        if (slot_of(keys_[slot]) != EMPTY) return "holds a key twice";
        by_key_.insert(slot, by_key);
    }
    return nullptr;
}

// `at` becomes the node whose links are wrong, or EMPTY when it is something else.
inline const char* Graph::check_links(uint32_t* at) const {
    *at = EMPTY;
    for (uint32_t slot = 0; slot < slots_; ++slot) {
        if (!is_node(slot, 0)) continue;
        for (uint32_t level = 0; level <= levels_[slot]; ++level) {
            const uint32_t* list = links(slot, level);
            for (uint32_t place = 0; place < room(level) && list[place] != EMPTY; ++place) {
                if (is_node(list[place], level)) continue;
                *at = level == 0 ? slot : EMPTY;
                return WRONG_LINK;
            }
        }
    }
    if (by_row_.count() == loose_.size()) return entry_ == EMPTY ? nullptr : "the entry is no node";
    if (entry_ == EMPTY) return "the entry is missing";
    return check_entry();
}

// A node without links that a list leads to is not loose: it could not be freed as loose nodes are.
inline void Graph::tie_linked() {
    for (uint32_t slot = 0; slot < slots_ && !loose_.empty(); ++slot) {
        if (!is_node(slot, 0)) continue;
        for (uint32_t level = 0; level <= levels_[slot]; ++level) {
            const uint32_t* list = links(slot, level);
            for (uint32_t place = 0; place < room(level) && list[place] != EMPTY; ++place) {
                if (is_loose(list[place])) tie(list[place]);
            }
        }
    }
}

inline const char* Graph::check_entry() const {
    if (entry_ == EMPTY) return nullptr;
    if (!is_node(entry_, 0)) return "the entry is no node";
    return levels_[entry_] == top_ ? nullptr : "the entry is on another level";
}

}  // namespace ruvector

#endif
