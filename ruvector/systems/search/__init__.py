"""Register vector columns and search them."""

from ruvector.surface import System

SYSTEM = System(name="search", summary="Register vector columns, search them, and see how a search was answered.")
