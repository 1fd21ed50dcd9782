"""The plug-in of Alembic: its entry point is ruvector.alembic, its comparators run when env.py asks for them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from alembic.util import DispatchPriority, PriorityDispatchResult

if TYPE_CHECKING:
    from alembic.autogenerate.api import AutogenContext
    from alembic.operations.ops import UpgradeOps
    from alembic.runtime.plugins import Plugin


def setup(plugin: Plugin) -> None:
    """Register the comparators: one before tables are compared, one after everything was."""
    plugin.add_autogenerate_comparator(_before, "schema", qualifier="postgresql", priority=DispatchPriority.FIRST)
    plugin.add_autogenerate_comparator(_after, "schema", qualifier="postgresql", priority=DispatchPriority.LAST)


# Imported when they run: Alembic calls setup while it is not complete itself.
def _before(context: AutogenContext, upgrade_ops: UpgradeOps, schemas: set[str | None]) -> PriorityDispatchResult:
    from ruvector.alembic.autogenerate import hide_own_schema

    hide_own_schema(context, upgrade_ops, schemas)
    return PriorityDispatchResult.CONTINUE


def _after(context: AutogenContext, upgrade_ops: UpgradeOps, schemas: set[str | None]) -> PriorityDispatchResult:
    from ruvector.alembic.autogenerate import compare

    compare(context, upgrade_ops, schemas)
    return PriorityDispatchResult.CONTINUE
