"""ruvector.connect: the SQL functions as methods."""

import numpy as np
import pytest

import ruvector
from ruvector.errors import CollectionNotFound, DatabaseError, InvalidVector, NotInstalled, SidecarUnreachable
from ruvector.values import Hit

QUERY = np.eye(8, dtype=np.float32)[0]


def test_client_without_a_sidecar(database, items):
    notices = []
    with ruvector.connect(database.dsn, on_notice=notices.append) as rv:
        attached = rv.attach(items, metric="cosine", columns=["category"])
        assert (attached.name, attached.metric, attached.dims) == ("items_embedding", "cosine", 8)
        hits = rv.search("items_embedding", QUERY, k=4, filter={"category": "a"})
        assert [type(hit) for hit in hits] == [Hit] * 4
        assert hits == sorted(hits, key=lambda hit: hit.distance)
        assert hits[0].score == pytest.approx(1 - hits[0].distance)
        assert notices
        with pytest.raises(SidecarUnreachable):
            rv.verify("items_embedding")
        assert rv.search("items_embedding", QUERY.tolist())  # the connection is still good
        rv.detach("items_embedding")
        assert rv.collections() == []


def test_client_with_a_sidecar(client, items, sidecar_process, wait_live):
    client.attach(items)
    sidecar_process.start()
    wait_live("items_embedding")
    queries = np.stack([QUERY, -QUERY])
    batch = client.search_batch("items_embedding", queries, k=3)
    single = [client.search("items_embedding", query, k=3) for query in queries]
    assert [[hit.id for hit in hits] for hits in batch] == [[hit.id for hit in hits] for hits in single]
    assert [hit.score for hit in batch[0]] == pytest.approx([hit.score for hit in single[0]])
    assert client.wait_applied("items_embedding", timeout_ms=5000)
    assert client.verify("items_embedding", full=True)["differences"] == 0
    assert client.status()[0]["state"] == "live"
    assert client.simd_info()


def test_keys_and_distance_are_passed_on(client, items):
    client.attach(items)
    hits = client.search("items_embedding", QUERY, k=20)
    most = (hits[7].distance + hits[8].distance) / 2
    assert [hit.id for hit in client.search("items_embedding", QUERY, k=100, max_distance=most)] == [
        hit.id for hit in hits[:8]
    ]
    keys = [int(hits[4].id), hits[2].id, 10**9]
    assert [hit.id for hit in client.search("items_embedding", QUERY, keys=keys)] == [hits[2].id, hits[4].id]
    assert client.explain("items_embedding", QUERY, keys=keys, max_distance=most)["engine"] == "exact"


def test_exactness_is_passed_on(client, items):
    client.attach(items)
    assert {hit.tier for hit in client.search("items_embedding", QUERY, exactness="exact")} == {"exact"}


@pytest.mark.parametrize(
    ("query", "error"),
    [
        ([1.0, float("nan")] + [0.0] * 6, InvalidVector),
        ([float("inf")] * 8, InvalidVector),
        ([[1.0] * 8], InvalidVector),
        ([1.0, 2.0], DatabaseError),
        ([0.0] * 8, DatabaseError),
    ],
)
def test_wrong_queries(client, items, query, error):
    client.attach(items, metric="cosine")
    with pytest.raises(error):
        client.search("items_embedding", query)


def test_unknown_collection(client):
    with pytest.raises(CollectionNotFound):
        client.detach("ghost")
    with pytest.raises(DatabaseError, match="ghost") as caught:
        client.search("ghost", QUERY)
    assert caught.value.sqlstate == "42704"


def test_missing_installation(bare_database):
    with pytest.raises(NotInstalled):
        ruvector.connect(bare_database.dsn)
