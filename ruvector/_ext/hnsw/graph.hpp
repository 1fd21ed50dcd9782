// A keyed set of vectors with an HNSW graph over it: one writer, many readers, exact where exact is cheaper.
//
// Writers take turns (`writer_`, held for a whole call, for a dump and for a build). The one whose turn it is is the only
// one that changes anything, so it reads without the lock: it searches, selects links and mends lists into its own
// memory, also on several threads, and takes `lock_` alone only to copy the outcome in, a slice of nodes at a time.
// Before that it writes to slots that are still free, which no reader looks into. Readers hold `lock_` shared for one
// search, so between two slices they meet a graph that is whole: every list leads to nodes, every live row is found
// under its key, in the lists or among the loose ones. Single numbers that are read without a lock are atomic.
// tests/native/graph_race.cpp runs all of them at once under ThreadSanitizer.
//
// A slot holds a row. A slot that is a node of the graph is live, or dead: a deleted row that still guides searches
// until `repair` has linked around it. Rows equal to a node's row are its twins: they hang on it and stay out of the
// graph, because a neighbourhood full of equal rows has no way out.
//
// From CODE_ROWS_MIN rows on, every node has a small code (hnsw/codes.hpp), and searches walk on the codes alone; the
// rows themselves are read only for the few candidates that may belong to the answer. A node can be loose: stored and
// found, by comparing its code, but not linked yet.
#ifndef RUVECTOR_HNSW_GRAPH_HPP
#define RUVECTOR_HNSW_GRAPH_HPP

#include <cmath>
#include <memory>
#include <mutex>
#include <stdexcept>
#include <utility>

#include "hnsw/beam.hpp"
#include "hnsw/guard.hpp"
#include "hnsw/lock.hpp"
#include "hnsw/slots.hpp"
#include "hnsw/space.hpp"
#include "hnsw/twins.hpp"
#include "tags.hpp"

namespace ruvector {

// Nanoseconds that a search under a sieve spends on this machine, for a row ...
struct Costs {
    std::atomic<float> scan{20.0f};      // compared by itself
    std::atomic<float> walk{40.0f};      // compared on a walk
    std::atomic<float> test{5.0f};       // tested, and not compared
    std::atomic<float> compared{14.0f};  // rows compared on a walk for each that its pool has room for
};

enum State : uint8_t { FREE = 0, LIVE = 1, DEAD = 2, TWIN = 3 };

struct Options {
    int metric;
    int element;
    size_t dims;
    uint32_t m;
    uint32_t ef_construction;
    uint64_t seed;
    bool linked;  // false: a flat index, rows and keys without links
};

// The flat arrays that a graph is stored as, one entry per slot but for the last five.
struct Arrays {
    char* rows;
    uint32_t* links;  // base_links() a slot
    char* codes;      // null when there are none
    uint8_t* levels;
    uint8_t* states;
    int64_t* keys;
    float* scales;
    uint32_t* fingerprints;
    uint32_t* twin_heads;
    uint32_t* upper;  // the lists of the upper levels, in slot order
    size_t upper_count;
    float* center;    // [dims], what the codes are relative to
    int64_t* head;    // HEAD numbers
    uint32_t* tags;   // null when there are none
    size_t slots;
};

constexpr size_t CODE_ROWS_MIN = 1024;  // rows from which on there are codes; fewer are scanned faster than walked
constexpr size_t BLOCK_ROWS = 256;      // rows linked at once; they see each other by comparing all pairs
constexpr size_t BULK_ROWS_MIN = 4096;   // rows from which on linking all at once is worth its preparation
constexpr size_t EXACT_EDGES = 3;        // candidates compared exactly for every link there is room for
constexpr float PRUNE_ALPHA = 1.1f;      // of squared distances: how much nearer one link must be to hide another
constexpr size_t REPAIR_SLOTS = 4096;   // nodes mended between two locks
constexpr size_t DEAD_MIN = 256;        // deleted nodes before a repair is worth its pass over the graph
constexpr size_t DEAD_SHARE = 8;        // ... and one in so many of the live rows
constexpr size_t UNCHECKED_SHARE = 8;   // one in so many nodes is new before it is looked whether all are reached
constexpr size_t DETOUR_NODES = 64;     // deleted nodes followed when one neighbour is replaced
constexpr size_t ROW_DIMS_STEP = 8;     // so a code of up to 104 dimensions and its factors fill one cache line
constexpr size_t CODE_SLACK = 2;        // added to a beam on codes, and a sixteenth of it: estimates err at its border
constexpr float CODE_DOUBT = 0.25f;      // part of a distance that its estimate may be off before rows are asked instead
constexpr size_t SORTED_WIDTH_MAX = 1024;
constexpr size_t CANCEL_HOPS = 256;     // hops, or scanned rows, between two looks at the cancel flag
constexpr size_t SCRATCH_KEPT = 16;     // scratch spaces kept for the next searches
constexpr size_t READ_PAGES = 256;      // pages read at once while they are verified
constexpr uint32_t LEVEL_MAX = 31;
constexpr uint8_t MEMBERS_MAX = 255;
constexpr const char* WRONG_LINK = "holds a link that leads to no node of its level";
constexpr uint32_t SLOTS_MAX = 1u << 31;

struct Trail;
class TrailPool;

class Graph {
  public:
    explicit Graph(const Options& options);
    ~Graph() { release(); }
    Graph(const Graph&) = delete;
    Graph& operator=(const Graph&) = delete;

