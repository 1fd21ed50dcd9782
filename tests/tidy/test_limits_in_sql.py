"""Bounds that SQL has to repeat are the ones of limits.py."""

import pytest

from ruvector import limits, resources

SEARCH, BRIDGE, BATCH = "040_search.sql", "030_bridge.sql", "bodies/ruvector_search_batch.sql"


@pytest.mark.parametrize(
    ("file", "text"),
    [
        (SEARCH, f"dirty_max constant int := {limits.DIRTY_KEYS_MAX};"),
        (SEARCH, f"wanted_max constant int := {limits.WANTED_MAX};"),
        (SEARCH, f"wanted not between 1 and {limits.WANTED_MAX} "),
        (SEARCH, f"k not between 1 and {limits.K_MAX} "),
        (SEARCH, f"beam not between 1 and {limits.EF_MAX} "),
        (SEARCH, f"depth > {limits.FILTER_DEPTH_MAX} "),
        (SEARCH, f"jsonb_array_length(entry.value) > {limits.FILTER_VALUES_MAX} "),
        (SEARCH, f"cardinality(keys) > {limits.FILTER_KEYS_MAX} "),
        (SEARCH, f"octet_length(sieve::text) > {limits.SIEVE_BYTES_MAX} "),
        (BRIDGE, f", {limits.SEARCH_TIMEOUT_MS}), case"),
        (BATCH, f"cardinality(queries) > {limits.BATCH_QUERIES_MAX} "),
    ],
)
def test_sql_has_the_bound_of_limits(file, text):
    assert text in (resources.root("sql") / file).read_text(encoding="utf-8")
