"""Alembic: the migrations of schema ruvector, the installer that runs them, and operations for applications.

Takes: migrations/ and sql/, and the metadata of an application.  Gives: a database with schema ruvector at this
program's version, ``op.ruvector_*`` and ``op.*_vector_index``, and an autogenerate that compares both.
"""

# Alembic may be importing this for its plug-in before it is complete itself: only what is ready by then is imported.
from ruvector.alembic import collection_operations, index_operations, rendering

__all__ = ["collection_operations", "index_operations", "rendering"]
