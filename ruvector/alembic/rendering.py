"""How the operations are written into a migration script."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

# From the module itself: while Alembic loads its plug-ins, its package does not have the name yet.
from alembic.autogenerate.render import renderers
from alembic.operations import MigrateOperation

from ruvector.alembic.collection_operations import AttachOp, ConfigureOp, DetachOp, InstallOp, UninstallOp
from ruvector.alembic.index_operations import AlterVectorIndexOp, CreateVectorIndexOp, DropVectorIndexOp, VectorIndex

if TYPE_CHECKING:
    from alembic.autogenerate.api import AutogenContext

_VECTOR_MODULES = ("pgvector.sqlalchemy", "ruvector.sqlalchemy")


def renders(kind: type[MigrateOperation]) -> Callable[[Callable[..., str]], Callable[..., str]]:
    """Register how an operation is written."""
    decorate: Callable[[Callable[..., str]], Callable[..., str]] = renderers.dispatch_for(kind)
    return decorate


@renders(InstallOp)
def _install(context: AutogenContext, operation: InstallOp) -> str:
    return _call(context, "ruvector_install")


@renders(UninstallOp)
def _uninstall(context: AutogenContext, operation: UninstallOp) -> str:
    return _call(context, "ruvector_uninstall")


@renders(AttachOp)
def _attach(context: AutogenContext, operation: AttachOp) -> str:
    wanted = operation.attachment
    return _call(
        context,
        "ruvector_attach",
        wanted.name,
        wanted.table,
        wanted.column,
        schema=wanted.schema,
        metric=wanted.metric,
        columns=list(wanted.columns) or None,
        dims=wanted.dims,
        m=wanted.m,
        ef_construction=wanted.ef_construction,
        ef_search=wanted.ef_search,
    )


@renders(DetachOp)
def _detach(context: AutogenContext, operation: DetachOp) -> str:
    return _call(context, "ruvector_detach", operation.name)


@renders(ConfigureOp)
def _configure(context: AutogenContext, operation: ConfigureOp) -> str:
    return _call(context, "ruvector_configure", operation.name, columns=list(operation.columns))


@renders(CreateVectorIndexOp)
def _create_index(context: AutogenContext, operation: CreateVectorIndexOp) -> str:
    return _index_call(context, "create_vector_index", operation.index, concurrently=operation.concurrently)


@renders(AlterVectorIndexOp)
def _alter_index(context: AutogenContext, operation: AlterVectorIndexOp) -> str:
    return _index_call(context, "alter_vector_index", operation.index, concurrently=operation.concurrently)


@renders(DropVectorIndexOp)
def _drop_index(context: AutogenContext, operation: DropVectorIndexOp) -> str:
    index = operation.index
    return _call(
        context,
        "drop_vector_index",
        index.name,
        index.table,
        schema=index.schema,
        concurrently=operation.concurrently or None,
    )


def _index_call(context: AutogenContext, function: str, index: VectorIndex, *, concurrently: bool) -> str:
    return _call(
        context,
        function,
        index.name,
        index.table,
        index.column,
        method=index.method,
        opclass=index.opclass,
        **dict(index.options),
        schema=index.schema,
        where=index.where,
        concurrently=concurrently or None,
    )


def _call(context: AutogenContext, function: str, *values: Any, **options: Any) -> str:
    """Write a call; options that are None are left out."""
    given = [repr(_plain(value)) for value in values]
    given += [f"{name}={_plain(value)!r}" for name, value in options.items() if value is not None]
    return f"{context.opts['alembic_module_prefix'] or ''}{function}({', '.join(given)})"


def _plain(value: Any) -> Any:
    # Names of reflected tables are a subclass of str with a repr of its own in some releases.
    return str(value) if isinstance(value, str) else value


def render_vector_types(context: AutogenContext) -> None:
    """Have pgvector's types written with their import, ours as pgvector's: a migration must outlive our classes."""
    asked = context.opts.get("render_item")

    def render_item(kind: str, item: Any, inner: AutogenContext) -> Any:
        chosen = asked(kind, item, inner) if asked else False
        if chosen is False and kind == "type" and type(item).__module__.startswith(_VECTOR_MODULES):
            inner.imports.add("import pgvector.sqlalchemy")
            return f"pgvector.sqlalchemy.{item!r}"
        return chosen

    context.opts["render_item"] = render_item
