"""Answer the database's signed requests: verify who asks, search, and say what the answer stands for."""

from __future__ import annotations

import hashlib
import hmac
import json
import math
import struct
from binascii import unhexlify
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ruvector import limits
from ruvector.bridge.backend import SEARCH_COLUMNS, CancelFlag, RowSet
from ruvector.clock import Clock
from ruvector.errors import (
    Cancelled,
    DimensionMismatch,
    InvalidParameter,
    NotLive,
    PermissionDenied,
)
from ruvector.index import Plan, Vectors
from ruvector.mirror.state import Mirror
from ruvector.snapshot import Snapshot
from ruvector.sparse import SparseVectors
from ruvector.values import ElementType

if TYPE_CHECKING:
    from ruvector.values import Attribute, RowKeys

_NO_VERSIONS: Mapping[str, object] = MappingProxyType({})
_MAC_HEX = 64
_FIELDS = 9  # of every request
_PLANS = {plan.name.lower(): plan for plan in Plan}
_SIEVE_COUNTERS = {"sieve_scans": "scan", "sieve_hops": "hop", "sieve_walks": "walk"}
_NOT_SIGNED = PermissionDenied("the request was not signed by the database", hint="Restart the sidecar.")


@dataclass(frozen=True, slots=True)
class Secrets:
    """The keys under which the database signs what it sends."""

    inner_key: bytes
    outer_key: bytes

    def open(self, payload: bytes) -> bytes:
        """Return the body of a signed request; PermissionDenied when the code is wrong."""
        body = payload[_MAC_HEX:]
        self._check(payload[:_MAC_HEX], body)
        return body

    def open_search(self, payload: bytes) -> SearchRequest:
        """Return a signed search; its code is made of the fields and the bytes of the query, not of their digits."""
        fields, _, digits = payload[_MAC_HEX:].rpartition(b" ")
        try:
            query = unhexlify(digits)
        except ValueError:
            raise _NOT_SIGNED from None
        self._check(payload[:_MAC_HEX], fields + b" " + query)
        return SearchRequest.parse(fields, query)

    def _check(self, proof: bytes, body: bytes) -> None:
        inner = hashlib.sha256(self.inner_key + body).digest()
        expected = hashlib.sha256(self.outer_key + inner).hexdigest().encode()
        if not hmac.compare_digest(proof, expected):
            raise _NOT_SIGNED


class SearchRequest(NamedTuple):
    """One SEARCH, its fields in the order in which ruvector.candidates_<id> writes them."""

    mirror_id: int
    wanted: int
    ef: int | None  # None: the collection's own
    deadline_ms: int
    is_explained: bool
    database: tuple[str, int]  # when the server was started, and the OID
    token: str
    snapshot: Snapshot
    query: bytes  # as vector_send, bit_send or sparsevec_send gives it
    filter: dict[str, Any] | None = None  # with values as the database prints them
    members: list[str] | None = None  # the only keys that may be in the answer
    plan: Plan = Plan.AUTO
    versions: Mapping[str, object] = _NO_VERSIONS  # of the columns that filters may name, in the database
    max_distance: float | None = None

    @classmethod
    def parse(cls, fields: bytes, query: bytes) -> SearchRequest:
        """Read the fields of a request; InvalidParameter when they are none.

        Behind them a search for some rows only has a JSON object: plan, filter, versions, members and max_distance.
        """
        try:
            mirror_id, wanted, ef, deadline_ms, explained, started, database, token, snapshot, *sieve = fields.split(
                b" ", _FIELDS
            )
            return cls(
                int(mirror_id),
                int(wanted),
                int(ef) or None,
                int(deadline_ms),
                explained == b"1",
                (started.decode(), int(database)),
                token.decode(),
                Snapshot.parse(snapshot.decode()),
                query,
                *(_read_sieve(sieve[0]) if sieve else ()),
            )
        except (ValueError, RecursionError) as problem:
            raise InvalidParameter(f"malformed request: {type(problem).__name__}") from None


def _read_sieve(
    document: bytes,
) -> tuple[dict[str, Any] | None, list[str] | None, Plan, Mapping[str, object], float | None]:
    """Return filter, members, plan, versions and max_distance; ValueError when the document has none."""
    sieve = json.loads(document.decode())
    if not isinstance(sieve, dict):
        raise ValueError("not an object")
    filter_, members, plan = sieve.get("filter"), sieve.get("members"), sieve.get("plan")
    if not (filter_ is None or isinstance(filter_, dict)) or not isinstance(plan, str) or plan not in _PLANS:
        raise ValueError("not a filter, or not a plan")
    if members is not None and not (isinstance(members, list) and all(isinstance(key, str) for key in members)):
        raise ValueError("not a list of keys")
    versions = sieve.get("versions") or {}
    if not isinstance(versions, dict):
        raise ValueError("no versions")
    most = sieve.get("max_distance")
    if not (most is None or isinstance(most, str)) or (most is not None and math.isnan(float(most))):
        raise ValueError("no distance")
    return filter_, members, _PLANS[plan], versions, None if most is None else float(most)


