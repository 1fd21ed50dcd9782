import threading

import numpy as np
import pytest
from index_cases import flat, hnsw, scaled, vectors

from ruvector.errors import Cancelled
from ruvector.values import KeyKind

DIMS = 8


class Readers:
    """Threads that repeat a check until they are stopped; the first failure is raised at the end."""

    def __init__(self, check, *, count=3):
        self.failure = None
        self.rounds = 0
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._run, args=(check, seed)) for seed in range(count)]

    def _run(self, check, seed):
        rng = np.random.default_rng(seed)
        try:
            while not self._stop.is_set():
                check(rng)
                self.rounds += 1
        except BaseException as failure:  # noqa: BLE001 - raised again by the test's thread
            self.failure = failure

    def __enter__(self):
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self._stop.set()
        for thread in self._threads:
            thread.join()
        if self.failure is not None:
            raise self.failure


@pytest.mark.parametrize("make", [flat, hnsw])
def test_readers_see_whole_rows_while_a_writer_changes_them(make):
    # Every vector of key x is (x, x, ...) plus a multiple of 10,000: a torn or misplaced row shows at once.
    index = make(DIMS, threads=2) if make is hnsw else make(DIMS)
    base = np.repeat(np.arange(2000.0)[:, np.newaxis], DIMS, axis=1)
    index.upsert(range(2000), base)

    def check(rng):
        key = float(rng.integers(0, 2000))
        keys, distances = index.search(np.full(DIMS, key), 12)
        assert len(keys) == len(set(keys.tolist())) == 12
        apart = distances / np.sqrt(DIMS)
        exact = np.abs((apart + 5000 + key) // 10_000 * 10_000)
        assert (np.minimum(np.abs(apart - np.abs(keys - key)), np.abs(apart - exact)) < 2100).all()
        stored, found = index.vectors_of([int(key)])
        assert not found[0] or stored[0][0] % 10_000 == key
        assert (stored[0] == stored[0][0]).all()

    with Readers(check) as readers:
        rng = np.random.default_rng(5)
        for _ in range(25):
            part = rng.integers(0, 2000, 300)
            index.upsert(part, base[part] + 10_000 * rng.integers(0, 2))
            index.delete(rng.integers(1000, 1100, 20))
    assert readers.rounds > 0


def test_deleted_rows_stay_away_while_others_come():
    index = hnsw(DIMS)
    index.upsert(range(3000), vectors(3000, DIMS))
    gone = range(0, 3000, 3)
    index.delete(gone)

    def check(rng):
        keys, _ = index.search(rng.normal(size=DIMS), 20)
        assert len(keys) == 20
        assert (keys % 3 != 0).all()

    with Readers(check):
        for first in range(3001, 3001 + scaled(6000), 1000):
            fresh = [key for key in range(first, first + 1000) if key % 3]
            index.upsert(fresh, vectors(len(fresh), DIMS, seed=first))
            index.compact()


def test_text_keys_match_their_rows_while_rows_come_and_go():
    index = hnsw(1, key_kind=KeyKind.TEXT, m=4, ef_construction=20)
    index.upsert([f"r{at}" for at in range(1500)], np.arange(1500.0)[:, np.newaxis])

    def check(rng):
        at = float(rng.integers(0, 1500))
        names, distances = index.search([at], 5)
        assert len(names) == 5
        for name, apart in zip(names, distances.tolist(), strict=True):
            assert abs(float(name[1:]) - at) == pytest.approx(apart, abs=1e-3)

    with Readers(check):
        for round_number in range(12):
            first = 1500 + 1000 * round_number
            fresh = range(first, first + 1000)
            index.upsert([f"r{at}" for at in fresh], np.array(fresh, dtype=np.float64)[:, np.newaxis])
            index.delete([f"r{at}" for at in range(first - 500, first + 500)])


def test_writers_take_turns():
    index = hnsw(DIMS)
    rows = vectors(4000, DIMS)

    def write(first):
        for start in range(first, first + 1000, 100):
            index.upsert(range(start, start + 100), rows[start : start + 100])

    writers = [threading.Thread(target=write, args=(first,)) for first in range(0, 4000, 1000)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert sorted(index.keys().tolist()) == list(range(4000))
    stored, found = index.vectors_of(range(4000))
    assert found.all()
    assert (stored == rows).all()


def test_writer_gets_through_a_stream_of_readers():
    index = hnsw(DIMS)
    index.upsert(range(2000), vectors(2000, DIMS))
    with Readers(lambda rng: index.search(rng.normal(size=DIMS), 10), count=8):
        for at in range(100):
            index.upsert([at], vectors(1, DIMS, seed=at))  # the test's own time limit is the bound
    assert len(index) == 2000


@pytest.mark.parametrize("make", [flat, hnsw])
def test_set_flag_cancels_a_search(make):
    index = make(DIMS)
    index.upsert(range(2000), vectors(2000, DIMS))
    flag = np.zeros(1, dtype=np.uint8)
    assert len(index.search(np.zeros(DIMS), 5, ef=900, cancel=flag)[0]) == 5
    flag[0] = 1
    with pytest.raises(Cancelled):
        index.search(np.zeros(DIMS), 5, ef=900, cancel=flag)
    with pytest.raises(Cancelled):
        index.search_many(np.zeros((50, DIMS)), 5, ef=900, cancel=flag, threads=2)
    flag[0] = 0
    assert len(index.search(np.zeros(DIMS), 5, cancel=flag)[0]) == 5


def test_sections_are_consistent_while_readers_search():
    index = hnsw(DIMS)
    index.upsert(range(1000), vectors(1000, DIMS))
    with Readers(lambda rng: index.search(rng.normal(size=DIMS), 10)):
        for _ in range(10):
            sections = index.sections()
            assert (sections["states"] == 1).sum() == 1000
