"""What search keeps in the database: the registered columns and where the sidecar answers for them."""

TABLES: tuple[str, ...] = ("ruvector.collection", "ruvector.gate", "ruvector.secret", "ruvector.live")
