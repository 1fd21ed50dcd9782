"""Made-up rows from stated generators: the same seed gives the same rows, and queries are drawn apart from them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ann.arrays import Doubles, Floats
from ruvector.values import Metric

CHUNK_ROWS = 8_192  # drawn at a time, each chunk from its own seed: 25 MB at 768 dims
MIXTURE_PARTS = 256
MIXTURE_SPREAD = 0.5  # of a part, where the centres have spread 1
NOISE = 0.05  # in every dimension, so that the rows do not lie exactly in the latent space
CLUSTERS = 300
CLUSTER_DECAY = 1.3  # the n-th largest cluster has n**-1.3 of the rows of the largest
CLUSTER_RADIUS_LOG10 = (-2.5, -0.5)
REPEATED_ROWS = 16
DRIFT_LENGTH = 4.0  # spreads that the mean moves away from its start

# Takes a random generator and, for each row, its place in the order of insertion from 0 to 1.
Draw = Callable[[np.random.Generator, Doubles], Floats]


@dataclass(frozen=True, slots=True)
class Generator:
    """A data set to be drawn: its size, and a function that fixes what all its rows share."""

    rows: int
    dims: int
    metric: Metric
    story: str
    fix: Callable[[np.random.Generator, int, int], Draw]


def draw_queries(generator: Generator, count: int, *, seed: int, latent: int) -> Floats:
    """Return queries [count, dims] of the generator that are not among its rows."""
    random = np.random.default_rng([seed, 1])
    return _shared(generator, seed, latent)(random, random.random(count))


def draw_rows(generator: Generator, into: Floats, *, seed: int, latent: int) -> None:
    """Fill ``into`` [n, dims] chunk by chunk."""
    draw = _shared(generator, seed, latent)
    for number, start in enumerate(range(0, len(into), CHUNK_ROWS)):
        # Always a whole chunk, then cut: fewer rows are the beginning of more rows.
        places = np.arange(start, start + CHUNK_ROWS, dtype=np.float64) / len(into)
        part = into[start : start + CHUNK_ROWS]
        part[:] = draw(np.random.default_rng([seed, 2, number]), places)[: len(part)]


def _shared(generator: Generator, seed: int, latent: int) -> Draw:
    return generator.fix(np.random.default_rng([seed, 0]), generator.dims, latent)


def _normal(random: np.random.Generator, *shape: int) -> Floats:
    return random.standard_normal(shape, dtype=np.float32)


def _low_dimensional(random: np.random.Generator, dims: int, latent: int) -> Draw:
    centres = _normal(random, MIXTURE_PARTS, latent)
    weights = random.dirichlet(np.ones(MIXTURE_PARTS))
    outward = _normal(random, latent, dims) / np.float32(np.sqrt(latent))

    def draw(random: np.random.Generator, places: Doubles) -> Floats:
        parts = random.choice(MIXTURE_PARTS, size=len(places), p=weights)
        hidden = centres[parts] + np.float32(MIXTURE_SPREAD) * _normal(random, len(places), latent)
        return _mapped(hidden, outward, random)

    return draw


def _gaussian(_random: np.random.Generator, dims: int, _latent: int) -> Draw:
    return lambda random, places: _normal(random, len(places), dims)


def _clustered(random: np.random.Generator, dims: int, _latent: int) -> Draw:
    centres = _normal(random, CLUSTERS, dims)
    weights = np.arange(1, CLUSTERS + 1) ** -CLUSTER_DECAY
    radii = (10 ** random.uniform(*CLUSTER_RADIUS_LOG10, CLUSTERS)).astype(np.float32)

    def draw(random: np.random.Generator, places: Doubles) -> Floats:
        chosen = random.choice(CLUSTERS, size=len(places), p=weights / weights.sum())
        return centres[chosen] + radii[chosen, None] * _normal(random, len(places), dims)

    return draw


def _repeating(random: np.random.Generator, dims: int, latent: int) -> Draw:
    fresh = _low_dimensional(random, dims, latent)
    repeated = fresh(random, np.zeros(REPEATED_ROWS))

    def draw(random: np.random.Generator, places: Doubles) -> Floats:
        rows = fresh(random, places)
        again = random.random(len(places)) < 0.5
        rows[again] = repeated[random.integers(REPEATED_ROWS, size=int(again.sum()))]
        return rows

    return draw


def _drifting(random: np.random.Generator, dims: int, latent: int) -> Draw:
    turns, starts = random.uniform(0.2, 1.0, latent), random.uniform(0.0, 2 * np.pi, latent)
    outward = _normal(random, latent, dims) / np.float32(np.sqrt(latent))

    def draw(random: np.random.Generator, places: Doubles) -> Floats:
        means = DRIFT_LENGTH * np.cos(2 * np.pi * places[:, None] * turns + starts)
        hidden = means.astype(np.float32) + _normal(random, len(places), latent)
        return _mapped(hidden, outward, random)

    return draw


def _mapped(hidden: Floats, outward: Floats, random: np.random.Generator) -> Floats:
    """Return rows of latent ones, with noise in every dimension."""
    rows: Floats = hidden @ outward
    rows += np.float32(NOISE) * _normal(random, *rows.shape)
    return rows


_MIXTURE = f"a mixture of {MIXTURE_PARTS} gaussians in LATENT dimensions, mapped linearly, noise {NOISE}"
GENERATORS = {
    "synthetic-1m-128": Generator(1_000_000, 128, Metric.L2, _MIXTURE, _low_dimensional),
    "synthetic-1m-768": Generator(1_000_000, 768, Metric.COSINE, _MIXTURE, _low_dimensional),
    "hard-gaussian": Generator(100_000, 128, Metric.L2, "independent gaussians, no structure at all", _gaussian),
    "hard-clustered": Generator(
        100_000, 128, Metric.L2, f"{CLUSTERS} tight clusters of very different size and radius", _clustered
    ),
    "hard-duplicates": Generator(
        100_000, 128, Metric.L2, f"half of the rows (and queries) equal one of {REPEATED_ROWS} rows", _repeating
    ),
    "hard-drift": Generator(100_000, 128, Metric.L2, "the mean moves on from the first row to the last", _drifting),
}
