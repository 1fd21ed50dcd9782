"""Move searches from pgvector to the index step by step, and back at once."""

from ruvector.surface import System

SYSTEM = System(
    name="cutover",
    summary="Move searches from pgvector to the index step by step, and back at once.",
    needs=("search",),
)
