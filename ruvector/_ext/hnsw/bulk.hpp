// Linking many loose nodes at once, several times as fast as one after the other.
//
// Those of the upper levels are linked one after the other first. Then all are divided, by nearness to random leaders
// and with overlap, into leaves of a few hundred; inside a leaf all pairs are compared, on 7-bit codes, four by four.
// The best of all leaves and the links from before are a node's candidates, and the rule of RobustPrune (Subramanya et
// al., NeurIPS 2019) keeps a diverse few. A second pass walks the graph so found from all nodes, for neighbours that no
// leaf held, and links again. (The plan is that of PiPNN, arXiv 2602.21247.) Everything is decided by distances, slots
// and keys, never by which thread came first, so a build can be repeated.
//
// By inner product the nodes are divided by nearness all the same, but compared and linked by their products. What is
// nearest by product are mostly the longest rows, wherever they lie: every node is compared with these too.
#ifndef RUVECTOR_HNSW_BULK_HPP
#define RUVECTOR_HNSW_BULK_HPP

#include <numeric>

#include "hnsw/graph.hpp"

namespace ruvector {

constexpr size_t LEAF_ROWS = 512;
constexpr size_t LEADERS_MAX = 1000;
constexpr size_t LEAF_NEAREST = 12;      // candidates a node takes from one leaf
constexpr size_t CANDIDATES_MAX = 96;    // kept per node
constexpr size_t INCOMING_MAX = 96;      // links back that are considered
constexpr size_t REFINE_SHARE = 3;       // the beam of the second pass is this part of ef_construction ...
constexpr size_t REFINE_SHARE_INNER = 2;  // ... by inner product a larger one: leaves hold less of what is near ...
constexpr size_t REFINE_WIDTH_MIN = 32;  // ... and at least so wide
constexpr size_t SPLIT_DEPTH_MAX = 8;
constexpr size_t LONG_ROWS = 2048;       // by inner product: the longest, which all are compared with ...
constexpr size_t LONG_NEAREST = 48;      // ... and how many of them a node takes as candidates
constexpr float BYTE_LIMIT = 63.0f;

struct Graph::Bulk {
    // One entry per node, numbered as in `nodes`.
    std::vector<uint32_t> nodes;      // slots
    std::vector<uint32_t> local_of;   // by slot
    size_t bytes = 0;
    Records codes;                    // 7 bits a dimension, of the rotated row
    std::vector<float> squares, steps;
    std::vector<int32_t> sums;
    std::vector<Edge> candidates;     // CANDIDATES_MAX each, sorted; slot holds the number of a node
    std::vector<uint32_t> counts;
    std::vector<Edge> links;          // base_links each
    std::vector<uint32_t> degrees;
    std::vector<std::atomic<uint8_t>> locks;
    float half = 1.0f;                // cosine distances are half of squared ones
    bool inner = false;               // compared by inner product:
    std::vector<float> leans;         // x . y = (x - c) . (y - c) + lean of x + lean of y, c being the mean

