"""The SQL functions of search."""

from __future__ import annotations

from ruvector.surface import Context, database_only, sql_function
from ruvector.surface.rows import BatchRow, CollectionRow, ExplainRow, SearchRow
from ruvector.surface.types import (
    EMPTY_OBJECT,
    Bits,
    Bool,
    CollectionName,
    Double,
    Int4,
    Jsonb,
    Rows,
    Sparse,
    Text,
    TextArray,
    Vector,
    VectorArray,
)
from ruvector.systems.search import direct


@sql_function(system="search", volatility="volatile", runs="database", access="admin")
def ruvector_register_collection(
    name: Text,
    table_schema: Text,
    *,
    table_name: Text,
    column_name: Text,
    dimensions: Int4 | None = None,
    distance_metric: Text = "l2",
    options: Jsonb = EMPTY_OBJECT,
) -> Int4:
    """Register a vector column under a name, install its triggers and start its first build; return its number.

    `dimensions` NULL reads them from the column. `distance_metric` is l2, ip, cosine, l1, hamming or jaccard.
    `options` may hold `m`, `ef_construction`, `ef_search`, and `columns`: the columns that filters may use.
    """
    database_only()


@sql_function(system="search", volatility="volatile", runs="database", access="admin")
def ruvector_unregister_collection(name: Text) -> Bool:
    """Remove a collection with its triggers and bookkeeping; the table stays as it is.

    An unknown name is error 42704, so that a misspelt one is noticed.
    """
    database_only()


@sql_function(system="search", volatility="stable", runs="database", rows=10)
def ruvector_list_collections(context: Context) -> Rows[CollectionRow]:
    """List the registered collections with their tables, dimensions, metrics and sizes."""
    return context.collections()


@sql_function(system="search", volatility="stable", runs="database", rows=10, cost=10_000)
def ruvector_search(
    context: Context,
    collection: CollectionName,
    query: Vector,
    *,
    k: Int4 = 10,
    ef_search: Int4 | None = None,
    use_gnn: Bool = False,
    filter_: Jsonb | None = None,
    exactness: Text | None = None,
    keys: TextArray | None = None,
    max_distance: Double | None = None,
) -> Rows[SearchRow]:
    """Return the k rows nearest to a vector, nearest first, as the caller's snapshot sees the table.

    In the database the answer includes changes the index has not applied yet, the caller's own uncommitted ones too,
    and leaves out what the caller may not see. `id` is the row's key as text, `distance` pgvector's own. Sent to the
    sidecar itself, the answer is the index's as of its last applied change.
    `filter` is a JSON object: `{"price": {"$lt": 50}, "category": ["a", "b"]}`. `exactness` is fast, balanced or exact.
    `keys` are the only rows that may be in the answer: `ARRAY(SELECT id::text FROM ...)`. Rows farther than
    `max_distance`, in pgvector's own distance, are left out.
    """
    direct.check_k(k)
    direct.check_ef(ef_search)
    direct.check_options(exactness=exactness, use_gnn=use_gnn)
    among = direct.restriction(filter_, keys, max_distance)
    hits = context.search(collection, query, k=k, ef=ef_search, among=among)
    return direct.search_rows(hits, max_distance)


@sql_function(system="search", volatility="stable", runs="database", rows=10, cost=10_000)
def ruvector_search_bits(
    context: Context,
    collection: CollectionName,
    query: Bits,
    *,
    k: Int4 = 10,
    ef_search: Int4 | None = None,
    filter_: Jsonb | None = None,
    exactness: Text | None = None,
    keys: TextArray | None = None,
    max_distance: Double | None = None,
) -> Rows[SearchRow]:
    """Return the k rows nearest to a bit string, nearest first; otherwise like ruvector_search."""
    direct.check_k(k)
    direct.check_ef(ef_search)
    direct.check_options(exactness=exactness, use_gnn=False)
    among = direct.restriction(filter_, keys, max_distance)
    hits = context.search_bits(collection, query.packed, bits=query.bits, k=k, ef=ef_search, among=among)
    return direct.search_rows(hits, max_distance)


@sql_function(system="search", volatility="stable", runs="database", rows=10, cost=10_000)
def ruvector_search_sparse(
    context: Context,
    collection: CollectionName,
    query: Sparse,
    *,
    k: Int4 = 10,
    filter_: Jsonb | None = None,
    exactness: Text | None = None,
    keys: TextArray | None = None,
    max_distance: Double | None = None,
) -> Rows[SearchRow]:
    """Return the k rows nearest to a sparse vector, nearest first; otherwise like ruvector_search.

    The index of sparse vectors is exact, so there is no ef_search.
    """
    direct.check_k(k)
    direct.check_options(exactness=exactness, use_gnn=False)
    among = direct.restriction(filter_, keys, max_distance)
    hits = context.search_sparse(collection, query, k=k, ef=None, among=among)
    return direct.search_rows(hits, max_distance)


@sql_function(system="search", volatility="stable", runs="database", rows=100, cost=100_000)
def ruvector_search_batch(
    context: Context, collection: CollectionName, queries: VectorArray, *, k: Int4 = 10
) -> Rows[BatchRow]:
    """Return the k rows nearest to each of many vectors in one call; `query_idx` counts the vectors from 0."""
    direct.check_k(k)
    answers = context.search_batch(collection, queries, k=k)
    return [BatchRow(number, hit.id, hit.distance) for number, hits in enumerate(answers) for hit in hits]


@sql_function(system="search", volatility="stable", runs="database", rows=1, cost=10_000)
def ruvector_explain(
    context: Context,
    collection: CollectionName,
    query: Vector,
    *,
    k: Int4 = 10,
    filter_: Jsonb | None = None,
    ef_search: Int4 | None = None,
    keys: TextArray | None = None,
    max_distance: Double | None = None,
) -> Rows[ExplainRow]:
    """Run one search and tell how it was answered: plan, engine, freshness, candidates and times.

    `reason` says why the index did not answer when `engine` is not ruvector.
    """
    database_only()
