// Searching the rows that pass a filter: compare them all, hop from one to the next over the others, or walk through all
// nodes and keep what passes.
//
// Comparing all of them is exact but for the codes and costs as much as there are; it is what the other two are held
// against. Hopping compares only rows that pass: where a neighbour does not, its own neighbours take its place (ACORN-1,
// Patel et al. 2024, arXiv 2403.04871). Walking compares all nodes on its way (post-filtering with an adaptive end), which
// pays where most rows pass. Where the rows that pass lie far from the query, or apart from each other, both may take
// long or end too early: an automatic plan may spend no more on them than comparing all that pass would have cost, and
// does that then.
#ifndef RUVECTOR_HNSW_SIEVED_HPP
#define RUVECTOR_HNSW_SIEVED_HPP

#include <chrono>

#include "hnsw/graph.hpp"

namespace ruvector {

constexpr size_t SEEDS = 24;             // nodes near the query from which a hopping search sets out ...
constexpr size_t STRAY_SEEDS = 24;       // ... and rows that pass, wherever they are
constexpr size_t SCANNED_AT_ONCE = 32;
constexpr size_t PROBED = 384;           // nodes compared before an automatic plan is settled
constexpr double HOPS_PER_WIDTH = 1.3;   // nodes expanded for each that a pool holds in the end
constexpr double FAR_SHARE = 0.25;       // of the share that passes; fewer near the query is a filter that avoids it
constexpr size_t CALIBRATION_ROWS = 2048, CALIBRATION_WIDTH = 128;
constexpr size_t WIDER = 4;              // times as wide is the next walk, when one could not be sure of its end
constexpr double RISK = 4.0;             // so many times the cost of comparing all that pass is not saved by a probe

// What a node fills of a pool under a sieve: nothing when none of its rows passes.
struct Graph::Let {
    const Graph& graph;
    const Passing& passing;
    const bool is_plain;  // every node stands for its own row and no other
    mutable size_t asked = 0, passed = 0;

    uint32_t operator()(uint32_t node) const {
        uint32_t weight = is_plain ? passing.row(node) : rows(node) != 0;
        ++asked;
        passed += weight;
        return weight;
    }
    size_t rows(uint32_t node) const {
        if (is_plain) return passing.row(node);
        bool is_live = graph.states_[node] == LIVE;
        size_t found = is_live && passing.row(node);
        if (graph.members_[node] == is_live) return found;
        for (uint32_t twin = graph.twins_.next(node); twin != EMPTY; twin = graph.twins_.next(twin)) {
            found += passing.row(twin);
        }
        return found;
    }
    bool row(uint32_t slot) const { return passing.row(slot); }
};

// Candidates that were listed, as refine reads them.
struct Graph::Suspects {
    const std::vector<Edge>& edges;

