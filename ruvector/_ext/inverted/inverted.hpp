// A keyed set of sparse rows with a list of postings for every dimension: one writer, many readers, exact answers.
//
// A search adds up, row by row, what the dimensions of the query contribute, and ranks the rows it met by that. The
// sums are rounded, so every row that could belong to the nearest by the bound of its error is measured again from its
// elements. Rows that share no dimension with the query are ranked by their weight alone; blocks of rows whose least
// weight is too large already are passed over.
//
// A deleted row is dead until `compact` has taken its postings out of the lists; only then its slot is used again.
// As in hnsw/graph.hpp only the writer changes anything: it reads without the lock and holds it alone while it writes.
#ifndef RUVECTOR_INVERTED_INVERTED_HPP
#define RUVECTOR_INVERTED_INVERTED_HPP

#include <cfloat>
#include <cmath>
#include <limits>
#include <memory>
#include <mutex>
#include <stdexcept>
#include <utility>

#include "hnsw/lock.hpp"
#include "inverted/postings.hpp"
#include "tags.hpp"

namespace ruvector {

// The order is that of METRIC_CODES in distance.pyx.
enum SparseMetric { SPARSE_L2, SPARSE_IP, SPARSE_COSINE, SPARSE_L1 };

// Rows of a CSR matrix: row r holds the elements from starts[r] to starts[r + 1], its dimensions ascending.
struct SparseRows {
    const int64_t* starts;
    const uint32_t* dims;
    const float* values;
    size_t count;
};

// Null when the arrays are rows that can be stored and compared, else what is wrong with them.
inline const char* check_sparse(const SparseRows& rows, size_t elements, size_t dims, bool directed) noexcept {
    if (rows.starts[0] != 0) return "the first row does not begin at 0";
    for (size_t row = 0; row < rows.count; ++row) {
        const int64_t first = rows.starts[row], last = rows.starts[row + 1];
        if (last < first || uint64_t(last) > elements || last - first > int64_t(UINT32_MAX)) return "a row has no end";
        if (directed && first == last) return "a row is all zeros";
        for (int64_t at = first; at < last; ++at) {
            if (rows.dims[at] >= dims) return "an index is outside the dimensions";
            if (at > first && rows.dims[at] <= rows.dims[at - 1]) return "the indices of a row do not ascend";
            if (!(std::fabs(rows.values[at]) <= FLT_MAX) || rows.values[at] == 0) return "a value is zero or not finite";
        }
    }
    return uint64_t(rows.starts[rows.count]) == elements ? nullptr : "elements follow the last row";
}

constexpr size_t SPARSE_BLOCK_ROWS = 256;        // rows written under one lock, and rows of one floor
constexpr size_t SPARSE_DEAD_MIN = 1 << 14;      // dead postings, or rows, before a pass over the lists is worth it
constexpr size_t SPARSE_DEAD_SHARE = 4;          // ... and one in so many of all
constexpr size_t SPARSE_SLICE_POSTINGS = 1 << 18;  // postings filtered under one lock
constexpr size_t SPARSE_CANCEL_POSTINGS = 1 << 16;  // postings added between two looks at the cancel flag
constexpr size_t SPARSE_CANCEL_ROWS = 256;       // the same for rows measured
constexpr size_t SPARSE_SCRATCH_KEPT = 4;        // scratch spaces kept for the next searches
constexpr uint32_t SPARSE_SLOTS_MAX = 1u << 31;

struct SparseElement {
    uint32_t dim;
    float value;
};

// What a row contributes by itself: the sum of its squares, under l1 of its absolute values.
inline double sparse_weight(SparseMetric metric, const float* values, size_t count) {
    double sum = 0.0;
    for (size_t at = 0; at < count; ++at) {
        double value = values[at];
        sum += metric == SPARSE_L1 ? std::fabs(value) : value * value;
    }
    return sum;
}

class Inverted {
  public:
    explicit Inverted(int metric) : metric_(SparseMetric(metric)) {}
    Inverted(const Inverted&) = delete;
    Inverted& operator=(const Inverted&) = delete;

    // Writers; they wait for each other. Once there are tags, every row brings one; see Engine in
    // ruvector/index/protocol.py.
    size_t upsert(const int64_t* keys, const SparseRows& rows, const uint32_t* tags);
    size_t start_tags();
    size_t erase(const int64_t* keys, size_t count);
    void compact();
    void clear();

    // Readers.
    // One answer of up to k rows for each query, into rows of k places; -1 when `cancel` became true.
    int64_t search_many(const SparseRows& queries, size_t k, const Sieve* sieve, unsigned threads,
                        const volatile uint8_t* cancel, int64_t* keys, float* distances, int64_t* counts);
    void tags_of(const int64_t* keys, size_t count, uint32_t* tags);
    bool tagged() const { return tags_.started(); }
    void contains(const int64_t* keys, size_t count, uint8_t* found);
    void rows_of(const int64_t* keys, size_t count, int64_t* starts, std::vector<uint32_t>& dims,
                 std::vector<float>& values, uint8_t* found);
    size_t live_keys(int64_t* keys, size_t room);
    size_t size() const { return live_count_.load(); }
    void figures(int64_t* out);  // FIGURES numbers, see there

