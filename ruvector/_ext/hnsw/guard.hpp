// Pages that lie where they were mapped and are compared with their checksums before the first look at them.
//
// An index that was just opened answers at once: whoever reads a row, a code or a list asks the guard first, and the
// guard compares the pages it lies in. A background thread compares all the others meanwhile, by reading the files, so
// that rows nobody asks for take no memory here. Once all are found right the guard is taken away, and links and codes,
// which every search needs, move to huge pages of our own. What the system drops and reads again later is not verified
// again: the guard finds what was damaged before, not what the disk does to a file in use.
#ifndef RUVECTOR_HNSW_GUARD_HPP
#define RUVECTOR_HNSW_GUARD_HPP

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <mutex>
#include <new>
#include <string>
#include <vector>

#include <sys/mman.h>
#include <unistd.h>

#include "crc32.hpp"

namespace ruvector {

// Where the data of one section lies, and what vouches for it. All of it outlives the guard.
struct Proof {
    const char* data = nullptr;  // aligned to a memory page; null: there is no such section
    size_t bytes = 0;
    size_t head_bytes = 0;       // of the file, before the data; whole pages
    const uint32_t* checksums = nullptr;  // of the pages of the data
    int descriptor = -1;         // of the file; -1: the data are read where they lie
};

// Map all pages of a section, so that no search waits for one of them.
inline void populate(const Proof& proof) {
    if (proof.bytes == 0) return;
#ifdef __linux__
    constexpr int POPULATE_READ = 22;  // MADV_POPULATE_READ, Linux 5.14
    char* data = const_cast<char*>(proof.data);
    (void)madvise(data, proof.bytes, MADV_WILLNEED);
    if (madvise(data, proof.bytes, POPULATE_READ) == 0) return;
#endif
    for (size_t at = 0; at < proof.bytes; at += 4096) (void)*static_cast<const volatile char*>(proof.data + at);
}

class Guard {
  public:
    enum Part : int { ROWS = 0, LINKS = 1, CODES = 2, PRINTS = 3, KEYS = 4, PARTS = 5, UPPER = 5 };  // the last is whole
    static constexpr size_t PAGE_BYTES = 4096;
    static constexpr int64_t NO_PAGE = -1;

    struct Finding {
        int part = -1;  // -1: nothing was found
        int64_t page = NO_PAGE;  // of the file
        const char* reason = "";
    };

    Guard(const Proof* proofs, const size_t* strides) {
        for (size_t part = 0; part < PARTS; ++part) {
            Section& section = sections_[part];
            section.proof = proofs[part];
            section.stride = strides[part];
            section.pages = (section.proof.bytes + PAGE_BYTES - 1) / PAGE_BYTES;
            if (section.pages == 0) continue;
#ifdef __linux__
            // Neighbours in the file are no neighbours in space: what is read ahead would only take memory.
            if (part == ROWS) (void)madvise(const_cast<char*>(section.proof.data), section.proof.bytes, MADV_RANDOM);
#endif
            section.seen.reset(static_cast<uint8_t*>(std::calloc(section.pages, 1)));
            if (!section.seen) throw std::bad_alloc();
        }
    }
    Guard(const Guard&) = delete;
    Guard& operator=(const Guard&) = delete;

    // True when what a slot has in a section is as it was written.
    bool holds(Part part, uint32_t slot) {
        Section& section = sections_[part];
        if (section.pages == 0) return true;  // it is memory of our own
        size_t first = size_t(slot) * section.stride, last = (first + section.stride - 1) / PAGE_BYTES;
        for (size_t page = first / PAGE_BYTES; page <= last; ++page) {
            if (!is_seen(section, page) && !check(part, page, section.proof.data + page * PAGE_BYTES)) return false;
        }
        return true;
    }

    // The same for all slots, where they lie.
    bool holds_all(Part part) {
        Section& section = sections_[part];
        for (size_t page = 0; page < section.pages; ++page) {
            if (!is_seen(section, page) && !check(part, page, section.proof.data + page * PAGE_BYTES)) return false;
        }
        return true;
    }

