"""Arithmetic over arrays and vectors in the database itself."""

from ruvector.surface import System

SYSTEM = System(
    name="arrays", summary="Distances, arithmetic and codes of `real[]` arrays and vectors, without the sidecar."
)
