"""The demonstration and its data."""

import json

import numpy as np
import pytest

from ruvector import resources
from ruvector.demo.compare import _distances
from ruvector.demo.data import copy_stream, load_wordnet


@pytest.mark.slow
def test_demo_holds(cli):
    answer = cli.process("demo", "--rows", "1500", "--format", "json")
    assert answer.code == 0, answer.err
    document = answer.document
    assert document["held"]
    assert document["rows"] == 1500
    assert len(document["steps"]) == 9
    engines = {row["engine"]: row for row in document["comparison"]}
    assert engines["exact scan"]["recall_at_10"] == 1
    assert engines["ruvector, defaults"]["recall_at_10"] >= 0.98
    assert all(0 < row["p50_ms"] <= row["p99_ms"] for row in engines.values())


def test_demo_refuses_a_folder_in_use(cli):
    (cli.folder / "full").mkdir()
    (cli.folder / "full" / "file").touch()
    answer = cli("demo", "--keep", "full")
    assert (answer.code, "is not empty" in answer.err) == (1, True)
    assert cli("demo", "--rows", "5").code == 2


def test_licence_lies_beside_the_data():
    assert "WordNet" in (resources.root("demo/data") / "LICENSE.WordNet").read_text(encoding="utf-8")


def test_exact_answers_equal_those_of_the_set():
    wordnet = load_wordnet()
    truth = np.load(resources.root("demo/data") / "truth.npz", allow_pickle=False)
    distances = _distances(wordnet.query_vectors[:20], wordnet.vectors.astype(np.float64))
    nearest = np.sort(distances, axis=1)[:, :10]
    np.testing.assert_allclose(nearest, truth["dist"][:20, :10], atol=1e-3)  # its vectors are not quite unit length


def test_first_rows():
    wordnet = load_wordnet(rows=7)
    assert (len(wordnet.glosses), wordnet.vectors.shape) == (7, (7, 384))
    assert json.dumps(wordnet.glosses[0].lemma) == '"lock"'


def test_stream_is_copy_binary():
    wordnet = load_wordnet(rows=3)
    stream = copy_stream(wordnet)
    assert stream.startswith(b"PGCOPY\n\xff\r\n\0")
    assert stream.endswith(b"\xff\xff")
    dims = wordnet.vectors.shape[1]
    vector = np.frombuffer(copy_stream(load_wordnet(rows=1))[:-2][-4 * dims :], dtype=">f4")
    np.testing.assert_array_equal(vector, wordnet.vectors[0])
