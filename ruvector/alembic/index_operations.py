"""Operations on pgvector's own indexes: create, alter and drop hnsw and ivfflat, concurrently if asked."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from alembic.operations import MigrateOperation, Operations
from psycopg import sql
from sqlalchemy import text

from ruvector import db, limits
from ruvector.alembic.script import execute_text
from ruvector.errors import InvalidParameter

DEFAULTS = {"hnsw": {"m": 16, "ef_construction": 64}, "ivfflat": {"lists": 100}}  # pgvector's


@dataclass(frozen=True, slots=True)
class VectorIndex:
    """A pgvector index over one column; options that are left out have pgvector's defaults."""

    name: str
    table: str
    column: str
    method: str = "hnsw"
    opclass: str = "vector_l2_ops"
    options: tuple[tuple[str, int], ...] = ()  # sorted, without those that say the default
    schema: str | None = None
    where: str | None = None

    @classmethod
    def of(cls, name: str, table: str, column: str, *, method: str, opclass: str, given: dict[str, Any],
           schema: str | None, where: str | None) -> VectorIndex:  # fmt: skip
        """Check and normalize.

        Raises:
            InvalidParameter: pgvector has no such method, or the method no such option.
        """
        defaults = DEFAULTS.get(method)
        if defaults is None:
            raise InvalidParameter(f"pgvector has no index method {method!r}", hint="Methods are hnsw and ivfflat.")
        chosen = {option: int(value) for option, value in given.items() if value is not None}
        if unknown := sorted(set(chosen) - set(defaults)):
            raise InvalidParameter(
                f"index {name}: {method} has no option {unknown[0]}", hint=f"It has {', '.join(sorted(defaults))}."
            )
        options = tuple(sorted((key, value) for key, value in chosen.items() if defaults[key] != value))
        return cls(name, table, column, method, opclass, options, schema, where)


class _IndexOp(MigrateOperation):
    """An operation on one index."""

    word = ""

    def __init__(self, index: VectorIndex, *, concurrently: bool) -> None:
        self.index = index
        self.concurrently = concurrently

    def to_diff_tuple(self) -> tuple[Any, ...]:
        """Return what `alembic check` prints."""
        return (self.word, self.index)


@Operations.register_operation("create_vector_index")
class CreateVectorIndexOp(_IndexOp):
    """Create an index of pgvector."""

    word = "create_vector_index"

    @classmethod
    def create_vector_index(
        cls,
        operations: Operations,
        index_name: str,
        table_name: str,
        column_name: str,
        *,
        opclass: str,
        method: str = "hnsw",
        m: int | None = None,
        ef_construction: int | None = None,
        lists: int | None = None,
        schema: str | None = None,
        where: str | None = None,
        concurrently: bool = False,
    ) -> None:
        """Create an hnsw or ivfflat index.

        Args:
            operations: given by Alembic.
            index_name: name of the index.
            table_name: the table.
            column_name: the vector column.
            opclass: vector_l2_ops, vector_ip_ops, vector_cosine_ops, vector_l1_ops; halfvec_..., sparsevec_...;
                bit_hamming_ops, bit_jaccard_ops.
            method: hnsw or ivfflat.
            m: links per node (hnsw).
            ef_construction: candidates per insertion (hnsw).
            lists: number of lists (ivfflat).
            schema: of the table.
            where: condition of a partial index, as SQL.
            concurrently: do not block writes; commits what the migration did so far, and runs outside a transaction.
        """
        given = {"m": m, "ef_construction": ef_construction, "lists": lists}
        index = VectorIndex.of(
            index_name, table_name, column_name, method=method, opclass=opclass, given=given, schema=schema, where=where
        )
        operations.invoke(cls(index, concurrently=concurrently))

    def reverse(self) -> DropVectorIndexOp:
        """Return the removal."""
        return DropVectorIndexOp(self.index, concurrently=self.concurrently)


