import shutil

import numpy as np
import pytest
from index_cases import vectors

import ruvector
from ruvector.errors import StoreDamaged, StoreError, StoreFormat
from ruvector.index import Index
from ruvector.store import write_generation


def test_package_offers_the_index():
    assert ruvector.Index is Index


def test_one_and_many_queries_have_their_shapes():
    index = Index(dims=4, metric="cosine")
    assert index.add(np.array([10, 20, 30]), vectors(3, 4)) == 3
    keys, distances = index.search(vectors(1, 4)[0], k=2)
    assert keys.shape == distances.shape == (2,)
    assert (keys.dtype, distances.dtype) == (np.int64, np.float32)
    keys, distances = index.search(vectors(5, 4), k=4, threads=2)
    assert keys.shape == distances.shape == (5, 4)
    assert (keys[:, 3] == -1).all()
    assert np.isinf(distances[:, 3]).all()
    assert len(index) == 3
    assert 20 in index
    assert 21 not in index
    assert "20" not in index
    assert index.delete([20, 21]) == 1
    assert index.stats()["rows"] == 2


def test_text_keys_are_told_by_the_first_key():
    index = Index(dims=2)
    index.add(["x", "y"], [[0, 0], [1, 1]])
    keys, distances = index.search([0.9, 0.9], k=3)
    assert keys.tolist() == ["y", "x", None]
    assert np.isinf(distances[2])
    assert "x" in index
    assert 1 not in index
    index.add(np.array(["z"]), [[2, 2]])
    assert len(index) == 3


@pytest.mark.parametrize("keys", [np.arange(300) - 150, [f"row {at}" for at in range(300)]])
@pytest.mark.parametrize(
    ("metric", "dtype", "kind"), [("l2", "f32", "hnsw"), ("cosine", "f16", "hnsw"), ("hamming", "bit", "flat")]
)
def test_saved_index_opens_with_the_same_answers(tmp_path, keys, metric, dtype, kind):
    index = Index(16, metric, dtype=dtype, kind=kind, m=8, ef_construction=50)
    rows = np.packbits(vectors(300, 16) > 0, axis=1) if dtype == "bit" else vectors(300, 16)
    index.add(keys, rows)
    index.delete(keys[:40])
    index.save(tmp_path / "saved")
    opened = Index.open(tmp_path / "saved")
    shutil.rmtree(tmp_path / "saved")  # an open index does not need its files
    assert opened.options == index.options
    assert len(opened) == 260
    for mine, theirs in zip(index.search(rows[:9], k=12), opened.search(rows[:9], k=12), strict=True):
        assert mine.tolist() == theirs.tolist()
    assert opened.add(keys, rows) == 40
    assert opened.delete(keys) == 300


def test_empty_index_is_saved(tmp_path):
    for kind in ("hnsw", "flat"):
        Index(3, kind=kind).save(tmp_path / kind)
        opened = Index.open(str(tmp_path / kind))
        assert len(opened) == 0
        assert opened.add([1], [[1, 2, 3]]) == 1


def test_saving_over_something_is_refused(tmp_path):
    (tmp_path / "taken").mkdir()
    with pytest.raises(StoreError):
        Index(3).save(tmp_path / "taken")
    with pytest.raises(StoreError):
        Index.open(tmp_path / "missing")


def test_damaged_index_is_refused(tmp_path):
    index = Index(8)
    index.add(range(100), vectors(100, 8))
    index.save(tmp_path / "saved")
    for file in sorted((tmp_path / "saved").iterdir()):
        data = bytearray(file.read_bytes())
        data[len(data) // 2] ^= 1
        file.write_bytes(data)
        with pytest.raises((StoreDamaged, StoreFormat)):
            Index.open(tmp_path / "saved", verify="full")
        data[len(data) // 2] ^= 1
        file.write_bytes(data)
    assert len(Index.open(tmp_path / "saved")) == 100


def test_other_generations_are_no_index(tmp_path):
    write_generation(tmp_path / "other", {"rows": np.zeros(3)}, meta={"content": "something"})
    with pytest.raises(StoreFormat, match="no saved index"):
        Index.open(tmp_path / "other")
    wrong = {"content": "ruvector index", "options": {"dims": 3, "metric": "l2", "m": 100_000}}
    write_generation(tmp_path / "options", {"rows": np.zeros(3)}, meta=wrong)
    with pytest.raises(StoreFormat):
        Index.open(tmp_path / "options")
