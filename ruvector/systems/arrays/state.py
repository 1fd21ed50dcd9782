"""Arrays keeps nothing in the database."""

TABLES: tuple[str, ...] = ()