    // Writers; they wait for each other.
    // `loose` stores the rows without linking them: they are found by comparing their codes until `build` links them.
    // Once there are tags, every row brings one; see Engine in ruvector/index/protocol.py.
    size_t upsert(const int64_t* keys, const char* rows, const uint32_t* tags, size_t count, bool loose,
                  unsigned threads);
    size_t start_tags();
    // Link what is loose; when `cancel` becomes true the rest stays loose.
    void build(unsigned threads, const volatile uint8_t* cancel);
    size_t erase(const int64_t* keys, size_t count, unsigned threads);
    void repair(unsigned threads);
    void clear();

    // Readers.
    // One answer of up to k rows; -1 when `cancel` became true, DAMAGED when a page it needs is. Fewer than k only when
    // there are no more rows. Under a sieve only rows that pass it count.
    int64_t search(const char* query, size_t k, size_t ef, size_t scan_rows, const Sieve* sieve,
                   const volatile uint8_t* cancel, int64_t* keys, float* distances);
    int64_t search_many(const char* queries, size_t count, size_t k, size_t ef, size_t scan_rows, const Sieve* sieve,
                        unsigned threads, const volatile uint8_t* cancel, int64_t* keys, float* distances,
                        int64_t* counts);
    // The next `wanted` rows of a trail, or a few more, in its keys and distances; returns how many. -1 and DAMAGED as
    // above; TRAIL_ENDS when it cannot go on, or when comparing all rows is cheaper.
    int64_t next_page(Trail& trail, size_t wanted, size_t ef, size_t scan_rows, const Sieve* sieve,
                      const volatile uint8_t* cancel);
    void end_trail(Trail& trail);
    void tags_of(const int64_t* keys, size_t count, uint32_t* tags);
    void contains(const int64_t* keys, size_t count, uint8_t* found);
    void rows_of(const int64_t* keys, size_t count, char* rows, uint8_t* found);
    size_t live_keys(int64_t* keys, size_t room);
    size_t size() const { return live_count_.load(); }
    uint32_t built_permille() const { return built_permille_.load(); }  // of the build that is running, else 1000
    void figures(int64_t* out);  // FIGURES numbers, see there

    // A copy of everything, and back. The writer's lock is held from `freeze` to `thaw`.
    void freeze() { writer_.lock(); }
    void thaw() { writer_.unlock(); }
    size_t slots() const { return slots_; }
    size_t upper_links() const;
    size_t row_stride() const { return rows_.stride(); }
    size_t base_links() const { return base_links_; }
    bool coded() const { return coded_; }
    bool tagged() const { return tags_.started(); }
    size_t record_stride() const { return records_.stride(); }
    // Copy everything out; `arrays` has room for slots() entries, codes and center only when coded().
    void dump(const Arrays& arrays) const;
    // Null when all is well, else what is wrong with the sections; the graph is empty then. `in_place` uses the memory
    // of rows, links and codes, which must outlive the graph. Without codes they are made again.
    // With `proofs`, in the order of Guard::Part, what they vouch for is not looked at yet: searches verify what they
    // touch until `check_next` has verified the rest; nothing may be written before `is_watched` is false.
    const char* restore(const Arrays& arrays, bool in_place, unsigned threads, const Proof* proofs);
    // Verify the next pages, in the end all links; false when there is no more to do. One thread at a time.
    bool check_next(size_t pages);
    bool is_watched();
    void evict();  // let the system have the memory of mapped rows; they are read again when they are needed
    Guard::Finding finding();

