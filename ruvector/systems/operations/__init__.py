"""Watch the product work: freshness, sizes, memory, agreement with the table."""

from ruvector.surface import System

SYSTEM = System(
    name="operations", summary="Freshness, sizes, memory, and whether mirror and table agree.", needs=("search",)
)
