"""The attributes of a set's rows: a made-up number, the cell of a k-means, and what the set itself has."""

from __future__ import annotations

import gzip
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ann.arrays import Floats, Ids, unit
from ann.datasets import DataSet
from filtering.filters import Columns
from ruvector.values import Metric

DICE, CELL = "dice", "cell"
CELLS_MAX = 1_000
TRAINING_ROWS = 40_000  # 40 rows a cell
TRAINING_STEPS = 6  # later steps move few rows
BLOCK_ROWS = 32_768
LABELS = {"debian-25k-384": "section", "fashion-mnist-784": "label"}


@dataclass(frozen=True, slots=True)
class Attributed:
    """A set, the columns of its rows, and the centres [cells, dims] of the cells.

    ``dice`` numbers the rows at random, so that a range of it has any size wanted. ``label`` is the column of the set
    itself that says what a row is about, and ``labels`` are those of the queries.
    """

    data: DataSet
    columns: Columns
    centres: Floats
    label: str | None
    labels: tuple[Any, ...]


def with_attributes(data: DataSet, folder: Path, *, seed: int) -> Attributed:
    """Return a set with the attributes of its rows; ``folder`` is where real sets lie."""
    random = np.random.default_rng([seed, 3])
    rows = len(data.base)
    centres, cells = _cells(data.base, data.metric, random)
    columns: dict[str, npt.NDArray[Any]] = {
        DICE: random.permutation(rows).astype(np.int32),
        CELL: cells.astype(np.int32),
    }
    labels: tuple[Any, ...] = ()
    if data.name == "debian-25k-384":
        told = _lines(folder / data.name / "base.jsonl.gz")[:rows]
        columns["section"] = np.array([line["section"] for line in told])
        columns["installed_kb"] = np.array([line["installed_kb"] for line in told], dtype=np.int32)
        asked = _lines(folder / data.name / "queries.jsonl.gz")[: len(data.queries)]
        labels = tuple(line["section"] for line in asked)
    elif data.name == "fashion-mnist-784":
        columns["label"] = np.load(folder / data.name / "base.npz")["labels"][:rows].astype(np.int32)
        # The set does not say what its queries show: most likely what the nearest row does.
        nearest = np.argmin(scores_of(data.base, data.queries, data.metric), axis=1)
        labels = tuple(columns["label"][nearest].tolist())
    return Attributed(data, columns, centres, LABELS.get(data.name), labels)


def scores_of(base: Floats, queries: Floats, metric: Metric) -> Floats:
    """Return scores [q, n] that ascend as distances do, in float32."""
    asked = unit(queries) if metric is Metric.COSINE else queries
    scores = np.empty((len(queries), len(base)), dtype=np.float32)
    for start in range(0, len(base), BLOCK_ROWS):
        block = np.asarray(base[start : start + BLOCK_ROWS])
        block = unit(block) if metric is Metric.COSINE else block
        products = asked @ block.T
        near = 2 * products - np.einsum("rd,rd->r", block, block) if metric is Metric.L2 else products
        scores[:, start : start + len(block)] = -near
    return scores


def _cells(base: Floats, metric: Metric, random: np.random.Generator) -> tuple[Floats, Ids]:
    """Return centres of a k-means over some rows, and the nearest centre of every row."""
    count = max(2, min(CELLS_MAX, round(len(base) ** 0.5)))
    chosen = np.sort(random.choice(len(base), size=min(len(base), TRAINING_ROWS), replace=False))
    rows = np.asarray(base[chosen])
    # By inner product the longest centres would win all rows: cells are of directions then.
    near = Metric.L2 if metric is Metric.L2 else Metric.COSINE
    centres = rows[random.choice(len(rows), size=count, replace=False)]
    for _ in range(TRAINING_STEPS):
        of_row = np.argmin(scores_of(centres, rows, near), axis=1)
        sums = np.zeros_like(centres)
        np.add.at(sums, of_row, unit(rows) if near is Metric.COSINE else rows)
        sizes = np.bincount(of_row, minlength=count)[:, None]
        centres = np.where(sizes > 0, sums / np.maximum(sizes, 1), centres).astype(np.float32)
    parts = [
        np.argmin(scores_of(centres, np.asarray(base[start : start + BLOCK_ROWS]), near), axis=1)
        for start in range(0, len(base), BLOCK_ROWS)
    ]
    return centres, np.concatenate(parts)


def _lines(path: Path) -> list[dict[str, Any]]:
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]