    static constexpr size_t FIGURES = 21;
    static constexpr size_t HEAD = 8;
    static constexpr int64_t DAMAGED = -2, TRAIL_ENDS = -3;

  private:
    struct Block;
    struct Back;
    struct Mended;
    struct RowMeasure;
    struct CodeMeasure;
    template <class Measure>
    struct Guarded;
    struct Bulk;
    struct BulkScratch;

    // geometry
    uint32_t* links(uint32_t slot, uint32_t level) const {
        if (level == 0) return reinterpret_cast<uint32_t*>(links_.at(slot));
        uint32_t* list = upper_list(upper_[slot]);
        while (--level > 0) list = upper_list(list[options_.m]);
        return list;
    }
    uint32_t* upper_list(uint32_t at) const { return reinterpret_cast<uint32_t*>(uppers_.at(at)); }
    bool is_node(uint32_t slot, uint32_t level) const {
        return slot < slots_ && (states_[slot] == LIVE || states_[slot] == DEAD) && levels_[slot] >= level;
    }
    uint32_t room(uint32_t level) const { return level == 0 ? base_links_ : options_.m; }
    float scale(uint32_t slot) const { return space_.metric() == Metric::COSINE ? scales_[slot] : 1.0f; }
    float distance(const Probe& probe, uint32_t slot) const {
        return space_.distance(probe, rows_.at(slot), scale(slot));
    }
    void prefetch_row(uint32_t slot) const {
        const char* row = rows_.at(slot);
        for (size_t byte = 0; byte < prefetch_bytes_; byte += 64) __builtin_prefetch(row + byte);
    }
    uint64_t key_hash(uint32_t slot) const { return mix64(uint64_t(keys_[slot])); }
    // A part of the fingerprint is kept: rows with the same are compared.
    static uint32_t print_of(uint64_t fingerprint) { return uint32_t(fingerprint >> 32); }
    uint64_t row_hash(uint32_t slot) const { return uint64_t(fingerprints_[slot]) << 32; }
    // The key of a slot for an answer; no key, and a finding of the guard, when its page is damaged.
    int64_t key_of(uint32_t slot) const {
        if (watch_ == nullptr) return keys_[slot];
        return watch_->holds(Guard::KEYS, slot) ? mapped_keys_[slot] : -1;
    }
    uint32_t slot_of(int64_t key) const {
        return by_key_.find(mix64(uint64_t(key)), [&](uint32_t slot) { return keys_[slot] == key; });
    }
    uint32_t equal_node(uint32_t like) const {
        return by_row_.find(row_hash(like), [&](uint32_t slot) {
            return fingerprints_[slot] == fingerprints_[like] && space_.same(rows_.at(slot), rows_.at(like));
        });
    }

    // search (hnsw/search.hpp)
    std::unique_ptr<Scratch> borrow();
    void give_back(std::unique_ptr<Scratch> scratch);
    template <class Measure, class Pool, class Weight>
    bool beam(const Measure& measure, uint32_t level, Pool& pool, Scratch& scratch, const Weight& weight,
              const volatile uint8_t* cancel) const;
    size_t gather(uint32_t slot, uint32_t level, Scratch& scratch) const;
    struct One;
    struct Held;
    struct Let;
    struct Suspects;
    template <class Measure>
    uint32_t descend(const Measure& measure, uint32_t stop, float* best, Scratch& scratch) const;
    template <class Measure, class Pool, class Weight>
    bool explore(const Measure& measure, size_t ef, Pool& pool, Scratch& scratch, const Weight& weight,
                 const volatile uint8_t* cancel) const;
    template <class Measure, class Pool, class Weight>
    bool set_out(const Measure& measure, Pool& pool, Scratch& scratch, const Weight& weight,
                 const volatile uint8_t* cancel) const;
    template <class Measure, class Work>
    bool guarded(const Measure& measure, Guard::Part part, const Work& work) const;
    template <class Pool, class Weight>
    bool walk(const Probe& probe, size_t k, size_t ef, Pool& pool, Scratch& scratch, const Weight& weight,
              const volatile uint8_t* cancel) const;
    template <class Pool, class Weight>
    bool walk_on(const Probe& probe, size_t ef, Pool& pool, Scratch& scratch, const Weight& weight,
                 const volatile uint8_t* cancel) const;
    template <class Pool, class Weight, class Work>
    bool fill(const Probe& probe, size_t k, size_t ef, Pool& pool, Scratch& scratch, const Weight& weight,
              const Work& work, bool* decided) const;
    template <class Pool>
    static void list_found(Pool& pool, Scratch& scratch);
    template <class Pool, class Weight>
    void refine(const Probe& probe, size_t k, Pool&& pool, Scratch& scratch, const Weight& weight) const;
    bool codes_decide(const Edge& edge, float length) const;
    template <class Weight>
    int64_t name_rows(const std::vector<Edge>& nodes, size_t k, const Weight& weight, int64_t* keys,
                      float* distances) const;
    template <class Each>
    int64_t scan(const Probe& probe, size_t k, Scratch& scratch, const Each& each, const volatile uint8_t* cancel,
                 int64_t* keys, float* distances) const;

