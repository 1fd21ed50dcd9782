"""What cutover keeps in the database: the state, beside the collection, every step, and what was compared."""

TABLES: tuple[str, ...] = (
    "ruvector.collection",
    "ruvector.cutover_step",
    "ruvector.shadow_pair",
    "ruvector.dropped_index",
)
