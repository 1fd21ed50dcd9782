"""Operations on schema ruvector and its collections: install, attach, configure, and the way back of each."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from alembic.operations import MigrateOperation, Operations
from sqlalchemy import REAL, Float, Integer, Text, cast, false, func, literal, null, select
from sqlalchemy.dialects.postgresql import ARRAY, JSONB, array

from ruvector import limits
from ruvector.alembic.script import execute, execute_text
from ruvector.errors import InvalidParameter

if TYPE_CHECKING:
    from sqlalchemy.sql.expression import ColumnElement

    from ruvector.sqlalchemy import Collection


@dataclass(frozen=True, slots=True)
class Attachment:
    """What a column is attached with; None stands for the default of the database."""

    name: str
    table: str
    column: str
    schema: str | None = None
    metric: str = "l2"
    columns: tuple[str, ...] = ()
    dims: int | None = None
    m: int | None = None
    ef_construction: int | None = None
    ef_search: int | None = None

    @classmethod
    def declared(cls, collection: Collection) -> Attachment:
        """Return what a Collection in metadata asks for."""
        return cls(
            name=collection.name,
            table=collection.table.name,
            column=collection.column.name,
            schema=collection.table.schema,
            metric=str(collection.metric),
            columns=tuple(sorted(collection.filter_columns)),
            dims=collection.dims,
            m=collection.m,
            ef_construction=collection.ef_construction,
            ef_search=collection.ef_search,
        )

    @property
    def options(self) -> dict[str, Any]:
        """Return the options of ruvector_register_collection that are given."""
        given = {"m": self.m, "ef_construction": self.ef_construction, "ef_search": self.ef_search}
        options: dict[str, Any] = {key: value for key, value in given.items() if value is not None}
        return options | ({"columns": list(self.columns)} if self.columns else {})


class _Operation(MigrateOperation):
    """An operation with a word for `alembic check`."""

    word = ""

    def to_diff_tuple(self) -> tuple[Any, ...]:
        """Return what `alembic check` prints."""
        return (self.word, *(value for value in vars(self).values() if value is not None))


@Operations.register_operation("ruvector_install")
class InstallOp(_Operation):
    """Create or upgrade schema ruvector."""

    word = "ruvector_install"

    def __init__(self, schemas: Mapping[str, str] | None = None) -> None:
        self.schemas = dict(schemas or {})

    @classmethod
    def ruvector_install(
        cls,
        operations: Operations,
        *,
        api_schema: str = "public",
        vector_schema: str = "public",
        dblink_schema: str = "public",
    ) -> None:
        """Create or upgrade schema ruvector and the SQL functions; twice equals once.

        In offline mode it prints a first installation: what an upgrade needs depends on what is there.

        Args:
            operations: given by Alembic.
            api_schema: where the functions ruvector_* go.
            vector_schema: where the extension vector is; used in offline mode only, where nobody can be asked.
            dblink_schema: the same for dblink.
        """
        operations.invoke(cls({"api": api_schema, "vector": vector_schema, "dblink": dblink_schema}))

    def reverse(self) -> UninstallOp:
        """Return the removal."""
        return UninstallOp()


@Operations.register_operation("ruvector_uninstall")
class UninstallOp(_Operation):
    """Remove schema ruvector."""

    word = "ruvector_uninstall"

    @classmethod
    def ruvector_uninstall(cls, operations: Operations) -> None:
        """Detach every collection and remove schema ruvector; tables and the roles of the server stay."""
        operations.invoke(cls())

    def reverse(self) -> InstallOp:
        """Return the installation."""
        return InstallOp()


@Operations.register_operation("ruvector_attach")
class AttachOp(_Operation):
    """Attach a vector column."""

    word = "ruvector_attach"

    def __init__(self, attachment: Attachment) -> None:
        self.attachment = attachment

    @classmethod
    def ruvector_attach(
        cls,
        operations: Operations,
        name: str,
        table_name: str,
        column_name: str,
        *,
        schema: str | None = None,
        metric: str = "l2",
        columns: Sequence[str] = (),
        dims: int | None = None,
        m: int | None = None,
        ef_construction: int | None = None,
        ef_search: int | None = None,
    ) -> None:
        """Attach a column under a name: install triggers, have the sidecar copy it.

        Args:
            operations: given by Alembic.
            name: of the collection.
            table_name: the table, as the catalog has it.
            column_name: the vector column, as the catalog has it.
            schema: of the table; the current schema when left out.
            metric: l2, cosine, ip, l1, hamming or jaccard.
            columns: columns that filters may use.
            dims: only for a column whose type does not declare them.
            m: links per node of the index.
            ef_construction: candidates per insertion.
            ef_search: candidates of a search that does not say how many.
        """
        operations.invoke(
            cls(
                Attachment(
                    name, table_name, column_name, schema, metric, tuple(columns), dims, m, ef_construction, ef_search
                )
            )
        )

    def reverse(self) -> DetachOp:
        """Return the detachment."""
        return DetachOp(self.attachment.name, attachment=self.attachment)


@Operations.register_operation("ruvector_detach")
class DetachOp(_Operation):
    """Detach a collection."""

    word = "ruvector_detach"

    def __init__(self, name: str, *, attachment: Attachment | None = None) -> None:
        self.name = name
        self.attachment = attachment

    @classmethod
    def ruvector_detach(cls, operations: Operations, name: str) -> None:
        """Remove a collection with its triggers and bookkeeping; the table stays as it is."""
        operations.invoke(cls(name))

    def reverse(self) -> AttachOp:
        """Return the attachment with everything it had."""
        if self.attachment is None:
            raise InvalidParameter(
                f'ruvector_detach("{self.name}") does not know what to attach again',
                hint="Write op.ruvector_attach(...) into the downgrade.",
            )
        return AttachOp(self.attachment)


@Operations.register_operation("ruvector_configure")
class ConfigureOp(_Operation):
    """Change what can be changed without copying a collection again."""

    word = "ruvector_configure"

    def __init__(self, name: str, columns: Sequence[str], *, existing_columns: Sequence[str] | None = None) -> None:
        self.name = name
        self.columns = tuple(columns)
        self.existing_columns = None if existing_columns is None else tuple(existing_columns)

    @classmethod
    def ruvector_configure(cls, operations: Operations, name: str, *, columns: Sequence[str]) -> None:
        """Set the columns that filters of a collection may use; nothing is copied again."""
        operations.invoke(cls(name, columns))

    def reverse(self) -> ConfigureOp:
        """Return the way back."""
        if self.existing_columns is None:
            raise InvalidParameter(
                f'ruvector_configure("{self.name}") does not know the columns that were there before',
                hint="Write op.ruvector_configure(...) into the downgrade.",
            )
        return ConfigureOp(self.name, self.existing_columns, existing_columns=self.columns)


@Operations.register_operation("ruvector_cutover")
class CutoverOp(_Operation):
    """Take one step of a cutover."""

    word = "ruvector_cutover"

    def __init__(
        self,
        name: str,
        to: int | Literal["shadow", "complete"],
        *,
        guard: Mapping[str, float] | None = None,
        sample_rate: float = limits.SHADOW_SAMPLE_RATE,
        reason: str | None = None,
    ) -> None:
        if isinstance(to, str) and to not in ("shadow", "complete"):
            raise InvalidParameter(
                f"a cutover goes to a percentage, to 'shadow' or to 'complete', not to {to!r}",
                hint="The way back is op.ruvector_rollback(name).",
            )
        self.name = name
        self.to = to
        self.guard = None if guard is None else dict(guard)
        self.sample_rate = sample_rate
        self.reason = reason

    @classmethod
    def ruvector_cutover(
        cls,
        operations: Operations,
        name: str,
        to: int | Literal["shadow", "complete"],
        *,
        guard: Mapping[str, float] | None = None,
        sample_rate: float = limits.SHADOW_SAMPLE_RATE,
        reason: str | None = None,
    ) -> None:
        """Let the index answer `to` percent of the searches, or go to "shadow" or "complete"."""
        operations.invoke(cls(name, to, guard=guard, sample_rate=sample_rate, reason=reason))

    def reverse(self) -> RollbackOp:
        """Return the way back."""
        return RollbackOp(self.name)


@Operations.register_operation("ruvector_rollback")
class RollbackOp(_Operation):
    """Give all searches back to pgvector."""

    word = "ruvector_rollback"

    def __init__(self, name: str, *, reason: str | None = None) -> None:
        self.name = name
        self.reason = reason

    @classmethod
    def ruvector_rollback(cls, operations: Operations, name: str, *, reason: str | None = None) -> None:
        """Let pgvector answer all searches again, once the migration has committed."""
        operations.invoke(cls(name, reason=reason))

    def reverse(self) -> CutoverOp:
        """Raise: the state before is not known."""
        raise InvalidParameter(
            f'ruvector_rollback("{self.name}") does not know the state that was there before',
            hint="Write op.ruvector_cutover(...) into the downgrade.",
        )


@Operations.implementation_for(InstallOp)
def _install(operations: Operations, operation: InstallOp) -> None:
    # Imported here: it needs alembic.command, which is not there yet while Alembic loads its plug-ins.
    from ruvector.alembic import install

    schemas = {"api": "public", "vector": "public", "dblink": "public"} | operation.schemas
    context = operations.get_context()
    with _nested(operations):
        if context.as_sql:
            context.impl.static_output(install.script(schemas))
        else:
            install.install_on(operations.get_bind(), api_schema=schemas["api"])


@Operations.implementation_for(UninstallOp)
def _uninstall(operations: Operations, operation: UninstallOp) -> None:
    from ruvector.alembic import install

    for statement in install.removal():
        execute_text(operations, statement.rstrip(";"))


@Operations.implementation_for(AttachOp)
def _attach(operations: Operations, operation: AttachOp) -> None:
    wanted = operation.attachment
    home: ColumnElement[str] = func.current_schema() if wanted.schema is None else literal(str(wanted.schema), Text)
    names = [literal(str(name), Text) for name in (wanted.table, wanted.column)]
    dims = null() if wanted.dims is None else literal(wanted.dims, Integer)
    options = cast(literal(json.dumps(wanted.options, ensure_ascii=False), Text), JSONB)
    call = func.ruvector_register_collection(wanted.name, cast(home, Text), *names, dims, wanted.metric, options)
    execute(operations, select(call))


@Operations.implementation_for(DetachOp)
def _detach(operations: Operations, operation: DetachOp) -> None:
    execute(operations, select(func.ruvector_unregister_collection(operation.name)))


@Operations.implementation_for(ConfigureOp)
def _configure(operations: Operations, operation: ConfigureOp) -> None:
    names = cast(array([literal(str(name), Text) for name in operation.columns], type_=Text), ARRAY(Text))
    execute(operations, select(func.ruvector.set_filter_columns(operation.name, names)))


@Operations.implementation_for(CutoverOp)
def _cutover(operations: Operations, operation: CutoverOp) -> None:
    name, reason = operation.name, cast(literal(operation.reason, Text), Text)
    if operation.to == "shadow":
        call = func.ruvector_shadow_start(name, cast(literal(operation.sample_rate, Float), REAL), reason)
    elif operation.to == "complete":
        call = func.ruvector_cutover_complete(name, false(), reason)
    else:
        guard = None if operation.guard is None else json.dumps(operation.guard)
        call = func.ruvector_cutover(
            name, literal(operation.to, Integer), cast(cast(literal(guard, Text), Text), JSONB), reason
        )
    execute(operations, select(call))


@Operations.implementation_for(RollbackOp)
def _rollback(operations: Operations, operation: RollbackOp) -> None:
    execute(operations, select(func.ruvector_rollback(operation.name, cast(literal(operation.reason, Text), Text))))


@contextmanager
def _nested(operations: Operations) -> Iterator[None]:
    """Run other migrations inside this one: they leave without alembic.op and alembic.context, which we still need."""
    try:
        yield
    finally:
        operations._install_proxy()
        environment = operations.get_context().environment_context
        if environment is not None:
            environment._install_proxy()
