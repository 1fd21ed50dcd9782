"""Make the index that options ask for, and keep options as JSON."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, fields
from typing import Any

from ruvector.errors import StoreFormat
from ruvector.index.flat import FlatIndex
from ruvector.index.hnsw import HnswIndex
from ruvector.index.protocol import Sections, VectorIndex
from ruvector.values import ElementType, IndexKind, IndexOptions, KeyKind, Metric


def create_index(options: IndexOptions, *, threads: int = 0) -> VectorIndex:
    """Return an empty index of the kind in the options."""
    if options.kind is IndexKind.FLAT:
        return FlatIndex(options, threads=threads)
    return HnswIndex(options, threads=threads)


def restore_index(
    options: IndexOptions, sections: Sections, *, threads: int = 0, in_place: bool = False
) -> VectorIndex:
    """Return the index that ``sections`` of one with the same options described; raises StoreFormat."""
    if options.kind is IndexKind.FLAT:
        return FlatIndex.from_sections(options, sections, threads=threads, in_place=in_place)
    return HnswIndex.from_sections(options, sections, threads=threads, in_place=in_place)


def options_to_json(options: IndexOptions) -> dict[str, str | int]:
    """Return the options as plain values."""
    return {name: str(value) if isinstance(value, str) else value for name, value in asdict(options).items()}


def options_from_json(values: Mapping[str, Any]) -> IndexOptions:
    """Return the options that ``options_to_json`` wrote; raises StoreFormat for anything else."""
    kinds = {"metric": Metric, "kind": IndexKind, "element": ElementType, "key_kind": KeyKind}
    known = {field.name for field in fields(IndexOptions)}
    try:
        given: dict[str, Any] = {
            name: kinds[name](value) if name in kinds else int(value) for name, value in values.items()
        }
        if not given.keys() <= known:
            raise StoreFormat(f"unknown index options {sorted(given.keys() - known)}")
        return IndexOptions(**given)
    except (TypeError, ValueError, AttributeError) as error:
        raise StoreFormat(f"the options of the index cannot be read: {error}") from None
