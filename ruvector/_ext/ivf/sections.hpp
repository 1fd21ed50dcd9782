// Lists as flat arrays, and back; what comes back is checked before anything is looked up with it.
#ifndef RUVECTOR_IVF_SECTIONS_HPP
#define RUVECTOR_IVF_SECTIONS_HPP

#include "ivf/lists.hpp"

namespace ruvector {

inline size_t Lists::used_blocks() const {
    size_t blocks = 0;
    for (const List& list : lists_) blocks += list.blocks.size();
    return blocks;
}

inline void Lists::dump(const ListArrays& arrays) const {
    rows_.copy_out(arrays.rows, slots_);
    std::copy_n(states_.begin(), slots_, arrays.states);
    std::copy_n(keys_.begin(), slots_, arrays.keys);
    std::copy_n(scales_.begin(), slots_, arrays.scales);
    for (uint32_t slot = 0; slot < slots_; ++slot) {
        if (states_[slot] != 0) continue;
        // What was there until it was deleted is nobody's business.
        std::memset(arrays.rows + size_t(slot) * rows_.stride(), 0, rows_.stride());
        arrays.keys[slot] = 0;
        arrays.scales[slot] = 1.0f;
    }
    for (uint32_t slot = 0; tagged() && slot < slots_; ++slot) {
        arrays.tags[slot] = states_[slot] != 0 ? tags_.of(slot) : EMPTY;
    }
    size_t at = 0;
    for (size_t list = 0; list < lists_.size(); ++list) {
        for (uint32_t block : lists_[list].blocks) {
            std::memcpy(arrays.blocks + at * blocks_.stride(), blocks_.all().at(block), blocks_.stride());
            arrays.block_lists[at++] = uint32_t(list);
        }
    }
    std::copy(centroids_.places.begin(), centroids_.places.end(), arrays.centroids);
    std::copy(centroids_.spreads.begin(), centroids_.spreads.end(), arrays.spreads);
    if (has_lists()) std::copy(codes_.center().begin(), codes_.center().end(), arrays.center);
    std::fill_n(arrays.head, HEAD, int64_t(0));
    arrays.head[0] = int64_t(live_count_.load());
    arrays.head[1] = int64_t(trained_rows_);
    arrays.head[2] = int64_t(trainings_.load());
    arrays.head[3] = int64_t(uncoded_rows_);
}

inline const char* Lists::restore(const ListArrays& arrays, bool in_place, unsigned threads) {
    std::lock_guard<std::mutex> turn(writer_);
    {
        std::lock_guard<FairLock> guard(lock_);
        release();
        if (arrays.slots > LIST_SLOTS_MAX) return "too many slots";
        const char* wrong = adopt_rows(arrays, in_place);
        if (wrong == nullptr && arrays.tags != nullptr) {
            wrong = tags_.take(arrays.tags, slots_, [&](uint32_t slot) { return states_[slot] != 0; });
        }
        if (wrong == nullptr && arrays.list_count != 0) wrong = adopt_lists(arrays, in_place);
        if (wrong == nullptr && int64_t(live_count_.load()) != arrays.head[0]) wrong = "the number of rows differs";
        if (wrong != nullptr) {
            release();
            return wrong;
        }
        for (uint32_t slot = 0; slot < slots_; ++slot) {
            if (states_[slot] != 0 && list_of_[slot] == EMPTY) loosen(slot);
        }
        trainings_ = uint64_t(arrays.head[2]);
    }
    if (!has_lists() && is_due()) train(threads, nullptr);
    return nullptr;
}

inline const char* Lists::adopt_rows(const ListArrays& arrays, bool in_place) {
    size_t slots = arrays.slots;
    take_in(rows_, arrays.rows, slots, in_place);
    states_.assign(arrays.states, arrays.states + slots);
    keys_.assign(arrays.keys, arrays.keys + slots);
    scales_.assign(arrays.scales, arrays.scales + slots);
    list_of_.assign(slots, EMPTY);
    at_.assign(slots, 0);
    loose_.reserve(slots);
    free_.reserve(slots);
    slots_ = uint32_t(slots);
    by_key_.reserve(slots, [this](uint32_t slot) { return key_hash(slot); });
    for (uint32_t slot = slots_; slot-- > 0;) {
        if (states_[slot] > 1) return "a slot has an unknown state";
        if (!std::isfinite(scales_[slot])) return "a row has a wrong scale";
        if (states_[slot] == 0) {
            free_.push_back(slot);
            continue;
        }
        if (slot_of(keys_[slot]) != EMPTY) return "a key occurs twice";
        by_key_.insert(slot, [this](uint32_t at) { return key_hash(at); });
        ++live_count_;
    }
    return nullptr;
}

inline const char* Lists::adopt_lists(const ListArrays& arrays, bool in_place) {
    if (!codes_.usable()) return "there are lists where there cannot be any";
    size_t numbers = arrays.list_count * codes_.padded();
    // As long as a coded row can be: then no sum of a search overflows.
    auto finite = [](float number) { return std::fabs(number) < 1e15f; };
    auto spread = [](float number) { return number >= 0.0f && number < 1e32f; };
    if (!std::all_of(arrays.centroids, arrays.centroids + numbers, finite) ||
        !std::all_of(arrays.spreads, arrays.spreads + arrays.list_count, spread) ||
        !std::all_of(arrays.center, arrays.center + options_.dims, finite)) {
        return "a centroid is not finite";
    }
    auto count = [](int64_t number) { return number >= 0 && number <= int64_t(LIST_SLOTS_MAX); };
    if (!count(arrays.head[1]) || !count(arrays.head[3])) return "the number of trained rows is wrong";
    trained_rows_ = size_t(arrays.head[1]);
    uncoded_rows_ = size_t(arrays.head[3]);
    codes_.set_center(std::vector<float>(arrays.center, arrays.center + options_.dims));
    centroids_.count = arrays.list_count;
    centroids_.padded = codes_.padded();
    centroids_.places.assign(arrays.centroids, arrays.centroids + numbers);
    centroids_.spreads.assign(arrays.spreads, arrays.spreads + arrays.list_count);
    centroids_.refresh(codes_.kernels_of());
    centroids_.weigh_spreads(space_.metric() != Metric::IP);
    take_in(blocks_.all(), arrays.blocks, arrays.block_count, in_place);
    blocks_known_ = arrays.block_count;
    free_blocks_.reserve(blocks_known_);
    lists_.resize(arrays.list_count);
    for (uint32_t block = 0; block < blocks_known_; ++block) {
        if (arrays.block_lists[block] >= lists_.size()) return "a block belongs to no list";
        List& list = lists_[arrays.block_lists[block]];
        if (list.rows % LANES_MAX != 0) return "a block that is not full is followed by another";
        list.blocks.push_back(block);
        const BlockHead& head = blocks_.head(block);
        for (size_t lane = 0; lane < LANES_MAX && head.slots[lane] != EMPTY; ++lane) {
            uint32_t slot = head.slots[lane];
            if (slot >= slots_ || states_[slot] == 0 || list_of_[slot] != EMPTY) return "a list holds a wrong row";
            if (!(std::isfinite(head.add[lane]) && std::isfinite(head.mul[lane]) && std::isfinite(head.error[lane]))) {
                return "the code of a row is not finite";
            }
            list_of_[slot] = arrays.block_lists[block];
            at_[slot] = uint32_t(list.rows++);
        }
        size_t used = (list.rows - 1) % LANES_MAX + 1;
        if (list.rows <= (list.blocks.size() - 1) * LANES_MAX) return "a block is empty";
        for (size_t lane = used; lane < LANES_MAX; ++lane) {
            if (head.slots[lane] != EMPTY || !std::isinf(head.add[lane])) return "a block has a gap";
        }
    }
    return nullptr;
}

inline void Lists::take_in(Records& records, char* data, size_t count, bool in_place) {
    if (in_place) {
        records.adopt(data, count);
    } else {
        records.reserve(count);
        records.copy_in(data, count);
    }
}

}  // namespace ruvector

#endif
