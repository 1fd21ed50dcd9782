// Rows equal to the row of a node, in chains that begin at the node.
#ifndef RUVECTOR_HNSW_TWINS_HPP
#define RUVECTOR_HNSW_TWINS_HPP

#include <cstddef>
#include <cstdint>
#include <vector>

#include "hnsw/slots.hpp"

namespace ruvector {

// Few rows are twins, so what is known of them stands in a table of its own and not beside every row.
class Twins {
  public:
    // Room for so many more twins, each of which may be the first of its node: hanging them cannot fail then.
    void reserve(size_t more) {
        size_t needed = table_.count() + 2 * more;
        if (entries_.capacity() < needed) entries_.reserve(std::max(needed, entries_.capacity() * 2));
        if (free_.capacity() < needed) free_.reserve(entries_.capacity());
        table_.reserve(needed, [this](uint32_t at) { return hash(at); });
    }
    void hang(uint32_t twin, uint32_t head) {
        uint32_t own = take(twin), before = find(head);
        if (before == EMPTY) before = take(head);
        uint32_t next = entries_[before].next;
        entries_[own] = {twin, head, before, next};
        if (next != EMPTY) entries_[next].before = own;
        entries_[before].next = own;
        ++entries_[before].rows;
    }
    void unhang(uint32_t twin) {
        uint32_t own = find(twin);
        Entry entry = entries_[own];
        entries_[entry.before].next = entry.next;
        if (entry.next != EMPTY) entries_[entry.next].before = entry.before;
        give_back(own);
        uint32_t head = find(entry.head);
        if (--entries_[head].rows == 0) give_back(head);
    }
    // Two nodes change slots, and take along what hangs on them.
    void exchange(uint32_t left, uint32_t right) {
        uint32_t of_left = find(left), of_right = find(right);
        for (uint32_t at : {of_left, of_right}) {
            if (at != EMPTY) table_.erase(at, [this](uint32_t other) { return hash(other); });
        }
        rename(of_left, right);
        rename(of_right, left);
    }
    uint32_t head(uint32_t twin) const { return entries_[find(twin)].head; }
    // How many hang on a node, the first of them and the one behind another; EMPTY when there is none.
    size_t count(uint32_t node) const {
        uint32_t at = find(node);
        return at == EMPTY ? 0 : entries_[at].rows;
    }
    uint32_t next(uint32_t slot) const {
        uint32_t at = find(slot);
        return at == EMPTY || entries_[at].next == EMPTY ? EMPTY : entries_[entries_[at].next].slot;
    }
    size_t bytes() const {
        return entries_.capacity() * sizeof(Entry) + free_.capacity() * sizeof(uint32_t) + table_.bytes();
    }
    void clear() {
        entries_ = {};
        free_ = {};
        table_.clear();
    }

  private:
    struct Entry {  // of a twin, or of a node that has twins
        uint32_t slot;
        uint32_t head = EMPTY;
        uint32_t before = EMPTY, next = EMPTY;  // numbers of entries
        uint32_t rows = 0;                      // of a node: its twins
    };

    uint64_t hash(uint32_t at) const { return mix64(entries_[at].slot); }
    uint32_t find(uint32_t slot) const {
        return table_.find(mix64(slot), [&](uint32_t at) { return entries_[at].slot == slot; });
    }
    uint32_t take(uint32_t slot) {
        uint32_t at = uint32_t(entries_.size());
        if (free_.empty()) {
            entries_.push_back({slot});
        } else {
            at = free_.back();
            free_.pop_back();
            entries_[at] = {slot};
        }
        table_.insert(at, [this](uint32_t other) { return hash(other); });
        return at;
    }
    void rename(uint32_t at, uint32_t slot) {
        if (at == EMPTY) return;
        entries_[at].slot = slot;
        table_.insert(at, [this](uint32_t other) { return hash(other); });
        for (uint32_t twin = entries_[at].next; twin != EMPTY; twin = entries_[twin].next) entries_[twin].head = slot;
    }
    void give_back(uint32_t at) {
        table_.erase(at, [this](uint32_t other) { return hash(other); });
        free_.push_back(at);
    }

    std::vector<Entry> entries_;
    std::vector<uint32_t> free_;  // entries of no slot
    SlotTable table_;
};

}  // namespace ruvector

#endif
