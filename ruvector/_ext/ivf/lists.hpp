// A keyed set of vectors in inverted lists: one writer, many readers, ready to search seconds after the rows came.
//
// Every row belongs to the list whose centroid is nearest. A search scans the lists nearest to the query: one bit a
// dimension rules out nearly all rows, 4-bit levels most of the rest, and only the few that error bounds leave are
// compared themselves, so the distances of an answer are exact.
//
// Lists are dense: a deleted row's place is taken by the last row of its list. Rows that no list holds (there are too
// few of them for lists, they are deferred, or too long to be coded) are loose and compared one by one. l1, bits and
// less than CODE_DIMS_MIN dimensions have no codes, so all their rows are loose.
//
// The writer reads without the lock, since nobody else changes anything, and takes it alone only to copy the outcome
// in; readers hold it shared for a few queries.
#ifndef RUVECTOR_IVF_LISTS_HPP
#define RUVECTOR_IVF_LISTS_HPP

#include <atomic>
#include <cmath>
#include <memory>
#include <mutex>
#include <shared_mutex>
#include <stdexcept>
#include <utility>
#include <vector>

#include "hnsw/codes.hpp"
#include "hnsw/lock.hpp"
#include "hnsw/slots.hpp"
#include "hnsw/space.hpp"
#include "ivf/blocks.hpp"
#include "ivf/centroids.hpp"
#include "tags.hpp"

namespace ruvector {

struct ListOptions {
    int metric;
    int element;
    size_t dims;
    uint64_t seed;
};

// The flat arrays that lists are stored as.
struct ListArrays {
    char* rows;             // [slots] and so on to scales
    uint8_t* states;
    int64_t* keys;
    float* scales;
    size_t slots;
    char* blocks;           // [blocks * stride]
    uint32_t* block_lists;  // [blocks], the list of each; the blocks of a list in order
    size_t block_count;
    float* centroids;       // [lists * padded]
    float* spreads;         // [lists]
    size_t list_count;
    float* center;          // [dims]; null when there are no lists
    int64_t* head;          // HEAD numbers
    uint32_t* tags;         // [slots]; null when there are none
};

constexpr size_t LIST_ROWS_MIN = 2048;       // rows from which on there are lists; fewer are scanned as they are
constexpr size_t LIST_SLOTS_MAX = size_t(1) << 31;
constexpr size_t WRITE_ROWS = 256;           // rows that become visible at once
constexpr double LISTS_SCALE = 3.0;          // lists for the root of the number of rows
constexpr size_t GROWTH = 4;                 // so many times the rows that were trained on call for new centroids
constexpr size_t ROW_COST = 24;              // rows of lists scanned in the time that it takes to compare one itself
constexpr size_t SCANNED_BETWEEN = 256;      // blocks, or rows compared, between two looks at the cancel flag
constexpr size_t QUERIES_AT_ONCE = 4;        // compared with the centroids together
constexpr size_t SCRATCH_MAX = 16;           // scratch spaces kept for the next searches

struct Near {
    float distance;
    uint32_t slot;  // or list
};

// A total order, so that a result never depends on how a sort treats equal distances.
struct NearerRow {
    bool operator()(const Near& left, const Near& right) const {
        return left.distance < right.distance || (left.distance == right.distance && left.slot < right.slot);
    }
};

struct Suspect {   // a row that may belong to the answer
    float distance;  // estimated
    float least;     // it is hardly nearer than that
    uint32_t slot;
};

// What one search keeps for itself.
struct ListScratch {
    std::vector<CodeProbe> probes;         // of the queries at once
    std::vector<uint8_t> shifted;          // their 7-bit codes
    std::vector<float> apart;              // of query and list
    std::vector<Near> order;               // lists, the first `ordered` nearest first
    size_t ordered = 0;
    std::vector<float> sampled;
    std::vector<uint8_t> table;            // what a scan looks up: 16 sums of signs for four dimensions each
    std::vector<const uint8_t*> records;   // levels of rows that the bits did not rule out
    std::vector<uint32_t> record_slots;
    std::vector<int32_t> dots;
    std::vector<Suspect> suspects;
    std::vector<float> reach;              // the k least estimates, a heap with the farthest on top
    std::vector<Near> nearest;             // the exact answer, such a heap too
    std::vector<float> row;                // a widened f16 row
    std::vector<float> rotated, difference;
    std::vector<uint64_t> mask;            // of slots that pass a sieve
    std::vector<uint32_t> listed;          // the same as a list
};

class Lists {
  public:
    explicit Lists(const ListOptions& options);
    Lists(const Lists&) = delete;
    Lists& operator=(const Lists&) = delete;

