"""Use ruvector from Python over SQL: attach, search, verify, status.

Takes: a connection string.  Gives: Client, whose methods are the SQL functions with Python's types.
"""

from ruvector.client.facade import Attached, Client, connect
from ruvector.client.names import ColumnName, parse_column, parse_names
from ruvector.client.progress import progress_text

__all__ = ["Attached", "Client", "ColumnName", "connect", "parse_column", "parse_names", "progress_text"]