def answer_search(mirrors: Mapping[int, Mirror], request: SearchRequest, cancel: CancelFlag, *, clock: Clock) -> RowSet:
    """Answer one SEARCH with one row: a refusal, or position, candidates with their reach, and touched keys.

    A refusal is not an error: the SQL function then lets the database answer by itself.
    """
    try:
        mirror = mirrors.get(request.mirror_id)
        if mirror is None:
            raise NotLive("this sidecar does not know the collection yet")
        if request.database != mirror.database:
            raise NotLive("the request comes from another database than the one that was attached")
        if not 1 <= request.wanted <= limits.WANTED_MAX:
            raise InvalidParameter(f"candidate count {request.wanted} is out of range")
        cancel.expire_within(request.deadline_ms / 1000)
        # The values that the index has of a column are those of one version of it.
        is_known = knows_columns(mirror.collection.attributes, request)
        started, before = (clock.now(), mirror.index.stats()) if request.is_explained else (0.0, {})
        found = mirror.candidates(
            decode_query(request.query, mirror),
            request.wanted,
            ef=request.ef,
            snapshot=request.snapshot,
            token=request.token,
            cancel=cancel.array,
            filter_=request.filter if is_known else None,
            members=request.members,
            plan=request.plan,
            max_distance=request.max_distance,
        )
        cancel.check()
    except (NotLive, Cancelled) as refusal:
        return RowSet(SEARCH_COLUMNS, [(refusal.message, None, None, None, None, None)])
    except (ValueError, struct.error, RecursionError) as problem:
        raise InvalidParameter(f"malformed request: {type(problem).__name__}") from None
    # Said in every answer: the database then takes the candidates for any rows.
    is_filtered = is_known and found.is_filtered
    notes: dict[str, Any] = {} if is_filtered else {"filter": "not pushed"}
    if not found.is_certain:
        notes["unsure"] = True
    if request.is_explained:
        now, after = clock.now(), mirror.index.stats()
        if is_filtered and (request.filter is not None or request.members is not None):
            notes["filter"] = sieved(before, after)
        notes |= {
            "ef": found.ef,
            "tiers": {"hot": len(found.keys)},
            "touched": len(found.touched),
            "lag_ms": round((now - mirror.followed_at) * 1000, 3),
            "search_ms": round((now - started) * 1000, 3),
            **counted(before, after),
        }
    report = json.dumps(notes) if notes else None
    reach = float(found.distances[-1]) if len(found.keys) else None
    keys = (
        array_literal(found.keys) if isinstance(found.keys, list) else f"{{{','.join(map(str, found.keys.tolist()))}}}"
    )
    row = (None, found.position, keys, reach, array_literal(found.touched) if found.touched else "{}", report)
    return RowSet(SEARCH_COLUMNS, [row])


def knows_columns(attributes: Iterable[Attribute], request: SearchRequest) -> bool:
    """Tell whether the columns of a filter are here in the versions that the database has."""
    if request.filter is None:
        return True
    known = {attribute.name: attribute.version for attribute in attributes}
    return all(known.get(name) == request.versions.get(name) for name in _columns_of(request.filter))


def _columns_of(filter_: Mapping[str, Any]) -> Iterator[str]:
    for name, value in filter_.items():
        if name not in ("$and", "$or", "$not"):
            yield name
            continue
        for each in value if isinstance(value, list) else [value]:
            if isinstance(each, dict):  # else it is no filter, which the index will say
                yield from _columns_of(each)


def counted(before: Mapping[str, int], after: Mapping[str, int]) -> dict[str, int]:
    """Return what one search visited and ranked again, from the engine's sums before and after it.

    Nothing when other searches ended meanwhile, or the engine does not count.
    """
    if after.get("searches", 0) - before.get("searches", 0) != 1:
        return {}
    return {"visited": after["compared"] - before["compared"], "reranked": after["reranked"] - before["reranked"]}


def sieved(before: Mapping[str, int], after: Mapping[str, int]) -> dict[str, int | str]:
    """Return by which plan one search went through the rows that pass, how many those are, and of how many.

    Nothing but the rows when other searches ended meanwhile, or the engine does not count.
    """
    told: dict[str, int | str] = {"rows": after.get("rows", 0)}
    if after.get("searches", 0) - before.get("searches", 0) == 1:
        for name, plan in _SIEVE_COUNTERS.items():
            if after.get(name, 0) - before.get(name, 0) == 1:
                told["plan"] = plan
        if "plan" not in told:
            told["matching"] = told["rows"]  # every row passes: no sieve was used
        elif "sieve_rows" in after:
            told["matching"] = after["sieve_rows"] - before.get("sieve_rows", 0)
    return told


def key_literal(keys: RowKeys) -> str:
    """Return keys as the text form of PostgreSQL's text[]."""
    return array_literal(keys) if isinstance(keys, list) else "{" + ",".join(map(str, keys.tolist())) + "}"


def array_literal(texts: Iterable[str]) -> str:
    """Return texts as the text form of PostgreSQL's text[]."""
    return "{" + ",".join(f'"{text}"' if text.isalnum() else _quoted(text) for text in texts) + "}"


def _quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def decode_query(payload: bytes, mirror: Mirror) -> Vectors:
    """Return the query from the binary form of PostgreSQL's vector_send, bit_send or sparsevec_send."""
    options = mirror.collection.options
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