    size_t finish() const { return edges.size(); }
    const Edge& found(size_t at) const { return edges[at]; }
};

// List all that pass and may be among the k nearest by what their codes can tell, in scratch.edges, nearest first.
template <class Measure>
bool Graph::scan_passing(const Measure& measure, size_t k, Scratch& scratch, const Let& let,
                         const volatile uint8_t* cancel) const {
    // One part is fetched while the other one is compared.
    uint32_t parts[2][SCANNED_AT_ONCE];
    size_t filled = 0, turn = 0, before = 0;
    float limit = std::numeric_limits<float>::infinity();  // the k-th least distance is hardly larger
    std::vector<Edge>& suspects = scratch.edges;
    std::vector<float>& reach = scratch.reach;
    suspects.clear();
    reach.clear();
    auto doubt = [&](uint32_t slot) { return codes_.factors(records_.at(slot)).error * scratch.code.length; };
    auto compare = [&](const uint32_t* slots, size_t count) {
        float* apart = scratch.apart.data();
        for (size_t first = 0; first < count; first += scratch.apart.size()) {
            size_t part = std::min(scratch.apart.size(), count - first);
            measure(slots + first, part, apart, scratch);
            for (size_t at = 0; at < part; ++at) {
                float error = doubt(slots[first + at]);
                if (apart[at] - error > limit) continue;
                suspects.push_back({apart[at], slots[first + at]});
                if (apart[at] + error >= limit) continue;
                if (reach.size() == k) {
                    std::pop_heap(reach.begin(), reach.end());
                    reach.pop_back();
                }
                reach.push_back(apart[at] + error);
                std::push_heap(reach.begin(), reach.end());
                if (reach.size() == k) limit = reach.front();
            }
        }
        scratch.compared += count;
    };
    if (!let.is_plain) scratch.visited.begin(slots_);
    bool whole = let.passing.each([&](uint32_t slot) {
        if (states_[slot] == TWIN) slot = twins_.head(slot);
        if (!let.is_plain && !scratch.visited.mark(slot)) return true;
        const char* record = records_.at(slot);
        for (size_t byte = 0; byte < std::min<size_t>(records_.stride(), 512); byte += 64) {
            __builtin_prefetch(record + byte);
        }
        parts[turn % 2][filled++] = slot;
        if (filled < SCANNED_AT_ONCE) return true;
        compare(parts[(turn + 1) % 2], before);
        before = filled;
        filled = 0;
        return ++turn % 8 != 0 || cancel == nullptr || !*cancel;
    });
    if (!whole) return false;
    compare(parts[(turn + 1) % 2], before);
    compare(parts[turn % 2], filled);
    auto gone = [&](const Edge& edge) { return edge.distance - doubt(edge.slot) > limit; };
    suspects.erase(std::remove_if(suspects.begin(), suspects.end(), gone), suspects.end());
    std::sort(suspects.begin(), suspects.end(), nearer);
    return true;
}

// Collect the passing nodes around a node that were not seen before, over those that do not pass.
template <class Measure>
bool Graph::gather_passing(const Measure& measure, uint32_t slot, Scratch& scratch, const Let& let) const {
    std::vector<uint32_t>& fringe = scratch.fringe;
    uint32_t* others = scratch.around.data();
    const uint32_t* list = links(slot, 0);
    size_t count = 0;
    fringe.clear();
    if (!measure.may_follow(slot, 0)) return false;
    for (uint32_t at = 0; at < base_links_ && list[at] != EMPTY; ++at) {
        if (scratch.visited.seen(list[at])) continue;
        ++scratch.tested;
        if (let(list[at])) {
            scratch.visited.mark(list[at]);
            fringe.push_back(list[at]);
        } else {
            others[count++] = list[at];
            const char* next = links_.at(list[at]);
            __builtin_prefetch(next);
            __builtin_prefetch(next + 64);
        }
    }
    for (size_t at = 0; at < count && fringe.size() < base_links_; ++at) {
        scratch.visited.mark(others[at]);  // its list need not be read twice
        if (!measure.may_follow(others[at], 0)) return false;
        const uint32_t* next = links(others[at], 0);
        for (uint32_t place = 0; place < base_links_ && next[place] != EMPTY; ++place) {
            ++scratch.tested;
            if (scratch.visited.seen(next[place]) || !let(next[place])) continue;
            scratch.visited.mark(next[place]);
            fringe.push_back(next[place]);
        }
    }
    return true;
}

// Compare the fringe and put it into the pool.
template <class Measure>
void Graph::admit(const Measure& measure, NarrowPool& pool, Scratch& scratch) const {
    const std::vector<uint32_t>& fringe = scratch.fringe;
    float* apart = scratch.apart.data();
    for (size_t first = 0; first < fringe.size(); first += scratch.apart.size()) {
        size_t count = std::min(scratch.apart.size(), fringe.size() - first);
        measure(fringe.data() + first, count, apart, scratch);
        for (size_t at = 0; at < count; ++at) {
            if (!pool.admits(apart[at])) continue;
            __builtin_prefetch(links_.at(fringe[first + at]));
            pool.push(apart[at], fringe[first + at], 1);
        }
    }
    scratch.compared += fringe.size();
}

// Fill the pool with passing nodes, from some near the query and some anywhere on, over one node in between.
template <class Measure>
bool Graph::hop(const Measure& measure, size_t width, NarrowPool& pool, Scratch& scratch, const Let& let,
                const volatile uint8_t* cancel) const {
    std::vector<uint32_t>& seeds = scratch.seeds;
    seeds.clear();
    scratch.visited.begin(slots_);
    if (entry_ != EMPTY) {
        float best;
        uint32_t start = descend(measure, 0, &best, scratch);
        if (start == EMPTY) return false;
        scratch.visited.mark(start);
        pool.begin(SEEDS);
        pool.push(best, start, 1);
        if (!beam(measure, 0, pool, scratch, One{}, cancel)) return false;
        for (size_t at = 0, count = pool.finish(); at < count; ++at) seeds.push_back(pool.found(at).slot);
        scratch.visited.begin(slots_);
    }
    pool.begin(width);
    scratch.fringe.clear();
    auto take = [&](uint32_t slot) {
        if (scratch.visited.seen(slot) || !let(slot)) return;
        scratch.visited.mark(slot);
        scratch.fringe.push_back(slot);
    };
    for (uint32_t seed : seeds) take(seed);
    let.passing.some(STRAY_SEEDS, [&](uint32_t slot) { take(states_[slot] == TWIN ? twins_.head(slot) : slot); });
    for (uint32_t slot : loose_) take(slot);
    admit(measure, pool, scratch);
    for (uint32_t seed : seeds) {
        if (let(seed)) continue;
        if (!gather_passing(measure, seed, scratch, let)) return false;
        admit(measure, pool, scratch);
    }
    size_t hops = 0;
    const double tests_cost = double(costs_.test) / double(costs_.walk);
    for (uint32_t slot; pool.next(&slot);) {
        if (++hops % CANCEL_HOPS == 0 && cancel != nullptr && *cancel) return false;
        scratch.is_spent = double(scratch.compared) + double(scratch.tested) * tests_cost > double(scratch.budget);
        if (scratch.is_spent) return true;
        if (!gather_passing(measure, slot, scratch, let)) return false;
        admit(measure, pool, scratch);
    }
    return true;
}

// Time what searches under a sieve consist of, on rows of this index; once, and again when it has grown a lot.
inline void Graph::calibrate() {
    size_t before = calibrated_.load();
    bool is_due = slots_ / 4 > before && live_count_.load() >= CODE_ROWS_MIN && entry_ != EMPTY && watch_ == nullptr;
    if (!is_due || !calibrated_.compare_exchange_strong(before, slots_)) return;
    std::vector<int64_t> nodes;
    for (uint64_t turn = 0; turn < 2 * CALIBRATION_ROWS; ++turn) {
        uint32_t slot = uint32_t(mix64(turn) % slots_);
        if (is_node(slot, 0)) nodes.push_back(slot);
    }
    if (nodes.empty()) return;
    std::unique_ptr<Scratch> scratch = borrow();
    uint32_t asked = uint32_t(nodes.front());
    Probe probe = space_.probe(rows_.at(asked), scale(asked), scratch->probe.data());
    Sieve sieve{nullptr, 0, 0, nodes.data(), nodes.size(), PLAN_SCAN};
    Passing passing(sieve, tags_, slots_, scratch->mask, scratch->listed, [](int64_t slot) { return uint32_t(slot); });
    Let let{*this, passing, odd_count_ == 0};
    if (coded_ && told_.load() && codes_.prepare(probe, scratch->code)) {
        time_with(CodeMeasure{*this, scratch->code}, *scratch, let);  // what later searches find at hand is fetched
        time_with(CodeMeasure{*this, scratch->code}, *scratch, let);
    } else {
        time_with(RowMeasure{*this, probe}, *scratch, let);
        time_with(RowMeasure{*this, probe}, *scratch, let);
    }
    give_back(std::move(scratch));
}

template <class Measure>
void Graph::time_with(const Measure& measure, Scratch& scratch, const Let& let) {
    using Time = std::chrono::steady_clock;
    auto per_row = [](Time::time_point began, size_t count) {
        std::chrono::duration<float, std::nano> passed = Time::now() - began;
        return passed.count() / float(std::max<size_t>(1, count));
    };
    const std::vector<uint32_t>& nodes = scratch.listed;
    Time::time_point began = Time::now();
    if (coded_) {
        scan_passing(measure, 10, scratch, let, nullptr);
    } else {
        for (uint32_t slot : nodes) measure(&slot, 1, scratch.apart.data(), scratch);
    }
    costs_.scan = per_row(began, nodes.size());
    scratch.compared = 0;
    scratch.budget = SIZE_MAX;
    began = Time::now();
    explore(measure, CALIBRATION_WIDTH, scratch.pool, scratch, Held{*this}, nullptr);
    costs_.walk = per_row(began, scratch.compared);
    costs_.compared = float(scratch.compared) / float(CALIBRATION_WIDTH);
    // One row in eight passes.
    std::vector<uint64_t> mask((slots_ + 63) / 64);
    for (size_t at = 0; at < mask.size(); ++at) mask[at] = mix64(at) & mix64(~at) & mix64(at << 32);
    Passing eighth(mask, slots_, slots_ / 8, tags_);
    Let lets{*this, eighth, odd_count_ == 0};
    scratch.compared = 0;
    began = Time::now();
    hop(measure, CALIBRATION_WIDTH, scratch.narrow, scratch, lets, nullptr);
    std::chrono::duration<float, std::nano> hopped = Time::now() - began;
    double testing = double(hopped.count()) - double(scratch.compared) * double(costs_.walk);
    costs_.test = float(std::max(1.0, testing) / hop_tests(1.0 / 8.0, CALIBRATION_WIDTH));
}

// About how many rows a hopping search tests where this share of them passes: it looks at lists of lists until it has
// found as many as a list is long.
inline double Graph::hop_tests(double share, size_t width) const {
    double list = double(base_links_);
    return HOPS_PER_WIDTH * double(width) * std::min(list * list, list / share);
}

inline double Graph::cost_of_hops(double share, size_t width) const {
    double tests = hop_tests(share, width);
    return tests * double(costs_.test) + tests * share * double(costs_.walk);
}

// Walk as far as it takes to see how many pass near the query, then on if that is the cheapest; else scratch.is_spent.
template <class Measure, class Pool>
bool Graph::walk_passing(const Measure& measure, size_t width, Pool& pool, Scratch& scratch, const Let& let, int* plan,
                         const volatile uint8_t* cancel) const {
    bool is_open = *plan == PLAN_AUTO;
    if (is_open) scratch.budget = PROBED;
    if (!explore(measure, width, pool, scratch, let, cancel)) return false;
    *plan = PLAN_WALK;
    if (!scratch.is_spent || !is_open) return true;
    double rows = double(let.passing.count()), share = rows / double(live_count_.load());
    double near = double(let.passed) / double(let.asked), scan = rows * double(costs_.scan), step = double(costs_.walk);
    double hop = near < share * FAR_SHARE ? scan : cost_of_hops(share, width);
    double walk = near > 0.0 ? double(costs_.compared) * double(width) / near * step : scan * RISK;
    size_t most = scratch.compared + size_t(scan / step);
    if (walk > std::min(scan, hop)) {
        *plan = hop < scan ? PLAN_HOP : PLAN_SCAN;
        scratch.budget = most;
        return true;
    }
    scratch.budget = most;
    return beam(measure, 0, pool, scratch, let, cancel);
}

inline int64_t Graph::search_sieved(const Probe& probe, size_t k, size_t ef, const Sieve& sieve, Scratch& scratch,
                                    const volatile uint8_t* cancel, int64_t* keys, float* distances) {
    Passing passing(sieve, tags_, slots_, scratch.mask, scratch.listed, [&](int64_t key) { return slot_of(key); });
    size_t rows = passing.count(), wanted = std::min(k, rows);
    if (wanted == 0) {
        planned_[PLAN_SCAN].fetch_add(1, std::memory_order_relaxed);
        return 0;
    }
    Let let{*this, passing, odd_count_ == 0};
    if (sieve.plan == PLAN_AUTO) calibrate();
    bool is_coded = coded_ && told_.load();
    bool exact = !options_.linked || (sieve.plan == PLAN_AUTO && (rows <= ef || wanted * 2 >= rows));
    int plan = exact ? int(PLAN_SCAN) : sieve.plan;
    sieve_rows_.fetch_add(rows, std::memory_order_relaxed);
    if (plan == PLAN_AUTO && double(rows) * double(costs_.scan) < RISK * double(PROBED) * double(costs_.walk)) plan = PLAN_SCAN;
    scratch.tested = 0;
    bool decided = true, whole = true;
    auto finished = [&](int used) {
        int64_t found = name_rows(scratch.nearest, wanted, let, keys, distances);
        planned_[used].fetch_add(1, std::memory_order_relaxed);
        return found;
    };
    for (size_t width = ef; plan == PLAN_AUTO || plan == PLAN_WALK; width *= WIDER) {
        size_t before = scratch.compared;
        bool reaches = true;
        auto walk_in = [&](auto& pool) {
            auto work = [&](const auto& measure, size_t wide) {
                return walk_passing(measure, wide, pool, scratch, let, &plan, cancel);
            };
            if (!fill(probe, wanted, width, pool, scratch, let, work, &decided)) return false;
            if (plan != PLAN_WALK || scratch.is_spent) return true;
            if (!decided) return walk_on(probe, width, pool, scratch, let, cancel);
            reaches = !is_coded || reaches_beyond(pool, wanted, width, scratch);
            return true;
        };
        bool is_wide = double(width) * double(live_count_.load()) > double(SORTED_WIDTH_MAX) * double(rows);
        whole = is_wide ? walk_in(scratch.heap) : walk_in(scratch.pool);
        if (!whole) return -1;
        if (plan != PLAN_WALK) break;
        bool is_good = !scratch.is_spent && has_enough(wanted, let, scratch);
        if (is_good && reaches) return finished(plan);
        // A wider walk is not begun where it would cost more than comparing all that pass. A forced plan must not depend
        // on what was measured: two copies of an index answer alike.
        double price = sieve.plan == PLAN_WALK ? 1.0 : double(costs_.walk) / double(costs_.scan);
        double next = double(WIDER) * double(scratch.compared - before) * price;
        if (!is_good || next > double(rows)) plan = PLAN_SCAN;
    }
    if (plan == PLAN_HOP) {
        auto work = [&](const auto& measure, size_t width) {
            return hop(measure, width, scratch.narrow, scratch, let, cancel);
        };
        whole = fill(probe, wanted, ef, scratch.narrow, scratch, let, work, &decided);
        if (!whole) return -1;
        decided = decided && (!is_coded || reaches_beyond(scratch.narrow, wanted, ef, scratch));
        if (!scratch.is_spent && decided && has_enough(wanted, let, scratch)) return finished(plan);
    }
    if (!exact && is_coded && codes_.prepare(probe, scratch.code)) {
        auto listing = [&](const auto& measure) { return scan_passing(measure, wanted, scratch, let, cancel); };
        if (!guarded(CodeMeasure{*this, scratch.code}, Guard::CODES, listing)) return -1;
        refine(probe, wanted, Suspects{scratch.edges}, scratch, let);
        return finished(PLAN_SCAN);
    }
    planned_[PLAN_SCAN].fetch_add(1, std::memory_order_relaxed);
    return scan(probe, wanted, scratch, [&](const auto& work) { return passing.each(work); }, cancel, keys, distances);
}

// Whether a full pool reaches beyond the answer: its last candidate lies there for certain, or all of the answer stands
// in the nearer half of it. Where very many rows lie about as far as the k-th (all near ones are filtered out) it does
// not, and rows that belong to the answer were left out for others that only looked nearer by their codes.
template <class Pool>
bool Graph::reaches_beyond(Pool& pool, size_t k, size_t ef, Scratch& scratch) const {
    size_t count = pool.finish();
    if (scratch.is_spent || count < ef || ef < 4 * k || scratch.nearest.empty()) return true;
    Edge last = pool.found(count - 1);
    float error = codes_.factors(records_.at(last.slot)).error * scratch.code.length;
    if (last.distance - error > scratch.nearest.back().distance) return true;
    std::vector<uint32_t>& slots = scratch.seeds;
    slots.clear();
    for (const Edge& edge : scratch.nearest) slots.push_back(edge.slot);
    std::sort(slots.begin(), slots.end());
    for (size_t at = count / 2; at < count; ++at) {
        if (std::binary_search(slots.begin(), slots.end(), pool.found(at).slot)) return false;
    }
    return true;
}

// Whether as many rows were found as there must be: a walk can end early where few rows pass, or many were deleted.
inline bool Graph::has_enough(size_t wanted, const Let& let, const Scratch& scratch) const {
    size_t found = 0;
    for (const Edge& edge : scratch.nearest) found += let.rows(edge.slot);
    return found >= wanted;
}

}  // namespace ruvector

#endif
