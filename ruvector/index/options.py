"""Keep the options of an index as JSON."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, fields
from typing import Any

from ruvector.errors import StoreFormat
from ruvector.values import ElementType, IndexKind, IndexOptions, KeyKind, Metric


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
