"""Types and the few array operations that data sets, truth and engines share."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]
Ids = npt.NDArray[np.int64]

K = 10  # neighbours asked for: every figure is about recall@10
NO_ROW = -1  # in place of a neighbour that was not found


def unit(rows: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return rows of length one; a row of zeros stays what it is."""
    lengths = np.linalg.norm(rows, axis=-1, keepdims=True)
    scaled: npt.NDArray[Any] = rows / np.where(lengths == 0, np.ones_like(lengths), lengths)
    return scaled


def as_ids(found: Any) -> Ids:
    """Return row numbers [q, 10] of an engine's answer, filled with NO_ROW where it found fewer."""
    numbers = np.atleast_2d(np.asarray(found)).astype(np.int64)
    ids = np.full((len(numbers), K), NO_ROW, dtype=np.int64)
    ids[:, : numbers.shape[1]] = numbers[:, :K]
    return ids
