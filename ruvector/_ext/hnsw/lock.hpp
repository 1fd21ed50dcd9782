// One writer, many readers, and neither starves: the lock and the loop over worker threads.
#ifndef RUVECTOR_HNSW_LOCK_HPP
#define RUVECTOR_HNSW_LOCK_HPP

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <exception>
#include <mutex>
#include <shared_mutex>
#include <system_error>
#include <thread>
#include <vector>

namespace ruvector {

// glibc's rwlock lets a stream of readers starve a writer. Everybody passes the gate first, so a waiting writer
// holds new readers back and waits only for those already inside.
class FairLock {
  public:
    void lock() {
        std::lock_guard<std::mutex> turn(gate_);
        body_.lock();
    }
    void unlock() { body_.unlock(); }
    void lock_shared() {
        std::lock_guard<std::mutex> turn(gate_);
        body_.lock_shared();
    }
    void unlock_shared() { body_.unlock_shared(); }

  private:
    std::mutex gate_;
    std::shared_mutex body_;
};

// Call work(worker, index) for every index; which worker takes which index is left to chance, so the work must
// not depend on it. The first exception of any worker is raised in the caller after all have stopped.
template <class Work>
void parallel_for(size_t count, unsigned threads, Work work) {
    threads = unsigned(std::min<size_t>(threads, count));
    if (threads <= 1) {
        for (size_t index = 0; index < count; ++index) work(0u, index);
        return;
    }
    std::atomic<size_t> next{0};
    std::atomic<bool> failed{false};
    std::exception_ptr failure;
    std::mutex failure_lock;
    auto run = [&](unsigned worker) {
        try {
            for (size_t index; !failed.load() && (index = next.fetch_add(1)) < count;) work(worker, index);
        } catch (...) {
            std::lock_guard<std::mutex> guard(failure_lock);
            if (!failed.exchange(true)) failure = std::current_exception();
        }
    };
    std::vector<std::thread> others;
    others.reserve(threads - 1);
    try {
        for (unsigned worker = 1; worker < threads; ++worker) others.emplace_back(run, worker);
    } catch (const std::system_error&) {
        // The system has no more threads to give: the ones we have do all of it.
    }
    run(0u);
    for (std::thread& other : others) other.join();
    if (failure) std::rethrow_exception(failure);
}

}  // namespace ruvector

#endif
