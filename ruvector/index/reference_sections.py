"""The numpy engine as the flat arrays of the compiled one, and back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ruvector.index.protocol import Sections
from ruvector.index.reference_rows import DEAD, FREE, LIVE, TWIN, Rows
from ruvector.values import ElementType, Metric

if TYPE_CHECKING:
    from ruvector.index.reference import ReferenceGraph

_EMPTY = 0xFFFFFFFF
_TYPES = {
    "rows": np.uint8,
    "links": np.uint32,
    "levels": np.uint8,
    "states": np.uint8,
    "keys": np.int64,
    "scales": np.float32,
    "fingerprints": np.uint32,
    "twin_heads": np.uint32,
    "upper": np.uint32,
    "head": np.int64,
}


def dump(graph: ReferenceGraph) -> Sections:
    """Return a copy of everything."""
    rows, slots = graph.rows, len(graph.rows.states)
    data = np.zeros((slots, (rows.width + 15) // 16 * 16), dtype=np.uint8)
    data[:, : rows.width] = rows.data[:slots]
    links = np.full((slots, graph.base_links), _EMPTY, dtype=np.uint32)
    levels = np.zeros(slots, dtype=np.uint8)
    upper: list[int] = []
    for slot, lists in enumerate(graph.links):
        levels[slot] = max(0, len(lists) - 1)
        if lists:
            links[slot, : len(lists[0])] = lists[0]
        for links_above in lists[1:]:
            upper += links_above + [_EMPTY] * (graph.m - len(links_above))
    lone = sum(1 for slot, lists in enumerate(graph.links) if lists and not lists[0] and slot != graph.entry)
    entry = -1 if graph.entry is None else graph.entry
    head = [entry, graph.top, graph.draws, graph.repairs, len(graph), 1 + (lone if graph.linked else 0), 0, 0]
    scales, fingerprints = _scales(rows, slots), np.zeros(slots, dtype=np.uint32)
    if graph.linked:
        fingerprints = _fingerprints(rows, slots)
    states, keys = np.array(rows.states, dtype=np.uint8), np.array(rows.keys, dtype=np.int64)
    data[states == FREE], keys[states == FREE] = 0, 0
    scales[states == FREE], fingerprints[states == FREE] = 1, 0
    tags = np.full(slots, _EMPTY, dtype=np.uint32)
    is_row = np.isin(states, (LIVE, TWIN))
    tags[is_row] = graph.tags.of(keys[is_row])
    sections = {"tags": tags} if graph.tags.is_started else {}
    return sections | {
        "rows": data,
        "links": links,
        "codes": np.zeros((0, (-(-rows.dims // 64) * 32 + 16 + 15) // 16 * 16), dtype=np.uint8),  # it walks on rows
        "levels": levels,
        "states": states,
        "keys": keys,
        "scales": scales,
        "fingerprints": fingerprints,
        "twin_heads": np.array([rows.twin_head.get(slot, _EMPTY) for slot in range(slots)], dtype=np.uint32),
        "upper": np.array(upper, dtype=np.uint32),
        "center": np.zeros(0, dtype=np.float32),
        "head": np.array(head, dtype=np.int64),
    }


def _inverse_lengths(rows: Rows, slots: int) -> npt.NDArray[np.float64]:
    values = rows.values(slice(0, slots)).astype(np.float64)
    lengths = np.sqrt(np.sum(values * values, axis=1))
    scales: npt.NDArray[np.float64] = np.divide(1.0, lengths, out=np.zeros_like(lengths), where=lengths > 0)
    return scales


def _scales(rows: Rows, slots: int) -> npt.NDArray[np.float32]:
    if rows.metric is not Metric.COSINE:
        return np.ones(slots, dtype=np.float32)
    return np.minimum(_inverse_lengths(rows, slots), np.finfo(np.float32).max).astype(np.float32)


def _mix64(value: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return value ^ (value >> np.uint64(31))


def _fingerprints(rows: Rows, slots: int) -> npt.NDArray[np.uint32]:
    """Return the upper halves of what Space::fingerprint of hnsw/space.hpp gives."""
    out = np.full(slots, 0x9E3779B97F4A7C15, dtype=np.uint64)
    if rows.element is ElementType.BIT:
        for at in range(rows.width):
            out = _mix64(out ^ rows.data[:slots, at].astype(np.uint64)) + np.uint64(at)
        return (out >> np.uint64(32)).astype(np.uint32)
    values = rows.values(slice(0, slots)).astype(np.float64)
    if rows.metric is Metric.COSINE:
        values *= _inverse_lengths(rows, slots)[:, np.newaxis]
    bits = (values.astype(np.float32) + np.float32(0.0)).view(np.uint32)
    for dim in range(rows.dims):
        out = (out ^ bits[:, dim].astype(np.uint64)) * np.uint64(0x9FB21C651E98DF25)
        out ^= out >> np.uint64(32)
    return (_mix64(out) >> np.uint64(32)).astype(np.uint32)


def restore(graph: ReferenceGraph, sections: Mapping[str, npt.NDArray[Any]]) -> str | None:
    """Fill an empty graph from sections; None, or what is wrong with them."""
    rows, slots = graph.rows, len(sections["states"])
    shapes = {"rows": (slots, (rows.width + 15) // 16 * 16), "links": (slots, graph.base_links), "head": (8,)}
    for name, dtype in _TYPES.items():
        shape = (len(sections["upper"]),) if name == "upper" else shapes.get(name, (slots,))
        if sections[name].dtype != dtype or sections[name].shape != shape:
            return f"section {name} is {sections[name].dtype} {sections[name].shape} instead of {dtype} {shape}"
    if slots:
        rows.adopt(np.ascontiguousarray(sections["rows"][:, : rows.width]))
    if not np.isfinite(sections["scales"]).all():
        return "a row has a wrong scale"
    rows.states = sections["states"].tolist()
    rows.keys = sections["keys"].tolist()
    rows.twin_head = {at: head for at, head in enumerate(sections["twin_heads"].tolist()) if rows.states[at] == TWIN}
    for slot, head in rows.twin_head.items():
        rows.twins.setdefault(head, []).append(slot)
    rows.slot_of = {rows.keys[slot]: slot for slot in range(slots) if rows.states[slot] in (LIVE, TWIN)}
    rows._free = [slot for slot in range(slots) if rows.states[slot] == FREE]
    used = 0
    for slot, level in enumerate(sections["levels"].tolist()):
        lists: list[list[int]] = []
        if graph.linked and rows.states[slot] in (LIVE, DEAD):
            rows.head_of[rows.identity(slot)] = slot
            above = sections["upper"][used : used + level * graph.m].reshape(-1, graph.m)
            lists = [[link for link in row.tolist() if link != _EMPTY] for row in (sections["links"][slot], *above)]
        used += level * graph.m
        graph.links.append(lists)
    entry, graph.top, graph.draws, graph.repairs, count, *_ = sections["head"].tolist()
    graph.entry = None if entry < 0 else entry
    if count != len(rows.slot_of) or used != len(sections["upper"]):
        return "the number of rows or links differs"
    return _check(graph) if graph.linked else None


def _check(graph: ReferenceGraph) -> str | None:
    levels = [len(lists) - 1 for lists in graph.links]  # -1: no node
    for lists in graph.links:
        for level, links in enumerate(lists):
            if any(link >= len(levels) or levels[link] < level for link in links):
                return "a link leads to no node of its level"
    if any(head >= len(levels) or levels[head] < 0 for head in graph.rows.twins):
        return "a twin hangs on no node"
    if graph.entry is None:
        return "the entry is missing" if graph.rows.slot_of else None
    if graph.entry >= len(levels) or levels[graph.entry] != graph.top:
        return "the entry is on another level"
    return None


def figures(graph: ReferenceGraph) -> dict[str, int]:
    """Return the counters of the compiled engine."""
    rows, slots = graph.rows, len(graph.rows.states)
    nodes = [slot for slot in range(slots) if rows.states[slot] in (LIVE, DEAD)] if graph.linked else []
    degrees = sum(len(graph.links[slot][0]) for slot in nodes)
    return {
        "rows": len(graph),
        "slots": slots,
        "dead": sum(1 for slot in nodes if rows.weight(slot) == 0),
        "free": rows.states.count(FREE),
        "twins": rows.states.count(TWIN),
        "top_level": -1 if graph.entry is None else graph.top,
        "repairs": graph.repairs,
        "row_bytes": slots * rows.width,
        "link_bytes": sum(8 * len(links) for lists in graph.links for links in lists),
        "table_bytes": slots * 100,
        "chunk_bytes": rows.data.nbytes,
        "degree_thousandths": degrees * 1000 // len(nodes) if nodes else 0,
        "code_bytes": 0,
        "loose": 0,
        "searches": 0,
        "compared": 0,
        "reranked": 0,
        "sieve_scans": 0,
        "sieve_hops": 0,
        "sieve_walks": 0,
        "sieve_rows": 0,
    }