@Operations.register_operation("alter_vector_index")
class AlterVectorIndexOp(_IndexOp):
    """Build an index of pgvector again with other options."""

    word = "alter_vector_index"

    def __init__(self, index: VectorIndex, *, concurrently: bool, existing: VectorIndex | None = None) -> None:
        super().__init__(index, concurrently=concurrently)
        self.existing = existing

    @classmethod
    def alter_vector_index(
        cls,
        operations: Operations,
        index_name: str,
        table_name: str,
        column_name: str,
        *,
        opclass: str,
        method: str = "hnsw",
        m: int | None = None,
        ef_construction: int | None = None,
        lists: int | None = None,
        schema: str | None = None,
        where: str | None = None,
        concurrently: bool = False,
    ) -> None:
        """Replace an index by one of these options under the same name.

        With ``concurrently`` the new one is built beside the old one first, so that queries always have an index.
        The arguments are those of create_vector_index.
        """
        given = {"m": m, "ef_construction": ef_construction, "lists": lists}
        index = VectorIndex.of(
            index_name, table_name, column_name, method=method, opclass=opclass, given=given, schema=schema, where=where
        )
        operations.invoke(cls(index, concurrently=concurrently))

    def reverse(self) -> AlterVectorIndexOp:
        """Return the way back to the options that were there."""
        if self.existing is None:
            raise InvalidParameter(
                f"alter_vector_index({self.index.name!r}) does not know the options that were there before",
                hint="Write op.alter_vector_index(...) into the downgrade.",
            )
        return AlterVectorIndexOp(self.existing, concurrently=self.concurrently, existing=self.index)

    def to_diff_tuple(self) -> tuple[Any, ...]:
        """Return what `alembic check` prints."""
        return (self.word, self.existing, self.index)


@Operations.register_operation("drop_vector_index")
class DropVectorIndexOp(_IndexOp):
    """Drop an index of pgvector."""

    word = "drop_vector_index"

    @classmethod
    def drop_vector_index(
        cls,
        operations: Operations,
        index_name: str,
        table_name: str,
        *,
        schema: str | None = None,
        concurrently: bool = False,
    ) -> None:
        """Drop an index.

        Args:
            operations: given by Alembic.
            index_name: name of the index.
            table_name: its table.
            schema: of the table.
            concurrently: do not block queries; commits what the migration did so far, and runs outside a transaction.
        """
        operations.invoke(cls(VectorIndex(index_name, table_name, "", schema=schema), concurrently=concurrently))

    def reverse(self) -> CreateVectorIndexOp:
        """Return the creation."""
        if not self.index.column:
            raise InvalidParameter(
                f"drop_vector_index({self.index.name!r}) does not know what to create again",
                hint="Write op.create_vector_index(...) into the downgrade.",
            )
        return CreateVectorIndexOp(self.index, concurrently=self.concurrently)


@Operations.implementation_for(CreateVectorIndexOp)
def _create(operations: Operations, operation: CreateVectorIndexOp) -> None:
    with _outside_transaction(operations, wanted=operation.concurrently):
        _create_index(operations, operation.index, operation.index.name, concurrently=operation.concurrently)


@Operations.implementation_for(DropVectorIndexOp)
def _drop(operations: Operations, operation: DropVectorIndexOp) -> None:
    with _outside_transaction(operations, wanted=operation.concurrently):
        _drop_index(operations, operation.index, operation.index.name, concurrently=operation.concurrently)


@Operations.implementation_for(AlterVectorIndexOp)
def _alter(operations: Operations, operation: AlterVectorIndexOp) -> None:
    index = operation.index
    if not operation.concurrently:
        _drop_index(operations, index, index.name, concurrently=False)
        _create_index(operations, index, index.name, concurrently=False)
        return
    beside = _cut(index.name, limits.IDENTIFIER_BYTES_MAX - 4) + "_new"
    with _outside_transaction(operations, wanted=True):
        # A build that failed half-way leaves an invalid index behind.
        _drop_index(operations, index, beside, concurrently=True)
        _create_index(operations, index, beside, concurrently=True)
        _drop_index(operations, index, index.name, concurrently=True)
        place = sql.Identifier(*([index.schema] if index.schema else []), beside)
        rename = sql.SQL(db.query("alembic", "rename_index").partition("\n")[2].rstrip(";"))
        execute_text(operations, rename.format(place, sql.Identifier(index.name)).as_string())


def _create_index(operations: Operations, index: VectorIndex, name: str, *, concurrently: bool) -> None:
    operations.create_index(
        name,
        index.table,
        [index.column],
        schema=index.schema,
        postgresql_using=index.method,
        postgresql_with=dict(index.options),
        postgresql_ops={index.column: index.opclass},
        postgresql_where=None if index.where is None else text(index.where.replace(":", "\\:")),
        postgresql_concurrently=concurrently,
    )


def _drop_index(operations: Operations, index: VectorIndex, name: str, *, concurrently: bool) -> None:
    operations.drop_index(
        name, table_name=index.table, schema=index.schema, if_exists=True, postgresql_concurrently=concurrently
    )


@contextmanager
def _outside_transaction(operations: Operations, *, wanted: bool) -> Iterator[None]:
    if not wanted:
        yield
        return
    with operations.get_context().autocommit_block():
        yield


def _cut(name: str, size: int) -> str:
    return name.encode()[:size].decode(errors="ignore")
