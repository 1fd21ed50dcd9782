"""SQLAlchemy: vector types that search, collections declared beside tables, and SELECTs routed through the sidecar.

Takes: models with vector columns and an engine.  Gives: pgvector's types with ``knn``, and the same rows as before,
found by the sidecar.
"""

from ruvector.sqlalchemy.collection import Collection, collections_of
from ruvector.sqlalchemy.nearest import Nearest
from ruvector.sqlalchemy.routing import Routing, enable
from ruvector.sqlalchemy.types import BIT, HALFVEC, SPARSEVEC, VECTOR

__all__ = ["BIT", "HALFVEC", "SPARSEVEC", "VECTOR", "Collection", "Nearest", "Routing", "collections_of", "enable"]
