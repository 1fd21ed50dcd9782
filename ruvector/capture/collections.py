"""The attached columns, as the database has them registered."""

from __future__ import annotations

from ruvector import db
from ruvector.values import Attribute, Collection, ElementType, IndexKind, IndexOptions, KeyKind, Metric

_ELEMENTS = {
    "vector": ElementType.F32,
    "halfvec": ElementType.F16,
    "bit": ElementType.BIT,
    "sparsevec": ElementType.SPARSE,
}
_INTEGERS = ("smallint", "integer", "bigint")


def load_collections(connection: db.Connection) -> list[Collection]:
    """Return every attached column, oldest first."""
    with db.translated():
        rows = connection.execute(db.query("capture", "collections").encode()).fetchall()
    return [_collection(*row) for row in rows]


def _collection(
    number: int,
    name: str,
    table_oid: int,
    table_schema: str,
    table_name: str,
    column_name: str,
    key_columns: list[str],
    key_types: list[str],
    vector_type: str,
    dims: int,
    metric: str,
    index_kind: str,
    m: int,
    ef_construction: int,
    ef_search: int,
    attribute_names: list[str],
    attribute_types: list[str],
    attribute_bytewise: list[bool],
    attribute_versions: list[str],
    attribute_ordered: list[bool],
    fingerprint: str,
) -> Collection:
    integer_key = len(key_types) == 1 and key_types[0] in _INTEGERS
    options = IndexOptions(
        dims=dims,
        metric=Metric(metric),
        kind=IndexKind(index_kind),
        element=_ELEMENTS[vector_type],
        key_kind=KeyKind.INT64 if integer_key else KeyKind.TEXT,
        m=m,
        ef_construction=ef_construction,
        ef_search=ef_search,
    )
    return Collection(
        id=number,
        name=name,
        table_oid=table_oid,
        table_schema=table_schema,
        table_name=table_name,
        column_name=column_name,
        key_columns=tuple(key_columns),
        key_types=tuple(key_types),
        options=options,
        attributes=tuple(
            map(
                Attribute,
                attribute_names,
                attribute_types,
                attribute_bytewise,
                attribute_versions,
                attribute_ordered,
            )
        ),
        fingerprint=fingerprint,
    )
