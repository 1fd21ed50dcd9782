// Writers, readers and builds on one graph, for a build with -fsanitize=thread; ends with 0 when all answers are right.
#include <atomic>
#include <cstdint>
#include <cstdio>
#include <random>
#include <thread>
#include <vector>

#include "hnsw/graph.hpp"

namespace {

constexpr size_t DIMS = 32, KEYS = 8400, WRITTEN = 150, K = 10;

std::vector<float> row_of(int64_t key, uint64_t version) {
    std::mt19937_64 random(uint64_t(key) * 1000003u + version);
    std::normal_distribution<float> normal;
    std::vector<float> row(DIMS);
    for (float& number : row) number = normal(random);
    return row;
}

struct Rows {
    std::vector<int64_t> keys;
    std::vector<float> numbers;

    Rows(int64_t first, int64_t count, uint64_t version) {
        for (int64_t key = first; key < first + count; ++key) {
            std::vector<float> row = row_of(key, version);
            keys.push_back(key);
            numbers.insert(numbers.end(), row.begin(), row.end());
        }
    }
    const char* data() const { return reinterpret_cast<const char*>(numbers.data()); }
};

std::atomic<bool> done{false}, wrong{false};
std::atomic<uint64_t> pages{0};

std::vector<uint32_t> tags_of(const Rows& rows) {
    return std::vector<uint32_t>(rows.keys.begin(), rows.keys.end());  // a tag for each key, the same for all versions
}

void read(ruvector::Graph& graph, uint64_t seed) {
    std::vector<int64_t> keys(K);
    std::vector<float> distances(K);
    std::vector<int64_t> all(2 * KEYS), figures(ruvector::Graph::FIGURES);
    std::vector<uint8_t> found(K);
    std::vector<char> rows(K * DIMS * sizeof(float));
    std::vector<uint64_t> even((KEYS + 63) / 64, 0x5555555555555555ull);
    std::vector<uint32_t> tags(K);
    for (uint64_t round = 0; !done.load(); ++round) {
        std::vector<float> query = row_of(int64_t(seed), round);
        // Every other search lets the even keys pass only, by all plans in turn.
        ruvector::Sieve sieve{even.data(), even.size(), KEYS / 2, nullptr, 0, int(round / 2 % 4)};
        int64_t count = graph.search(reinterpret_cast<const char*>(query.data()), K, 40, 0,
                                     round % 2 == 0 ? nullptr : &sieve, nullptr, keys.data(), distances.data());
        for (int64_t at = 0; at < count; ++at) {
            if (round % 2 != 0 && keys[size_t(at)] % 2 != 0) wrong = true;
            if (at > 0 && distances[size_t(at)] < distances[size_t(at) - 1]) wrong = true;
            for (int64_t other = 0; other < at; ++other) {
                if (keys[size_t(at)] == keys[size_t(other)]) wrong = true;
            }
        }
        if (round % 4 != 0) continue;
        graph.tags_of(keys.data(), size_t(count), tags.data());
        graph.contains(keys.data(), size_t(count), found.data());
        graph.rows_of(keys.data(), size_t(count), rows.data(), found.data());
        graph.live_keys(all.data(), all.size());
        graph.figures(figures.data());
        (void)graph.built_permille();
        (void)graph.size();
    }
}

// Searches that go on while others write; every other one among the even keys.
void follow(ruvector::Graph& graph, uint64_t seed) {
    std::vector<uint64_t> even((KEYS + 63) / 64, 0x5555555555555555ull);
    ruvector::Sieve sieve{even.data(), even.size(), KEYS / 2, nullptr, 0, ruvector::PLAN_WALK};
    for (uint64_t round = 0; !done.load(); ++round) {
        std::vector<float> query = row_of(int64_t(seed), round);
        ruvector::Trail trail;
        const char* bytes = reinterpret_cast<const char*>(query.data());
        trail.query.assign(bytes, bytes + DIMS * sizeof(float));
        for (size_t page = 0; page < 40; ++page) {
            int64_t count = graph.next_page(trail, 5 + page, 20, 0, round % 2 == 0 ? nullptr : &sieve, nullptr);
            if (count <= 0) break;
            for (int64_t at = 0; at < count; ++at) {
                if (round % 2 != 0 && trail.keys[size_t(at)] % 2 != 0) wrong = true;
                if (at > 0 && trail.distances[size_t(at)] < trail.distances[size_t(at) - 1]) wrong = true;
            }
            pages += 1;
            std::this_thread::yield();
        }
        graph.end_trail(trail);
    }
}

void write(ruvector::Graph& graph, int64_t first) {
    for (uint64_t round = 1; round <= 3; ++round) {
        Rows rows(first, WRITTEN, round);
        graph.upsert(rows.keys.data(), rows.data(), tags_of(rows).data(), rows.keys.size(), round % 2 == 0, 2);
        graph.erase(rows.keys.data(), WRITTEN / 2, 1);
        if (round == 2) graph.repair(2);
    }
}

void save(ruvector::Graph& graph) {
    graph.freeze();
    size_t slots = graph.slots();
    std::vector<char> rows(slots * graph.row_stride() + 1), codes(slots * graph.record_stride() + 1);
    std::vector<uint32_t> links(slots * graph.base_links() + 1), twins(slots + 1), upper(graph.upper_links() + 1);
    std::vector<uint8_t> levels(slots + 1), states(slots + 1);
    std::vector<int64_t> keys(slots + 1), head(ruvector::Graph::HEAD);
    std::vector<float> scales(slots + 1), center(DIMS);
    std::vector<uint32_t> prints(slots + 1), tags(slots + 1);
    ruvector::Arrays arrays{rows.data(),   links.data(), codes.data(), levels.data(),  states.data(),
                            keys.data(),   scales.data(), prints.data(), twins.data(), upper.data(),
                            upper.size() - 1, center.data(), head.data(), tags.data(), slots};
    if (slots != 0) graph.dump(arrays);
    graph.thaw();
}

}  // namespace

int main() {
    for (int metric : {0, 1}) {  // built all at once; block by block
        ruvector::Graph graph({metric, 0, DIMS, 8, 20, 42, true});
        done = false;
        std::vector<std::thread> readers;
        for (uint64_t seed = 0; seed < 2; ++seed) readers.emplace_back([&, seed] { read(graph, seed); });
        readers.emplace_back([&] { follow(graph, 7); });
        Rows rows(0, metric == 0 ? KEYS / 2 : KEYS / 8, 0);
        graph.start_tags();
        graph.upsert(rows.keys.data(), rows.data(), tags_of(rows).data(), rows.keys.size(), true, 2);
        uint8_t cancel = 1;
        graph.build(2, &cancel);
        graph.build(2, nullptr);
        std::vector<std::thread> writers;
        for (int64_t first : {int64_t(0), int64_t(KEYS / 2)}) writers.emplace_back([&, first] { write(graph, first); });
        writers.emplace_back([&] { save(graph); });
        for (std::thread& writer : writers) writer.join();
        graph.build(2, nullptr);
        save(graph);
        graph.clear();
        done = true;
        for (std::thread& reader : readers) reader.join();
    }
    if (wrong) std::puts("an answer was wrong");
    if (pages < 100) std::puts("hardly a page was turned");
    return wrong || pages < 100 ? 1 : 0;
}