    // searching on (hnsw/trail.hpp)
    template <class Measure, class Weight>
    bool follow(const Measure& measure, Trail& trail, TrailPool& pool, Scratch& scratch, const Weight& weight,
                const volatile uint8_t* cancel) const;
    template <class Weight>
    int64_t turn_page(Trail& trail, size_t wanted, size_t ef, Scratch& scratch, const Weight& weight,
                      const volatile uint8_t* cancel) const;

    // search under a sieve (hnsw/sieved.hpp)
    int64_t search_sieved(const Probe& probe, size_t k, size_t ef, const Sieve& sieve, Scratch& scratch,
                          const volatile uint8_t* cancel, int64_t* keys, float* distances);
    void calibrate();
    template <class Measure>
    void time_with(const Measure& measure, Scratch& scratch, const Let& let);
    double hop_tests(double share, size_t width) const;
    double cost_of_hops(double share, size_t width) const;
    template <class Pool>
    bool reaches_beyond(Pool& pool, size_t k, size_t ef, Scratch& scratch) const;
    bool has_enough(size_t wanted, const Let& let, const Scratch& scratch) const;
    template <class Measure, class Pool>
    bool walk_passing(const Measure& measure, size_t width, Pool& pool, Scratch& scratch, const Let& let, int* plan,
                      const volatile uint8_t* cancel) const;
    template <class Measure>
    bool scan_passing(const Measure& measure, size_t k, Scratch& scratch, const Let& let,
                      const volatile uint8_t* cancel) const;
    template <class Measure>
    bool hop(const Measure& measure, size_t width, NarrowPool& pool, Scratch& scratch, const Let& let,
             const volatile uint8_t* cancel) const;
    template <class Measure>
    void admit(const Measure& measure, NarrowPool& pool, Scratch& scratch) const;
    template <class Measure>
    bool gather_passing(const Measure& measure, uint32_t slot, Scratch& scratch, const Let& let) const;

    // insert (hnsw/insert.hpp)
    void upsert_block(const int64_t* keys, const char* rows, const uint32_t* tags, size_t count, bool loose,
                      unsigned threads, size_t* changed);
    void plan_rows(const int64_t* keys, const char* rows, const uint32_t* tags, size_t count, Block& block);
    void adopt_row(int64_t key, const char* row, Block& block);
    void return_slots(Block& block) noexcept;
    uint32_t take_slot();
    uint32_t take_upper();
    void take_uppers(uint32_t slot, uint32_t level);
    void reserve_rows(size_t more, size_t tags, bool loose);
    void forget_loose();
    void start_codes(const char* rows, size_t count, unsigned threads);
    std::vector<uint32_t> node_slots() const;
    void make_codes(const std::vector<uint32_t>& nodes, const char* rows, size_t count, unsigned threads);
    size_t encode_nodes(const std::vector<uint32_t>& nodes, const Codes& codes, Records& records, unsigned threads);
    uint32_t draw_level();
    void lay_out(Block& block) const;
    void link_block(Block& block, unsigned threads);
    void find_links(Block& block, size_t index, Scratch& scratch);
    template <class Measure>
    void seek_links(const Measure& measure, Block& block, size_t index, Scratch& scratch);
    template <class Measure>
    void level_links(const Measure& measure, Block& block, size_t index, uint32_t level, Scratch& scratch);
    void measure_again(uint32_t slot, size_t limit, Scratch& scratch) const;
    // A link hides a candidate of a node that is nearer to the link than to the node; not so by inner product, whose
    // distances are below zero.
    bool hides(float from_link, float from_node) const {
        return (space_.metric() == Metric::IP ? from_link : from_link * PRUNE_ALPHA) < from_node;
    }
    void diversify(std::vector<Edge>& edges, size_t limit, Scratch& scratch) const;
    void turn_around(Block& block) const;
    void mend_target(Block& block, size_t group, Scratch& scratch) const;
    void publish_links(const Block& block);
    void publish(Block& block, bool loose);
    void raise_entry(uint32_t slot);
    void tie(uint32_t slot);
    void hang_twin(uint32_t slot, uint32_t head);