    // Writers; they wait for each other. Deferred rows (`loose`) call for no new centroids. Once there are tags, every
    // row brings one; see Engine in ruvector/index/protocol.py.
    size_t upsert(const int64_t* keys, const char* rows, const uint32_t* tags, size_t count, bool loose,
                  unsigned threads);
    size_t start_tags();
    void build(unsigned threads, const volatile uint8_t* cancel);
    size_t erase(const int64_t* keys, size_t count);
    void repair(unsigned threads);
    void clear();

    // Readers. -1 when `cancel` became true; fewer than k rows only when there are no more.
    int64_t search_many(const char* queries, size_t count, size_t k, size_t ef, size_t scan_rows, const Sieve* sieve,
                        unsigned threads, const volatile uint8_t* cancel, int64_t* keys, float* distances,
                        int64_t* counts);
    void tags_of(const int64_t* keys, size_t count, uint32_t* tags);
    bool tagged() const { return tags_.started(); }
    void contains(const int64_t* keys, size_t count, uint8_t* found);
    void rows_of(const int64_t* keys, size_t count, char* rows, uint8_t* found);
    size_t live_keys(int64_t* keys, size_t room);
    size_t size() const { return live_count_.load(); }
    uint32_t built_permille() const { return built_permille_.load(); }
    void figures(int64_t* out);

    // A copy of everything, and back. The writer's lock is held from `freeze` to `thaw`.
    void freeze() { writer_.lock(); }
    void thaw() { writer_.unlock(); }
    size_t slots() const { return slots_; }
    size_t row_stride() const { return rows_.stride(); }
    size_t padded() const { return codes_.padded(); }
    size_t list_count() const { return centroids_.count; }
    size_t used_blocks() const;
    size_t block_stride() const { return blocks_.stride(); }
    void dump(const ListArrays& arrays) const;
    // Null when all is well, else what is wrong with the sections; there are no rows then. `in_place` uses the memory
    // of rows and blocks, which must outlive this.
    const char* restore(const ListArrays& arrays, bool in_place, unsigned threads);

    static constexpr size_t FIGURES = 17;
    static constexpr size_t HEAD = 8;

  private:
    struct List {
        std::vector<uint32_t> blocks;
        size_t rows = 0;
    };
    struct Batch;

    uint64_t key_hash(uint32_t slot) const { return mix64(uint64_t(keys_[slot])); }
    uint32_t slot_of(int64_t key) const {
        return by_key_.find(mix64(uint64_t(key)), [&](uint32_t slot) { return keys_[slot] == key; });
    }
    float distance(const Probe& probe, uint32_t slot) const {
        return space_.distance(probe, rows_.at(slot), scales_[slot]);
    }
    void prefetch_row(uint32_t slot) const {
        const char* row = rows_.at(slot);
        for (size_t byte = 0; byte < prefetch_bytes_; byte += 64) __builtin_prefetch(row + byte);
    }
    bool has_lists() const { return centroids_.count != 0; }
    std::unique_ptr<ListScratch> borrow();
    void give_back(std::unique_ptr<ListScratch> scratch);

