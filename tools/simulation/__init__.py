"""A deterministic simulator: the real mirror and answers over an exact model of PostgreSQL's visibility rules."""
