"""Connect to the database, load named queries, translate the driver's errors: the only package that knows psycopg.

Takes: a connection string.  Gives: psycopg connections, SQL text from sql/queries, and our own errors.
"""

from ruvector.db.connection import Connection, connect, conninfo
from ruvector.db.queries import named_queries, query
from ruvector.db.translate import translated

__all__ = ["Connection", "connect", "conninfo", "named_queries", "query", "translated"]
