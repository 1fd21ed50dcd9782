"""What cutover keeps in the database: the state, beside the collection, and every step."""

TABLES: tuple[str, ...] = ("ruvector.collection", "ruvector.cutover_step")
