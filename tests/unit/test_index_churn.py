"""An index half of whose rows were replaced finds as much as one built afresh from the same rows."""

import numpy as np
import pytest
from index_cases import check_answer, clustered, hnsw, shared_data, unit, unreached

from ruvector import kernels
from ruvector.values import Metric

pytestmark = pytest.mark.skipif(not kernels.IS_COMPILED, reason="the numpy engine needs minutes")

WORSE_MAX = 0.005  # recall
QUERIES = 500


def synthetic():
    return Metric.L2, clustered(18_000, 48, spread=0.6), clustered(QUERIES, 48, seed=9, spread=0.6)


def debian():
    folder = shared_data("debian-25k-384")
    base = np.load(folder / "base.f16.npy").astype(np.float32)
    queries = np.load(folder / "queries.f16.npy")[:QUERIES].astype(np.float32)
    return Metric.COSINE, unit(base), unit(queries)


def random_churn(base, kept, spare, rng):
    return rng.permutation(kept)[: len(kept) // 2], spare[: len(kept) // 2]


def clustered_churn(base, kept, spare, rng):
    centers = base[rng.choice(kept, 6, replace=False)]

    def nearest(rows):
        apart = np.min([((base[rows] - center) ** 2).sum(axis=1) for center in centers], axis=0)
        return rows[np.argsort(apart, kind="stable")]

    return nearest(kept)[: len(kept) // 2], nearest(spare)[: len(kept) // 2]


def tenth_distances(base, keys, queries, metric):
    products = queries @ base[keys].T
    if metric is Metric.COSINE:
        apart = 1 - products
    else:
        apart = (queries**2).sum(axis=1)[:, None] + (base[keys] ** 2).sum(axis=1) - 2 * products
        apart = np.sqrt(np.maximum(apart, 0))
    return np.partition(apart, 9, axis=1)[:, 9:10]


@pytest.mark.parametrize("churn", [random_churn, clustered_churn])
@pytest.mark.parametrize("data", [synthetic, pytest.param(debian, marks=pytest.mark.slow)])
def test_recall_after_half_of_the_rows_were_replaced(data, churn):
    metric, base, queries = data()
    rng = np.random.default_rng(1)
    order = rng.permutation(len(base))
    count = len(base) * 2 // 3
    kept, spare = order[:count], order[count:]
    index = hnsw(base.shape[1], metric, threads=2)
    index.upsert(kept, base[kept])
    gone, fresh = churn(base, kept, spare, rng)
    for old, new in zip(np.array_split(gone, 20), np.array_split(fresh, 20), strict=True):
        index.delete(old)
        index.upsert(new, base[new])
    keys = np.concatenate([kept[~np.isin(kept, gone)], fresh])
    assert sorted(index.keys().tolist()) == sorted(keys.tolist())
    other = hnsw(base.shape[1], metric, threads=2)
    other.upsert(keys, base[keys])
    limits = tenth_distances(base, keys, queries, metric) * (1 + 1e-5) + 1e-5
    for ef in (40, 100):
        answers, others = (one.search_many(queries, 10, ef=ef, threads=2) for one in (index, other))
        churned, afresh = (
            np.mean([distances <= limit for (_, distances), limit in zip(found, limits, strict=True)])
            for found in (answers, others)
        )
        assert churned >= afresh - WORSE_MAX, ef
        for query, answer in list(zip(queries, answers, strict=True))[:20]:
            check_answer(answer, query, base, metric=metric)
    index.compact()
    assert index.stats()["dead"] == 0
    assert len(unreached(index.sections())) == 0


@pytest.mark.parametrize("metric", [Metric.L2, Metric.IP])
def test_every_row_is_reached_however_it_came(metric):
    # Few links and rows one block after the other: many nodes lose the last link that leads to them.
    index = hnsw(16, metric, m=4)
    rows = clustered(4000, 16)
    for part in np.array_split(np.arange(4000), 20):
        index.upsert(part, rows[part])
    index.compact()
    assert len(unreached(index.sections())) == 0
    for part in np.array_split(np.random.default_rng(3).permutation(4000), 20):
        index.upsert(part, rows[part] + 1)
    index.compact()
    assert len(unreached(index.sections())) == 0
