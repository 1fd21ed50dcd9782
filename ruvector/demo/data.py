"""The data of the demonstration: 12,000 WordNet glosses and 200 queries with vectors of all-MiniLM-L6-v2."""

from __future__ import annotations

import gzip
import json
import struct
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ruvector import resources

_COPY_HEAD = b"PGCOPY\n\xff\r\n\0" + struct.pack("!ii", 0, 0)
_COPY_END = struct.pack("!h", -1)


@dataclass(frozen=True, slots=True)
class Gloss:
    """One word sense."""

    id: int
    synset: str
    lemma: str
    pos: str
    gloss: str


@dataclass(frozen=True, slots=True)
class WordNet:
    """Rows with vectors[rows, 384], and query texts with query_vectors[queries, 384]; unit length, f32."""

    glosses: list[Gloss]
    vectors: NDArray[np.float32]
    query_texts: list[str]
    query_vectors: NDArray[np.float32]


def load_wordnet(*, rows: int | None = None) -> WordNet:
    """Load the set, or its first rows."""
    folder = resources.root("demo/data")
    records = _records("rows.jsonl.gz")[:rows]
    vectors = np.load(folder / "vectors.f16.npy", allow_pickle=False)[: len(records)]
    queries = np.load(folder / "queries.f16.npy", allow_pickle=False)
    return WordNet(
        glosses=[Gloss(row["row"], row["id"], ", ".join(row["lemmas"]), row["pos"], row["gloss"]) for row in records],
        vectors=vectors.astype(np.float32),
        query_texts=[row["text"] for row in _records("queries.jsonl.gz")],
        query_vectors=queries.astype(np.float32),
    )


def copy_stream(wordnet: WordNet) -> bytes:
    """Return all rows as COPY BINARY reads them: id int8, four texts, vector."""
    parts = [_COPY_HEAD]
    dims = wordnet.vectors.shape[1]
    vector_head = struct.pack("!hh", dims, 0)
    big_endian = wordnet.vectors.astype(">f4")
    for gloss, vector in zip(wordnet.glosses, big_endian, strict=True):
        parts.append(struct.pack("!hiq", 6, 8, gloss.id))
        for text in (gloss.synset, gloss.lemma, gloss.pos, gloss.gloss):
            encoded = text.encode()
            parts += (struct.pack("!i", len(encoded)), encoded)
        parts += (struct.pack("!i", 4 + 4 * dims), vector_head, vector.tobytes())
    parts.append(_COPY_END)
    return b"".join(parts)


def _records(name: str) -> list[dict[str, Any]]:
    with gzip.open(resources.root("demo/data") / name, "rt", encoding="utf-8") as file:
        return [json.loads(line) for line in file]
