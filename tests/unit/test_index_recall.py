import numpy as np
import pytest
from index_cases import clustered, flat, hnsw, recall, scaled, shared_data

from ruvector import kernels
from ruvector.values import Metric

EFS = (10, 20, 40, 80, 160)


def found_share(distances, truth):
    limit = truth[:, 9:10] * (1 + 1e-5) + 1e-6
    return float((distances <= limit).mean())


def peer_recalls(space, base, queries, truth):
    hnswlib = pytest.importorskip("hnswlib", reason="hnswlib is not installed: pip install ruvector[bench]")
    peer = hnswlib.Index(space, base.shape[1])
    peer.init_index(len(base), ef_construction=200, M=16, random_seed=42)
    peer.add_items(base, num_threads=1)
    out = []
    for ef in EFS:
        peer.set_ef(ef)
        distances = peer.knn_query(queries, k=10, num_threads=1)[1]
        out.append(found_share(np.sqrt(distances) if space == "l2" else distances, truth))
    return out


def own_recalls(metric, base, queries, truth):
    index = hnsw(base.shape[1], metric, threads=0)
    index.upsert(np.arange(len(base)), base)
    return [
        found_share(np.array([distances for _, distances in index.search_many(queries, 10, ef=ef)]), truth)
        for ef in EFS
    ]


@pytest.mark.slow
@pytest.mark.skipif(not kernels.IS_COMPILED, reason="the numpy engine needs minutes for a real data set")
def test_recall_equals_hnswlib_on_debian():
    folder = shared_data("debian-25k-384")
    base = np.load(folder / "base.f16.npy").astype(np.float32)
    queries = np.load(folder / "queries.f16.npy").astype(np.float32)
    truth = np.load(folder / "truth.npz")["dist"]
    own = own_recalls(Metric.COSINE, base, queries, truth)
    assert own[-1] >= 0.99
    for mine, theirs in zip(own, peer_recalls("cosine", base, queries, truth), strict=True):
        assert mine >= theirs - 0.01


@pytest.mark.slow
@pytest.mark.skipif(not kernels.IS_COMPILED, reason="the numpy engine needs minutes for a real data set")
def test_recall_equals_hnswlib_on_fashion_mnist():
    folder = shared_data("fashion-mnist-784")
    base = np.load(folder / "base.npz")["base"].astype(np.float32)
    asked = np.load(folder / "queries.npz")
    queries, truth = asked["queries"].astype(np.float32), asked["dist"]
    own = own_recalls(Metric.L2, base, queries, truth)
    assert own[-1] >= 0.99
    for mine, theirs in zip(own, peer_recalls("l2", base, queries, truth), strict=True):
        assert mine >= theirs - 0.01


def test_real_rows_survive_deletes_and_updates():
    folder = shared_data("debian-25k-384")
    base = np.load(folder / "base.f16.npy")[: scaled(6000)].astype(np.float32)
    queries = np.load(folder / "queries.f16.npy")[:100].astype(np.float32)
    index = hnsw(384, Metric.COSINE, threads=0)
    index.upsert(np.arange(len(base)), base)
    rng = np.random.default_rng(2)
    for part in np.array_split(rng.permutation(len(base))[: len(base) // 2], 10):
        index.delete(part)
        index.upsert(part, base[part])
    unit = base / np.linalg.norm(base, axis=1, keepdims=True)
    asked = queries / np.linalg.norm(queries, axis=1, keepdims=True)
    truth = np.sort(1 - asked @ unit.T, axis=1)
    answers = index.search_many(queries, 10, ef=100)
    assert found_share(np.array([distances for _, distances in answers]), truth) >= 0.98


def test_bulk_build_leads_from_one_cluster_to_another():
    rows, queries = clustered(scaled(12_000), 64, spread=0.2, seed=2), clustered(200, 64, spread=0.2, seed=9)
    index, exact = hnsw(64, threads=0), flat(64)
    for one in (index, exact):
        one.upsert(np.arange(len(rows)), rows)
    assert recall(index.search_many(queries, 10, ef=100), exact.search_many(queries, 10)) >= 0.99
