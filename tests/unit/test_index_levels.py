"""One index under every instruction set, number of threads and seed."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from index_cases import clustered, flat_twin, hnsw, recall, vectors

import ruvector
from ruvector import kernels
from ruvector._ext.distance import simd_levels
from ruvector.values import Metric

pytestmark = pytest.mark.skipif(not kernels.IS_COMPILED, reason="the numpy engine has no codes")

HERE = Path(__file__).parent
BUILD = str(Path(ruvector.__file__).parent.parent)
LEVEL_ROWS = 3000
BUILD_INDEX = """
import sys
import numpy as np
from index_cases import clustered, hnsw
dims, path = int(sys.argv[1]), sys.argv[2]
index = hnsw(dims, threads=2)
index.upsert(range({rows}), clustered({rows}, dims))
answers = index.search_many(clustered(40, dims, seed=8), 10, ef=80)
sections = index.sections()
np.savez(path, codes=sections["codes"], center=sections["center"], keys=[keys for keys, _ in answers],
         distances=[distances for _, distances in answers])
"""


@pytest.mark.parametrize("dims", [100, 384, 784])
def test_instruction_sets_give_one_index(dims, tmp_path):
    code = BUILD_INDEX.format(rows=LEVEL_ROWS)
    found = {}
    for level in simd_levels():
        environment = os.environ | {"RUVECTOR_SIMD": level, "PYTHONPATH": f"{BUILD}:{HERE.parent}"}
        environment.pop("RUVECTOR_KERNELS", None)
        path = tmp_path / f"{level}.npz"
        subprocess.run(
            [sys.executable, "-c", code, str(dims), str(path)], env=environment, cwd=tmp_path, check=True, timeout=200
        )
        found[level] = np.load(path)
    first = found["scalar"]
    for other in found.values():
        assert first["codes"].tobytes() == other["codes"].tobytes()
        assert first["center"].tobytes() == other["center"].tobytes()
        np.testing.assert_allclose(other["distances"], first["distances"], rtol=1e-5, atol=1e-5)
        swapped = first["keys"] != other["keys"]  # only rows of one distance may change places
        assert np.isclose(first["distances"], other["distances"], rtol=1e-5)[swapped].all()


def built(*, defer, threads, metric=Metric.L2, seed=42, rows=5000, dims=40):
    index = hnsw(dims, metric=metric, threads=threads, seed=seed)
    values = vectors(rows, dims)
    if defer:
        for part in np.array_split(np.arange(rows), 3):
            index.upsert(part, values[part], defer=True)
        index.build()
    else:
        index.upsert(range(rows), values)
    index.delete(range(0, rows, 5))
    index.compact()
    return index


@pytest.mark.parametrize(("metric", "defer"), [(Metric.L2, False), (Metric.L2, True), (Metric.IP, True)])
def test_build_of_all_at_once_does_not_depend_on_threads(metric, defer):
    alone = built(metric=metric, defer=defer, threads=1).sections()
    for threads in (2, 5):
        many = built(metric=metric, defer=defer, threads=threads).sections()
        assert alone.keys() == many.keys()
        for name, section in alone.items():
            assert section.tobytes() == many[name].tobytes(), name


def test_another_seed_gives_another_graph_and_the_same_recall():
    values, asked = clustered(6000, 64), clustered(200, 64, seed=4)
    recalls, sections = [], []
    for seed in (1, 2):
        index = hnsw(64, threads=2, seed=seed)
        index.upsert(range(6000), values)
        truth = flat_twin(index)
        truth.upsert(range(6000), values)
        recalls.append(recall(index.search_many(asked, 10, ef=60), truth.search_many(asked, 10)))
        sections.append(index.sections())
    assert (sections[0]["codes"] != sections[1]["codes"]).any()
    assert (sections[0]["links"] != sections[1]["links"]).any()
    assert min(recalls) >= 0.9
    assert abs(recalls[0] - recalls[1]) <= 0.02