    // search (ivf/search.hpp)
    struct Query;
    bool answer(const char* queries, size_t count, size_t k, size_t ef, size_t scan_rows, const Sieve* sieve,
                ListScratch& scratch, const volatile uint8_t* cancel, int64_t* keys, float* distances,
                int64_t* counts);
    static size_t rows_scanned(size_t ef, size_t live, size_t lists);
    static size_t lists_for(size_t ef, size_t lists);
    void choose_lists(size_t wanted, const float* apart, ListScratch& scratch) const;
    void sort_lists(const float* apart, ListScratch& scratch) const;
    void fill_table(Query& query, ListScratch& scratch) const;
    bool walk(Query& query, size_t wanted, size_t ef, const Passing* passing, ListScratch& scratch,
              const volatile uint8_t* cancel) const;
    void prefetch_list(const Near* next, size_t count) const;
    void prefetch_block(uint32_t block) const;
    void scan_list(Query& query, uint32_t list, size_t wanted, const Passing* passing, ListScratch& scratch) const;
    void weigh_records(Query& query, const ScanTerms& terms, size_t wanted, ListScratch& scratch) const;
    static void tighten(Query& query, float apart, size_t wanted, ListScratch& scratch);
    void refine(const Query& query, size_t wanted, ListScratch& scratch) const;
    bool scan(const Probe& probe, size_t wanted, const Passing* passing, ListScratch& scratch,
              const volatile uint8_t* cancel) const;
    static void keep_nearest(const Near& near, size_t wanted, std::vector<Near>& nearest);
    int64_t name_rows(ListScratch& scratch, int64_t* keys, float* distances) const;

    // write (ivf/write.hpp)
    void write_rows(const int64_t* keys, const char* rows, const uint32_t* tags, size_t count, bool listed,
                    unsigned threads, size_t* changed);
    void reserve_rows(size_t more, size_t tags);
    void reserve_places(const Batch& batch);
    void plan_rows(const int64_t* keys, const char* rows, const uint32_t* tags, size_t count, Batch& batch);
    void code_rows(Batch& batch, unsigned threads);
    void publish(const Batch& batch);
    void put(uint32_t slot, uint32_t list, const RowCode& code);
    void loosen(uint32_t slot);
    void drop(uint32_t slot);
    void forget_lists();
    void rotate(const Codes& codes, uint32_t slot, ListScratch& scratch, float* out) const;
    bool is_due() const;
    void release();

    // train (ivf/train.hpp)
    void train(unsigned threads, const volatile uint8_t* cancel);
    struct Training;
    void take_codes(Training& training, const std::vector<uint32_t>& slots, Sample& sample, unsigned threads);
    bool find_centroids(Training& training, unsigned threads, const volatile uint8_t* cancel);
    bool fill_lists(Training& training, unsigned threads, const volatile uint8_t* cancel);

    // sections (ivf/sections.hpp)
    const char* adopt_rows(const ListArrays& arrays, bool in_place);
    const char* adopt_lists(const ListArrays& arrays, bool in_place);
    static void take_in(Records& records, char* data, size_t count, bool in_place);

    const ListOptions options_;
    const Space space_;
    Codes codes_;
    size_t prefetch_bytes_;

    // one entry per slot
    Records rows_;
    std::vector<float> scales_;
    std::vector<uint8_t> states_;    // 0 free, 1 live
    std::vector<int64_t> keys_;
    std::vector<uint32_t> list_of_;  // EMPTY when loose
    std::vector<uint32_t> at_;       // place in the list, or among the loose rows

    Tags tags_;
    Centroids centroids_;
    Blocks blocks_;
    std::vector<List> lists_;
    std::vector<uint32_t> free_blocks_;
    std::vector<uint32_t> loose_;
    std::vector<uint32_t> free_;
    SlotTable by_key_;
    uint32_t slots_ = 0;
    size_t blocks_known_ = 0;  // in use and free
    size_t trained_rows_ = 0;
    size_t uncoded_rows_ = 0;  // of these, too long to be coded
    std::atomic<size_t> live_count_{0};
    std::atomic<uint64_t> trainings_{0};
    std::atomic<uint64_t> sieve_scans_{0}, sieve_walks_{0}, sieve_rows_{0};  // searches under a sieve by plan, rows that passed
    std::atomic<uint32_t> built_permille_{1000};

    mutable FairLock lock_;
    std::mutex writer_;
    std::mutex idle_lock_;
    std::vector<std::unique_ptr<ListScratch>> idle_;
};

}  // namespace ruvector

#include "ivf/search.hpp"
#include "ivf/train.hpp"
#include "ivf/write.hpp"
#include "ivf/sections.hpp"

#endif
