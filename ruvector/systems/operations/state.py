"""What operations reads in the database: positions of the sidecars and what they say about themselves."""

TABLES: tuple[str, ...] = ("ruvector.consumer", "ruvector.mirror_status", "ruvector.instance", "ruvector.trimmed")
