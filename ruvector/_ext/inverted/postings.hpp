// Which rows hold a dimension, and with which value: one list for every dimension that occurs.
#ifndef RUVECTOR_INVERTED_POSTINGS_HPP
#define RUVECTOR_INVERTED_POSTINGS_HPP

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "hnsw/slots.hpp"

namespace ruvector {

struct Posting {
    uint32_t slot;
    float value;
};

// Room for one more: the vector grows by doubling, so that the next push cannot fail.
template <class Item>
void make_room(std::vector<Item>& items, size_t wanted) {
    if (items.capacity() < wanted) items.reserve(std::max(wanted, items.capacity() * 2));
}

// Give the memory back; assigning {} would keep it.
template <class Item>
void release(std::vector<Item>& items) {
    std::vector<Item>().swap(items);
}

class Postings {
  public:
    // The list of a dimension; null when no row holds it.
    const std::vector<Posting>* find(uint32_t dim) const {
        uint32_t at = place_of(dim);
        return at == EMPTY ? nullptr : &lists_[at].entries;
    }

    // Append to the list of a dimension; when memory runs out nothing was appended.
    void add(uint32_t dim, Posting posting) {
        uint32_t at = place_of(dim);
        if (at == EMPTY) at = open(dim);
        lists_[at].entries.push_back(posting);
        ++count_;
    }

    // Keep only the postings of some lists for which `stays` holds; an empty list gives its place back.
    template <class Stays>
    void filter(size_t first, size_t last, Stays stays) {
        for (size_t at = first; at < last; ++at) {
            std::vector<Posting>& entries = lists_[at].entries;
            if (entries.empty()) continue;
            size_t before = entries.size();
            entries.erase(std::remove_if(entries.begin(), entries.end(),
                                         [&](const Posting& posting) { return !stays(posting.slot); }),
                          entries.end());
            count_ -= before - entries.size();
            if (entries.empty()) {
                close(uint32_t(at));
            } else if (entries.size() * 2 < entries.capacity()) {
                entries.shrink_to_fit();
            }
        }
    }

    void clear() {
        release(lists_);
        release(free_);
        by_dim_.clear();
        count_ = 0;
    }

    size_t places() const { return lists_.size(); }
    size_t length(size_t at) const { return lists_[at].entries.size(); }
    size_t dims() const { return by_dim_.count(); }
    size_t count() const { return count_; }
    size_t table_bytes() const { return lists_.capacity() * sizeof(List) + by_dim_.bytes(); }

  private:
    struct List {
        uint32_t dim;
        std::vector<Posting> entries;
    };

    uint32_t place_of(uint32_t dim) const {
        return by_dim_.find(mix64(dim), [&](uint32_t at) { return lists_[at].dim == dim; });
    }
    uint64_t hash(uint32_t at) const { return mix64(lists_[at].dim); }

    uint32_t open(uint32_t dim) {
        auto hash_of = [this](uint32_t at) { return hash(at); };
        make_room(lists_, lists_.size() + 1);
        make_room(free_, lists_.size() + 1);
        by_dim_.reserve(by_dim_.count() + 1, hash_of);
        uint32_t at = uint32_t(lists_.size());
        if (free_.empty()) {
            lists_.push_back({dim, {}});
        } else {
            at = free_.back();
            free_.pop_back();
            lists_[at].dim = dim;
        }
        by_dim_.insert(at, hash_of);
        return at;
    }

    void close(uint32_t at) {
        by_dim_.erase(at, [this](uint32_t other) { return hash(other); });
        release(lists_[at].entries);
        free_.push_back(at);  // `open` made the room
    }

    std::vector<List> lists_;
    std::vector<uint32_t> free_;  // places of closed lists
    SlotTable by_dim_;
    size_t count_ = 0;
};

}  // namespace ruvector

#endif
