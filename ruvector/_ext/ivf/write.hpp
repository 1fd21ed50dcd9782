// Writing rows: plan a batch, code it against the centroids, publish it.
#ifndef RUVECTOR_IVF_WRITE_HPP
#define RUVECTOR_IVF_WRITE_HPP

#include "ivf/lists.hpp"

namespace ruvector {

struct Lists::Batch {
    std::vector<uint32_t> slots;     // new rows in order
    std::vector<uint32_t> replaced;  // the slot that held the key of each before, or EMPTY
    std::vector<uint32_t> tags;      // of each, when there are any
    std::vector<uint32_t> lists;     // where each belongs, or EMPTY
    std::vector<RowCode> codes;
};

inline size_t Lists::upsert(const int64_t* keys, const char* rows, const uint32_t* tags, size_t count, bool loose,
                            unsigned threads) {
    std::lock_guard<std::mutex> turn(writer_);
    if (tags_.started() != (tags != nullptr)) throw std::invalid_argument("all rows have tags, or none");
    size_t changed = 0;
    // What calls for new centroids in the end is not coded for the old ones first.
    bool listed = has_lists() && live_count_.load() + count < GROWTH * trained_rows_;
    for (size_t first = 0; first < count; first += WRITE_ROWS) {
        size_t part = std::min(WRITE_ROWS, count - first);
        write_rows(keys + first, rows + first * space_.row_bytes(), tags == nullptr ? nullptr : tags + first, part,
                   listed, threads, &changed);
    }
    if (!loose && is_due()) train(threads, nullptr);
    return changed;
}

// Whether there are so many more, or so many loose, rows that new centroids are worth it.
inline bool Lists::is_due() const {
    size_t rows = live_count_.load();
    if (!codes_.usable() || rows < LIST_ROWS_MIN) return false;
    return rows >= GROWTH * trained_rows_ || loose_.size() > rows / GROWTH + 2 * uncoded_rows_;
}

inline void Lists::build(unsigned threads, const volatile uint8_t* cancel) {
    std::lock_guard<std::mutex> turn(writer_);
    if (is_due()) train(threads, cancel);
}

inline void Lists::write_rows(const int64_t* keys, const char* rows, const uint32_t* tags, size_t count, bool listed,
                              unsigned threads, size_t* changed) {
    Batch batch;
    reserve_rows(count, tags == nullptr ? 0 : tags_end(tags, count));
    try {
        plan_rows(keys, rows, tags, count, batch);
        if (listed) code_rows(batch, threads);
        reserve_places(batch);
    } catch (...) {
        for (uint32_t slot : batch.slots) free_.push_back(slot);  // nothing was published: all is as before
        throw;
    }
    publish(batch);
    *changed += batch.slots.size();
}

inline void Lists::reserve_rows(size_t more, size_t tags) {
    std::lock_guard<FairLock> guard(lock_);
    if (tags_.started()) tags_.reserve(slots_ + more, tags);
    by_key_.reserve(by_key_.count() + more, [this](uint32_t slot) { return key_hash(slot); });
    if (free_.size() >= more) return;
    size_t fresh = more - free_.size(), slots = size_t(slots_) + fresh;
    if (slots > LIST_SLOTS_MAX) throw std::length_error("an index holds at most 2,147,483,648 rows");
    rows_.reserve(slots);
    if (loose_.capacity() < slots) loose_.reserve(std::max(slots, loose_.capacity() * 2));
    if (free_.capacity() < slots) free_.reserve(std::max(slots, free_.capacity() * 2));  // freeing must not fail
    scales_.resize(slots, 1.0f);
    keys_.resize(slots, 0);
    list_of_.resize(slots, EMPTY);
    at_.resize(slots, 0);
    states_.resize(slots, 0);
    // Old free slots are used first; new ones in rising order.
    free_.insert(free_.begin(), fresh, 0);
    for (size_t at = 0; at < fresh; ++at) free_[at] = uint32_t(slots - 1 - at);
    slots_ = uint32_t(slots);
}

// Of a key that occurs twice the last vector counts; a row that is there already with the same bytes is left alone.
inline void Lists::plan_rows(const int64_t* keys, const char* rows, const uint32_t* tags, size_t count, Batch& batch) {
    std::vector<std::pair<int64_t, size_t>> order(count);
    for (size_t at = 0; at < count; ++at) order[at] = {keys[at], at};
    std::sort(order.begin(), order.end());
    std::vector<uint8_t> last(count, 0);
    for (size_t at = 0; at < count; ++at) {
        last[order[at].second] = at + 1 == count || order[at + 1].first != order[at].first;
    }
    batch.slots.reserve(count);
    batch.replaced.reserve(count);
    for (size_t at = 0; at < count; ++at) {
        const char* row = rows + at * space_.row_bytes();
        if (!last[at]) continue;
        uint32_t before = slot_of(keys[at]);
        if (before != EMPTY && std::memcmp(rows_.at(before), row, space_.row_bytes()) == 0) continue;
        uint32_t slot = free_.back();
        free_.pop_back();
        batch.slots.push_back(slot);
        batch.replaced.push_back(before);
        if (tags != nullptr) batch.tags.push_back(tags[at]);
        std::memset(rows_.at(slot) + space_.row_bytes(), 0, rows_.stride() - space_.row_bytes());
        std::memcpy(rows_.at(slot), row, space_.row_bytes());
        scales_[slot] = space_.scale_of(row);
        keys_[slot] = keys[at];
        list_of_[slot] = EMPTY;
    }
    batch.lists.assign(batch.slots.size(), EMPTY);
}

inline void Lists::rotate(const Codes& codes, uint32_t slot, ListScratch& scratch, float* out) const {
    codes.rotate_row(space_.probe(rows_.at(slot), scales_[slot], scratch.row.data()), out);
}

// Find the list of every row and code the row relative to its centroid; rows too long for that stay loose.
inline void Lists::code_rows(Batch& batch, unsigned threads) {
    size_t count = batch.slots.size(), padded = codes_.padded();
    const CodeKernels& kernels = codes_.kernels_of();
    batch.codes.resize(count);
    std::vector<float> rotated(count * padded);
    Sample sample;
    sample.resize(count, padded);
    std::vector<std::unique_ptr<ListScratch>> scratch;
    for (unsigned worker = 0; worker < std::max(1u, threads); ++worker) scratch.push_back(borrow());
    parallel_for(count, threads, [&](unsigned worker, size_t at) {
        rotate(codes_, batch.slots[at], *scratch[worker], rotated.data() + at * padded);
        ShiftedCode code{sample.levels.data() + at * padded};
        code.take(kernels, rotated.data() + at * padded, padded);
        sample.steps[at] = code.step;
        sample.squares[at] = code.square;
    });
    std::vector<float> apart;
    nearest_centroids(kernels, centroids_, sample, threads, batch.lists, apart);
    parallel_for(count, threads, [&](unsigned, size_t at) {
        if (!(sample.squares[at] < CODE_SQUARE_MAX)) {
            batch.lists[at] = EMPTY;
            return;
        }
        float* row = rotated.data() + at * padded;
        const float* place = centroids_.place(batch.lists[at]);
        for (size_t dim = 0; dim < padded; ++dim) row[dim] -= place[dim];
        blocks_.encode(row, place, batch.codes[at]);
    });
    for (auto& one : scratch) give_back(std::move(one));
}

// Room for all that a batch may add to its lists.
inline void Lists::reserve_places(const Batch& batch) {
    std::vector<uint32_t> lists;
    for (uint32_t list : batch.lists) {
        if (list != EMPTY) lists.push_back(list);
    }
    if (lists.empty()) return;
    std::sort(lists.begin(), lists.end());
    std::lock_guard<FairLock> guard(lock_);
    size_t wanted = 0;
    for (size_t first = 0, next; first < lists.size(); first = next) {
        for (next = first; next < lists.size() && lists[next] == lists[first];) ++next;
        List& list = lists_[lists[first]];
        size_t more = (list.rows + next - first + LANES_MAX - 1) / LANES_MAX - list.blocks.size();
        if (list.blocks.capacity() < list.blocks.size() + more) {
            list.blocks.reserve(std::max(list.blocks.size() + more, list.blocks.capacity() * 2));
        }
        wanted += more;
    }
    if (wanted <= free_blocks_.size()) return;
    size_t known = blocks_known_, blocks = known + wanted - free_blocks_.size();
    blocks_.all().reserve(blocks);
    free_blocks_.reserve(std::max(blocks, free_blocks_.capacity()));
    free_blocks_.insert(free_blocks_.begin(), blocks - known, 0);
    for (size_t at = 0; at < blocks - known; ++at) free_blocks_[at] = uint32_t(blocks - 1 - at);
    blocks_known_ = blocks;
}

inline void Lists::publish(const Batch& batch) {
    std::lock_guard<FairLock> guard(lock_);
    for (size_t row = 0; row < batch.slots.size(); ++row) {
        uint32_t slot = batch.slots[row], before = batch.replaced[row];
        if (before != EMPTY) {
            by_key_.erase(before, [this](uint32_t at) { return key_hash(at); });
            drop(before);
        }
        by_key_.insert(slot, [this](uint32_t at) { return key_hash(at); });
        ++live_count_;
        states_[slot] = 1;
        if (!batch.tags.empty()) tags_.put(slot, batch.tags[row]);
        if (batch.lists[row] == EMPTY) {
            loosen(slot);
        } else {
            put(slot, batch.lists[row], batch.codes[row]);
        }
    }
}

inline void Lists::loosen(uint32_t slot) {
    list_of_[slot] = EMPTY;
    at_[slot] = uint32_t(loose_.size());
    loose_.push_back(slot);  // room was reserved with the slot
}

inline void Lists::put(uint32_t slot, uint32_t number, const RowCode& code) {
    List& list = lists_[number];
    size_t lane = list.rows % LANES_MAX;
    if (lane == 0) {
        list.blocks.push_back(free_blocks_.back());
        free_blocks_.pop_back();
        blocks_.open(list.blocks.back());
    }
    blocks_.put(list.blocks.back(), lane, slot, code);
    list_of_[slot] = number;
    at_[slot] = uint32_t(list.rows++);
}

// Take a row out of all answers; its key is out of the table already and the lock is held alone.
inline void Lists::drop(uint32_t slot) {
    --live_count_;
    tags_.drop(slot);
    if (list_of_[slot] == EMPTY) {
        uint32_t last = loose_.back();
        loose_[at_[slot]] = last;
        at_[last] = at_[slot];
        loose_.pop_back();
    } else {
        List& list = lists_[list_of_[slot]];
        size_t at = at_[slot], last = --list.rows;
        uint32_t end = list.blocks.back();
        if (at != last) {
            uint32_t block = list.blocks[at / LANES_MAX];
            blocks_.move(end, last % LANES_MAX, block, at % LANES_MAX);
            at_[blocks_.head(block).slots[at % LANES_MAX]] = uint32_t(at);
        }
        blocks_.vacate(end, last % LANES_MAX);
        if (last % LANES_MAX == 0) {
            list.blocks.pop_back();
            free_blocks_.push_back(end);  // room was reserved with the block
        }
    }
    states_[slot] = 0;
    list_of_[slot] = EMPTY;
    free_.push_back(slot);
}

inline size_t Lists::erase(const int64_t* keys, size_t count) {
    std::lock_guard<std::mutex> turn(writer_);
    size_t erased = 0;
    for (size_t first = 0; first < count; first += WRITE_ROWS) {
        std::lock_guard<FairLock> guard(lock_);
        for (size_t at = first; at < std::min(count, first + WRITE_ROWS); ++at) {
            uint32_t slot = slot_of(keys[at]);
            if (slot == EMPTY) continue;
            by_key_.erase(slot, [this](uint32_t other) { return key_hash(other); });
            drop(slot);
            ++erased;
        }
    }
    if (erased != 0 && live_count_.load() == 0) {
        std::lock_guard<FairLock> guard(lock_);
        release();
    }
    return erased;
}

// Lists are dense at any time, but too many of them are left when most rows went.
inline void Lists::repair(unsigned threads) {
    std::lock_guard<std::mutex> turn(writer_);
    size_t live = live_count_.load();
    if (!has_lists() || live * GROWTH > trained_rows_) return;
    if (live >= LIST_ROWS_MIN) {
        train(threads, nullptr);
        return;
    }
    std::lock_guard<FairLock> guard(lock_);
    forget_lists();
}

// All rows are loose then.
inline void Lists::forget_lists() {
    centroids_ = Centroids{};
    codes_.forget();
    blocks_.all().clear();
    blocks_known_ = 0;
    lists_.clear();
    free_blocks_.clear();
    trained_rows_ = uncoded_rows_ = 0;
    loose_.clear();
    for (uint32_t slot = 0; slot < slots_; ++slot) {
        if (states_[slot] != 0) loosen(slot);
    }
}

inline void Lists::clear() {
    std::lock_guard<std::mutex> turn(writer_);
    std::lock_guard<FairLock> guard(lock_);
    release();
}

inline void Lists::release() {
    rows_.clear();
    scales_.clear();
    states_.clear();
    keys_.clear();
    list_of_.clear();
    at_.clear();
    tags_.forget();
    free_.clear();
    by_key_.clear();
    slots_ = 0;
    live_count_ = 0;
    forget_lists();
}

}  // namespace ruvector

#endif
