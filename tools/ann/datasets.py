"""The data sets by name: real ones read from a folder, made-up ones drawn, each with its exact truth."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ann import synthetic
from ann.arrays import Doubles, Floats
from ann.truth import reach_of
from ruvector.values import Metric

REAL = {
    "fashion-mnist-784": ("fashion-mnist-784", Metric.L2),
    "debian-25k-384": ("debian-25k-384", Metric.COSINE),
    "glove-100k-100": ("glove-100k-100", Metric.COSINE),
    "glove-100k-100-ip": ("glove-100k-100", Metric.IP),
    "demo-wordnet-12k": ("demo-wordnet-12k", Metric.COSINE),
}
NAMES = (*REAL, *synthetic.GENERATORS)


@dataclass(frozen=True, slots=True)
class DataSet:
    """Rows and queries as files that every process maps, and the distance of each query's tenth neighbour [q, 1]."""

    name: str
    metric: Metric
    story: str
    base: Floats
    queries: Floats
    reach: Doubles
    base_file: Path
    queries_file: Path


@dataclass(frozen=True, slots=True)
class Choice:
    """How much of a data set is wanted, and from where."""

    folder: Path
    rows_max: int | None
    queries_max: int
    seed: int
    latent: int


def is_there(name: str, folder: Path) -> bool:
    """Tell whether a data set can be had: made-up ones always, real ones when their folder is there."""
    return name in synthetic.GENERATORS or (folder / REAL[name][0]).is_dir()


def load(name: str, choice: Choice, *, scratch: Path) -> DataSet:
    """Write rows and queries of a data set into ``scratch`` and find the truth for exactly these."""
    base_file, queries_file = scratch / f"{name}.base.npy", scratch / f"{name}.queries.npy"
    if name in synthetic.GENERATORS:
        metric, story = _draw(name, choice, base_file, queries_file)
    else:
        metric, story = _copy(name, choice, base_file, queries_file)
    base: Floats = np.load(base_file, mmap_mode="r")
    queries: Floats = np.load(queries_file)
    reach = reach_of(base, queries, metric)
    return DataSet(name, metric, story, base, queries, reach, base_file, queries_file)


def _draw(name: str, choice: Choice, base_file: Path, queries_file: Path) -> tuple[Metric, str]:
    generator = synthetic.GENERATORS[name]
    rows = min(choice.rows_max or generator.rows, generator.rows)
    base = np.lib.format.open_memmap(base_file, mode="w+", dtype=np.float32, shape=(rows, generator.dims))
    synthetic.draw_rows(generator, base, seed=choice.seed, latent=choice.latent)
    base.flush()
    asked = synthetic.draw_queries(generator, choice.queries_max, seed=choice.seed, latent=choice.latent)
    np.save(queries_file, asked)
    return generator.metric, generator.story.replace("LATENT", str(choice.latent))


def _copy(name: str, choice: Choice, base_file: Path, queries_file: Path) -> tuple[Metric, str]:
    folder_name, metric = REAL[name]
    folder = choice.folder / folder_name
    if folder_name == "fashion-mnist-784":
        base = np.load(folder / "base.npz")["base"]
    else:
        base = np.load(folder / ("vectors.f16.npy" if folder_name == "demo-wordnet-12k" else "base.f16.npy"))
    packed = folder / "queries.npz"
    queries = np.load(packed)["queries"] if packed.exists() else np.load(folder / "queries.f16.npy")
    np.save(base_file, base[: choice.rows_max].astype(np.float32))
    np.save(queries_file, queries[: choice.queries_max].astype(np.float32))
    return metric, "real data"
