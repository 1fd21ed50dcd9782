"""Declare SQL functions once, in Python; everything else about them follows from the declaration.

Takes: typed Python functions marked with ``@sql_function``.  Gives: the SQL that creates their wrappers, the
reference page, and ``registry.invoke``, which binds and runs a call that arrived over the wire.
"""

from ruvector.surface.context import Context
from ruvector.surface.declare import Job, System, database_only, sql_function

__all__ = ["Context", "Job", "System", "database_only", "sql_function"]