    Bulk(size_t count, size_t width) : bytes(width), codes(width), locks(count) {}
    void take(Bulk& other) {
        nodes.swap(other.nodes);
        local_of.swap(other.local_of);
        codes.swap(other.codes);
        squares.swap(other.squares);
        steps.swap(other.steps);
        sums.swap(other.sums);
        leans.swap(other.leans);
    }
    std::vector<uint32_t> all() const {
        std::vector<uint32_t> numbers(nodes.size());
        std::iota(numbers.begin(), numbers.end(), 0u);
        return numbers;
    }
    const int8_t* code(uint32_t node) const { return reinterpret_cast<const int8_t*>(codes.at(node)); }
    // dot: of left's shifted code and right's
    float product(uint32_t left, uint32_t right, int32_t dot) const {
        return float(dot - 64 * sums[right]) * (steps[left] * steps[right]);
    }
    float squared(uint32_t left, uint32_t right, int32_t dot) const {
        return squares[left] + squares[right] - 2.0f * product(left, right, dot);
    }
    float apart(uint32_t left, uint32_t right, int32_t dot) const {  // the same, bit by bit, from either side
        if (inner) return -(product(left, right, dot) + (leans[left] + leans[right]));
        return half * squared(left, right, dot);
    }
    float length(uint32_t node) const { return squares[node] + 2.0f * leans[node]; }  // squared, of the row itself
    void fetch(uint32_t node) const {
        for (size_t byte = 0; byte < bytes; byte += 64) __builtin_prefetch(codes.at(node) + byte);
    }
    void shift(uint32_t node, uint8_t* out) const {
        const int8_t* __restrict from = code(node);
        uint8_t* __restrict to = out;
        for (size_t at = 0, count = bytes; at < count; ++at) to[at] = uint8_t(from[at] + 64);
    }
};

// What one thread of a bulk build needs.
struct Graph::BulkScratch {
    std::vector<uint8_t> shifted;  // codes of a leaf moved to 1..127
    std::vector<int8_t> plain;     // the same unmoved, side by side
    std::vector<float> matrix;
    std::vector<Edge> edges, kept, hidden;
    std::vector<const int8_t*> pointers;
    std::vector<int32_t> dots;
    std::vector<float> rotated;
};

// Sort the LIMIT nearest of some nodes, by their distances in a line, into `best`, which has room for one more; returns
// how many they are.
template <size_t LIMIT>
size_t nearest_of(const float* line, const uint32_t* nodes, size_t count, Edge* best) {
    size_t found = 0;
    float reach = std::numeric_limits<float>::infinity();
    for (size_t at = 0; at < count; ++at) {
        if (!(line[at] < reach)) continue;
        size_t place = found;
        for (; place > 0 && best[place - 1].distance > line[at]; --place) best[place] = best[place - 1];
        best[place] = {line[at], nodes[at]};
        found = std::min(found + 1, LIMIT);
        if (found == LIMIT) reach = best[LIMIT - 1].distance;
    }
    return found;
}

inline void Graph::link_loose(unsigned threads, const volatile uint8_t* cancel) {
    if (loose_.empty()) return;
    size_t linked = by_row_.count() - loose_.size();
    size_t total = loose_.size();
    built_permille_ = 0;
    bool many = loose_.size() >= BULK_ROWS_MIN && loose_.size() >= linked / 2;
    if (many && coded_ && told_.load()) link_bulk(threads, cancel);
    while (!loose_.empty() && !(cancel != nullptr && *cancel)) {
        size_t count = std::min(loose_.size(), BLOCK_ROWS);
        link_loose_nodes({loose_.end() - ptrdiff_t(count), loose_.end()}, threads);
        advance(0, 999, total - loose_.size(), total);
    }
    reach_all(threads);
    built_permille_ = 1000;
}

inline void Graph::link_loose_nodes(const std::vector<uint32_t>& nodes, unsigned threads) {
    Block block;
    block.fresh = true;
    block.nodes = nodes;
    lay_out(block);
    link_block(block, threads);
    std::lock_guard<FairLock> guard(lock_);
    publish_links(block);
    for (uint32_t slot : nodes) {
        tie(slot);
        raise_entry(slot);
    }
}

inline void Graph::link_bulk(unsigned threads, const volatile uint8_t* cancel) {
    auto stopped = [cancel] { return cancel != nullptr && *cancel; };
    std::vector<uint32_t> nodes = node_slots();
    size_t count = nodes.size();
    if (count >= 2 * coded_rows_) make_codes(nodes, nullptr, 0, threads);  // the mean was that of the first rows
    Bulk bulk(count, (codes_.padded() + CODE_DIMS_STEP - 1) / CODE_DIMS_STEP * CODE_DIMS_STEP);
    bulk.nodes = std::move(nodes);
    bulk.half = space_.metric() == Metric::COSINE ? 0.5f : 1.0f;
    bulk.inner = space_.metric() == Metric::IP;
    std::vector<BulkScratch> scratch(std::max(1u, threads));
    code_nodes(bulk, threads);
    order_nodes(bulk, threads, scratch);
    settle_nodes(bulk);
    bulk.candidates.resize(count * CANDIDATES_MAX);
    bulk.counts.resize(count);
    bulk.links.resize(count * base_links_);
    bulk.degrees.resize(count);
    link_sample(bulk, threads, cancel);
    if (stopped()) return;
    built_permille_ = 100;
    recall_links(bulk, threads, scratch);
    gather_candidates(bulk, threads, scratch, cancel);
    if (bulk.inner) offer_long_rows(bulk, threads, scratch, cancel);
    if (stopped()) return;
    built_permille_ = 350;
    choose_links(bulk, threads, scratch);
    turn_links(bulk, threads, scratch);
    publish_bulk(bulk);
    built_permille_ = 500;
    {
        std::lock_guard<FairLock> guard(lock_);
        while (!loose_.empty()) tie(loose_.back());
        choose_entry();
    }
    seek_candidates(bulk, threads, scratch, cancel);
    if (stopped()) return;
    built_permille_ = 850;
    choose_links(bulk, threads, scratch);
    turn_links(bulk, threads, scratch);
    publish_bulk(bulk);
}

// Link the nodes of the upper levels one after the other, in random order. They are few, a fair sample, and when they
// are linked the graph is still sparse: each gets links that lead far. What the leaves hold is near only, and in data
// of many tight clusters no search would find its way from one to another by it.
inline void Graph::link_sample(const Bulk& bulk, unsigned threads, const volatile uint8_t* cancel) {
    std::vector<std::pair<uint64_t, uint32_t>> sample;
    for (uint32_t slot : bulk.nodes) {
        if (levels_[slot] != 0 && is_loose(slot)) sample.push_back({mix64(options_.seed ^ keys_[slot]), slot});
    }
    std::sort(sample.begin(), sample.end());
    for (size_t first = 0; first < sample.size() && !(cancel != nullptr && *cancel); first += BLOCK_ROWS) {
        std::vector<uint32_t> slots;
        for (size_t at = first; at < std::min(sample.size(), first + BLOCK_ROWS); ++at) {
            slots.push_back(sample[at].second);
        }
        link_loose_nodes(slots, threads);
        advance(0, 100, first, sample.size());
    }
}

// The links that nodes have on level 0 already, measured as the bulk measures.
inline void Graph::recall_links(Bulk& bulk, unsigned threads, std::vector<BulkScratch>& scratch) const {
    parallel_for(bulk.nodes.size(), threads, [&](unsigned worker, size_t node) {
        std::vector<Edge>& edges = scratch[worker].edges;
        const uint32_t* list = links(bulk.nodes[node], 0);
        edges.clear();
        for (uint32_t at = 0; at < base_links_ && list[at] != EMPTY; ++at) {
            uint32_t other = bulk.local_of[list[at]];
            if (other != EMPTY) edges.push_back({0.0f, other});  // else it was deleted meanwhile
        }
        measure(bulk, uint32_t(node), scratch[worker]);
        std::copy(edges.begin(), edges.end(), bulk.links.begin() + ptrdiff_t(node * base_links_));
        bulk.degrees[node] = uint32_t(edges.size());
    });
}

inline void Graph::code_nodes(Bulk& bulk, unsigned threads) {
    size_t count = bulk.nodes.size();
    bulk.codes.reserve(count);
    bulk.squares.resize(count);
    bulk.steps.resize(count);
    bulk.sums.resize(count);
    bulk.leans.resize(count);
    double center_square = codes_.center_product(codes_.center().data());
    std::vector<std::unique_ptr<Scratch>> scratch = scratches(threads);
    parallel_for(count, threads, [&](unsigned worker, size_t node) {
        uint32_t slot = bulk.nodes[node];
        std::vector<float>& rotated = scratch[worker]->code.rotated;
        rotated.resize(codes_.padded());
        Probe probe = space_.probe(rows_.at(slot), scale(slot), scratch[worker]->probe.data());
        codes_.rotate_row(probe, rotated.data());
        if (bulk.inner) {
            double product = codes_.center_product(static_cast<const float*>(probe.data));
            bulk.leans[node] = float(product - center_square / 2.0);
        }
        rotated.resize(bulk.bytes, 0.0f);
        Extent extent = codes_.kernels_of().extent(rotated.data(), rotated.size());
        bool usable = extent.square < CODE_SQUARE_MAX && extent.largest > 1e-15f;
        bulk.squares[node] = usable ? extent.square : 0.0f;
        bulk.steps[node] = usable ? extent.largest / BYTE_LIMIT : 0.0f;
        bulk.sums[node] =
            codes_.kernels_of().fit_bytes(rotated.data(), rotated.size(), usable ? BYTE_LIMIT / extent.largest : 0.0f,
                                          BYTE_LIMIT, reinterpret_cast<int8_t*>(bulk.codes.at(uint32_t(node))));
    });
    for (auto& one : scratch) give_back(std::move(one));
}

// Number the nodes so that near ones follow each other: what is compared next is in the caches then.
inline void Graph::order_nodes(Bulk& bulk, unsigned threads, std::vector<BulkScratch>& scratch) const {
    size_t count = bulk.nodes.size();
    std::vector<uint32_t> order = bulk.all();
    if (count > LEAF_ROWS) {
        std::vector<std::vector<uint32_t>> parts =
            split(bulk, order, SPLIT_DEPTH_MAX, options_.seed, threads, scratch.data());
        order.clear();
        for (const std::vector<uint32_t>& part : parts) order.insert(order.end(), part.begin(), part.end());
    }
    Bulk ordered(count, bulk.bytes);
    ordered.half = bulk.half;
    ordered.codes.reserve(count);
    ordered.local_of.assign(slots_, EMPTY);
    for (uint32_t node = 0; node < count; ++node) {
        uint32_t before = order[node];
        ordered.nodes.push_back(bulk.nodes[before]);
        ordered.squares.push_back(bulk.squares[before]);
        ordered.steps.push_back(bulk.steps[before]);
        ordered.sums.push_back(bulk.sums[before]);
        ordered.leans.push_back(bulk.leans[before]);
        std::memcpy(ordered.codes.at(node), bulk.codes.at(before), bulk.bytes);
        ordered.local_of[bulk.nodes[before]] = node;
    }
    bulk.take(ordered);
}

// Let the loose nodes change places until their slots are in the order of the bulk: a search finds what it compares
// next near by, too. Lists lead to none of them yet, and after each exchange everything is as whole as before.
inline void Graph::settle_nodes(Bulk& bulk) {
    std::vector<uint32_t> movable, slots;
    for (uint32_t node = 0; node < bulk.nodes.size(); ++node) {
        if (is_loose(bulk.nodes[node])) movable.push_back(node);
    }
    for (uint32_t node : movable) slots.push_back(bulk.nodes[node]);
    std::sort(slots.begin(), slots.end());
    for (size_t first = 0; first < slots.size(); first += BLOCK_ROWS) {
        std::lock_guard<FairLock> guard(lock_);
        for (size_t at = first; at < std::min(slots.size(), first + BLOCK_ROWS); ++at) {
            uint32_t here = bulk.nodes[movable[at]], there = slots[at], other = bulk.local_of[there];
            if (here == there) continue;
            exchange(here, there);
            bulk.nodes[movable[at]] = there;
            bulk.nodes[other] = here;
            bulk.local_of[there] = movable[at];
            bulk.local_of[here] = other;
        }
    }
}

// Two loose nodes change slots; the lock is held alone.
inline void Graph::exchange(uint32_t left, uint32_t right) {
    auto by_key = [this](uint32_t slot) { return key_hash(slot); };
    auto by_row = [this](uint32_t slot) { return row_hash(slot); };
    ++moves_;
    for (uint32_t slot : {left, right}) {
        if (states_[slot] == LIVE) by_key_.erase(slot, by_key);
        by_row_.erase(slot, by_row);
        rows_.mark_written(slot);
    }
    std::swap_ranges(rows_.at(left), rows_.at(left) + rows_.stride(), rows_.at(right));
    std::swap_ranges(records_.at(left), records_.at(left) + records_.stride(), records_.at(right));
    if (space_.metric() == Metric::COSINE) std::swap(scales_[left], scales_[right]);
    std::swap(states_[left], states_[right]);
    std::swap(levels_[left], levels_[right]);
    std::swap(keys_[left], keys_[right]);
    std::swap(fingerprints_[left], fingerprints_[right]);
    std::swap(upper_[left], upper_[right]);
    std::swap(members_[left], members_[right]);
    twins_.exchange(left, right);
    tags_.exchange(left, right);
    for (uint32_t slot : {left, right}) {
        if (states_[slot] == LIVE) by_key_.insert(slot, by_key);
        by_row_.insert(slot, by_row);
    }
}

// Fill the candidates of all nodes from leaves.
inline void Graph::gather_candidates(Bulk& bulk, unsigned threads, std::vector<BulkScratch>& scratch,
                                     const volatile uint8_t* cancel) {
    std::vector<std::vector<uint32_t>> parts{bulk.all()};
    if (bulk.nodes.size() > LEAF_ROWS) parts = split(bulk, parts[0], 0, options_.seed, threads, scratch.data());
    parallel_for(parts.size(), threads, [&](unsigned worker, size_t part) {
        advance(100, 350, part, parts.size());
        divide(bulk, parts[part], 1, mix64(options_.seed) + part, scratch[worker], cancel);
    });
}

// Offer every node its nearest among the longest rows.
inline void Graph::offer_long_rows(Bulk& bulk, unsigned threads, std::vector<BulkScratch>& scratch,
                                   const volatile uint8_t* cancel) const {
    std::vector<uint32_t> members = bulk.all(), longest(members);
    auto longer = [&](uint32_t left, uint32_t right) {
        float left_length = bulk.length(left), right_length = bulk.length(right);
        return left_length > right_length || (left_length == right_length && left < right);
    };
    size_t count = std::min(members.size(), LONG_ROWS);
    std::nth_element(longest.begin(), longest.begin() + ptrdiff_t(count - 1), longest.end(), longer);
    longest.resize(count);
    std::sort(longest.begin(), longest.end());
    parallel_for((members.size() + 3) / 4, threads, [&](unsigned worker, size_t four) {
        if (cancel != nullptr && *cancel) return;
        compare_four(bulk, members, four, longest, scratch[worker], [&](uint32_t left, uint32_t right, int32_t dot) {
            return left == right ? std::numeric_limits<float>::infinity() : bulk.apart(left, right, dot);
        });
        for (size_t line = 0; line < 4 && four * 4 + line < members.size(); ++line) {
            const float* row = scratch[worker].matrix.data() + line * (count + 3);
            Edge best[LONG_NEAREST + 1];
            offer(bulk, members[four * 4 + line], best, nearest_of<LONG_NEAREST>(row, longest.data(), count, best));
        }
    });
}

// Measure how far the nodes of scratch.edges are from a node, and sort them.
inline void Graph::measure(const Bulk& bulk, uint32_t node, BulkScratch& scratch) const {
    std::vector<Edge>& edges = scratch.edges;
    scratch.shifted.resize(std::max(scratch.shifted.size(), bulk.bytes));
    scratch.dots.resize(std::max(scratch.dots.size(), edges.size()));
    scratch.pointers.clear();
    bulk.shift(node, scratch.shifted.data());
    for (const Edge& edge : edges) {
        bulk.fetch(edge.slot);
        scratch.pointers.push_back(bulk.code(edge.slot));
    }
    codes_.kernels_of().byte_dots(scratch.shifted.data(), scratch.pointers.data(), edges.size(), bulk.bytes,
                                  scratch.dots.data());
    for (size_t at = 0; at < edges.size(); ++at) {
        edges[at].distance = bulk.apart(node, edges[at].slot, scratch.dots[at]);
    }
    std::sort(edges.begin(), edges.end(), nearer);
}

// Divide until the parts are leaves.
inline void Graph::divide(Bulk& bulk, const std::vector<uint32_t>& members, size_t depth, uint64_t seed,
                          BulkScratch& scratch, const volatile uint8_t* cancel) const {
    if (cancel != nullptr && *cancel) return;
    if (members.size() <= LEAF_ROWS) {
        compare_leaf(bulk, members.data(), members.size(), scratch);
        return;
    }
    if (depth > SPLIT_DEPTH_MAX) {  // hardly different from each other: any division is as good
        for (size_t first = 0; first < members.size(); first += LEAF_ROWS) {
            compare_leaf(bulk, members.data() + first, std::min(LEAF_ROWS, members.size() - first), scratch);
        }
        return;
    }
    std::vector<std::vector<uint32_t>> parts = split(bulk, members, depth, seed, 1, &scratch);
    for (size_t part = 0; part < parts.size(); ++part) {
        divide(bulk, parts[part], depth + 1, mix64(seed) + part, scratch, cancel);
    }
}

// Measure four members, the last one again where they end, against others: a line of scratch.matrix each, three
// longer than there are others.
template <class Apart>
void Graph::compare_four(const Bulk& bulk, const std::vector<uint32_t>& members, size_t four,
                         const std::vector<uint32_t>& others, BulkScratch& scratch, Apart apart) const {
    size_t width = others.size() + 3;
    scratch.shifted.resize(std::max(scratch.shifted.size(), 4 * bulk.bytes));
    scratch.matrix.resize(std::max(scratch.matrix.size(), 4 * width));
    const uint8_t* lefts[4];
    uint32_t rows[4];
    for (size_t line = 0; line < 4; ++line) {
        rows[line] = members[std::min(four * 4 + line, members.size() - 1)];
        lefts[line] = scratch.shifted.data() + line * bulk.bytes;
        bulk.shift(rows[line], scratch.shifted.data() + line * bulk.bytes);
    }
    const int8_t* rights[4];
    uint32_t columns[4];
    int32_t dots[16];
    for (size_t first = 0; first < others.size(); first += 4) {
        for (size_t column = 0; column < 4; ++column) {
            columns[column] = others[std::min(first + column, others.size() - 1)];
            rights[column] = bulk.code(columns[column]);
        }
        codes_.kernels_of().byte_tile(lefts, rights, bulk.bytes, dots);
        for (size_t at = 0; at < 16; ++at) {
            scratch.matrix[(at / 4) * width + first + at % 4] = apart(rows[at / 4], columns[at % 4], dots[at]);
        }
    }
}

// Members by their nearest leaders: three of them at first, so that what one border parts another holds together.
inline std::vector<std::vector<uint32_t>> Graph::split(const Bulk& bulk, const std::vector<uint32_t>& members,
                                                       size_t depth, uint64_t seed, unsigned threads,
                                                       BulkScratch* scratch) const {
    size_t count = members.size();
    size_t wanted = std::max<size_t>(8, std::min(count / 20, count * 2 / LEAF_ROWS + 2));
    size_t leaders = std::min(wanted, LEADERS_MAX), fan = depth == 0 ? 3 : depth == 1 ? 2 : 1;
    std::vector<uint32_t> order(members), nearest(count * fan);
    for (size_t at = 0; at < leaders; ++at) {
        seed = mix64(seed + 0x9E3779B97F4A7C15ull);
        std::swap(order[at], order[at + seed % (count - at)]);
    }
    order.resize(leaders);
    parallel_for((count + 3) / 4, threads, [&](unsigned worker, size_t four) {
        compare_four(bulk, members, four, order, scratch[worker], [&](uint32_t left, uint32_t right, int32_t dot) {
            return bulk.squared(left, right, dot);
        });
        for (size_t line = 0; line < 4 && four * 4 + line < count; ++line) {
            float* row = scratch[worker].matrix.data() + line * (leaders + 3);
            for (size_t choice = 0; choice < fan; ++choice) {
                size_t best = size_t(std::min_element(row, row + leaders) - row);
                nearest[(four * 4 + line) * fan + choice] = uint32_t(best);
                row[best] = std::numeric_limits<float>::infinity();
            }
        }
    });
    std::vector<std::vector<uint32_t>> buckets(leaders), parts;
    for (size_t at = 0; at < count * fan; ++at) {
        std::vector<uint32_t>& bucket = buckets[nearest[at]];
        if (bucket.empty() || bucket.back() != members[at / fan]) bucket.push_back(members[at / fan]);
    }
    std::vector<uint32_t> rest;  // small buckets, several together
    auto close = [&] {
        std::sort(rest.begin(), rest.end());
        rest.erase(std::unique(rest.begin(), rest.end()), rest.end());
        if (!rest.empty()) parts.push_back(rest);
        rest.clear();
    };
    for (std::vector<uint32_t>& bucket : buckets) {
        if (bucket.size() >= LEAF_ROWS / 4) {
            parts.push_back(std::move(bucket));
            continue;
        }
        rest.insert(rest.end(), bucket.begin(), bucket.end());
        if (rest.size() > LEAF_ROWS / 2) close();
    }
    close();
    return parts;
}

// Compare all pairs of a leaf and offer every node its nearest.
inline void Graph::compare_leaf(Bulk& bulk, const uint32_t* members, size_t count, BulkScratch& scratch) const {
    size_t padded = (count + 3) / 4 * 4, bytes = bulk.bytes;
    scratch.shifted.resize(std::max(scratch.shifted.size(), padded * bytes));
    scratch.plain.resize(std::max(scratch.plain.size(), padded * bytes));
    scratch.matrix.resize(std::max(scratch.matrix.size(), padded * padded));
    float* matrix = scratch.matrix.data();
    for (size_t at = 0; at < padded; ++at) {
        uint32_t node = members[std::min(at, count - 1)];
        bulk.shift(node, scratch.shifted.data() + at * bytes);
        std::memcpy(scratch.plain.data() + at * bytes, bulk.code(node), bytes);
    }
    const uint8_t* lefts[4];
    const int8_t* rights[4];
    int32_t dots[16];
    for (size_t row = 0; row < padded; row += 4) {
        for (size_t line = 0; line < 4; ++line) lefts[line] = scratch.shifted.data() + (row + line) * bytes;
        for (size_t column = row; column < padded; column += 4) {
            for (size_t line = 0; line < 4; ++line) rights[line] = scratch.plain.data() + (column + line) * bytes;
            codes_.kernels_of().byte_tile(lefts, rights, bytes, dots);
            for (size_t at = 0; at < 16; ++at) {
                size_t left = row + at / 4, right = column + at % 4;
                float apart = std::numeric_limits<float>::infinity();
                if (left < count && right < count && left != right) {
                    apart = bulk.apart(members[left], members[right], dots[at]);
                }
                matrix[left * padded + right] = matrix[right * padded + left] = apart;
            }
        }
    }
    for (size_t row = 0; row < count; ++row) {
        Edge best[LEAF_NEAREST + 1];
        offer(bulk, members[row], best, nearest_of<LEAF_NEAREST>(matrix + row * padded, members, count, best));
    }
}

// Keep the nearest CANDIDATES_MAX of what is offered to a node, each once.
inline void Graph::offer(Bulk& bulk, uint32_t node, const Edge* edges, size_t count) {
    while (bulk.locks[node].exchange(1, std::memory_order_acquire)) std::this_thread::yield();
    Edge* list = bulk.candidates.data() + size_t(node) * CANDIDATES_MAX;
    uint32_t held = bulk.counts[node];
    for (size_t at = 0; at < count; ++at) {
        const Edge& edge = edges[at];
        if (held == CANDIDATES_MAX && !nearer(edge, list[held - 1])) break;
        Edge* place = std::lower_bound(list, list + held, edge, nearer);
        if (place != list + held && place->slot == edge.slot && place->distance == edge.distance) continue;
        if (held < CANDIDATES_MAX) ++held;
        std::move_backward(place, list + held - 1, list + held);
        *place = edge;
    }
    bulk.counts[node] = held;
    bulk.locks[node].store(0, std::memory_order_release);
}

// Sort the links of a node and other edges of it, sorted, into scratch.edges.
inline void Graph::merge_links(const Bulk& bulk, uint32_t node, const Edge* others, size_t count,
                               BulkScratch& scratch) const {
    std::vector<Edge>& edges = scratch.edges;
    const Edge* own = bulk.links.data() + size_t(node) * base_links_;
    edges.clear();
    std::merge(others, others + count, own, own + bulk.degrees[node], std::back_inserter(edges), nearer);
    auto same = [](const Edge& left, const Edge& right) { return left.slot == right.slot; };
    edges.erase(std::unique(edges.begin(), edges.end(), same), edges.end());  // equal slots have equal distances
}

// Links of every node among its candidates and the links it has, which may lead farther than what leaves hold.
inline void Graph::choose_links(Bulk& bulk, unsigned threads, std::vector<BulkScratch>& scratch) const {
    parallel_for(bulk.nodes.size(), threads, [&](unsigned worker, size_t at) {
        uint32_t node = uint32_t(at);
        merge_links(bulk, node, bulk.candidates.data() + at * CANDIDATES_MAX, bulk.counts[node], scratch[worker]);
        prune(bulk, node, scratch[worker]);
    });
}

// Keep those of the sorted scratch.edges that none kept before hides, as the links of a node.
inline void Graph::prune(Bulk& bulk, uint32_t node, BulkScratch& scratch) const {
    std::vector<Edge>& kept = scratch.kept;
    kept.clear();
    scratch.hidden.clear();
    scratch.pointers.clear();
    scratch.dots.resize(std::max<size_t>(scratch.dots.size(), 4));
    scratch.shifted.resize(std::max(scratch.shifted.size(), bulk.bytes));
    size_t count = scratch.edges.size();
    for (size_t at = 0; at < count && kept.size() < base_links_; ++at) {
        const Edge& edge = scratch.edges[at];
        if (at + 4 < count) bulk.fetch(scratch.edges[at + 4].slot);
        bulk.shift(edge.slot, scratch.shifted.data());
        bool hidden = false;
        for (size_t first = 0; first < kept.size() && !hidden; first += 4) {
            size_t part = std::min<size_t>(4, kept.size() - first);
            codes_.kernels_of().byte_dots(scratch.shifted.data(), scratch.pointers.data() + first, part, bulk.bytes,
                                          scratch.dots.data());
            for (size_t other = 0; other < part && !hidden; ++other) {
                hidden = hides(bulk.apart(edge.slot, kept[first + other].slot, scratch.dots[other]), edge.distance);
            }
        }
        if (hidden) {
            scratch.hidden.push_back(edge);
            continue;
        }
        kept.push_back(edge);
        scratch.pointers.push_back(bulk.code(edge.slot));
    }
    // As in diversify: by inner product a long row hides all others.
    for (size_t at = 0; bulk.inner && at < scratch.hidden.size() && kept.size() < base_links_ / 2; ++at) {
        kept.push_back(scratch.hidden[at]);
    }
    if (bulk.inner) std::sort(kept.begin(), kept.end(), nearer);
    std::copy(kept.begin(), kept.end(), bulk.links.begin() + ptrdiff_t(size_t(node) * base_links_));
    bulk.degrees[node] = uint32_t(kept.size());
}

// Add to every node the links that lead to it; where they are too many, choose again.
inline void Graph::turn_links(Bulk& bulk, unsigned threads, std::vector<BulkScratch>& scratch) const {
    size_t count = bulk.nodes.size();
    std::vector<size_t> starts(count + 1, 0);
    for (uint32_t node = 0; node < count; ++node) {
        for (uint32_t at = 0; at < bulk.degrees[node]; ++at) ++starts[bulk.links[node * base_links_ + at].slot + 1];
    }
    for (size_t node = 0; node < count; ++node) starts[node + 1] += starts[node];
    std::vector<Edge> incoming(starts[count]);
    std::vector<size_t> next(starts.begin(), starts.end() - 1);
    for (uint32_t node = 0; node < count; ++node) {
        for (uint32_t at = 0; at < bulk.degrees[node]; ++at) {
            const Edge& edge = bulk.links[node * base_links_ + at];
            incoming[next[edge.slot]++] = {edge.distance, node};
        }
    }
    parallel_for(count, threads, [&](unsigned worker, size_t at) {
        uint32_t node = uint32_t(at);
        std::vector<Edge>& edges = scratch[worker].edges;
        Edge *first = incoming.data() + starts[node], *last = incoming.data() + starts[node + 1];
        std::sort(first, last, nearer);
        merge_links(bulk, node, first, std::min(size_t(last - first), INCOMING_MAX), scratch[worker]);
        if (edges.size() > base_links_) {
            prune(bulk, node, scratch[worker]);
        } else {
            std::copy(edges.begin(), edges.end(), bulk.links.begin() + ptrdiff_t(size_t(node) * base_links_));
            bulk.degrees[node] = uint32_t(edges.size());
        }
    });
}

// Walk the standing graph from every node, on the 4-bit codes, for nearer nodes than the leaves had.
inline void Graph::seek_candidates(Bulk& bulk, unsigned threads, std::vector<BulkScratch>& scratch,
                                   const volatile uint8_t* cancel) {
    std::vector<std::unique_ptr<Scratch>> walkers = scratches(threads);
    size_t share = bulk.inner ? REFINE_SHARE_INNER : REFINE_SHARE;
    size_t count = bulk.nodes.size();
    parallel_for(count, threads, [&](unsigned worker, size_t at) {
        if (cancel != nullptr && *cancel) return;
        if (at % CANCEL_HOPS == 0) advance(500, 850, at, count);
        Scratch& own = *walkers[worker];
        std::vector<Edge>& edges = scratch[worker].edges;
        uint32_t node = uint32_t(at), slot = bulk.nodes[node];
        Probe probe = space_.probe(rows_.at(slot), scale(slot), own.probe.data());
        if (!codes_.prepare(probe, own.code)) return;
        NarrowPool& pool = own.narrow;
        pool.begin(std::max<size_t>(REFINE_WIDTH_MIN, options_.ef_construction / share));
        own.visited.begin(slots_);
        own.visited.mark(slot);
        const Edge* list = bulk.candidates.data() + size_t(node) * CANDIDATES_MAX;
        for (uint32_t held = 0; held < bulk.counts[node]; ++held) {
            uint32_t other = bulk.nodes[list[held].slot];
            own.visited.mark(other);
            if (pool.admits(list[held].distance)) pool.push(list[held].distance, other, 1);
        }
        beam(CodeMeasure{*this, own.code}, 0, pool, own, One{}, nullptr);
        edges.clear();
        for (size_t place = 0, found = pool.finish(); place < found; ++place) {
            edges.push_back({0.0f, bulk.local_of[pool.found(place).slot]});
        }
        measure(bulk, node, scratch[worker]);
        offer(bulk, node, edges.data(), edges.size());
    });
    for (auto& one : walkers) give_back(std::move(one));
}

inline void Graph::publish_bulk(const Bulk& bulk) {
    size_t count = bulk.nodes.size();
    for (size_t first = 0; first < count; first += REPAIR_SLOTS) {
        std::lock_guard<FairLock> guard(lock_);
        for (size_t node = first; node < std::min(count, first + REPAIR_SLOTS); ++node) {
            uint32_t* list = links(bulk.nodes[node], 0);
            const Edge* edges = bulk.links.data() + node * base_links_;
            for (uint32_t at = 0; at < base_links_; ++at) {
                list[at] = at < bulk.degrees[node] ? bulk.nodes[edges[at].slot] : EMPTY;
            }
        }
    }
}

}  // namespace ruvector

#endif
