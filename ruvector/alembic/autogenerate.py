"""Compare metadata with the database: declared collections, and pgvector's indexes with all their options."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from alembic.autogenerate.api import AutogenContext
from alembic.operations import ops
from sqlalchemy import ClauseElement, Column, Connection, Dialect, Index, MetaData, Table
from sqlalchemy.dialects import postgresql

from ruvector.alembic.collection_operations import Attachment, AttachOp, ConfigureOp, DetachOp, InstallOp
from ruvector.alembic.index_operations import (
    DEFAULTS,
    AlterVectorIndexOp,
    CreateVectorIndexOp,
    DropVectorIndexOp,
    VectorIndex,
)
from ruvector.alembic.rendering import render_vector_types
from ruvector.errors import InternalError

if TYPE_CHECKING:
    from ruvector.sqlalchemy import Collection

OWN_SCHEMA = "ruvector"
Place = tuple[str | None, str]  # schema, None for the default one, and name


@dataclass(frozen=True, slots=True)
class Present:
    """What the database has of ours and of pgvector's."""

    is_installed: bool
    attached: dict[str, Attachment]
    indexes: dict[Place, VectorIndex]
    partitioned: frozenset[Place]


def hide_own_schema(context: AutogenContext, upgrade_ops: ops.UpgradeOps, schemas: set[str | None]) -> None:
    """Keep schema ruvector out of the comparison; runs before tables are compared."""
    schemas.discard(OWN_SCHEMA)
    render_vector_types(context)


def compare(context: AutogenContext, upgrade_ops: ops.UpgradeOps, schemas: set[str | None]) -> None:
    """Add what differs in collections and vector indexes; runs after tables were compared."""
    if context.connection is None:
        raise InternalError("autogenerate runs on a connection")
    present = _read(context.connection)
    _VectorIndexes(context, upgrade_ops, present).compare(schemas)
    _compare_collections(context, upgrade_ops, present)


# ---- what the database has ----------------------------------------------------------------------------------------


def _read(connection: Connection) -> Present:
    # Imported here: it loads pgvector's types, and Alembic loads this module as a plug-in of every project.
    from ruvector.sqlalchemy.catalog import is_installed, registered, rows_of

    default_schema = connection.dialect.default_schema_name

    def schema(name: str) -> str | None:
        return None if name == default_schema else name

    attached = {
        each.name: Attachment(
            name=each.name,
            table=each.table,
            column=each.column,
            schema=each.schema,
            metric=each.metric,
            columns=each.filter_columns,
            dims=each.dims,
            m=each.m,
            ef_construction=each.ef_construction,
            ef_search=each.ef_search,
        )
        for each in registered(connection, default_schema=default_schema)
    }
    indexes = {
        (schema(row.schema), row.name): VectorIndex.of(
            row.name,
            row.table,
            row.column,
            method=row.method,
            opclass=row.operator_class,
            given=dict(option.split("=", 1) for option in row.options),
            schema=schema(row.schema),
            where=row.predicate,
        )
        for row in rows_of(connection, "alembic", "vector_indexes")
    }
    partitioned = frozenset(
        (schema(row.schema), row.table) for row in rows_of(connection, "alembic", "partitioned_tables")
    )
    return Present(is_installed(connection), attached, indexes, partitioned)


# ---- collections --------------------------------------------------------------------------------------------------


def _compare_collections(context: AutogenContext, upgrade_ops: ops.UpgradeOps, present: Present) -> None:
    # Imported here: it loads pgvector's types, and Alembic loads this module as a plug-in of every project.
    from ruvector.sqlalchemy import collections_of

    metadata = context.metadata
    homes = [metadata] if isinstance(metadata, MetaData) else list(metadata or ())
    wanted = {each.name: each for each in collections_of(homes) if _is_asked(context, Attachment.declared(each))}
    known = {(table.schema, table.name) for table in context.sorted_tables} | set(_dropped_tables(upgrade_ops))
    before: list[ops.MigrateOperation] = []
    after: list[ops.MigrateOperation] = []
    for name, attachment in present.attached.items():
        if (attachment.schema, attachment.table) not in known or not _is_asked(context, attachment):
            continue
        collection = wanted.pop(name, None)
        if collection is None:
            before.append(DetachOp(name, attachment=attachment))
            continue
        declared = Attachment.declared(collection)
        if _differs(collection, attachment):
            before.append(DetachOp(name, attachment=attachment))
            after.append(AttachOp(declared))
        elif declared.columns != attachment.columns:
            after.append(ConfigureOp(name, declared.columns, existing_columns=attachment.columns))
    after += [AttachOp(Attachment.declared(collection)) for collection in wanted.values()]
    if after and not present.is_installed:
        after.insert(0, InstallOp())
    # A column is detached before it is altered or dropped, and attached when it is what it shall be.
    upgrade_ops.ops[:0] = before
    upgrade_ops.ops += after


def _is_asked(context: AutogenContext, attachment: Attachment) -> bool:
    parents = {"table_name": attachment.table, "schema_name": attachment.schema}
    return bool(context.run_name_filters(attachment.name, "ruvector_collection", parents))  # type: ignore[arg-type]


