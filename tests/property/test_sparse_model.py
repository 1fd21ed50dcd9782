"""The inverted index beside a dictionary: whatever the order of changes, answers are those of numpy."""

import numpy as np
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from sparse_cases import SPARSE_METRICS, dense, packed, right, sparse_index

from ruvector.index import KeyedIndex
from ruvector.values import KeyKind, Metric

KEYS = st.lists(st.integers(-3, 60), min_size=1, max_size=40)


class SparseIndexBesideDictionary(RuleBasedStateMachine):
    @initialize(
        metric=st.sampled_from(SPARSE_METRICS), dims=st.integers(1, 12), key_kind=st.sampled_from(list(KeyKind))
    )
    def start(self, metric, dims, key_kind):
        self.metric, self.dims = metric, dims
        self.index = sparse_index(dims, metric, key_kind=key_kind)
        self.rows = {}

    def name(self, key):
        return key if self.index.options.key_kind is KeyKind.INT64 else f"key {key}"

    def draw_rows(self, count, seed, spread):
        rng = np.random.default_rng(seed)
        rows = rng.integers(-spread, 1 + spread, (count, self.dims)) * (rng.random((count, self.dims)) < 0.3)
        if self.metric is Metric.COSINE:
            rows[~rows.any(axis=1), 0] = 1
        return rows.astype(np.float32)

    @rule(keys=KEYS, seed=st.integers(0, 10**6), spread=st.sampled_from([1, 2, 1000]))
    def upsert(self, keys, seed, spread):
        rows = self.draw_rows(len(keys), seed, spread)
        self.index.upsert([self.name(key) for key in keys], packed(rows))
        self.rows.update(zip((self.name(key) for key in keys), rows, strict=True))

    @rule(keys=KEYS)
    def delete(self, keys):
        names = [self.name(key) for key in keys]
        assert self.index.delete(names) == len(self.rows.keys() & set(names))
        for name in names:
            self.rows.pop(name, None)

    @rule()
    def compact(self):
        self.index.compact()
        assert self.index.stats()["dead"] == 0
        assert self.index.stats()["postings"] == sum((row != 0).sum() for row in self.rows.values())

    @rule()
    def clear(self):
        self.index.clear()
        self.rows.clear()

    @rule()
    def restore(self):
        self.index = KeyedIndex.from_sections(self.index.options, self.index.sections(), threads=1)

    @rule(seed=st.integers(0, 10**6), k=st.integers(1, 70))
    def search(self, seed, k):
        query = self.draw_rows(1, seed, 3)[0]
        keys, distances = self.index.search(packed([query]), k)
        assert len(set(keys if isinstance(keys, list) else keys.tolist())) == len(distances)
        assert len(distances) == min(k, len(self.rows))
        if not self.rows:
            return
        apart = dict(zip(self.rows, right(query, np.array(list(self.rows.values())), self.metric), strict=True))
        np.testing.assert_allclose(distances, [apart[key] for key in keys], rtol=1e-6, atol=1e-6)
        np.testing.assert_allclose(distances, np.sort(list(apart.values()))[:k], rtol=1e-6, atol=1e-6)

    @invariant()
    def holds_the_same_rows(self):
        assert len(self.index) == len(self.rows)
        assert sorted(self.index.keys()) == sorted(self.rows)
        stored, found = self.index.vectors_of(list(self.rows))
        assert found.all()
        assert not self.rows or (dense(stored) == np.array(list(self.rows.values()))).all()


SparseIndexBesideDictionary.TestCase.settings = settings(
    max_examples=100, stateful_step_count=25, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
test_sparse_model = SparseIndexBesideDictionary.TestCase
