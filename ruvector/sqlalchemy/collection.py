"""Collections declared in metadata: which column is attached, under which name, and how."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from pgvector.sqlalchemy import BIT, HALFVEC, SPARSEVEC, VECTOR
from sqlalchemy import Column, MetaData, Table
from sqlalchemy.orm import QueryableAttribute
from sqlalchemy.sql.expression import ColumnElement

from ruvector import limits
from ruvector.errors import InvalidParameter
from ruvector.values import Metric

_KEY = "ruvector.collections"  # in MetaData.info
_VECTOR_TYPES = (VECTOR, HALFVEC, BIT, SPARSEVEC)

AnyColumn = ColumnElement[Any] | QueryableAttribute[Any]


@dataclass(frozen=True, slots=True, eq=False)
class Collection:
    """An attached vector column, declared beside its table as an Index is.

    >>> Collection("items_embedding", Item.embedding, columns=[Item.category, "price"])  # doctest: +SKIP

    Args:
        name: of the collection; unique in the database.
        column: a mapped attribute or a column of a Table.
        metric: l2, cosine, ip, l1, hamming or jaccard; when left out l2, for BIT columns hamming.
        columns: the columns that filters may use.
        m: links per node of the index.
        ef_construction: candidates per insertion.
        ef_search: candidates of a search that does not say how many.
        dims: only for a column whose type does not declare them.
        api_schema: where the SQL functions are installed, when that schema is not on the search path.

    Raises:
        InvalidParameter: the column holds no vectors, the metric does not fit it, or the name is taken.
    """

    name: str
    column: Any  # given as AnyColumn, kept as the Column of the table
    metric: str | None = None
    columns: Sequence[AnyColumn | str] = ()
    m: int | None = None
    ef_construction: int | None = None
    ef_search: int | None = None
    dims: int | None = None
    api_schema: str | None = None

    def __post_init__(self) -> None:
        """Check, and register in the metadata of the table."""
        if not 1 <= len(self.name.encode()) <= limits.IDENTIFIER_BYTES_MAX:
            raise InvalidParameter(
                f"the collection name {self.name!r} has {len(self.name.encode())} bytes, not 1 to "
                f"{limits.IDENTIFIER_BYTES_MAX}",
                hint="Choose a shorter name.",
            )
        column = table_column(self.column)
        object.__setattr__(self, "column", column)
        object.__setattr__(self, "columns", tuple(_column_name(each, column.table) for each in self.columns))
        object.__setattr__(self, "metric", str(_metric(self.metric, column)))
        declared = self.table.metadata.info.setdefault(_KEY, {})
        for other in declared.values():
            if other.name == self.name or other.column is column:
                raise InvalidParameter(
                    f'collection "{other.name}" of {other.column} is declared already',
                    hint="A name and a column stand in one Collection only.",
                )
        declared[self.name] = self

    @property
    def table(self) -> Table:
        """Return the table of the column."""
        table: Table = self.column.table
        return table

    @property
    def dims_declared(self) -> int | None:
        """Return the dimensions given here, else those of the column's type, None when neither says them."""
        if self.dims is not None:
            return self.dims
        kind = self.column.type
        return getattr(kind.impl, "length", None) if isinstance(kind, BIT) else kind.dim

    @property
    def key_columns(self) -> tuple[Column[Any], ...]:
        """Return the columns of the row key, in the order of the primary key."""
        return tuple(self.table.primary_key.columns)

    @property
    def filter_columns(self) -> tuple[str, ...]:
        """Return the names of the columns that filters may use."""
        return tuple(str(name) for name in self.columns)


def collections_of(metadata: MetaData | Iterable[MetaData]) -> list[Collection]:
    """Return the collections declared in metadata, in the order of their declaration."""
    homes = [metadata] if isinstance(metadata, MetaData) else metadata
    return [collection for home in homes for collection in home.info.get(_KEY, {}).values()]


def find_collection(column: ColumnElement[Any]) -> Collection | None:
    """Return the collection declared for a column, also of an alias of its table; None when there is none."""
    for base in column.base_columns:
        for collection in collections_of(base.table.metadata) if isinstance(base, Column) else ():
            if collection.column is base:
                return collection
    return None


def collection_of(column: ColumnElement[Any], *, name: str | None = None) -> Collection:
    """Return the collection declared for a column, also of an alias of its table.

    Raises:
        InvalidParameter: none is declared, or it has another name.
    """
    found = find_collection(column)
    if found is None or name not in (None, found.name):
        raise InvalidParameter(
            f"column {column} is not declared as a collection" + (f" called {name}" if name else ""),
            hint="Declare it beside its table: Collection(name, Item.embedding, metric=...).",
        )
    return found


def table_column(given: AnyColumn) -> Column[Any]:
    """Return the column of a table behind a mapped attribute, or the column itself."""
    mapped = given.property.columns[0] if isinstance(given, QueryableAttribute) else given
    if not isinstance(mapped, Column) or not isinstance(mapped.table, Table):
        raise InvalidParameter(
            f"{given} is not a column of a table", hint="Give a mapped attribute, or table.c.<column>."
        )
    return mapped


def _column_name(given: AnyColumn | str, table: Table) -> str:
    if not isinstance(given, str):
        return table_column(given).name
    if given not in {column.name for column in table.columns}:
        raise InvalidParameter(
            f"table {table} has no column {given!r}", hint="Name columns as the database has them, or give attributes."
        )
    return given


def _metric(given: str | None, column: Column[Any]) -> Metric:
    if not isinstance(column.type, _VECTOR_TYPES):
        raise InvalidParameter(
            f"column {column} has type {column.type!r}, not VECTOR, HALFVEC, BIT or SPARSEVEC",
            hint="Take the types from ruvector.sqlalchemy or pgvector.sqlalchemy.",
        )
    is_binary = isinstance(column.type, BIT)
    metric = given if given is not None else (Metric.HAMMING if is_binary else Metric.L2)
    if metric not in list(Metric) or Metric(metric).is_binary != is_binary:
        raise InvalidParameter(
            f"metric {metric!r} does not work on a column of type {column.type!r}",
            hint="BIT columns take hamming or jaccard, all others l2, ip, cosine or l1.",
        )
    return Metric(metric)
