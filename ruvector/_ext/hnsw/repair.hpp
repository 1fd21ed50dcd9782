// Deleting rows, and linking around the deleted nodes once there are enough of them.
#ifndef RUVECTOR_HNSW_REPAIR_HPP
#define RUVECTOR_HNSW_REPAIR_HPP

#include "hnsw/graph.hpp"

namespace ruvector {

struct Graph::Mended {
    uint32_t slot;
    uint32_t level;
    std::vector<uint32_t> list;
};

inline size_t Graph::erase(const int64_t* keys, size_t count, unsigned threads) {
    std::lock_guard<std::mutex> turn(writer_);
    size_t erased = 0;
    for (size_t first = 0; first < count; first += REPAIR_SLOTS) {
        std::lock_guard<FairLock> guard(lock_);
        for (size_t at = first; at < std::min(count, first + REPAIR_SLOTS); ++at) {
            uint32_t slot = slot_of(keys[at]);
            if (slot == EMPTY) continue;
            by_key_.erase(slot, [this](uint32_t other) { return key_hash(other); });
            drop(slot);
            ++erased;
        }
    }
    if (erased != 0 && live_count_.load() == 0) {
        std::lock_guard<FairLock> guard(lock_);
        release();  // nothing is left to guide to
    }
    repair_if_due(threads);
    return erased;
}

inline void Graph::clear() {
    std::lock_guard<std::mutex> turn(writer_);
    std::lock_guard<FairLock> guard(lock_);
    release();
}

// Forget all rows and give the memory back; the counter of level draws goes on.
inline void Graph::release() noexcept {
    ++moves_;
    guard_.reset();
    watch_ = nullptr;
    tables_ready_ = true;
    rows_.clear();
    links_.clear();
    records_.clear();
    codes_.forget();
    coded_ = false;
    told_ = true;
    untold_ = 0;
    scales_.clear();
    states_.clear();
    levels_.clear();
    keys_.clear();
    fingerprints_.clear();
    upper_.clear();
    members_.clear();
    uppers_.clear();
    uppers_used_ = 0;
    free_upper_ = EMPTY;
    twins_.clear();
    tags_.forget();
    loose_at_.clear();
    loose_ = {};
    fresh_ = 0;
    free_slot_ = EMPTY;
    free_count_ = 0;
    by_key_.clear();
    by_row_.clear();
    slots_ = 0;
    live_count_ = 0;
    unchecked_ = 0;
    dead_count_ = odd_count_ = 0;
    entry_ = EMPTY;
    top_ = 0;
}

// Note that a node stands for so many rows.
inline void Graph::weigh(uint32_t node, size_t rows) {
    dead_count_ = dead_count_ - (members_[node] == 0) + (rows == 0);
    odd_count_ = odd_count_ - (members_[node] != 1) + (rows != 1);
    members_[node] = uint8_t(std::min<size_t>(rows, MEMBERS_MAX));
}

// Take one row out of all answers; its key is out of the table already and the lock is held alone.
inline void Graph::drop(uint32_t slot) {
    --live_count_;
    tags_.drop(slot);
    if (states_[slot] == TWIN) {
        uint32_t head = twins_.head(slot);
        twins_.unhang(slot);
        free_slot(slot);
        weigh(head, rows_of_node(head));
        drop_loose(head);
    } else if (!options_.linked) {
        free_slot(slot);
    } else {
        states_[slot] = DEAD;
        weigh(slot, rows_of_node(slot));
        drop_loose(slot);
    }
}

// A loose node that stands for no row any more guides nobody: its slot is free at once.
inline void Graph::drop_loose(uint32_t slot) {
    if (!is_loose(slot) || !is_gone(slot)) return;
    tie(slot);
    free_node(slot);
}

// Free the slot of a node that stands for no row and that no list leads to.
inline void Graph::free_node(uint32_t slot) {
    by_row_.erase(slot, [this](uint32_t at) { return row_hash(at); });
    if (untold_ != 0 && !codes_.is_coded(records_.at(slot))) told_ = --untold_ == 0;
    weigh(slot, 1);
    free_slot(slot);
}

inline void Graph::free_slot(uint32_t slot) noexcept {
    ++frees_;
    while (options_.linked && upper_[slot] != EMPTY) {
        uint32_t at = upper_[slot];
        upper_[slot] = upper_list(at)[options_.m];
        upper_list(at)[options_.m] = free_upper_;
        free_upper_ = at;
    }
    states_[slot] = FREE;
    levels_[slot] = 0;
    members_[slot] = 0;
    chain_free(slot);
}

inline void Graph::repair(unsigned threads) {
    std::lock_guard<std::mutex> turn(writer_);
    if (dead_count_ != 0) {
        repair_locked(threads);
    } else if (unchecked_ != 0) {
        reach_all(threads);
    }
}

inline void Graph::repair_if_due(unsigned threads) {
    if (dead_count_ >= std::max(DEAD_MIN, live_count_.load() / DEAD_SHARE)) repair_locked(threads);
}

inline void Graph::repair_locked(unsigned threads) {
    for (uint32_t first = 0; first < slots_; first += REPAIR_SLOTS) {
        mend_slice(first, uint32_t(std::min<size_t>(slots_, size_t(first) + REPAIR_SLOTS)), threads);
    }
    {
        std::lock_guard<FairLock> guard(lock_);
        choose_entry();
    }
    relink_lost(threads);
    bury();
    ++repairs_;
}

// Give every node of the slice that links to a deleted node other links instead.
inline void Graph::mend_slice(uint32_t first, uint32_t last, unsigned threads) {
    std::vector<std::unique_ptr<Scratch>> scratch = scratches(threads);
    std::vector<std::vector<Mended>> done(scratch.size());
    parallel_for(last - first, threads, [&](unsigned worker, size_t index) {
        uint32_t slot = first + uint32_t(index);
        if (!stays(slot)) return;
        for (uint32_t level = 0; level <= levels_[slot]; ++level) {
            const uint32_t* list = links(slot, level);
            bool broken = false;
            for (uint32_t at = 0; at < room(level) && list[at] != EMPTY; ++at) broken = broken || is_gone(list[at]);
            if (!broken) continue;
            done[worker].push_back({slot, level, {}});
            mend_node(slot, level, *scratch[worker], done[worker].back().list);
        }
    });
    for (auto& one : scratch) give_back(std::move(one));
    std::lock_guard<FairLock> guard(lock_);
    for (const std::vector<Mended>& part : done) {
        for (const Mended& mended : part) {
            uint32_t* out = links(mended.slot, mended.level);
            std::fill_n(out, room(mended.level), EMPTY);
            std::copy(mended.list.begin(), mended.list.end(), out);
        }
    }
}

// The links that stay are kept; what a deleted one linked to (where all of that is deleted, what lies behind it) is
// offered in its place, nearest first, and taken when none of the kept hides it.
inline void Graph::mend_node(uint32_t slot, uint32_t level, Scratch& scratch, std::vector<uint32_t>& out) const {
    std::vector<Edge>& offers = scratch.edges;
    offers.clear();
    scratch.dead.clear();
    scratch.visited.begin(slots_);
    scratch.visited.mark(slot);
    Probe probe = space_.probe(rows_.at(slot), scale(slot), scratch.probe.data());
    const uint32_t* list = links(slot, level);
    for (uint32_t at = 0; at < room(level) && list[at] != EMPTY; ++at) {
        scratch.visited.mark(list[at]);
        (is_gone(list[at]) ? scratch.dead : out).push_back(list[at]);
    }
    for (size_t at = 0; at < scratch.dead.size() && at < DETOUR_NODES; ++at) {
        const uint32_t* detour = links(scratch.dead[at], level);
        size_t steps = 0;
        bool stuck = true;
        for (; steps < room(level) && detour[steps] != EMPTY; ++steps) {
            if (is_gone(detour[steps])) continue;
            stuck = false;
            if (!scratch.visited.mark(detour[steps])) continue;
            offers.push_back({distance(probe, detour[steps]), detour[steps]});
        }
        for (size_t step = 0; stuck && step < steps; ++step) {
            if (scratch.visited.mark(detour[step])) scratch.dead.push_back(detour[step]);
        }
    }
    std::sort(offers.begin(), offers.end(), nearer);
    for (size_t at = 0; at < offers.size() && out.size() < room(level); ++at) {
        Probe offer = space_.probe(rows_.at(offers[at].slot), scale(offers[at].slot), scratch.candidate.data());
        bool hidden = std::any_of(out.begin(), out.end(), [&](uint32_t kept) {
            return hides(distance(offer, kept), offers[at].distance);
        });
        if (!hidden) out.push_back(offers[at].slot);
    }
}

// Mark what the lists of the lowest level lead to from a node.
inline void Graph::flood(uint32_t from, std::vector<uint8_t>& seen) const {
    std::vector<uint32_t> open{from};
    seen[from] = 1;
    while (!open.empty()) {
        const uint32_t* list = links(open.back(), 0);
        open.pop_back();
        for (uint32_t at = 0; at < base_links_ && list[at] != EMPTY; ++at) {
            if (seen[list[at]]) continue;
            seen[list[at]] = 1;
            open.push_back(list[at]);
        }
    }
}

// The nodes that cannot be reached from the entry; `seen` marks those that can.
inline std::vector<uint32_t> Graph::unreached(std::vector<uint8_t>& seen) const {
    seen.assign(slots_, 0);
    if (entry_ != EMPTY) flood(entry_, seen);
    std::vector<uint32_t> lost;
    for (uint32_t slot = 0; slot < slots_; ++slot) {
        if (stays(slot) && !seen[slot] && !is_loose(slot)) lost.push_back(slot);
    }
    return lost;
}

// Choosing links by diversity may leave a node that no list leads to: link such nodes again, and where that does not
// help, squeeze them in.
inline void Graph::reach_all(unsigned threads) {
    std::vector<uint8_t> seen;
    std::vector<uint32_t> lost = unreached(seen);
    unchecked_ = 0;
    if (lost.empty()) return;
    relink(lost, threads);
    lost = unreached(seen);
    // Those beside a node that is reached come first; an island is reached as a whole by its first node.
    for (bool moved = true; moved;) {
        moved = false;
        for (uint32_t slot : lost) {
            const uint32_t* list = links(slot, 0);
            for (uint32_t at = 0; !seen[slot] && at < base_links_ && list[at] != EMPTY; ++at) {
                if (!seen[list[at]]) continue;
                std::lock_guard<FairLock> guard(lock_);
                squeeze_in(slot, list[at]);
                flood(slot, seen);
                moved = true;
            }
        }
    }
    for (uint32_t slot : lost) {
        if (seen[slot]) continue;
        std::lock_guard<FairLock> guard(lock_);
        squeeze_in(slot, entry_);
        flood(slot, seen);
    }
}

// Link `before` to a node that no list leads to; the lock is held alone. Where `before` has no room, its last link now
// leads from that node: what was reached before still is, for nothing was reached by way of the node.
inline void Graph::squeeze_in(uint32_t slot, uint32_t before) {
    uint32_t* list = links(before, 0);
    uint32_t count = 0;
    while (count < base_links_ && list[count] != EMPTY) ++count;
    uint32_t moved = count < base_links_ ? EMPTY : list[base_links_ - 1];
    list[std::min(count, base_links_ - 1)] = slot;
    if (moved == EMPTY) return;
    list = links(slot, 0);
    for (count = 0; count < base_links_ && list[count] != EMPTY; ++count) {
        if (list[count] == moved) return;
    }
    list[std::min(count, base_links_ - 1)] = moved;
}

// After a repair: link all nodes again when half as many went as stay, for then detours alone would leave a poor graph.
inline void Graph::relink_lost(unsigned threads) {
    if (dead_count_ * 2 > live_count_.load()) {
        std::vector<uint32_t> all;
        for (uint32_t slot = 0; slot < slots_; ++slot) {
            if (stays(slot) && !is_loose(slot)) all.push_back(slot);
        }
        relink(all, threads);
    }
    reach_all(threads);
}

inline void Graph::relink(const std::vector<uint32_t>& lost, unsigned threads) {
    for (size_t first = 0; first < lost.size(); first += BLOCK_ROWS) {
        Block block;
        block.fresh = false;
        block.nodes.assign(lost.begin() + ptrdiff_t(first),
                           lost.begin() + ptrdiff_t(std::min(lost.size(), first + BLOCK_ROWS)));
        lay_out(block);
        link_block(block, threads);
        std::lock_guard<FairLock> guard(lock_);
        publish_links(block);
    }
}

// Free the slots of deleted nodes; no list leads to them any more.
inline void Graph::bury() {
    std::lock_guard<FairLock> guard(lock_);
    for (uint32_t slot = slots_; slot-- > 0;) {
        if (!is_gone(slot)) continue;
        if (is_loose(slot)) tie(slot);
        free_node(slot);
    }
}

// Enter at the highest node that stays.
inline void Graph::choose_entry() {
    entry_ = EMPTY;
    top_ = 0;
    for (uint32_t slot = 0; slot < slots_; ++slot) {
        if (stays(slot) && !is_loose(slot)) raise_entry(slot);
    }
}

// Numbers for people, taken between two publications; a running build does not have to end first.
inline void Graph::figures(int64_t* out) {
    std::shared_lock<FairLock> guard(lock_);
    std::fill_n(out, FIGURES, int64_t(0));
    int64_t nodes = 0, sampled = 0, degrees = 0;
    uint32_t step = std::max(1u, slots_ / 65536);  // the mean degree of a sample is enough
    for (uint32_t slot = 0; slot < slots_; ++slot) {
        if (states_[slot] == TWIN) ++out[4];
        if (states_[slot] == FREE) ++out[3];
        if (!options_.linked || !is_node(slot, 0)) continue;
        ++nodes;
        out[2] += members_[slot] == 0;
        out[8] += int64_t(levels_[slot]) * int64_t(uppers_.stride());
        if (slot % step != 0) continue;
        const uint32_t* list = links(slot, 0);
        for (uint32_t at = 0; at < base_links_ && list[at] != EMPTY; ++at) ++degrees;
        ++sampled;
    }
    size_t per_slot = 3 * sizeof(uint8_t) + sizeof(int64_t) + (options_.linked ? 2 * sizeof(uint32_t) : 0) +
                      (space_.metric() == Metric::COSINE ? sizeof(float) : 0);
    size_t tables = by_key_.bytes() + by_row_.bytes() + twins_.bytes() + tags_.bytes();
    size_t loose = (loose_at_.size() + loose_.capacity()) * sizeof(uint32_t);
    out[0] = int64_t(live_count_.load());
    out[1] = int64_t(slots_);
    out[5] = entry_ == EMPTY ? -1 : int64_t(top_);
    out[6] = int64_t(repairs_.load());
    out[7] = int64_t(rows_.stride() * slots_);
    out[8] += int64_t(size_t(base_links_) * slots_ * sizeof(uint32_t));
    out[9] = int64_t(per_slot * slots_ + tables + loose);
    out[10] = int64_t(rows_.owned_bytes() + links_.owned_bytes() + records_.owned_bytes());
    out[11] = sampled == 0 ? 0 : degrees * 1000 / sampled;
    out[12] = coded_ ? int64_t(records_.stride() * slots_) : 0;
    out[13] = int64_t(loose_.size());
    out[14] = int64_t(searches_.load());
    out[15] = int64_t(compared_.load());
    out[16] = int64_t(reranked_.load());
    for (int plan : {PLAN_SCAN, PLAN_HOP, PLAN_WALK}) out[16 + plan] = int64_t(planned_[plan].load());
    out[20] = int64_t(sieve_rows_.load());
}

}  // namespace ruvector

#endif
