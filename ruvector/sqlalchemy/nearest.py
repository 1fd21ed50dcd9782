"""A call of the search function as a table, and how its rows meet those of the searched table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pgvector.sqlalchemy import BIT, SPARSEVEC, VECTOR
from sqlalchemy import JSON, REAL, Boolean, Double, Integer, Text, and_, cast, column, false, func, literal
from sqlalchemy.dialects.postgresql import ARRAY, JSONB
from sqlalchemy.sql.expression import ColumnElement, FromClause, Select, TableValuedAlias

from ruvector.sqlalchemy.collection import Collection, collection_of
from ruvector.sqlalchemy.filters import json_value

_COLUMNS = (("id", Text), ("distance", REAL), ("score", REAL), ("tier", Text), ("is_exact", Boolean))


@dataclass(frozen=True, slots=True, eq=False)
class Nearest:
    """The rows nearest to a vector: join it with ``on``, order by ``distance``."""

    found: TableValuedAlias
    on: ColumnElement[bool]

    def __clause_element__(self) -> TableValuedAlias:
        """Return what SQLAlchemy puts into FROM."""
        return self.found

    @property
    def distance(self) -> ColumnElement[float]:
        """Return the distance, with pgvector's sign."""
        return self.found.c.distance

    @property
    def score(self) -> ColumnElement[float]:
        """Return the score: larger is nearer."""
        return self.found.c.score

    @property
    def tier(self) -> ColumnElement[str]:
        """Return who answered: hot is the index, pgvector and exact are the database itself."""
        return self.found.c.tier

    @property
    def is_exact(self) -> ColumnElement[bool]:
        """Return whether the distance is exact."""
        return self.found.c.is_exact


@dataclass(frozen=True, slots=True)
class SearchOptions:
    """What a search is told besides collection, vector and k; None: what the function does by itself.

    ``keys`` are texts or whole numbers, an expression of type text[], or a SELECT of one column.
    """

    ef_search: int | None = None
    filter: Mapping[str, object] | None = None
    exactness: str | None = None
    keys: Any = None
    max_distance: float | None = None


def nearest(
    searched: ColumnElement[Any], query: Any, *, k: int, options: SearchOptions, collection: str | None
) -> Nearest:
    """Return the k rows nearest to a vector, for a column of a table or of an alias of it."""
    declared = collection_of(searched, name=collection)
    vector = query if isinstance(query, ColumnElement) else literal(query, searched.type)
    found = search_call(declared, vector, k=literal(k, Integer), options=options)
    keys = zip(keys_in(searched, declared), found_keys(found, declared), strict=True)
    return Nearest(found, and_(*(own == key for own, key in keys)))


def search_call(
    collection: Collection, query: ColumnElement[Any], *, k: ColumnElement[int], options: SearchOptions
) -> TableValuedAlias:
    """Return ruvector_search(...) of the collection's type as a table of id, distance, score, tier, is_exact."""
    beam = literal(options.ef_search, Integer)
    rest = (
        literal(json_value(options.filter), JSONB(none_as_null=True)),
        literal(options.exactness, Text),
        _keys_given(options.keys),
        literal(options.max_distance, Double),
    )
    home = getattr(func, collection.api_schema) if collection.api_schema else func
    name = literal(collection.name, Text)
    kind = collection.column.type
    if isinstance(kind, BIT):  # no cast: bit without a length is bit(1)
        call = home.ruvector_search_bits(name, query, k, beam, *rest)
    elif isinstance(kind, SPARSEVEC):
        call = home.ruvector_search_sparse(name, cast(query, SPARSEVEC()), k, *rest)
    else:
        call = home.ruvector_search(name, cast(query, VECTOR()), k, beam, false(), *rest)
    table: TableValuedAlias = call.table_valued(*(column(name, kind) for name, kind in _COLUMNS))
    return table


def _keys_given(keys: Any) -> ColumnElement[Any]:
    """Return the keys that a search is restricted to as a text[]."""
    if isinstance(keys, Select):
        (chosen,) = keys.selected_columns
        return func.array(keys.with_only_columns(cast(chosen, Text)).scalar_subquery(), type_=ARRAY(Text))
    if keys is None or isinstance(keys, ColumnElement):
        return literal(None, ARRAY(Text)) if keys is None else keys
    return literal([str(key) for key in keys], ARRAY(Text))


def keys_in(searched: ColumnElement[Any], collection: Collection) -> Sequence[ColumnElement[Any]]:
    """Return the key columns where the searched column stands: in the table, or in an alias of it."""
    home: FromClause = searched.table
    return [home.c[key.key] for key in collection.key_columns]


def found_keys(found: TableValuedAlias, collection: Collection) -> Sequence[ColumnElement[Any]]:
    """Return the keys of an answer in the types of the table: an id is the text of one, or a JSON array of several."""
    keys = collection.key_columns
    if len(keys) == 1:
        return [cast(found.c.id, keys[0].type)]
    document = cast(found.c.id, JSON)
    return [cast(document[position].as_string(), key.type) for position, key in enumerate(keys)]
