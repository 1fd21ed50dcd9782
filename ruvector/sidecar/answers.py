"""Answer the database's signed requests: verify who asks, search, and say what the answer stands for."""

from __future__ import annotations

import hashlib
import hmac
import json
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ruvector import limits
from ruvector.bridge.backend import SEARCH_COLUMNS, CancelFlag, RowSet
from ruvector.errors import (
    Cancelled,
    DimensionMismatch,
    InvalidParameter,
    NotLive,
    PermissionDenied,
)
from ruvector.index import Vectors
from ruvector.mirror.apply import key_texts
from ruvector.mirror.state import Mirror
from ruvector.snapshot import Snapshot
from ruvector.sparse import SparseVectors
from ruvector.values import ElementType

_MAC_HEX = 64


@dataclass(frozen=True, slots=True)
class Secrets:
    """The keys under which the database signs what it sends."""

    inner_key: bytes
    outer_key: bytes

    def open(self, payload: bytes) -> dict[str, Any]:
        """Return the body of a signed request; PermissionDenied when the code is wrong."""
        proof, body = bytes(payload[:_MAC_HEX]), bytes(payload[_MAC_HEX:])
        inner = hashlib.sha256(self.inner_key + body).digest()
        expected = hashlib.sha256(self.outer_key + inner).hexdigest().encode()
        if not hmac.compare_digest(proof, expected):
            raise PermissionDenied("the request was not signed by the database", hint="Restart the sidecar.")
        request = json.loads(body)
        if not isinstance(request, dict):
            raise InvalidParameter("a request must be a JSON object")
        return request


def answer_search(
    mirrors: Mapping[int, Mirror], request: Mapping[str, Any], cancel: CancelFlag, *, now: float
) -> RowSet:
    """Answer one SEARCH: position (w), candidates with their reach (c), touched keys (t), or a refusal (f).

    A refusal is not an error: the SQL function then lets the database answer by itself.
    """
    try:
        mirror = mirrors.get(int(request["c"]))
        if mirror is None:
            raise NotLive("this sidecar does not know the collection yet")
        if (request["sys"], int(request["db"])) != mirror.database:
            raise NotLive("the request comes from another database than the one that was attached")
        wanted, ef = int(request["m"]), int(request["ef"]) or None
        if not 1 <= wanted <= limits.WANTED_MAX:
            raise InvalidParameter(f"candidate count {wanted} is out of range")
        cancel.expire_within(int(request["dl"]) / 1000)
        found = mirror.candidates(
            decode_query(request["q"], mirror),
            wanted,
            ef=ef,
            snapshot=Snapshot.parse(request["s"]),
            token=str(request["tok"]),
            cancel=cancel.array,
        )
        cancel.check()
    except (NotLive, Cancelled) as refusal:
        return RowSet(SEARCH_COLUMNS, [("f", refusal.message, None)])
    except (KeyError, ValueError, TypeError, struct.error) as problem:
        raise InvalidParameter(f"malformed request: {type(problem).__name__}") from None
    distances = found.distances.tolist()
    report = {
        "ef": found.ef,
        "tiers": {"hot": len(distances)},
        "touched": len(found.touched),
        "lag_ms": round((now - mirror.followed_at) * 1000, 3),
    }
    rows: list[tuple[object, ...]] = [
        ("w", found.position, None),
        ("c", array_literal(key_texts(found.keys)), distances[-1] if distances else None),
        ("r", json.dumps(report), None),
    ]
    if found.touched:
        rows.append(("t", array_literal(found.touched), None))
    return RowSet(SEARCH_COLUMNS, rows)


def array_literal(texts: Iterable[str]) -> str:
    """Return texts as the text form of PostgreSQL's text[]."""
    return "{" + ",".join(f'"{text}"' if text.isalnum() else _quoted(text) for text in texts) + "}"


def _quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def decode_query(text: str, mirror: Mirror) -> Vectors:
    """Return the query from the hex form of PostgreSQL's vector_send, bit_send or sparsevec_send."""
    options = mirror.collection.options
    payload = bytes.fromhex(text)
    if options.element is ElementType.BIT:
        bits, packed = int.from_bytes(payload[:4], "big"), np.frombuffer(payload, dtype=np.uint8, offset=4)
        if bits != options.dims or len(packed) != (bits + 7) // 8:
            raise DimensionMismatch(expected=options.dims, got=bits)
        return packed
    if options.element is ElementType.SPARSE:
        dims, count, _ = struct.unpack_from(">iii", payload)
        if dims != options.dims:
            raise DimensionMismatch(expected=options.dims, got=dims)
        indices = np.frombuffer(payload, dtype=">i4", offset=12, count=count)
        return SparseVectors(
            np.array([0, count]), indices, np.frombuffer(payload, dtype=">f4", offset=12 + 4 * count), dims
        )
    query = np.frombuffer(payload, dtype=">f4", offset=4).astype(np.float32)
    if len(query) != options.dims:
        raise DimensionMismatch(expected=options.dims, got=len(query))
    return query
