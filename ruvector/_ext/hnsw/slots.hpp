// Records and columns that never move, and a hash table of slots.
#ifndef RUVECTOR_HNSW_SLOTS_HPP
#define RUVECTOR_HNSW_SLOTS_HPP

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <new>
#include <utility>
#include <vector>
#ifdef __linux__
#include <sys/mman.h>
#include <unistd.h>
#endif

namespace ruvector {

constexpr uint32_t EMPTY = 0xFFFFFFFFu;  // no slot

inline uint64_t mix64(uint64_t value) {  // the finaliser of splitmix64
    value = (value ^ (value >> 30)) * 0xBF58476D1CE4E5B9ull;
    value = (value ^ (value >> 27)) * 0x94D049BB133111EBull;
    return value ^ (value >> 31);
}

constexpr size_t HUGE_PAGE_BYTES = size_t(2) << 20;

// Memory to be freed with std::free; in huge pages on demand: fewer page faults, fewer misses of the address cache.
inline char* allocate_chunk(size_t bytes, bool huge) {
    void* chunk = nullptr;
    huge = huge && bytes >= HUGE_PAGE_BYTES;
    if (posix_memalign(&chunk, huge ? HUGE_PAGE_BYTES : 64, bytes) != 0) throw std::bad_alloc();
#ifdef __linux__
    if (huge) (void)madvise(chunk, bytes, MADV_HUGEPAGE);
#endif
    return static_cast<char*>(chunk);
}

// One entry per slot, in chunks of 2 MiB: growing copies nothing, so no reader waits for it, and nothing is held twice.
template <class T>
class Column {
  public:
    Column() = default;
    ~Column() { clear(); }
    Column(const Column&) = delete;
    Column& operator=(const Column&) = delete;

    T& operator[](size_t slot) { return chunks_[slot / CHUNK][slot % CHUNK]; }
    const T& operator[](size_t slot) const { return chunks_[slot / CHUNK][slot % CHUNK]; }
    size_t size() const { return size_; }

    void resize(size_t size, T fill) {
        while (chunks_.size() * CHUNK < size) {
            chunks_.reserve(chunks_.size() + 1);
            // A first chunk stays small while it is.
            chunks_.push_back(reinterpret_cast<T*>(allocate_chunk(CHUNK * sizeof(T), !chunks_.empty())));
        }
        for (; size_ < size; ++size_) (*this)[size_] = fill;
    }
    void assign(const T* from, size_t size) {
        clear();
        resize(size, T());
        for (size_t at = 0; at < size; at += CHUNK) std::copy_n(from + at, std::min(CHUNK, size - at), &(*this)[at]);
    }
    void copy_out(T* to, size_t size) const {
        for (size_t at = 0; at < size; at += CHUNK) std::copy_n(&(*this)[at], std::min(CHUNK, size - at), to + at);
    }
    void clear() {
        for (T* chunk : chunks_) std::free(chunk);
        chunks_ = {};
        size_ = 0;
    }

  private:
    static constexpr size_t CHUNK = HUGE_PAGE_BYTES / sizeof(T);
    std::vector<T*> chunks_;
    size_t size_ = 0;
};

// Records of one size in chunks of about 4 MiB: growing allocates a chunk and never copies a record.
class Records {
  public:
    explicit Records(size_t stride) : stride_(stride) {
        while (shift_ < 16 && (stride << shift_) < CHUNK_BYTES) ++shift_;
        mask_ = (uint32_t(1) << shift_) - 1;
    }
    ~Records() { clear(); }
    Records(const Records&) = delete;
    Records& operator=(const Records&) = delete;

    void swap(Records& other) {
        std::swap(stride_, other.stride_);
        std::swap(shift_, other.shift_);
        std::swap(mask_, other.mask_);
        std::swap(tail_, other.tail_);
        mapped_.swap(other.mapped_);
        chunks_.swap(other.chunks_);
        owned_.swap(other.owned_);
    }

    char* at(uint32_t slot) const { return chunks_[slot >> shift_] + size_t(slot & mask_) * stride_; }
    size_t stride() const { return stride_; }
    size_t capacity() const {
        return tail_ == 0 ? chunks_.size() << shift_ : ((chunks_.size() - 1) << shift_) + tail_;
    }
    size_t owned_bytes() const { return owned_.size() * (stride_ << shift_); }

    void reserve(size_t slots) {
        while (capacity() < slots) {
            chunks_.reserve(chunks_.size() + 1);
            owned_.reserve(owned_.size() + 1);
            char* chunk = allocate();
            owned_.push_back(chunk);
            if (tail_ != 0) {  // the mapping ends inside the last chunk, which has to grow
                std::memcpy(chunk, chunks_.back(), tail_ * stride_);
                chunks_.back() = chunk;
                mapped_.pop_back();
                tail_ = 0;
            } else {
                chunks_.push_back(chunk);
            }
        }
    }

