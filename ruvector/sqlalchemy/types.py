"""Column types: pgvector's own, with a search beside the distances; they bind and read what pgvector's do."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pgvector.sqlalchemy as pg
from pgvector import Bit, HalfVector, Vector
from sqlalchemy import Dialect
from sqlalchemy.sql.expression import ColumnElement

from ruvector.sparse import SparseVectors
from ruvector.sqlalchemy.nearest import Nearest, SearchOptions, nearest

try:
    from sqlalchemy.dialects.postgresql import BitString
except ImportError:  # SQLAlchemy 2.0 binds bit strings as text
    BitString = str  # type: ignore[assignment,misc]

Processor = Callable[[Any], Any]


class _Searched:
    """What the comparators of all four types have beside their distances."""

    expr: ColumnElement[Any]

    def knn(
        self,
        query: Any,
        k: int = 10,
        *,
        ef_search: int | None = None,
        filter: Mapping[str, object] | None = None,  # noqa: A002 - the name of the SQL argument
        exactness: str | None = None,
        keys: Any = None,
        max_distance: float | None = None,
        collection: str | None = None,
    ) -> Nearest:
        """Return the k rows nearest to a vector: something to join, whose distance is something to order by.

        >>> near = Item.embedding.knn(query, 5, filter={"category": "a"})  # doctest: +SKIP
        >>> select(Item, near.distance).join(near, near.on).order_by(near.distance)  # doctest: +SKIP

        Args:
            query: what the type binds (list, ndarray, Vector ...), or an SQL expression.
            k: rows to return, 1 to 10,000.
            ef_search: candidates to look at; more finds more of the nearest. Does not apply to SPARSEVEC.
            filter: conditions on the collection's filter columns.
            exactness: fast, balanced or exact.
            keys: the only rows that may be in the answer: a list, an expression of type text[], or a SELECT of keys.
            max_distance: rows that are farther are left out, in pgvector's distance.
            collection: its name; needed only to check that the column is declared under this one.

        Raises:
            InvalidParameter: the column is not declared as a Collection.
        """
        options = SearchOptions(ef_search, filter, exactness, keys, max_distance)
        return nearest(self.expr, query, k=k, options=options, collection=collection)


class VECTOR(pg.VECTOR):
    """pgvector's vector; binds HalfVector too."""

    cache_ok = True

    class Comparator(_Searched, pg.VECTOR.Comparator):
        """pgvector's distances, and knn."""

    comparator_factory = Comparator

    def bind_processor(self, dialect: Dialect) -> Processor:
        """Return what makes a value the text of a vector."""
        return _converted(super().bind_processor(dialect), HalfVector)


class HALFVEC(pg.HALFVEC):
    """pgvector's halfvec; binds Vector too."""

    cache_ok = True

    class Comparator(_Searched, pg.HALFVEC.Comparator):
        """pgvector's distances, and knn."""

    comparator_factory = Comparator

    def bind_processor(self, dialect: Dialect) -> Processor:
        """Return what makes a value the text of a halfvec."""
        return _converted(super().bind_processor(dialect), Vector)


class SPARSEVEC(pg.SPARSEVEC):
    """pgvector's sparsevec; binds one row of SparseVectors too."""

    cache_ok = True

    class Comparator(_Searched, pg.SPARSEVEC.Comparator):
        """pgvector's distances, and knn."""

    comparator_factory = Comparator

    def bind_processor(self, dialect: Dialect) -> Processor:
        """Return what makes a value the text of a sparsevec."""
        inherited = super().bind_processor(dialect)

        def process(value: Any) -> Any:
            return value.texts()[0] if isinstance(value, SparseVectors) and len(value) == 1 else inherited(value)

        return process


class BIT(pg.BIT):
    """pgvector's bit; binds Bit and arrays of bool too."""

    cache_ok = True

    class Comparator(_Searched, pg.BIT.Comparator):
        """pgvector's distances, and knn."""

    comparator_factory = Comparator

    def process_bind_param(self, value: Any, dialect: Any) -> Any:
        """Return a bit string in the form the dialect binds."""
        if value is None or isinstance(value, BitString):
            return value
        text = value if isinstance(value, str) else (value if isinstance(value, Bit) else Bit(value)).to_text()
        return super().process_bind_param(BitString(text), dialect)


def _converted(inherited: Processor, foreign: type[Vector] | type[HalfVector]) -> Processor:
    def process(value: Any) -> Any:
        return inherited(value.to_list() if isinstance(value, foreign) else value)

    return process
