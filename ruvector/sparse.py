"""Sparse vectors: few elements in many dimensions, as pgvector's sparsevec has them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from ruvector import limits
from ruvector.errors import DimensionMismatch, InvalidParameter, InvalidText, InvalidVector

_FORM = "Write it like '{1:0.5,3:2}/5'; indices count from 1."
_TEXT = re.compile(r"\s*\{([^{}]*)\}\s*/\s*([0-9]{1,10})\s*")
_ELEMENT = re.compile(
    r"\s*([+-]?[0-9]{1,10})\s*:\s*([+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?|nan|[+-]?inf(?:inity)?)\s*",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True, eq=False)
class SparseVectors:
    """Sparse rows of one width: checked when they are made, copies that nobody can change afterwards.

    Row r holds ``values[indptr[r]:indptr[r + 1]]`` at the dimensions ``indices[...]``, which count from 0 and ascend.
    Elements that are zero are left out, as pgvector leaves them out.

    >>> rows = SparseVectors.from_texts(["{1:0.5,3:2}/5", "{}/5"])
    >>> rows.indices.tolist(), rows.values.tolist(), rows.dims, len(rows)
    ([0, 2], [0.5, 2.0], 5, 2)
    """

    indptr: npt.NDArray[np.int64]  # [rows + 1]
    indices: npt.NDArray[np.uint32]  # [elements]
    values: npt.NDArray[np.float32]  # [elements]
    dims: int

    def __post_init__(self) -> None:
        """Check and copy.

        Raises:
            InvalidParameter: the arrays do not fit together, or dims is outside its range.
            InvalidVector: an index or a value cannot be used; the message names the row.
        """
        dims = _checked_dims(self.dims)
        indptr = _checked_starts(self.indptr)
        indices, values = _flat(self.indices, "indices", "iu"), _flat(self.values, "values", "fiu")
        if not int(indptr[-1]) == len(indices) == len(values):
            raise InvalidParameter(
                f"indptr ends at {indptr[-1]}, but there are {len(indices)} indices and {len(values)} values"
            )
        with np.errstate(over="ignore"):
            values = values.astype(np.float32)  # a number too large becomes infinite and is refused next
        _refuse_first(~np.isfinite(values), indptr, "holds NaN or infinity")
        _refuse_first((indices < 0) | (indices >= dims), indptr, f"has an index outside 0 to {dims - 1}")
        indices = indices.astype(np.uint32)
        _refuse_disorder(indptr, indices)
        kept = values != 0
        if not kept.all():
            indptr = np.concatenate((np.zeros(1, dtype=np.int64), np.cumsum(kept)))[indptr]
            indices, values = indices[kept], values[kept]
        lengths = np.diff(indptr)
        if lengths.max(initial=0) > limits.SPARSE_ELEMENTS_MAX:
            raise InvalidVector(
                f"vector {int(np.argmax(lengths))} has {lengths.max()} elements that are not zero",
                hint=f"A sparse vector takes at most {limits.SPARSE_ELEMENTS_MAX}.",
            )
        for name, array in (("indptr", indptr), ("indices", indices), ("values", values)):
            array.setflags(write=False)
            object.__setattr__(self, name, array)
        object.__setattr__(self, "dims", dims)

    @classmethod
    def from_texts(cls, texts: Sequence[str], *, dims: int | None = None) -> SparseVectors:
        """Read vectors in pgvector's text form, such as ``{1:0.5,3:2}/5``; the indices of a text count from 1.

        ``dims`` is needed only when there is no text.

        Raises:
            InvalidText: a text does not read as a sparse vector.
            DimensionMismatch: the texts, or ``dims``, name several widths.
            InvalidVector: an index occurs twice or lies outside the dimensions, or a value is not finite.
        """
        parsed = [_parsed(text) for text in texts]
        width = dims if dims is not None else parsed[0][2] if parsed else 0
        for _, _, stated in parsed:
            if stated != width:
                raise DimensionMismatch(expected=width, got=stated)
        ends = np.cumsum([0, *(len(indices) for indices, _, _ in parsed)])
        joined = np.concatenate([np.zeros(0, dtype=np.int64), *(indices for indices, _, _ in parsed)])
        return cls(ends, joined, np.concatenate([np.zeros(0), *(values for _, values, _ in parsed)]), width)

    @classmethod
    def of(cls, given: object, *, dims: int) -> SparseVectors:
        """Return the rows of ``given``: SparseVectors, or anything with the attributes of a scipy CSR matrix.

        Raises:
            DimensionMismatch: it has another number of columns than ``dims``.
            InvalidParameter, InvalidVector: it is neither, or holds what cannot be used.
        """
        rows = given if isinstance(given, SparseVectors) else _from_csr(given)
        if rows.dims != dims:
            raise DimensionMismatch(expected=dims, got=rows.dims)
        return rows

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.indptr) - 1

    def __getitem__(self, selected: npt.NDArray[Any] | slice) -> SparseVectors:
        """Return some rows: where a bool array holds, or those of whole numbers or of a slice."""
        rows = np.arange(len(self))[selected]
        lengths = self.lengths[rows]
        indptr = np.concatenate((np.zeros(1, dtype=np.int64), np.cumsum(lengths)))
        places = np.arange(indptr[-1]) + np.repeat(self.indptr[rows] - indptr[:-1], lengths)
        return SparseVectors(indptr, self.indices[places], self.values[places], self.dims)

    @property
    def lengths(self) -> npt.NDArray[np.int64]:
        """Return how many elements each row has."""
        return np.diff(self.indptr)

    def differ(self, other: SparseVectors) -> npt.NDArray[np.bool_]:
        """Tell which rows are not equal to the row of ``other`` in the same place."""
        if len(self) != len(other):
            raise InvalidParameter(f"there are {len(self)} and {len(other)} rows to compare")
        different: npt.NDArray[np.bool_] = self.lengths != other.lengths
        left, right = self[~different], other[~different]
        wrong = (left.indices != right.indices) | (left.values != right.values)
        rows = np.flatnonzero(~different)[np.repeat(np.arange(len(left)), left.lengths)[wrong]]
        different[rows] = True
        return different

    def texts(self) -> list[str]:
        """Return the rows in pgvector's text form."""
        counted = self.indices.astype(np.int64) + 1
        pairs = [f"{index}:{value!s}" for index, value in zip(counted.tolist(), self.values, strict=True)]
        return ["{" + ",".join(pairs[start:end]) + f"}}/{self.dims}" for start, end in pairwise(self.indptr.tolist())]