    // many at once (hnsw/bulk.hpp)
    void link_loose(unsigned threads, const volatile uint8_t* cancel);
    void link_bulk(unsigned threads, const volatile uint8_t* cancel);
    void code_nodes(Bulk& bulk, unsigned threads);
    void order_nodes(Bulk& bulk, unsigned threads, std::vector<BulkScratch>& scratch) const;
    void settle_nodes(Bulk& bulk);
    void exchange(uint32_t left, uint32_t right);
    void link_loose_nodes(const std::vector<uint32_t>& nodes, unsigned threads);
    void link_sample(const Bulk& bulk, unsigned threads, const volatile uint8_t* cancel);
    void recall_links(Bulk& bulk, unsigned threads, std::vector<BulkScratch>& scratch) const;
    void gather_candidates(Bulk& bulk, unsigned threads, std::vector<BulkScratch>& scratch,
                           const volatile uint8_t* cancel);
    template <class Apart>
    void compare_four(const Bulk& bulk, const std::vector<uint32_t>& members, size_t four,
                      const std::vector<uint32_t>& others, BulkScratch& scratch, Apart apart) const;
    void measure(const Bulk& bulk, uint32_t node, BulkScratch& scratch) const;
    void offer_long_rows(Bulk& bulk, unsigned threads, std::vector<BulkScratch>& scratch,
                         const volatile uint8_t* cancel) const;
    void divide(Bulk& bulk, const std::vector<uint32_t>& members, size_t depth, uint64_t seed, BulkScratch& scratch,
                const volatile uint8_t* cancel) const;
    std::vector<std::vector<uint32_t>> split(const Bulk& bulk, const std::vector<uint32_t>& members, size_t depth,
                                             uint64_t seed, unsigned threads, BulkScratch* scratch) const;
    void compare_leaf(Bulk& bulk, const uint32_t* members, size_t count, BulkScratch& scratch) const;
    static void offer(Bulk& bulk, uint32_t node, const Edge* edges, size_t count);
    void merge_links(const Bulk& bulk, uint32_t node, const Edge* others, size_t count, BulkScratch& scratch) const;
    void choose_links(Bulk& bulk, unsigned threads, std::vector<BulkScratch>& scratch) const;
    void prune(Bulk& bulk, uint32_t node, BulkScratch& scratch) const;
    void turn_links(Bulk& bulk, unsigned threads, std::vector<BulkScratch>& scratch) const;
    void seek_candidates(Bulk& bulk, unsigned threads, std::vector<BulkScratch>& scratch,
                         const volatile uint8_t* cancel);
    void advance(uint32_t from, uint32_t to, size_t done, size_t total) {
        uint32_t share = from + uint32_t(uint64_t(to - from) * done / std::max<size_t>(total, 1));
        uint32_t before = built_permille_.load();  // another worker may be further
        while (before < share && !built_permille_.compare_exchange_weak(before, share)) continue;
    }
    void publish_bulk(const Bulk& bulk);

    // delete and repair (hnsw/repair.hpp)
    void drop(uint32_t slot);
    void weigh(uint32_t node, size_t rows);
    size_t rows_of_node(uint32_t node) const { return (states_[node] == LIVE) + twins_.count(node); }
    void free_node(uint32_t slot);
    void free_slot(uint32_t slot) noexcept;
    void chain_free(uint32_t slot) {
        keys_[slot] = free_slot_;
        free_slot_ = slot;
        ++free_count_;
    }
    void repair_locked(unsigned threads);
    void repair_if_due(unsigned threads);
    bool is_gone(uint32_t slot) const { return states_[slot] == DEAD && members_[slot] == 0; }
    bool stays(uint32_t slot) const { return states_[slot] == LIVE || (states_[slot] == DEAD && members_[slot] != 0); }
    void mend_slice(uint32_t first, uint32_t last, unsigned threads);
    void mend_node(uint32_t slot, uint32_t level, Scratch& scratch, std::vector<uint32_t>& out) const;
    void flood(uint32_t from, std::vector<uint8_t>& seen) const;
    std::vector<uint32_t> unreached(std::vector<uint8_t>& seen) const;
    void reach_all(unsigned threads);
    void squeeze_in(uint32_t slot, uint32_t before);
    void relink_lost(unsigned threads);
    void relink(const std::vector<uint32_t>& nodes, unsigned threads);
    bool is_loose(uint32_t slot) const { return slot < loose_at_.size() && loose_at_[slot] != EMPTY; }
    void drop_loose(uint32_t slot);
    void bury();
    void choose_entry();
    void release() noexcept;
    static void take_in(Records& records, char* data, size_t slots, bool in_place);
    const char* check_links(uint32_t* at) const;
    const char* check_entry() const;
    void tie_linked();
    const char* rebuild(const Arrays& arrays);
    const char* derive_rest();
    bool ready_tables();
    void start_guard(const Proof* proofs);
    bool copy_hot(Records& links, Records& codes) const;