    // Use a (private, writable) mapping where it lies; nothing of it is read.
    void adopt(char* base, size_t slots) {
        clear();
        chunks_.reserve((slots >> shift_) + 1);
        for (size_t first = 0; first < slots; first += size_t(mask_) + 1) chunks_.push_back(base + first * stride_);
        tail_ = slots & mask_;
        mapped_.assign(chunks_.size(), CLEAN);
    }
    // Before a record is written: its pages are the only copy from now on, when they were mapped.
    void mark_written(uint32_t slot) {
        if ((slot >> shift_) < mapped_.size()) mapped_[slot >> shift_] = WRITTEN;
    }
    // Let the system have the memory of mapped chunks that were not written: they are read again when they are needed.
    void evict() {
#ifdef __linux__
        uintptr_t page = uintptr_t(sysconf(_SC_PAGESIZE));  // only pages that lie in the chunk as a whole
        for (size_t chunk = 0; chunk < mapped_.size(); ++chunk) {
            if (mapped_[chunk] == WRITTEN) continue;
            size_t slots = tail_ != 0 && chunk + 1 == chunks_.size() ? tail_ : size_t(mask_) + 1;
            uintptr_t start = reinterpret_cast<uintptr_t>(chunks_[chunk]), end = start + slots * stride_;
            uintptr_t first = (start + page - 1) / page * page, last = end / page * page;
            if (first < last) (void)madvise(reinterpret_cast<void*>(first), last - first, MADV_DONTNEED);
        }
#endif
    }

    void copy_out(char* target, size_t slots) const {
        each_chunk(slots, [&](size_t first, size_t bytes) {
            std::memcpy(target + first * stride_, chunks_[first >> shift_], bytes);
        });
    }
    void copy_in(const char* source, size_t slots) {
        each_chunk(slots, [&](size_t first, size_t bytes) {
            std::memcpy(chunks_[first >> shift_], source + first * stride_, bytes);
        });
    }

    void clear() {
        for (char* chunk : owned_) std::free(chunk);
        owned_.clear();
        chunks_.clear();
        mapped_.clear();
        tail_ = 0;
    }

  private:
    template <class Work>
    void each_chunk(size_t slots, Work work) const {
        for (size_t first = 0; first < slots; first += size_t(mask_) + 1) {
            work(first, std::min(slots - first, size_t(mask_) + 1) * stride_);
        }
    }

    static constexpr uint8_t CLEAN = 0, WRITTEN = 1;
    static constexpr size_t CHUNK_BYTES = size_t(4) << 20;
    char* allocate() { return allocate_chunk(stride_ << shift_, !chunks_.empty()); }  // a first one stays small

    size_t stride_;
    uint32_t shift_ = 0;
    uint32_t mask_ = 0;
    size_t tail_ = 0;  // slots of the last chunk where a mapping ends in it; 0: it is whole
    std::vector<char*> chunks_;
    std::vector<char*> owned_;
    std::vector<uint8_t> mapped_;  // of the first chunks, which are mapped: CLEAN or WRITTEN
};

// A set of slots, found by the upper half of a hash that the caller computes from what stands in the slot.
class SlotTable {
  public:
    template <class Same>
    uint32_t find(uint64_t hash, Same same) const {
        if (table_.empty()) return EMPTY;
        for (size_t place = home(hash);; place = after(place)) {
            if (table_[place] == EMPTY || same(table_[place])) return table_[place];
        }
    }

    bool has_room(size_t slots) const { return slots * 4 <= table_.size() * 3; }  // three quarters full at most

    template <class Hash>
    void reserve(size_t slots, Hash hash_of) {
        if (has_room(slots)) return;
        SlotTable larger = grown(slots, hash_of);
        swap(larger);
    }

    // A copy with room for so many slots and a quarter more. Readers of this one may go on meanwhile.
    template <class Hash>
    SlotTable grown(size_t slots, Hash hash_of) const {
        SlotTable larger;
        larger.table_.assign(std::max<size_t>(64, slots + slots / 4) * 4 / 3 + 1, EMPTY);
        larger.count_ = count_;
        for (uint32_t slot : table_) {
            if (slot != EMPTY) larger.place(slot, hash_of(slot));
        }
        return larger;
    }
    void swap(SlotTable& other) {
        table_.swap(other.table_);
        std::swap(count_, other.count_);
    }

    template <class Hash>
    void insert(uint32_t slot, Hash hash_of) {  // room must have been reserved: this cannot fail
        place(slot, hash_of(slot));
        ++count_;
    }

    template <class Hash>
    void erase(uint32_t slot, Hash hash_of) {
        if (table_.empty()) return;
        size_t hole = home(hash_of(slot));
        while (table_[hole] != slot) {
            if (table_[hole] == EMPTY) return;
            hole = after(hole);
        }
        // Close the hole: move back every later entry whose own place lies at or before it.
        for (size_t next = after(hole); table_[next] != EMPTY; next = after(next)) {
            if (distance(home(hash_of(table_[next])), next) >= distance(hole, next)) {
                table_[hole] = table_[next];
                hole = next;
            }
        }
        table_[hole] = EMPTY;
        --count_;
    }

    void clear() {
        table_ = {};
        count_ = 0;
    }
    size_t count() const { return count_; }
    size_t bytes() const { return table_.size() * sizeof(uint32_t); }

  private:
    size_t home(uint64_t hash) const { return size_t((hash >> 32) * table_.size() >> 32); }
    size_t after(size_t place) const { return place + 1 == table_.size() ? 0 : place + 1; }
    size_t distance(size_t from, size_t to) const { return to >= from ? to - from : to + table_.size() - from; }
    void place(uint32_t slot, uint64_t hash) {
        size_t place = home(hash);
        while (table_[place] != EMPTY) place = after(place);
        table_[place] = slot;
    }

    std::vector<uint32_t> table_;
    size_t count_ = 0;
};

}  // namespace ruvector

#endif
