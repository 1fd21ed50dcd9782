"""Generations of one mirror: an index on disk together with the position it stands for."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from ruvector.errors import StoreError
from ruvector.index import KeyedIndex, VectorIndex, options_to_json
from ruvector.mirror.state import Mirror
from ruvector.snapshot import Snapshot
from ruvector.store import Generation, GenerationStore
from ruvector.values import Collection

logger = logging.getLogger(__name__)


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
    sections = {f"index_{name}": array for name, array in mirror.index.sections().items()}
    reasons = json.dumps(mirror.unindexed.reasons).encode()
    sections["unindexed"] = np.frombuffer(reasons, dtype=np.uint8)
    return store.write(sections, meta={"label": asdict(label)})


def load_generation(
    store: GenerationStore,
    collection: Collection,
    *,
    instance_id: str,
    is_confirmed: Callable[[str], bool],
    threads: int,
) -> tuple[Label, VectorIndex, dict[str, str]] | None:
    """Open the newest usable generation; damaged, foreign and unconfirmed ones are reported and passed over."""
    for path in store.list():
        try:
            generation = store.open(path)
            label = _label_of(generation)
            problem = _problem(label, collection, instance_id=instance_id)
            if not problem and not is_confirmed(label.checkpoint_id):
                problem = "the database has not confirmed its checkpoint"
            if problem:
                logger.warning("generation %s is not used: %s", path.name, problem)
                generation.close()
                continue
            sections = {
                name.removeprefix("index_"): generation.section(name)
                for name in generation.names
                if name.startswith("index_")
            }
            index = KeyedIndex.from_sections(collection.options, sections, threads=threads)
            reasons = json.loads(generation.section("unindexed").tobytes() or b"{}")
        except StoreError as error:
            logger.warning("generation %s is not used: %s", path.name, error.message)
            continue
        return label, index, reasons
    return None


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
    return KeyedIndex(collection.options, threads=threads)


def _label_of(generation: Generation) -> Label:
    fields = generation.meta.get("label")
    if not isinstance(fields, dict) or set(fields) != set(Label.__dataclass_fields__):
        raise StoreError("the generation carries no label of a mirror")
    return Label(**fields)


def _problem(label: Label, collection: Collection, *, instance_id: str) -> str:
    if label.mirror_id != collection.id or label.instance_id != instance_id:
        return "it belongs to another mirror or database"
    if label.options != options_to_json(collection.options):
        return "it was built with other options"
    return ""
