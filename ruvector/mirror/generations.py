"""Generations of one mirror: an index on disk together with the position it stands for."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from ruvector.errors import StoreError
from ruvector.index import KeyedIndex, VectorIndex, options_to_json, unread_sections
from ruvector.mirror.state import Mirror
from ruvector.snapshot import Snapshot
from ruvector.store import Generation, GenerationStore, read_all
from ruvector.values import Collection

logger = logging.getLogger(__name__)

_PREFIX = "index_"  # of the sections of the index, beside those of the mirror
_Part = TypeVar("_Part")


@dataclass(frozen=True, slots=True)
class Label:
    """What a generation says about itself besides the index."""

    checkpoint_id: str
    position: str
    phase: str  # "copying" or "complete"
    last_key: str | None
    rows_copied: int
    mirror_id: int
    instance_id: str
    options: dict[str, str | int]

    @property
    def snapshot(self) -> Snapshot:
        """Return the position as a snapshot."""
        return Snapshot.parse(self.position)


def save_generation(store: GenerationStore, mirror: Mirror, label: Label) -> Path:
    """Write the index and its label; durable when this returns."""
    sections = {_PREFIX + name: array for name, array in mirror.index.sections().items()}
    reasons = json.dumps(mirror.unindexed.reasons).encode()
    sections["unindexed"] = np.frombuffer(reasons, dtype=np.uint8)
    return store.write(sections, meta={"label": asdict(label)})


def load_generation(
    store: GenerationStore,
    collection: Collection,
    *,
    instance_id: str | None,
    is_confirmed: Callable[[str], bool],
    threads: int,
    is_read_first: bool,
) -> tuple[Label, VectorIndex, dict[str, str]] | None:
    """Open the newest usable generation; damaged, foreign and unconfirmed ones are reported and passed over.

    Unless ``is_read_first``, most of its pages are verified only while the index answers already.
    Without ``instance_id`` one of another history of the database will do, to be compared with the table.
    """
    for path in store.list():
        try:
            with store.open(path, unread=read_all if is_read_first else _unread) as generation:
                label = _label_of(generation)
                problem = _problem(label, collection, instance_id=instance_id)
                if not problem and not is_confirmed(label.checkpoint_id):
                    problem = "the database has not confirmed its checkpoint"
                if problem:
                    logger.warning("generation %s is not used: %s", path.name, problem)
                    continue
                reasons = json.loads(generation.section("unindexed").tobytes() or b"{}")
                sections = _index_parts({name: generation.section(name) for name in generation.names})
                proofs = _index_parts(generation.proofs)
                index = KeyedIndex.from_sections(collection.options, sections, threads=threads, proofs=proofs or None)
                generation.keep_proofs()
                fit_attributes(index, collection)
        except StoreError as error:
            logger.warning("generation %s is not used: %s", path.name, error.message)
            continue
        return label, index, reasons
    return None


def _index_parts(named: Mapping[str, _Part]) -> dict[str, _Part]:
    """Return what belongs to the index, by the names it knows."""
    return {name.removeprefix(_PREFIX): part for name, part in named.items() if name.startswith(_PREFIX)}


def _unread(meta: Mapping[str, Any]) -> list[str]:
    label = meta.get("label")
    return [_PREFIX + name for name in unread_sections(label if isinstance(label, dict) else {})]


def keep_only(store: GenerationStore, checkpoint_ids: set[str]) -> None:
    """Remove generations that belong to no confirmed checkpoint; of one checkpoint the newest stays."""
    seen: set[str] = set()
    for path in store.list():
        try:
            with store.open(path, verify=False) as generation:
                checkpoint_id = _label_of(generation).checkpoint_id
        except StoreError:
            checkpoint_id = ""
        if checkpoint_id in checkpoint_ids and checkpoint_id not in seen:
            seen.add(checkpoint_id)
        else:
            store.remove(path)


def fresh_index(collection: Collection, *, threads: int) -> VectorIndex:
    """Return an empty index with the options of the collection."""
    index = KeyedIndex(collection.options, threads=threads)
    fit_attributes(index, collection)
    return index


def fit_attributes(index: VectorIndex, collection: Collection) -> None:
    """Give an index the attributes of the collection; those that are new to its rows it does not know yet."""
    if set(index.attributes) != set(collection.attributes):
        index.set_attributes(collection.attributes)


def _label_of(generation: Generation) -> Label:
    fields = generation.meta.get("label")
    if not isinstance(fields, dict) or set(fields) != set(Label.__dataclass_fields__):
        raise StoreError("the generation carries no label of a mirror")
    return Label(**fields)


def _problem(label: Label, collection: Collection, *, instance_id: str | None) -> str:
    if label.mirror_id != collection.id or instance_id not in (None, label.instance_id):
        return "it belongs to another mirror or database"
    if label.options != options_to_json(collection.options):
        return "it was built with other options"
    return ""
