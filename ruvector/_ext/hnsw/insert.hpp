// Writing rows: plan a block, find its links against the standing graph, mend the lists it touches, publish.
//
// A row of a block may link to the standing graph and to earlier rows of the block, which is what inserting one
// after the other would offer it. Nothing depends on which thread does what, so a build can be repeated.
#ifndef RUVECTOR_HNSW_INSERT_HPP
#define RUVECTOR_HNSW_INSERT_HPP

#include "hnsw/graph.hpp"

namespace ruvector {

struct Graph::Back {  // a link seen from its far end
    uint32_t level;
    uint32_t target;
    Edge edge;

    bool operator<(const Back& other) const {
        if (level != other.level) return level < other.level;
        if (target != other.target) return target < other.target;
        return nearer(edge, other.edge);
    }
};

struct Graph::Block {
    bool fresh = true;               // false: nodes of the graph that are linked again
    std::vector<uint32_t> slots;     // new rows in order
    std::vector<uint32_t> replaced;  // the slot that held the key of each row before, or EMPTY
    std::vector<uint32_t> tags;      // of each row, when there are any
    std::vector<uint32_t> heads;     // the node each row hangs on as a twin, or EMPTY when it is a node itself
    std::vector<uint32_t> nodes;     // slots to link, in order
    std::vector<size_t> lists;       // number of the level 0 list of each node; the upper levels follow it
    std::vector<Edge> edges;         // base_links per list
    std::vector<uint32_t> counts;    // links used of each list
    std::vector<std::pair<uint32_t, uint32_t>> places;  // (slot, index in nodes), by slot
    std::vector<Back> backs;
    std::vector<size_t> groups;      // first of the backs of each target, and one past the last
    std::vector<uint32_t> mended;    // base_links per group, ended by EMPTY when shorter
};

inline size_t Graph::upsert(const int64_t* keys, const char* rows, const uint32_t* tags, size_t count, bool loose,
                            unsigned threads) {
    std::lock_guard<std::mutex> turn(writer_);
    if (tags_.started() != (tags != nullptr)) throw std::invalid_argument("all rows have tags, or none");
    size_t changed = 0;
    start_codes(rows, count, threads);
    // Many rows at once are linked at once, after all of them can be found.
    bool bulk = coded_ && !loose && count >= BULK_ROWS_MIN && count >= live_count_.load() / 2;
    for (size_t first = 0; first < count; first += BLOCK_ROWS) {
        size_t part = std::min(BLOCK_ROWS, count - first);
        upsert_block(keys + first, rows + first * space_.row_bytes(), tags == nullptr ? nullptr : tags + first, part,
                     loose || bulk, threads, &changed);
    }
    if (bulk) {
        link_loose(threads, nullptr);
        forget_loose();
    }
    repair_if_due(threads);
    if (unchecked_ * UNCHECKED_SHARE > by_row_.count()) reach_all(threads);
    return changed;
}

inline void Graph::build(unsigned threads, const volatile uint8_t* cancel) {
    std::lock_guard<std::mutex> turn(writer_);
    link_loose(threads, cancel);
    forget_loose();
}

// When none is loose any more, what is only needed for them goes.
inline void Graph::forget_loose() {
    if (!loose_.empty()) return;
    std::lock_guard<FairLock> guard(lock_);
    loose_ = {};
    loose_at_.clear();
}

inline void Graph::upsert_block(const int64_t* keys, const char* rows, const uint32_t* tags, size_t count, bool loose,
                                unsigned threads, size_t* changed) {
    Block block;
    size_t untold = 0;
    loose = loose && options_.linked;
    reserve_rows(count, tags == nullptr ? 0 : tags_end(tags, count), loose);
    try {
        plan_rows(keys, rows, tags, count, block);
        if (coded_) untold = encode_nodes(block.nodes, codes_, records_, threads);
        if (untold != 0) told_ = false;
        if (!loose) {
            lay_out(block);
            link_block(block, threads);
        }
    } catch (...) {
        return_slots(block);  // nothing was published: the graph is as before
        told_ = untold_ == 0;
        throw;
    }
    untold_ += untold;
    publish(block, loose);
    if (!loose) unchecked_ += block.nodes.size();
    *changed += block.slots.size();
}

// Tables grow beside those that readers use meanwhile; only the exchange holds the lock.
inline void Graph::reserve_rows(size_t more, size_t tags, bool loose) {
    SlotTable keys, nodes;
    bool more_keys = !by_key_.has_room(by_key_.count() + more);
    bool more_nodes = options_.linked && !by_row_.has_room(by_row_.count() + more);
    if (more_keys) keys = by_key_.grown(by_key_.count() + more, [this](uint32_t slot) { return key_hash(slot); });
    if (more_nodes) nodes = by_row_.grown(by_row_.count() + more, [this](uint32_t slot) { return row_hash(slot); });
    size_t usable = free_count_ + (slots_ - fresh_), slots = slots_ + more - std::min(more, usable);
    if (slots > SLOTS_MAX) throw std::length_error("an index holds at most 2,147,483,648 rows");
    std::lock_guard<FairLock> guard(lock_);
    if (more_keys) by_key_.swap(keys);
    if (more_nodes) by_row_.swap(nodes);
    if (options_.linked) twins_.reserve(more);
    if (tags_.started()) tags_.reserve(slots, tags);
    if (loose) {
        if (loose_.capacity() < loose_.size() + more) loose_.reserve(std::max(loose_.size() + more, loose_.size() * 2));
        loose_at_.resize(slots, EMPTY);
    }
    if (slots == slots_) return;
    rows_.reserve(slots);
    if (options_.linked) {
        links_.reserve(slots);
        upper_.resize(slots, EMPTY);
        fingerprints_.resize(slots, 0);
    }
    if (coded_) records_.reserve(slots);
    if (space_.metric() == Metric::COSINE) scales_.resize(slots, 1.0f);
    levels_.resize(slots, 0);
    keys_.resize(slots, 0);
    members_.resize(slots, 0);
    states_.resize(slots, FREE);
    slots_ = uint32_t(slots);
}

// Give every node a code once there will be enough of them, `count` new rows included.
inline void Graph::start_codes(const char* rows, size_t count, unsigned threads) {
    if (coded_ || !options_.linked || !codes_.usable() || live_count_.load() + count < CODE_ROWS_MIN) return;
    make_codes(node_slots(), rows, count, threads);
}

inline std::vector<uint32_t> Graph::node_slots() const {
    std::vector<uint32_t> nodes;
    for (uint32_t slot = 0; slot < slots_; ++slot) {
        if (is_node(slot, 0)) nodes.push_back(slot);
    }
    return nodes;
}

// Code all nodes relative to the mean of them and of `count` new rows. Readers have the old codes meanwhile.
inline void Graph::make_codes(const std::vector<uint32_t>& nodes, const char* rows, size_t count, unsigned threads) {
    std::vector<float> buffer(options_.dims);
    Codes codes(codes_);
    Records records(records_.stride());
    codes.set_center(codes.mean(nodes.size() + count, [&](size_t at) {
        if (at < nodes.size()) return space_.probe(rows_.at(nodes[at]), scale(nodes[at]), buffer.data());
        const char* row = rows + (at - nodes.size()) * space_.row_bytes();
        return space_.probe(row, space_.scale_of(row), buffer.data());
    }));
    records.reserve(slots_);
    size_t untold = encode_nodes(nodes, codes, records, threads);
    std::lock_guard<FairLock> guard(lock_);
    untold_ = untold;
    told_ = untold == 0;
    ++moves_;
    codes_.set_center(codes.center());
    records_.swap(records);
    coded_rows_ = nodes.size() + count;
    coded_ = true;
}

// Returns how many of the rows could not be coded.
inline size_t Graph::encode_nodes(const std::vector<uint32_t>& nodes, const Codes& codes, Records& records,
                                  unsigned threads) {
    std::vector<std::unique_ptr<Scratch>> scratch = scratches(threads);
    std::atomic<size_t> untold{0};
    parallel_for(nodes.size(), threads, [&](unsigned worker, size_t at) {
        Scratch& own = *scratch[worker];
        uint32_t slot = nodes[at];
        own.code.rotated.resize(codes.padded());
        codes.rotate_row(space_.probe(rows_.at(slot), scale(slot), own.probe.data()), own.code.rotated.data());
        untold += !codes.encode(own.code.rotated.data(), records.at(slot));
    });
    for (auto& one : scratch) give_back(std::move(one));
    return untold.load();
}

inline uint32_t Graph::take_slot() {
    if (free_slot_ == EMPTY) return fresh_++;
    uint32_t slot = free_slot_;
    free_slot_ = uint32_t(keys_[slot]);
    --free_count_;
    ++moves_;
    return slot;
}

inline uint32_t Graph::take_upper() {
    uint32_t at = free_upper_;
    if (at != EMPTY) {
        free_upper_ = upper_list(at)[options_.m];
        return at;
    }
    if (uppers_used_ == uppers_.capacity()) {
        std::lock_guard<FairLock> guard(lock_);
        uppers_.reserve(size_t(uppers_used_) + 1);
    }
    return uppers_used_++;
}

// Give a slot empty lists on all levels from 1 to `level`.
inline void Graph::take_uppers(uint32_t slot, uint32_t level) {
    for (uint32_t turn = 0; turn < level; ++turn) {
        uint32_t at = take_upper();
        std::fill_n(upper_list(at), options_.m, EMPTY);
        upper_list(at)[options_.m] = upper_[slot];
        upper_[slot] = at;
    }
}

inline uint32_t Graph::draw_level() {
    uint64_t bits = mix64(options_.seed * 0x9E3779B97F4A7C15ull + ++draws_ * 0xD1B54A32D192ED03ull);
    double uniform = double((bits >> 11) + 1) * 0x1p-53;  // in (0, 1]
    return uint32_t(std::min(double(LEVEL_MAX), std::floor(-std::log(uniform) * level_scale_)));
}

// Decide what each row of the call becomes. Of a key that occurs twice the last vector counts; a row that is
// already there with the same bytes is left alone, so applying a change again costs nothing.
inline void Graph::plan_rows(const int64_t* keys, const char* rows, const uint32_t* tags, size_t count, Block& block) {
    std::vector<std::pair<int64_t, size_t>> order(count);
    for (size_t at = 0; at < count; ++at) order[at] = {keys[at], at};
    std::sort(order.begin(), order.end());
    std::vector<uint8_t> last(count, 0);
    for (size_t at = 0; at < count; ++at) {
        last[order[at].second] = at + 1 == count || order[at + 1].first != order[at].first;
    }
    block.slots.reserve(count);
    block.replaced.reserve(count);
    if (tags != nullptr) block.tags.reserve(count);
    block.heads.reserve(count);
    block.nodes.reserve(count);
    for (size_t at = 0; at < count; ++at) {
        const char* row = rows + at * space_.row_bytes();
        if (!last[at]) continue;
        uint32_t before = slot_of(keys[at]);
        if (before != EMPTY && std::memcmp(rows_.at(before), row, space_.row_bytes()) == 0) continue;
        adopt_row(keys[at], row, block);
        block.replaced.push_back(before);
        if (tags != nullptr) block.tags.push_back(tags[at]);
    }
}

inline void Graph::adopt_row(int64_t key, const char* row, Block& block) {
    uint32_t slot = take_slot();
    block.slots.push_back(slot);
    block.heads.push_back(EMPTY);
    rows_.mark_written(slot);
    std::memset(rows_.at(slot) + space_.row_bytes(), 0, rows_.stride() - space_.row_bytes());
    std::memcpy(rows_.at(slot), row, space_.row_bytes());
    if (space_.metric() == Metric::COSINE) scales_[slot] = space_.scale_of(row);
    keys_[slot] = key;
    if (!options_.linked) return;
    fingerprints_[slot] = print_of(space_.fingerprint(row));
    block.heads.back() = equal_node(slot);
    if (block.heads.back() != EMPTY) return;
    by_row_.insert(slot, [this](uint32_t at) { return row_hash(at); });
    block.nodes.push_back(slot);
    uint32_t level = draw_level();
    std::fill_n(links(slot, 0), base_links_, EMPTY);
    take_uppers(slot, level);
    levels_[slot] = uint8_t(level);
}

inline void Graph::return_slots(Block& block) noexcept {
    for (uint32_t slot : block.nodes) {
        by_row_.erase(slot, [this](uint32_t at) { return row_hash(at); });
    }
    for (uint32_t slot : block.slots) free_slot(slot);
}

inline void Graph::lay_out(Block& block) const {
    size_t lists = 0;
    for (size_t index = 0; index < block.nodes.size(); ++index) {
        block.lists.push_back(lists);
        block.places.push_back({block.nodes[index], uint32_t(index)});
        lists += size_t(levels_[block.nodes[index]]) + 1;
    }
    std::sort(block.places.begin(), block.places.end());
    block.edges.resize(lists * base_links_);
    block.counts.assign(lists, 0);
}

inline void Graph::link_block(Block& block, unsigned threads) {
    if (block.nodes.empty()) return;
    std::vector<std::unique_ptr<Scratch>> scratch = scratches(threads);
    parallel_for(block.nodes.size(), threads,
                 [&](unsigned worker, size_t index) { find_links(block, index, *scratch[worker]); });
    turn_around(block);
    parallel_for(block.groups.size() - 1, threads,
                 [&](unsigned worker, size_t group) { mend_target(block, group, *scratch[worker]); });
    for (auto& one : scratch) give_back(std::move(one));
}

// Find the links of one node on all its levels, from the standing graph and the earlier nodes of the block.
inline void Graph::find_links(Block& block, size_t index, Scratch& scratch) {
    uint32_t slot = block.nodes[index];
    Probe probe = space_.probe(rows_.at(slot), scale(slot), scratch.probe.data());
    if (coded_ && told_.load() && codes_.prepare(probe, scratch.code)) {
        seek_links(CodeMeasure{*this, scratch.code}, block, index, scratch);
        size_t list = block.lists[index], count = block.counts[list];
        if (count == 0 || codes_decide(block.edges[list * base_links_ + count / 4], scratch.code.length)) return;
    }
    seek_links(RowMeasure{*this, probe}, block, index, scratch);
}

template <class Measure>
void Graph::seek_links(const Measure& measure, Block& block, size_t index, Scratch& scratch) {
    uint32_t slot = block.nodes[index], level = levels_[slot];
    float best = 0.0f;
    uint32_t here = entry_ == EMPTY ? EMPTY : descend(measure, level, &best, scratch);
    for (uint32_t at = level + 1; at-- > 0;) {
        scratch.edges.clear();
        if (here != EMPTY && at <= top_) {
            NarrowPool& pool = scratch.narrow;
            scratch.visited.begin(slots_);
            scratch.visited.mark(here);
            pool.begin(options_.ef_construction);
            pool.push(best, here, 1);
            beam(measure, at, pool, scratch, One{}, nullptr);
            for (size_t place = 0, count = pool.finish(); place < count; ++place) {
                if (pool.found(place).slot != slot) scratch.edges.push_back(pool.found(place));
            }
            here = pool.found(0).slot;
            best = pool.found(0).distance;
        }
        level_links(measure, block, index, at, scratch);
    }
}

// Choose the links of one level among the edges found, the earlier nodes of the block and the links it has.
template <class Measure>
void Graph::level_links(const Measure& measure, Block& block, size_t index, uint32_t level, Scratch& scratch) {
    std::vector<Edge>& edges = scratch.edges;
    uint32_t slot = block.nodes[index];
    size_t found = edges.size();
    float worst = found < options_.ef_construction ? std::numeric_limits<float>::infinity() : edges.back().distance;
    auto offer = [&](uint32_t other) {
        float apart;
        measure(&other, 1, &apart, scratch);
        if (apart <= worst) edges.push_back({apart, other});
    };
    for (size_t at = 0; block.fresh && at < index; ++at) {
        if (levels_[block.nodes[at]] >= level) offer(block.nodes[at]);
    }
    const uint32_t* list_before = links(slot, level);
    worst = std::numeric_limits<float>::infinity();
    for (uint32_t at = 0; !block.fresh && at < room(level) && list_before[at] != EMPTY; ++at) {
        bool twice = std::any_of(edges.begin(), edges.begin() + ptrdiff_t(found),
                                 [&](const Edge& edge) { return edge.slot == list_before[at]; });
        if (!twice) offer(list_before[at]);
    }
    std::sort(edges.begin(), edges.end(), nearer);
    if (edges.size() > options_.ef_construction) edges.resize(options_.ef_construction);
    if (coded_) measure_again(slot, room(level), scratch);
    diversify(edges, room(level), scratch);
    size_t list = block.lists[index] + level;
    block.counts[list] = uint32_t(scratch.chosen.size());
    std::copy(scratch.chosen.begin(), scratch.chosen.end(), block.edges.begin() + ptrdiff_t(list * base_links_));
}

// Estimates chose the edges; their rows decide the order of the nearest, and farther ones would hardly be linked.
inline void Graph::measure_again(uint32_t slot, size_t limit, Scratch& scratch) const {
    std::vector<Edge>& edges = scratch.edges;
    if (edges.size() > EXACT_EDGES * limit) edges.resize(EXACT_EDGES * limit);
    Probe probe = space_.probe(rows_.at(slot), scale(slot), scratch.probe.data());
    for (size_t at = 0; at < edges.size(); ++at) {
        if (at + 2 < edges.size()) prefetch_row(edges[at + 2].slot);
        edges[at].distance = distance(probe, edges[at].slot);
    }
    std::sort(edges.begin(), edges.end(), nearer);
}

// Keep up to `limit` of the sorted edges: each nearer to the centre than to every one kept before it.
inline void Graph::diversify(std::vector<Edge>& edges, size_t limit, Scratch& scratch) const {
    std::vector<Edge>& chosen = scratch.chosen;
    chosen.clear();
    scratch.hidden.clear();
    if (edges.size() <= limit) {
        chosen.assign(edges.begin(), edges.end());
        return;
    }
    for (size_t at = 0; at < edges.size() && chosen.size() < limit; ++at) {
        const Edge& edge = edges[at];
        if (at + 1 < edges.size()) prefetch_row(edges[at + 1].slot);
        Probe probe = space_.probe(rows_.at(edge.slot), scale(edge.slot), scratch.candidate.data());
        bool hidden = false;
        for (size_t other = 0; other < chosen.size() && !hidden; ++other) {
            hidden = hides(distance(probe, chosen[other].slot), edge.distance);
        }
        if (!hidden) chosen.push_back(edge);
        if (hidden && space_.metric() == Metric::IP) scratch.hidden.push_back(edge);
    }
    // By inner product a long row hides all others, which would leave hardly a link: fill up with the nearest hidden.
    for (size_t at = 0; at < scratch.hidden.size() && chosen.size() < limit / 2; ++at) {
        chosen.push_back(scratch.hidden[at]);
    }
}

inline void Graph::turn_around(Block& block) const {
    for (size_t index = 0; index < block.nodes.size(); ++index) {
        uint32_t source = block.nodes[index];
        for (uint32_t level = 0; level <= levels_[source]; ++level) {
            size_t list = block.lists[index] + level;
            for (uint32_t at = 0; at < block.counts[list]; ++at) {
                const Edge& edge = block.edges[list * base_links_ + at];
                block.backs.push_back({level, edge.slot, {edge.distance, source}});
            }
        }
    }
    std::sort(block.backs.begin(), block.backs.end());
    for (size_t at = 0; at < block.backs.size(); ++at) {
        bool first = at == 0 || block.backs[at].target != block.backs[at - 1].target ||
                     block.backs[at].level != block.backs[at - 1].level;
        if (first) block.groups.push_back(at);
    }
    block.groups.push_back(block.backs.size());
    block.mended.resize((block.groups.size() - 1) * base_links_);
}

// Add the links that point back from one target; when its list is full, choose again among all of them.
inline void Graph::mend_target(Block& block, size_t group, Scratch& scratch) const {
    const Back* first = block.backs.data() + block.groups[group];
    const Back* last = block.backs.data() + block.groups[group + 1];
    uint32_t target = first->target, level = first->level, limit = room(level);
    std::vector<Edge>& edges = scratch.edges;
    edges.clear();
    auto place = std::lower_bound(block.places.begin(), block.places.end(), std::make_pair(target, 0u));
    bool inside = place != block.places.end() && place->first == target;
    if (inside) {
        size_t list = block.lists[place->second] + level;
        auto begin = block.edges.begin() + ptrdiff_t(list * base_links_);
        edges.assign(begin, begin + block.counts[list]);
    } else {
        const uint32_t* list = links(target, level);
        for (uint32_t at = 0; at < limit && list[at] != EMPTY; ++at) edges.push_back({0.0f, list[at]});
    }
    size_t known = edges.size();
    for (const Back* back = first; back != last; ++back) {
        bool twice = std::any_of(edges.begin(), edges.begin() + ptrdiff_t(known),
                                 [&](const Edge& edge) { return edge.slot == back->edge.slot; });
        if (!twice) edges.push_back(back->edge);
    }
    if (edges.size() > limit && !inside) {
        for (size_t at = 0; at < known; ++at) prefetch_row(edges[at].slot);
        Probe probe = space_.probe(rows_.at(target), scale(target), scratch.probe.data());
        for (size_t at = 0; at < known; ++at) edges[at].distance = distance(probe, edges[at].slot);
    }
    if (edges.size() > limit) std::sort(edges.begin(), edges.end(), nearer);
    diversify(edges, limit, scratch);
    uint32_t* out = block.mended.data() + group * base_links_;
    std::fill_n(out, base_links_, EMPTY);
    for (size_t at = 0; at < scratch.chosen.size(); ++at) out[at] = scratch.chosen[at].slot;
}

// Copy the outcome of link_block into the graph; the lock is held alone.
inline void Graph::publish_links(const Block& block) {
    for (size_t index = 0; index < block.nodes.size(); ++index) {
        uint32_t slot = block.nodes[index];
        for (uint32_t level = 0; level <= levels_[slot]; ++level) {
            size_t list = block.lists[index] + level;
            uint32_t* out = links(slot, level);
            std::fill_n(out, room(level), EMPTY);
            for (uint32_t at = 0; at < block.counts[list]; ++at) out[at] = block.edges[list * base_links_ + at].slot;
        }
    }
    for (size_t group = 0; group + 1 < block.groups.size(); ++group) {
        const Back& back = block.backs[block.groups[group]];
        std::copy_n(block.mended.data() + group * base_links_, room(back.level), links(back.target, back.level));
    }
}

inline void Graph::publish(Block& block, bool loose) {
    std::lock_guard<FairLock> guard(lock_);
    if (!loose) publish_links(block);
    for (size_t row = 0; row < block.slots.size(); ++row) {
        uint32_t slot = block.slots[row];
        if (block.replaced[row] != EMPTY) {
            by_key_.erase(block.replaced[row], [this](uint32_t at) { return key_hash(at); });
        }
        by_key_.insert(slot, [this](uint32_t at) { return key_hash(at); });
        if (!block.tags.empty()) tags_.put(slot, block.tags[row]);
        if (block.heads[row] != EMPTY) {
            hang_twin(slot, block.heads[row]);
            continue;
        }
        states_[slot] = LIVE;
        members_[slot] = 1;
        if (loose) {
            loose_at_[slot] = uint32_t(loose_.size());
            loose_.push_back(slot);  // room was reserved with the slot
        } else if (options_.linked) {
            raise_entry(slot);
        }
    }
    // Only now, since a row of the block may be the twin of one that another row of the block replaces.
    for (uint32_t replaced : block.replaced) {
        if (replaced != EMPTY) drop(replaced);
        ++live_count_;
    }
}

inline void Graph::raise_entry(uint32_t slot) {
    if (entry_ != EMPTY && levels_[slot] <= top_) return;
    entry_ = slot;
    top_ = levels_[slot];
}

// A loose node has its links now.
inline void Graph::tie(uint32_t slot) {
    uint32_t place = loose_at_[slot], last = loose_.back();
    loose_[place] = last;
    loose_at_[last] = place;
    loose_at_[slot] = EMPTY;
    loose_.pop_back();
}

inline void Graph::hang_twin(uint32_t slot, uint32_t head) {
    states_[slot] = TWIN;
    twins_.hang(slot, head);
    weigh(head, rows_of_node(head));
}

}  // namespace ruvector

#endif