    // A copy of the live rows. The writer's lock is held from `freeze` to `thaw`.
    void freeze() { writer_.lock(); }
    void thaw() { writer_.unlock(); }
    size_t elements() const { return live_elements_; }
    void dump(int64_t* keys, int64_t* starts, uint32_t* dims, float* values, uint32_t* tags) const;

    static constexpr size_t FIGURES = 13;

  private:
    enum State : uint32_t { FREE, LIVE, DEAD };
    struct Row {
        std::unique_ptr<SparseElement[]> elements;  // of live rows
        double weight = 0.0;
        int64_t key = 0;
        uint32_t length = 0;
        State state = FREE;
    };
    struct Fresh {  // a row to be written, and the slot that holds its key now
        Row row;
        uint32_t before;
        uint32_t tag = 0;
    };
    struct Query {
        const uint32_t* dims;
        const float* values;
        size_t count;
        double weight;
        double length;  // under cosine
    };
    struct Tally {  // what a search knows of a slot; of an earlier search when the round differs
        double sum;
        uint32_t round;
    };
    struct Ranked {
        double value;
        uint32_t slot;
        bool operator<(const Ranked& other) const {
            return value != other.value ? value < other.value : slot < other.slot;
        }
    };
    struct Scratch {
        std::vector<Tally> tallies;
        std::vector<uint32_t> touched;
        std::vector<double> bounds;
        std::vector<Ranked> candidates, nearest;
        std::vector<uint64_t> mask;    // of slots that pass a sieve
        std::vector<uint32_t> listed;  // the same as a list
        uint32_t round = 0;
    };

    uint64_t key_hash(uint32_t slot) const { return mix64(uint64_t(rows_[slot].key)); }
    uint32_t slot_of(int64_t key) const {
        return by_key_.find(mix64(uint64_t(key)), [&](uint32_t slot) { return rows_[slot].key == key; });
    }

    // change (inverted/change.hpp)
    bool prepare(int64_t key, const SparseRows& rows, size_t at, Fresh& fresh) const;
    uint32_t take_slot();
    void publish(Fresh& fresh);
    void bury(uint32_t slot);
    void compact_locked();
    void compact_if_due();
    void free_dead();
    void clear_locked();
    double floor_of(const Row& row) const { return metric_ == SPARSE_L2 || metric_ == SPARSE_L1 ? row.weight : 0.0; }

    // search (inverted/search.hpp)
    std::unique_ptr<Scratch> borrow();
    void give_back(std::unique_ptr<Scratch> scratch);
    int64_t search(const Query& query, size_t k, const Sieve* sieve, Scratch& scratch, const volatile uint8_t* cancel,
                   int64_t* keys, float* distances);
    bool measure_passing(const Query& query, size_t k, const Passing& passing, Scratch& scratch,
                         const volatile uint8_t* cancel) const;
    size_t postings_of(const Query& query) const;
    bool add_up(const Query& query, Scratch& scratch, const volatile uint8_t* cancel) const;
    bool measure_touched(const Query& query, size_t k, const Passing* passing, Scratch& scratch,
                         const volatile uint8_t* cancel) const;
    bool add_untouched(const Query& query, size_t k, const Passing* passing, Scratch& scratch,
                       const volatile uint8_t* cancel) const;
    double estimate(const Query& query, const Row& row, double sum) const;
    double doubt(const Query& query, const Row& row) const;
    double exact(const Query& query, const Row& row) const;
    double apart(const Query& query, double weight) const;
    float shown(double value) const;

    const SparseMetric metric_;
    std::vector<Row> rows_;      // by slot
    std::vector<double> floors_;  // of each block of rows a lower bound of floor_of its live rows
    std::vector<uint32_t> free_;
    SlotTable by_key_;
    Postings postings_;
    Tags tags_;
    std::atomic<uint64_t> sieve_scans_{0}, sieve_walks_{0}, sieve_rows_{0};  // searches under a sieve by plan, rows that passed
    std::atomic<size_t> live_count_{0};
    size_t live_elements_ = 0;
    size_t dead_count_ = 0;
    size_t dead_postings_ = 0;
    uint64_t repairs_ = 0;

    mutable FairLock lock_;
    std::mutex writer_;
    std::mutex idle_lock_;
    std::vector<std::unique_ptr<Scratch>> idle_;
};

}  // namespace ruvector

#include "inverted/change.hpp"
#include "inverted/search.hpp"

#endif
