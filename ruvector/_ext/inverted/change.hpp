// Writing: new rows in blocks, deleted rows out of the lists once they are many.
#ifndef RUVECTOR_INVERTED_CHANGE_HPP
#define RUVECTOR_INVERTED_CHANGE_HPP

#include "inverted/inverted.hpp"

namespace ruvector {

// Where each key stands for the last time, in the order of the input.
inline std::vector<size_t> last_of_each(const int64_t* keys, size_t count) {
    std::vector<size_t> order(count), last;
    for (size_t at = 0; at < count; ++at) order[at] = at;
    std::sort(order.begin(), order.end(), [&](size_t left, size_t right) {
        return keys[left] != keys[right] ? keys[left] < keys[right] : left < right;
    });
    for (size_t at = 0; at < count; ++at) {
        if (at + 1 == count || keys[order[at]] != keys[order[at + 1]]) last.push_back(order[at]);
    }
    std::sort(last.begin(), last.end());
    return last;
}

inline size_t Inverted::upsert(const int64_t* keys, const SparseRows& rows, const uint32_t* tags) {
    std::lock_guard<std::mutex> turn(writer_);
    if (tags_.started() != (tags != nullptr)) throw std::invalid_argument("all rows have tags, or none");
    const size_t tags_used = tags == nullptr ? 0 : tags_end(tags, rows.count);
    const std::vector<size_t> last = last_of_each(keys, rows.count);
    size_t changed = 0;
    std::vector<Fresh> block;
    for (size_t first = 0; first < last.size(); first += SPARSE_BLOCK_ROWS) {
        block.clear();
        for (size_t at = first; at < std::min(first + SPARSE_BLOCK_ROWS, last.size()); ++at) {
            Fresh fresh;
            if (tags != nullptr) fresh.tag = tags[last[at]];
            if (prepare(keys[last[at]], rows, last[at], fresh)) block.push_back(std::move(fresh));
        }
        if (block.empty()) continue;
        std::unique_lock<FairLock> guard(lock_);
        if (tags != nullptr) tags_.reserve(rows_.size() + block.size(), tags_used);
        for (Fresh& fresh : block) publish(fresh);
        changed += block.size();
    }
    compact_if_due();
    return changed;
}

// Make the row of a key; false when it is there as it is.
inline bool Inverted::prepare(int64_t key, const SparseRows& rows, size_t at, Fresh& fresh) const {
    const int64_t start = rows.starts[at];
    const size_t length = size_t(rows.starts[at + 1] - start);
    fresh.before = slot_of(key);
    fresh.row.elements = std::make_unique<SparseElement[]>(length);
    for (size_t to = 0; to < length; ++to) {
        fresh.row.elements[to] = {rows.dims[start + int64_t(to)], rows.values[start + int64_t(to)]};
    }
    if (fresh.before != EMPTY) {
        const Row& there = rows_[fresh.before];
        auto same = [](const SparseElement& left, const SparseElement& right) {
            return left.dim == right.dim && left.value == right.value;
        };
        if (there.length == length &&
            std::equal(there.elements.get(), there.elements.get() + length, fresh.row.elements.get(), same)) {
            return false;
        }
    }
    fresh.row.weight = sparse_weight(metric_, rows.values + start, length);
    fresh.row.key = key;
    fresh.row.length = uint32_t(length);
    fresh.row.state = LIVE;
    return true;
}

inline uint32_t Inverted::take_slot() {
    if (free_.empty()) {
        if (rows_.size() >= SPARSE_SLOTS_MAX) throw std::length_error("the index is full");
        make_room(rows_, rows_.size() + 1);
        make_room(free_, rows_.size() + 1);
        const size_t blocks = rows_.size() / SPARSE_BLOCK_ROWS + 1;
        if (floors_.size() < blocks) floors_.push_back(std::numeric_limits<double>::infinity());
        rows_.emplace_back();
        return uint32_t(rows_.size() - 1);
    }
    uint32_t slot = free_.back();
    free_.pop_back();
    return slot;
}

inline void Inverted::publish(Fresh& fresh) {
    auto hash_of = [this](uint32_t slot) { return key_hash(slot); };
    by_key_.reserve(by_key_.count() + 1, hash_of);
    const uint32_t slot = take_slot();
    Row& row = rows_[slot];
    row.state = DEAD;
    ++dead_count_;
    for (size_t at = 0; at < fresh.row.length; ++at) {
        // Should memory run out here, the slot stays dead and the next compaction takes these postings out again.
        postings_.add(fresh.row.elements[at].dim, {slot, fresh.row.elements[at].value});
        ++dead_postings_;
    }
    --dead_count_;
    dead_postings_ -= fresh.row.length;
    if (fresh.before != EMPTY) bury(fresh.before);
    row = std::move(fresh.row);
    double& floor = floors_[slot / SPARSE_BLOCK_ROWS];
    floor = std::min(floor, floor_of(row));
    by_key_.insert(slot, hash_of);
    if (tags_.started()) tags_.put(slot, fresh.tag);
    live_elements_ += row.length;
    ++live_count_;
}

// Take a row out of every answer; its postings stay in their lists for now.
inline void Inverted::bury(uint32_t slot) {
    Row& row = rows_[slot];
    by_key_.erase(slot, [this](uint32_t other) { return key_hash(other); });
    tags_.drop(slot);
    row.state = DEAD;
    row.elements.reset();
    live_elements_ -= row.length;
    --live_count_;
    ++dead_count_;
    dead_postings_ += row.length;
}

inline size_t Inverted::erase(const int64_t* keys, size_t count) {
    std::lock_guard<std::mutex> turn(writer_);
    size_t erased = 0;
    for (size_t first = 0; first < count; first += SPARSE_BLOCK_ROWS) {
        std::unique_lock<FairLock> guard(lock_);
        for (size_t at = first; at < std::min(first + SPARSE_BLOCK_ROWS, count); ++at) {
            uint32_t slot = slot_of(keys[at]);
            if (slot == EMPTY) continue;
            bury(slot);
            ++erased;
        }
    }
    if (erased != 0 && live_count_.load() == 0) {
        clear_locked();
    } else {
        compact_if_due();
    }
    return erased;
}

inline void Inverted::compact() {
    std::lock_guard<std::mutex> turn(writer_);
    compact_locked();
}

inline void Inverted::compact_if_due() {
    if (dead_postings_ >= std::max(SPARSE_DEAD_MIN, postings_.count() / SPARSE_DEAD_SHARE) ||
        dead_count_ >= std::max(SPARSE_DEAD_MIN, rows_.size() / SPARSE_DEAD_SHARE)) {
        compact_locked();
    }
}

// Take the postings of dead rows out of all lists, some lists at a time; searches go on in between.
inline void Inverted::compact_locked() {
    if (dead_count_ == 0) return;
    auto stays = [this](uint32_t slot) { return rows_[slot].state == LIVE; };
    const size_t places = postings_.places();
    for (size_t first = 0; first < places;) {
        size_t last = first, postings = 0;
        while (last < places && postings < SPARSE_SLICE_POSTINGS) postings += postings_.length(last++) + 1;
        std::unique_lock<FairLock> guard(lock_);
        postings_.filter(first, last, stays);
        first = last;
    }
    std::unique_lock<FairLock> guard(lock_);
    free_dead();
}

// No list names a dead row any more: their slots can be used again, the last ones are given back.
inline void Inverted::free_dead() {
    while (!rows_.empty() && rows_.back().state != LIVE) rows_.pop_back();
    free_.clear();
    floors_.assign((rows_.size() + SPARSE_BLOCK_ROWS - 1) / SPARSE_BLOCK_ROWS, std::numeric_limits<double>::infinity());
    for (size_t slot = rows_.size(); slot-- > 0;) {
        Row& row = rows_[slot];
        if (row.state == LIVE) {
            double& floor = floors_[slot / SPARSE_BLOCK_ROWS];
            floor = std::min(floor, floor_of(row));
        } else {
            row = Row();
            free_.push_back(uint32_t(slot));  // `take_slot` made the room; the lowest slot is taken first
        }
    }
    dead_count_ = 0;
    dead_postings_ = 0;
    ++repairs_;
}

inline void Inverted::clear() {
    std::lock_guard<std::mutex> turn(writer_);
    clear_locked();
}

inline void Inverted::clear_locked() {
    std::unique_lock<FairLock> guard(lock_);
    release(rows_);
    release(floors_);
    release(free_);
    by_key_.clear();
    postings_.clear();
    tags_.forget();
    live_count_ = 0;
    live_elements_ = dead_count_ = dead_postings_ = 0;
}

inline void Inverted::dump(int64_t* keys, int64_t* starts, uint32_t* dims, float* values, uint32_t* tags) const {
    size_t row_number = 0, element = 0;
    starts[0] = 0;
    for (size_t slot = 0; slot < rows_.size(); ++slot) {
        const Row& row = rows_[slot];
        if (row.state != LIVE) continue;
        if (tags_.started()) tags[row_number] = tags_.of(uint32_t(slot));
        for (size_t at = 0; at < row.length; ++at, ++element) {
            dims[element] = row.elements[at].dim;
            values[element] = row.elements[at].value;
        }
        keys[row_number++] = row.key;
        starts[row_number] = int64_t(element);
    }
}

}  // namespace ruvector

#endif
