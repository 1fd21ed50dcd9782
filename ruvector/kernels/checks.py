"""Shape and value checks that both twins share, so that they refuse the same input with the same words."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ruvector.errors import DimensionMismatch, InvalidParameter, InvalidVector
from ruvector.values import Metric

FLOAT_TYPES = (np.dtype(np.float32), np.dtype(np.float16))
BIT_TYPE = np.dtype(np.uint8)


def metric_of(metric: Metric | str) -> Metric:
    """Return the metric of that name or raise InvalidParameter."""
    try:
        return Metric(metric)
    except ValueError:
        names = ", ".join(Metric)
        raise InvalidParameter(f'unknown metric "{metric}"', hint=f"Use one of {names}.") from None


def rows_of(rows: NDArray[Any], *, metric: Metric) -> NDArray[Any]:
    """Return rows[n, dims] after checking that their type fits the metric."""
    rows = np.asarray(rows)
    wanted = (BIT_TYPE,) if metric.is_binary else FLOAT_TYPES
    if rows.dtype not in wanted:
        names = " or ".join(str(dtype) for dtype in wanted)
        raise InvalidParameter(f"metric {metric} needs rows of {names}, these are {rows.dtype}")
    if rows.ndim != 2 or rows.shape[1] == 0:
        raise InvalidParameter(f"rows must have two axes, [rows, dims], these have shape {rows.shape}")
    return rows


def float_rows_of(rows: NDArray[Any]) -> NDArray[Any]:
    """Return rows[n, dims] of float32 or float16."""
    return rows_of(rows, metric=Metric.L2)


def query_of(query: ArrayLike, rows: NDArray[Any], *, metric: Metric) -> NDArray[Any]:
    """Return the query as a contiguous array that fits the rows: float32[dims], or uint8[bytes] for bits."""
    if metric.is_binary:
        given = np.asarray(query)
        if given.dtype != BIT_TYPE:
            raise InvalidParameter(f"metric {metric} needs a query of uint8, packed bits, this one is {given.dtype}")
    else:
        # A float64 too large for float32 becomes infinite here and is refused below.
        with np.errstate(over="ignore"):
            given = np.asarray(query, dtype=np.float32)
    if given.ndim != 1:
        raise InvalidParameter(f"a query must have one axis, this one has shape {given.shape}")
    if len(given) != rows.shape[1]:
        bits = 8 if metric.is_binary else 1
        raise DimensionMismatch(expected=rows.shape[1] * bits, got=len(given) * bits)
    # require() also copies what lies at an address a float may not have.
    return np.require(given, requirements=["C", "A"])


def out_of(out: NDArray[np.float32] | None, rows: NDArray[Any]) -> NDArray[np.float32]:
    """Return the array the distances go to: the caller's after a check, else a new one."""
    if out is None:
        return np.empty(len(rows), np.float32)
    if out.dtype != np.float32 or out.shape != (len(rows),):
        raise InvalidParameter(f"out must be float32[{len(rows)}], it is {out.dtype}{list(out.shape)}")
    if not (out.flags.c_contiguous and out.flags.writeable and out.flags.aligned):
        raise InvalidParameter("out must be contiguous, aligned and writeable")
    return out


def refuse_nonfinite(vector: NDArray[Any], *, row: int | None) -> None:
    """Raise InvalidVector naming the first value of the vector that is no finite number."""
    dim = int(np.flatnonzero(~np.isfinite(vector))[0])
    name = "the vector" if row is None else f"vector {row}"
    raise InvalidVector(f"{name} holds {float(vector[dim])} at dimension {dim + 1}")


def refuse_directionless(row: int) -> None:
    """Raise InvalidVector for a row that cannot be brought to length 1."""
    raise InvalidVector(f"vector {row} has no direction: it is zero or not finite")
