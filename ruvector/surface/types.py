"""The SQL types a declared function may use, as Python annotations."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Annotated, Any, Final, TypeVar

import numpy as np
from numpy.typing import NDArray

from ruvector.sparse import SparseVectors
from ruvector.surface import coercion

_Row = TypeVar("_Row")
_TEXT_OID = 25


@dataclass(frozen=True, slots=True)
class SqlType:
    """One SQL type.

    ``sql`` is how it is written in DDL (``@vector@`` stands for the schema of pgvector), ``oid`` the type a result
    column has on the wire (text for types without a fixed oid), ``read`` turns a caller's value into the Python value.
    """

    sql: str
    oid: int
    read: Callable[[object], Any]

    @property
    def label(self) -> str:
        """Return the type as people read it, without the placeholder of a schema."""
        return self.sql.replace("@vector@.", "")


@dataclass(frozen=True, slots=True)
class RowsMarker:
    """Marks a result of many rows."""


TEXT: Final = SqlType("text", _TEXT_OID, coercion.read_text)

Text = Annotated[str, TEXT]
CollectionName = Annotated[str, TEXT]
Bool = Annotated[bool, SqlType("boolean", 16, coercion.read_bool)]
Int4 = Annotated[int, SqlType("integer", 23, coercion.integer_reader(sql="integer", bits=32))]
Int8 = Annotated[int, SqlType("bigint", 20, coercion.integer_reader(sql="bigint", bits=64))]
Real = Annotated[float, SqlType("real", 700, coercion.read_number)]
Double = Annotated[float, SqlType("double precision", 701, coercion.read_number)]
Bytea = Annotated[bytes, SqlType("bytea", 17, coercion.read_bytes)]
Jsonb = Annotated[Any, SqlType("jsonb", 3802, coercion.read_jsonb)]
TextArray = Annotated[list[str | None], SqlType("text[]", 1009, coercion.list_reader(coercion.read_text, sql="text[]"))]
RealArray = Annotated[NDArray[np.float32], SqlType("real[]", 1021, coercion.read_reals)]
Vector = Annotated[NDArray[np.float32], SqlType("@vector@.vector", _TEXT_OID, coercion.read_vector)]
VectorArray = Annotated[list[NDArray[np.float32]], SqlType("@vector@.vector[]", _TEXT_OID, coercion.read_vectors)]
Sparse = Annotated[SparseVectors, SqlType("@vector@.sparsevec", _TEXT_OID, coercion.read_sparse)]
Bits = Annotated[coercion.BitString, SqlType("bit", _TEXT_OID, coercion.read_bits)]

# The result of a set-returning function: Rows[SomeFrozenDataclass] becomes RETURNS TABLE (its fields).
Rows = Annotated[Iterable[_Row], RowsMarker()]

# The default '{}' of a jsonb argument; a literal dict would be shared and could be changed.
EMPTY_OBJECT: Final[Mapping[str, object]] = MappingProxyType({})