def _from_csr(given: object) -> SparseVectors:
    parts = [getattr(given, name, None) for name in ("indptr", "indices", "data", "shape")]
    if any(part is None for part in parts) or getattr(given, "format", "csr") != "csr":
        raise InvalidParameter(
            f"sparse vectors are needed, this is {type(given).__name__}",
            hint="Give ruvector.SparseVectors, or a scipy CSR matrix (.tocsr()).",
        )
    indptr, indices, data, shape = cast("list[Any]", parts)
    if len(shape) != 2 or len(indptr) != shape[0] + 1:
        raise InvalidParameter(f"a CSR matrix of shape {tuple(shape)} cannot have {len(indptr)} row starts")
    return SparseVectors(indptr, indices, data, int(shape[1]))


def _checked_dims(dims: object) -> int:
    if isinstance(dims, (bool, np.bool_)) or not isinstance(dims, (int, np.integer)):
        raise InvalidParameter(f"dims must be a whole number, it is {dims!r}")
    if not 1 <= dims <= limits.SPARSE_DIMS_MAX:
        raise InvalidParameter(f"dims is {dims}", hint=f"Give a number from 1 to {limits.SPARSE_DIMS_MAX}.")
    return int(dims)


def _flat(given: object, name: str, kinds: str) -> npt.NDArray[Any]:
    try:
        array = np.asarray(given)
    except ValueError as error:
        raise InvalidParameter(f"{name} do not form an array: {error}") from None
    if array.ndim != 1 or (array.size and array.dtype.kind not in kinds):
        raise InvalidParameter(f"{name} must be numbers in one axis, these are {array.dtype} of shape {array.shape}")
    return array if array.size else np.zeros(0, dtype=np.int64)


def _checked_starts(given: object) -> npt.NDArray[np.int64]:
    indptr = _flat(given, "indptr", "iu")
    if len(indptr) == 0 or indptr[0] != 0 or (indptr[1:] < indptr[:-1]).any():
        raise InvalidParameter("indptr must begin with 0 and never fall")
    return indptr.astype(np.int64)


def _refuse_first(wrong: npt.NDArray[np.bool_], indptr: npt.NDArray[np.int64], problem: str) -> None:
    if wrong.any():
        row = int(np.searchsorted(indptr, int(np.argmax(wrong)), side="right")) - 1
        raise InvalidVector(f"vector {row} {problem}", hint="Sparse vectors hold finite numbers; indices count from 0.")


def _refuse_disorder(indptr: npt.NDArray[np.int64], indices: npt.NDArray[np.uint32]) -> None:
    wrong = np.zeros(len(indices), dtype=np.bool_)
    wrong[1:] = indices[1:] <= indices[:-1]
    starts = indptr[indptr < len(indices)]
    wrong[starts] = False  # the first element of a row has none before it
    if wrong.any():
        row = int(np.searchsorted(indptr, int(np.argmax(wrong)), side="right")) - 1
        raise InvalidVector(
            f"the indices of vector {row} do not ascend",
            hint="Sort them and add up those that repeat: sum_duplicates() and sort_indices() of a scipy matrix.",
        )


def _parsed(text: str) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64], int]:
    if not isinstance(text, str):
        raise InvalidText(f"a sparse vector must be text, this is {type(text).__name__}", hint=_FORM)
    whole = _TEXT.fullmatch(text)
    if whole is None:
        raise _unreadable(text)
    parts = whole[1].split(",") if whole[1].strip() else []
    if len(parts) > limits.SPARSE_ELEMENTS_MAX:
        raise InvalidVector(
            f"a sparse vector of {len(parts)} elements is not possible",
            hint=f"It takes at most {limits.SPARSE_ELEMENTS_MAX}.",
        )
    found = [_ELEMENT.fullmatch(part) for part in parts]
    elements = [(int(element[1]), float(element[2])) for element in found if element is not None]
    dims = int(whole[2])
    if len(elements) != len(parts):
        raise _unreadable(text)
    if any(not 1 <= index <= dims for index, _ in elements):
        raise InvalidVector(f"a sparse vector has an index outside 1 to {dims}")
    elements.sort(key=lambda element: element[0])  # pgvector takes them in any order, too
    indices = np.fromiter((index - 1 for index, _ in elements), dtype=np.int64, count=len(elements))
    if (np.diff(indices) == 0).any():
        raise InvalidVector("a sparse vector has an index twice")
    return indices, np.fromiter((value for _, value in elements), dtype=np.float64, count=len(elements)), dims


def _unreadable(text: str) -> InvalidText:
    # Shown short: a vector of 16,000 elements must not fill the message or the log.
    shown = text if len(text) <= 60 else text[:57] + "..."
    return InvalidText(f'"{shown}" is not a sparse vector', hint=_FORM)
