"""Writers, readers, builds and saves at once, every answer verified; RUVECTOR_STRESS_SECONDS says for how long."""

import contextlib
import os
import threading
import time

import numpy as np
import pytest
from index_cases import clustered, hnsw

from ruvector import kernels
from ruvector.index import KeyedIndex

pytestmark = pytest.mark.skipif(not kernels.IS_COMPILED, reason="the numpy engine has one lock for all")

DIMS, KEYS, VERSIONS = 48, 12_000, 4
SECONDS = float(os.environ.get("RUVECTOR_STRESS_SECONDS", "20"))
FOREVER = 1 << 62


class World:
    """The index, the vectors a key may have, and when keys were deleted."""

    def __init__(self):
        self.index = hnsw(DIMS, threads=2)
        self.rows = np.stack([clustered(KEYS, DIMS, seed=version) for version in range(VERSIONS)])
        self.deleted_at = np.full(KEYS, FOREVER, dtype=np.int64)  # FOREVER: may be there
        self.moment = 0
        self.ends = time.monotonic() + SECONDS
        self.failures = []
        self.answers = 0

    def run(self, work, seed):
        rng = np.random.default_rng(seed)
        try:
            while time.monotonic() < self.ends and not self.failures:
                work(rng)
        except BaseException as failure:  # noqa: BLE001 - raised again by the test's thread
            self.failures.append(failure)

    def write(self, rng, part):
        """Change keys of one writer's own part only, so that it alone knows what is there."""
        keys = part[rng.permutation(len(part))[: int(rng.integers(1, 600))]]
        kind = rng.integers(0, 10)
        if kind < 6:
            self.deleted_at[keys] = FOREVER
            self.index.upsert(keys, self.rows[rng.integers(0, VERSIONS), keys], defer=bool(kind < 2))
        elif kind < 9:
            self.index.delete(keys)
            self.moment += 1
            self.deleted_at[keys] = self.moment
        else:
            self.index.compact()

    def search(self, rng):
        query = self.rows[rng.integers(0, VERSIONS), rng.integers(0, KEYS)] + rng.normal(size=DIMS) * 0.1
        query = query.astype(np.float32)
        before, gone = self.moment, self.deleted_at.copy()
        keys, distances = self.index.search(query, 10, ef=60)
        assert len(keys) == len(set(keys.tolist()))
        assert (np.diff(distances) >= 0).all()
        # Deleted before the search began and not put back since.
        assert not ((gone[keys] <= before) & (self.deleted_at[keys] == gone[keys])).any()
        apart = np.linalg.norm(self.rows[:, keys] - query, axis=2)
        assert np.isclose(apart, distances, rtol=1e-4, atol=1e-3).any(axis=0).all()
        self.answers += 1

    def save(self, rng):
        restored = KeyedIndex.from_sections(self.index.options, self.index.sections(), threads=1)
        stored, found = restored.vectors_of(restored.keys())
        assert found.all()
        assert (stored == self.rows[:, restored.keys()]).all(axis=2).any(axis=0).all()
        time.sleep(float(rng.random()))

    def build(self, rng):
        def stop(progress):
            if rng.random() < 0.2:
                raise InterruptedError

        with contextlib.suppress(InterruptedError):
            self.index.build(on_progress=stop)
        time.sleep(float(rng.random()) * 0.2)


@pytest.mark.slow
@pytest.mark.timeout(SECONDS * 3 + 300)
def test_everything_at_once():
    world = World()
    world.index.upsert(range(KEYS), world.rows[0])
    parts = np.array_split(np.arange(KEYS), 2)
    works = [lambda rng, part=part: world.write(rng, part) for part in parts]
    works += [world.search, world.search, world.search, world.save, world.build]
    threads = [threading.Thread(target=world.run, args=(work, seed)) for seed, work in enumerate(works)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if world.failures:
        raise world.failures[0]
    assert world.answers > 0
    index = world.index
    index.build()
    index.compact()
    keys = index.keys()
    stored, found = index.vectors_of(keys)
    assert found.all()
    asked = world.rows[1, :200]
    right = np.sort(np.linalg.norm(stored[None, :] - asked[:, None], axis=2), axis=1)[:, 9]
    answers = index.search_many(asked, 10, ef=100)
    assert np.mean([(apart <= limit + 1e-3).mean() for (_, apart), limit in zip(answers, right, strict=True)]) > 0.9
