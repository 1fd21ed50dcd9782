"""The frozen values that cross package borders."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from ruvector.sparse import SparseVectors

    RowKeys = NDArray[np.int64] | list[str]  # of one batch, as KeyKind says


class Metric(StrEnum):
    """A distance; names and signs are pgvector's."""

    L2 = "l2"  # Euclidean distance
    IP = "ip"  # negative inner product
    COSINE = "cosine"  # 1 - cosine similarity
    L1 = "l1"  # taxicab distance
    HAMMING = "hamming"  # differing bits
    JACCARD = "jaccard"  # 1 - |a and b| / |a or b|

    @property
    def is_binary(self) -> bool:
        """Tell whether the metric compares bit strings."""
        return self in (Metric.HAMMING, Metric.JACCARD)

    @property
    def operator(self) -> str:
        """Return pgvector's operator."""
        return _OPERATORS[self]


_OPERATORS = {
    Metric.L2: "<->", Metric.IP: "<#>", Metric.COSINE: "<=>", Metric.L1: "<+>", Metric.HAMMING: "<~>",
    Metric.JACCARD: "<%>",
}  # fmt: skip


class ElementType(StrEnum):
    """How one vector is stored."""

    F32 = "f32"
    F16 = "f16"
    BIT = "bit"
    SPARSE = "sparse"  # few f32 elements in many dimensions


class IndexKind(StrEnum):
    """An index structure."""

    FLAT = "flat"
    HNSW = "hnsw"
    IVF = "ivf"
    INVERTED = "inverted"  # a list of rows for every dimension: sparse vectors, exact


class KeyKind(StrEnum):
    """How row keys are held by the engine: 8-byte integers, or text for everything else."""

    INT64 = "int64"
    TEXT = "text"


@dataclass(frozen=True, slots=True)
class IndexOptions:
    """Everything that decides the shape of an index."""

    dims: int
    metric: Metric
    kind: IndexKind = IndexKind.HNSW
    element: ElementType = ElementType.F32
    key_kind: KeyKind = KeyKind.INT64
    m: int = 16
    ef_construction: int = 200
    ef_search: int = 100
    seed: int = 42


@dataclass(frozen=True, slots=True)
class Hit:
    """One row of a search answer."""

    id: str
    distance: float
    score: float
    tier: str
    is_exact: bool


@dataclass(frozen=True, slots=True)
class Restriction:
    """Which rows may be in an answer: those that pass a filter, have one of the keys, and are no farther; None: any."""

    filter: Mapping[str, Any] | None = None
    keys: Sequence[str] | None = None
    max_distance: float | None = None


ANY_ROW = Restriction()


@dataclass(frozen=True, slots=True)
class Attribute:
    """A mirrored column that searches can be filtered by."""

    name: str
    type: str  # as format_type(oid, -1) writes it: "integer", "text[]"
    is_bytewise: bool = True  # false for texts whose collation calls different bytes equal
    version: str = ""  # another one when the column may hold values that no change told of: then all are read again
    is_ordered: bool = False  # texts are ordered by the code points of their characters (collation C)


@dataclass(frozen=True, slots=True, eq=False)
class AttributeValues:
    """The values that one attribute has in some rows, and in which of them it is not NULL.

    Whole numbers, dates (days) and timestamps (microseconds, both since 2000-01-01 UTC, infinities at the ends of their
    range) are int64[n]; booleans bool[n]; real, double precision and numeric float64[n]; uuid S16[n]; texts and arrays
    object[n]: str, or a tuple of str, int and None.
    """

    values: NDArray[Any]
    present: NDArray[np.bool_]


@dataclass(frozen=True, slots=True, eq=False)
class AttributeRows:
    """All attributes of some rows, by name, and the database's hash over the attributes of each row, int64[n]."""

    columns: Mapping[str, AttributeValues]
    hashes: NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Collection:
    """One attached vector column, as registered in the database."""

    id: int
    name: str
    table_oid: int
    table_schema: str
    table_name: str
    column_name: str
    key_columns: tuple[str, ...]
    key_types: tuple[str, ...]
    options: IndexOptions
    attributes: tuple[Attribute, ...] = ()
    fingerprint: str = ""

    @property
    def table_ref(self) -> str:
        """Return schema and table for people; never for SQL text."""
        return f"{self.table_schema}.{self.table_name}"


@dataclass(frozen=True, slots=True, eq=False)
class DecodedRows:
    """The rows of one COPY: keys[rows] and vectors[rows, dims], and the keys without a usable vector."""

    keys: RowKeys
    vectors: NDArray[Any] | SparseVectors
    missing_keys: RowKeys  # the vector is NULL
    wrong_keys: RowKeys  # the vector has another number of dimensions
    last_key: str | None  # text of the key of the last row sent, with or without a usable vector
    spans: NDArray[np.int64] | None = None  # where further fields of ``keys`` lie in the data that was sent ...
    missing_spans: NDArray[np.int64] | None = None  # ... and of ``missing_keys``
    attributes: AttributeRows | None = None  # of the rows in ``keys``; None when none were asked for

    @property
    def row_count(self) -> int:
        """Return how many rows were sent."""
        return len(self.keys) + len(self.missing_keys) + len(self.wrong_keys)