    std::vector<std::unique_ptr<Scratch>> scratches(unsigned threads);

    const Options options_;
    const Space space_;
    Codes codes_;
    const uint32_t base_links_;
    size_t prefetch_bytes_;
    double level_scale_;

    // one entry per slot; upper_ and fingerprints_ only where there are links, scales_ only under cosine
    Records rows_;
    Records links_;
    Records records_;  // codes; of nodes only
    Column<float> scales_;
    Column<uint8_t> states_;
    Column<uint8_t> levels_;
    Column<uint8_t> members_;  // live rows a node stands for, itself included; MEMBERS_MAX: so many or more
    Column<int64_t> keys_;     // of a free slot: the next free one
    Column<uint32_t> fingerprints_;
    Column<uint32_t> upper_;     // the list of level 1 in uppers_, or EMPTY
    Column<uint32_t> loose_at_;  // place among the loose nodes, or EMPTY; empty when none is loose

    Records uppers_;  // lists of the upper levels: m links, then the list of the next level; of a free one the next free
    uint32_t uppers_used_ = 0, free_upper_ = EMPTY;
    Twins twins_;
    Tags tags_;
    std::vector<uint32_t> loose_;  // nodes without links
    uint32_t fresh_ = 0;           // slots from here on were never used
    uint32_t free_slot_ = EMPTY;   // the first of those that were
    size_t free_count_ = 0;
    SlotTable by_key_;
    SlotTable by_row_;  // nodes only, by fingerprint
    bool coded_ = false;      // every node has a code
    std::atomic<bool> told_{true};  // ... and every code tells something: else rows are compared, not codes
    size_t untold_ = 0;             // nodes whose codes tell nothing
    size_t coded_rows_ = 0;   // rows there were when their mean was taken
    uint32_t slots_ = 0;
    std::atomic<size_t> live_count_{0};
    size_t dead_count_ = 0;  // nodes that stand for no row
    size_t unchecked_ = 0;   // nodes linked since all were known to be reached
    size_t odd_count_ = 0;   // nodes whose weight is not 1
    uint32_t entry_ = EMPTY;
    uint32_t top_ = 0;
    uint64_t draws_ = 0;
    std::atomic<uint64_t> repairs_{0};
    std::atomic<uint64_t> moves_{0};  // how often a slot got another row, or all nodes other codes
    std::atomic<uint64_t> frees_{0};  // how often a slot was freed
    Costs costs_;
    std::atomic<size_t> calibrated_{0};  // slots when the costs were taken
    std::atomic<uint64_t> searches_{0}, compared_{0}, reranked_{0};  // sums over all searches
    std::atomic<uint64_t> planned_[4]{}, sieve_rows_{0};             // searches under a sieve by plan, rows that passed
    std::atomic<uint32_t> built_permille_{1000};

    std::unique_ptr<Guard> guard_;
    const int64_t* mapped_keys_ = nullptr;  // used until the tables are made
    const uint32_t* mapped_prints_ = nullptr;
    Guard* watch_ = nullptr;  // while not all pages are verified; changes under the lock held alone
    std::atomic<bool> tables_ready_{true};
    std::mutex tables_lock_;

    mutable FairLock lock_;
    std::mutex writer_;
    std::mutex idle_lock_;
    std::vector<std::unique_ptr<Scratch>> idle_;
};

}  // namespace ruvector

#include "hnsw/watch.hpp"
#include "hnsw/search.hpp"
#include "hnsw/sieved.hpp"
#include "hnsw/trail.hpp"
#include "hnsw/insert.hpp"
#include "hnsw/bulk.hpp"
#include "hnsw/repair.hpp"
#include "hnsw/sections.hpp"

#endif