    // Compare the next pages, read from the files: what every search needs before rows. False when none are left, or
    // one is damaged. One thread at a time.
    bool check_next(size_t pages) {
        static constexpr Part ORDER[PARTS] = {LINKS, CODES, KEYS, PRINTS, ROWS};
        for (; turn_ < PARTS; ++turn_, next_ = 0) {
            Section& section = sections_[ORDER[turn_]];
            if (next_ >= section.pages) continue;
            size_t count = std::min(pages, section.pages - next_);
            if (!check_pages(ORDER[turn_], next_, count)) return false;
            next_ += count;
            return true;
        }
        return false;
    }

    const char* data(Part part) const { return sections_[part].proof.data; }
    // Let the system have the memory of a section that is not used any more and was never written.
    void drop(Part part) const {
#ifdef __linux__
        const Proof& proof = sections_[part].proof;
        if (proof.bytes != 0) (void)madvise(const_cast<char*>(proof.data), proof.bytes, MADV_DONTNEED);
#else
        (void)part;
#endif
    }

    void report(Part part, int64_t page, const char* reason) {
        std::lock_guard<std::mutex> guard(lock_);
        if (finding_.part < 0) finding_ = {part, page, reason};
        damaged_.store(true, std::memory_order_release);
    }
    void report_slot(Part part, uint32_t slot, const char* reason) {
        const Section& section = sections_[part];
        report(part, int64_t((section.proof.head_bytes + size_t(slot) * section.stride) / PAGE_BYTES), reason);
    }
    bool is_damaged() const { return damaged_.load(std::memory_order_acquire); }
    Finding finding() {
        std::lock_guard<std::mutex> guard(lock_);
        return finding_;
    }

  private:
    struct Free {
        void operator()(uint8_t* bytes) const { std::free(bytes); }
    };
    struct Section {
        Proof proof;
        size_t stride = 1;
        size_t pages = 0;
        std::unique_ptr<uint8_t[], Free> seen;  // a byte a page: 1 when it was found right
    };

    static bool is_seen(const Section& section, size_t page) {
        return __atomic_load_n(&section.seen[page], __ATOMIC_RELAXED) != 0;
    }
    bool check(Part part, size_t page, const char* data) {
        Section& section = sections_[part];
        size_t bytes = std::min(PAGE_BYTES, section.proof.bytes - page * PAGE_BYTES);
        if (crc32(data, bytes) != section.proof.checksums[page]) {
            report(part, int64_t(section.proof.head_bytes / PAGE_BYTES + page), "has a wrong checksum");
            return false;
        }
        __atomic_store_n(&section.seen[page], uint8_t(1), __ATOMIC_RELAXED);
        return true;
    }

    bool check_pages(Part part, size_t first, size_t count) {
        const Section& section = sections_[part];
        size_t start = first * PAGE_BYTES, bytes = std::min(count * PAGE_BYTES, section.proof.bytes - start);
        const char* data = section.proof.data + start;
        if (section.proof.descriptor >= 0) {
            if (buffer_.size() < bytes) buffer_.resize(bytes);
            if (!read_file(part, start, bytes)) return false;
            data = buffer_.data();
        }
        for (size_t page = 0; page < count; ++page) {
            if (!check(part, first + page, data + page * PAGE_BYTES)) return false;
        }
        return true;
    }

    bool read_file(Part part, size_t start, size_t bytes) {
        const Proof& proof = sections_[part].proof;
        for (size_t done = 0; done < bytes;) {
            ssize_t got = pread(proof.descriptor, buffer_.data() + done, bytes - done,
                                off_t(proof.head_bytes + start + done));
            if (got < 0 && errno == EINTR) continue;
            if (got <= 0) {
                report(part, int64_t((proof.head_bytes + start + done) / PAGE_BYTES),
                       got == 0 ? "is missing: the file became shorter" : "cannot be read");
                return false;
            }
            done += size_t(got);
        }
        return true;
    }

    Section sections_[PARTS];
    size_t turn_ = 0, next_ = 0;  // the next part of check_next and its page
    std::vector<char> buffer_;
    std::atomic<bool> damaged_{false};
    std::mutex lock_;
    Finding finding_;
};

}  // namespace ruvector

#endif