def _differs(collection: Collection, attachment: Attachment) -> bool:
    """Tell whether a collection must be copied again; what is declared as None may be anything."""
    declared = replace(Attachment.declared(collection), dims=collection.dims_declared)
    same = ("table", "column", "schema", "metric")
    if any(getattr(declared, name) != getattr(attachment, name) for name in same):
        return True
    given = {name: getattr(declared, name) for name in ("dims", "m", "ef_construction", "ef_search")}
    return any(value is not None and value != getattr(attachment, name) for name, value in given.items())


def _dropped_tables(container: ops.OpContainer) -> Iterator[Place]:
    for operation in container.ops:
        if isinstance(operation, ops.DropTableOp):
            yield operation.schema, operation.table_name
        elif isinstance(operation, ops.OpContainer):
            yield from _dropped_tables(operation)


# ---- pgvector's indexes -------------------------------------------------------------------------------------------


class _VectorIndexes:
    """One comparison: turn Alembic's operations on vector indexes into ours, and add what Alembic does not see."""

    def __init__(self, context: AutogenContext, upgrade_ops: ops.UpgradeOps, present: Present) -> None:
        self._context = context
        self._upgrade_ops = upgrade_ops
        self._present = present
        self._made_or_dropped = {
            (operation.schema, operation.table_name)
            for operation in upgrade_ops.ops
            if isinstance(operation, (ops.CreateTableOp, ops.DropTableOp))
        }
        self._handled: set[Place] = set()

    def compare(self, schemas: set[str | None]) -> None:
        """Do it."""
        self._translate(self._upgrade_ops)
        for table in self._context.sorted_tables:
            if table.schema in schemas:
                self._add_drift(table)

    def _translate(self, container: ops.OpContainer) -> None:
        translated: list[ops.MigrateOperation] = []
        for operation in container.ops:
            if isinstance(operation, ops.OpContainer):
                self._translate(operation)
            translated.append(self._translated(operation))
        container.ops[:] = _joined(translated)

    def _translated(self, operation: ops.MigrateOperation) -> ops.MigrateOperation:
        if isinstance(operation, ops.DropIndexOp):
            place = (operation.schema, str(operation.index_name))
            existing = self._present.indexes.get(place)
            if existing is not None:
                self._handled.add(place)
                return DropVectorIndexOp(existing, concurrently=self._is_concurrent(existing))
        elif isinstance(operation, ops.CreateIndexOp):
            index = _declared_index(operation.to_index())
            if index is not None:
                self._handled.add((index.schema, index.name))
                return CreateVectorIndexOp(index, concurrently=self._is_concurrent(index))
        return operation

    def _add_drift(self, table: Table) -> None:
        for declared in table.indexes:
            index = _declared_index(declared)
            place = (table.schema, str(declared.name))
            existing = self._present.indexes.get(place)
            if index is None or existing is None or place in self._handled or not self._is_asked(declared):
                continue
            if (index.method, index.opclass, index.options) != (existing.method, existing.opclass, existing.options):
                change = AlterVectorIndexOp(index, concurrently=self._is_concurrent(index), existing=existing)
                self._upgrade_ops.ops.append(change)

    def _is_asked(self, index: Index) -> bool:
        return self._context.run_object_filters(index, index.name, "index", False, None)  # noqa: FBT003 - Alembic's

    def _is_concurrent(self, index: VectorIndex) -> bool:
        """Tell whether building it concurrently is worth it and possible."""
        place = (index.schema, index.table)
        return place not in self._made_or_dropped and place not in self._present.partitioned


def _joined(operations: list[ops.MigrateOperation]) -> list[ops.MigrateOperation]:
    """Make one change of a drop and a creation of the same index."""
    joined: list[ops.MigrateOperation] = []
    for operation in operations:
        last = joined[-1] if joined else None
        if (
            isinstance(operation, CreateVectorIndexOp)
            and isinstance(last, DropVectorIndexOp)
            and (last.index.schema, last.index.name) == (operation.index.schema, operation.index.name)
        ):
            concurrently = operation.concurrently
            joined[-1] = AlterVectorIndexOp(operation.index, concurrently=concurrently, existing=last.index)
        else:
            joined.append(operation)
    return joined


def _declared_index(index: Index) -> VectorIndex | None:
    """Return a declared index of pgvector over one plain column, None for every other index."""
    options = index.dialect_options["postgresql"]
    method = str(options["using"] or "").lower()
    expressions = list(index.expressions)
    if method not in DEFAULTS or index.table is None or len(expressions) != 1 or not isinstance(expressions[0], Column):
        return None
    column = expressions[0]
    classes = options["ops"] or {}
    opclass = classes.get(column.key) or classes.get(column.name) or "vector_l2_ops"  # ivfflat's default
    where = None if options["where"] is None else _sql_of(options["where"])
    given = dict(options["with"] or {})
    return VectorIndex.of(str(index.name), index.table.name, column.name, method=method, opclass=opclass, given=given,
                          schema=index.table.schema, where=where)  # fmt: skip


def _sql_of(condition: ClauseElement | str) -> str:
    if isinstance(condition, str):
        return condition
    dialect: Dialect = postgresql.dialect()  # type: ignore[no-untyped-call]
    return str(condition.compile(dialect=dialect, compile_kwargs={"literal_binds": True, "include_table": False}))
