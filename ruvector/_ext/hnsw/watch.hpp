// Searching a graph whose pages are not all verified yet.
#ifndef RUVECTOR_HNSW_WATCH_HPP
#define RUVECTOR_HNSW_WATCH_HPP

#include "hnsw/graph.hpp"

namespace ruvector {

// A measure that verifies what it is about to read, and every list before it is followed. When something is wrong the
// guard knows, all distances are infinite and the search ends without an answer.
template <class Measure>
struct Graph::Guarded {
    const Measure& inner;
    const Graph& graph;
    Guard& guard;
    Guard::Part part;

    bool may_follow(uint32_t slot, uint32_t level) const {
        if (guard.is_damaged() || (level == 0 && !guard.holds(Guard::LINKS, slot))) return false;
        const uint32_t* list = graph.links(slot, level);
        for (uint32_t at = 0; at < graph.room(level) && list[at] != EMPTY; ++at) {
            if (graph.is_node(list[at], level)) continue;
            if (level == 0) {
                guard.report_slot(Guard::LINKS, slot, WRONG_LINK);
            } else {
                guard.report(Guard::UPPER, Guard::NO_PAGE, WRONG_LINK);
            }
            return false;
        }
        return true;
    }
    void operator()(const uint32_t* slots, size_t count, float* out, Scratch& scratch) const {
        bool whole = true;
        for (size_t at = 0; at < count; ++at) whole = whole && guard.holds(part, slots[at]);
        if (whole) {
            inner(slots, count, out, scratch);
        } else {
            std::fill_n(out, count, std::numeric_limits<float>::infinity());
        }
    }
};

// Do some work with a measure that verifies where there is something to verify yet.
template <class Measure, class Work>
bool Graph::guarded(const Measure& measure, Guard::Part part, const Work& work) const {
    if (watch_ == nullptr) return work(measure);
    return work(Guarded<Measure>{measure, *this, *watch_, part});
}

inline void Graph::start_guard(const Proof* proofs) {
    size_t strides[Guard::PARTS] = {rows_.stride(), links_.stride(), records_.stride(), sizeof(uint32_t),
                                    sizeof(int64_t)};
    guard_ = std::make_unique<Guard>(proofs, strides);
    watch_ = guard_.get();
}

// Make the tables that an index opened in place does without until a key is looked up; false when keys are wrong.
inline bool Graph::ready_tables() {
    if (tables_ready_.load(std::memory_order_acquire)) return true;
    std::lock_guard<std::mutex> turn(tables_lock_);
    if (tables_ready_.load(std::memory_order_acquire)) return true;
    if (guard_->is_damaged()) return false;
    if (!guard_->holds_all(Guard::KEYS) || !guard_->holds_all(Guard::PRINTS)) return false;
    if (const char* wrong = derive_rest()) {
        guard_->report(Guard::KEYS, Guard::NO_PAGE, wrong);
        return false;
    }
    tables_ready_.store(true, std::memory_order_release);
    return true;
}

inline bool Graph::check_next(size_t pages) {
    if (guard_ == nullptr || watch_ == nullptr || guard_->is_damaged()) return false;
    bool more = true;
    for (size_t done = 0; more && done < pages; done += READ_PAGES) more = guard_->check_next(READ_PAGES);
    if (more) return true;
    if (guard_->is_damaged()) return false;
    if (!ready_tables()) return false;
    uint32_t at = EMPTY;
    const char* wrong = options_.linked ? check_links(&at) : nullptr;
    if (wrong != nullptr) {
        if (at == EMPTY) {
            guard_->report(Guard::UPPER, Guard::NO_PAGE, wrong);
        } else {
            guard_->report_slot(Guard::LINKS, at, wrong);
        }
        return false;
    }
    Records links(links_.stride()), codes(records_.stride());
    bool own = copy_hot(links, codes);
    {
        std::lock_guard<FairLock> alone(lock_);  // no search that verifies is under way when a writer may begin
        if (guard_->is_damaged()) return false;
        if (own && guard_->data(Guard::LINKS) != nullptr) links_.swap(links);
        if (own && guard_->data(Guard::CODES) != nullptr) records_.swap(codes);
        for (Guard::Part part : {Guard::LINKS, Guard::CODES, Guard::KEYS, Guard::PRINTS}) {
            if (own) guard_->drop(part);
        }
        tie_linked();
        watch_ = nullptr;
    }
    return false;
}

// Copies of links and codes in huge pages, in which searches go a fifth faster; false when there is no memory for them.
inline bool Graph::copy_hot(Records& links, Records& codes) const {
    try {
        if (const char* data = guard_->data(Guard::LINKS)) {
            links.reserve(slots_);
            links.copy_in(data, slots_);
        }
        if (const char* data = guard_->data(Guard::CODES)) {
            codes.reserve(slots_);
            codes.copy_in(data, slots_);
        }
    } catch (const std::bad_alloc&) {
        return false;
    }
    return true;
}

inline void Graph::evict() {
    std::unique_lock<std::mutex> turn(writer_, std::try_to_lock);
    // Else a writer may be marking rows it writes. Without a guard the rows do not lie in files.
    if (turn.owns_lock() && guard_ != nullptr) rows_.evict();
}

inline bool Graph::is_watched() {
    std::shared_lock<FairLock> guard(lock_);
    return watch_ != nullptr;
}

inline Guard::Finding Graph::finding() {
    std::shared_lock<FairLock> guard(lock_);
    return guard_ == nullptr ? Guard::Finding{} : guard_->finding();
}

}  // namespace ruvector

#endif
