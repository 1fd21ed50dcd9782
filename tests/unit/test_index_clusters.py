"""Rows in many tight clusters: a build of all of them at once leaves ways from each to every other."""

import numpy as np
import pytest

import ruvector
from ruvector import kernels

ROWS = 6_000
DIMS = 32


def curve():
    """Return rows on a closed curve, in 710 groups of eight or nine that nearly coincide."""
    n = np.arange(1, ROWS + 1)[:, None].astype(np.float64)
    g = np.arange(1, DIMS + 1)[None, :]
    return (np.sin(n * (g + 3)) + np.cos(n + g * g)).astype(np.float32)


def clusters(size, spread):
    rng = np.random.default_rng(7)
    centres = rng.normal(size=(ROWS // size, 8)) @ rng.normal(size=(8, DIMS))
    rows = np.repeat(centres, size, axis=0) + rng.normal(size=(ROWS // size * size, DIMS)) * spread
    return rng.permutation(rows).astype(np.float32)


@pytest.mark.skipif(not kernels.IS_COMPILED, reason="the numpy engine has no graph")
@pytest.mark.parametrize(
    ("rows", "share"),
    [(curve(), 0.999), (clusters(8, 0.02), 0.995), (clusters(30, 0.1), 0.975), (clusters(100, 0.02), 0.99)],
    ids=["curve", "of 8", "of 30", "of 100"],
)
def test_rows_are_found_by_themselves(rows, share):
    index = ruvector.Index(dims=DIMS, metric="l2")
    index.add(np.arange(len(rows)), rows)
    found, _ = index.search(rows, k=1)
    assert np.mean(found[:, 0] == np.arange(len(rows))) >= share
