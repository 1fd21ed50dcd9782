"""The index beside a dictionary: whatever the order of changes, answers are exact or near, never of deleted rows."""

import numpy as np
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from index_cases import COMBINATIONS, exact, flat, hnsw, ivf

from ruvector.index import KeyedIndex
from ruvector.values import ElementType, IndexKind, KeyKind, Metric

KEYS = st.lists(st.integers(-3, 60), min_size=1, max_size=40)


class IndexBesideDictionary(RuleBasedStateMachine):
    @initialize(
        combination=st.sampled_from(COMBINATIONS),
        dims=st.integers(1, 9),
        m=st.integers(2, 4),
        kind=st.sampled_from([IndexKind.FLAT, IndexKind.HNSW]),
        key_kind=st.sampled_from(list(KeyKind)),
    )
    def start(self, combination, dims, m, kind, key_kind):
        self.metric, self.element = combination
        self.dims = dims
        make = {IndexKind.HNSW: hnsw, IndexKind.FLAT: flat, IndexKind.IVF: ivf}[kind]
        self.index = make(dims, self.metric, element=self.element, m=m, ef_construction=8, key_kind=key_kind)
        self.rows = {}

    def name(self, key):
        return key if self.index.options.key_kind is KeyKind.INT64 else f"key {key}"

    def draw_rows(self, count, seed, spread):
        rng = np.random.default_rng(seed)
        if self.element is ElementType.BIT:
            return np.packbits(rng.random((count, self.dims)) < 0.5, axis=1)
        # Small whole numbers: many equal and parallel rows.
        rows = rng.integers(1, 1 + spread, (count, self.dims)) * rng.choice([-1, 1], (count, self.dims))
        return rows.astype(np.float16 if self.element is ElementType.F16 else np.float32)

    @rule(keys=KEYS, seed=st.integers(0, 10**6), spread=st.sampled_from([1, 2, 5, 1000]))
    def upsert(self, keys, seed, spread):
        rows = self.draw_rows(len(keys), seed, spread)
        self.index.upsert([self.name(key) for key in keys], rows)
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

    @rule()
    def clear(self):
        self.index.clear()
        self.rows.clear()

    @rule()
    def restore(self):
        self.index = KeyedIndex.from_sections(self.index.options, self.index.sections(), threads=1)

    @rule(seed=st.integers(0, 10**6), k=st.integers(1, 70))
    def search(self, seed, k):
        query = self.draw_rows(1, seed, 5)[0]
        keys, distances = self.index.search(query, k, ef=4)
        assert len(set(keys if isinstance(keys, list) else keys.tolist())) == len(distances)
        assert len(distances) == min(k, len(self.rows))
        if not self.rows:
            return
        right = dict(zip(self.rows, self.right(query), strict=True))
        np.testing.assert_allclose(distances, [right[key] for key in keys], rtol=1e-4, atol=1e-5)
        assert (np.diff(distances) >= 0).all()
        if 2 * k >= len(self.rows) or self.index.options.kind is not IndexKind.HNSW:
            np.testing.assert_allclose(distances, np.sort(list(right.values()))[:k], rtol=1e-4, atol=1e-5)

    def right(self, query):
        rows = np.array(list(self.rows.values()))
        return (
            np.clip(exact(query, rows, self.metric), 0, 2)
            if self.metric is Metric.COSINE
            else exact(query, rows, self.metric)
        )

    @invariant()
    def holds_the_same_rows(self):
        assert len(self.index) == len(self.rows)
        assert sorted(self.index.keys()) == sorted(self.rows)
        stored, found = self.index.vectors_of(list(self.rows))
        assert found.all()
        assert not self.rows or (stored == np.array(list(self.rows.values()))).all()


IndexBesideDictionary.TestCase.settings = settings(
    max_examples=150, stateful_step_count=25, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
test_index_model = IndexBesideDictionary.TestCase
