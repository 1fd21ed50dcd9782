"""The numpy twin of the compiled engine: the same answers and sections, one lock, no speed."""

from __future__ import annotations

import heapq
import math
import threading
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from ruvector.index import reference_sections
from ruvector.index.protocol import Answers, Bytes, Sections, Sieve, Tags
from ruvector.index.reference_rows import DEAD, LIVE, TWIN, Edge, Floats, Rows
from ruvector.index.reference_tags import ReferenceTags

_DEAD_MIN, _DEAD_SHARE = 256, 8  # as in hnsw/graph.hpp
_LEVEL_MAX = 31
_MASK = 2**64 - 1


def _mix64(value: int) -> int:
    value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & _MASK
    return value ^ (value >> 31)


class ReferenceGraph:
    """A keyed set of vectors; ``linked`` false leaves out the graph. Codes as in ruvector._ext.graph."""

    def __init__(
        self, *, metric: int, element: int, dims: int, m: int, ef_construction: int, seed: int, linked: bool
    ) -> None:
        """Start empty."""
        self.m = m
        self.linked = linked
        self.base_links = 2 * m if linked else 0
        self.draws = self.repairs = self.top = 0
        self.entry: int | None = None
        self.links: list[list[list[int]]] = []  # of each slot, of each level
        self.rows = Rows(metric=metric, element=element, dims=dims)
        self.tags = ReferenceTags()
        self._seed = seed
        self._ef_construction = ef_construction
        self._lock = threading.RLock()

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.rows.slot_of)

    @property
    def built_permille(self) -> int:
        """Return 1000: every row is linked at once."""
        return 1000

    def build(self, *, threads: int, cancel: Bytes | None = None) -> None:
        """Do nothing: no row is ever loose."""

    def start_tags(self) -> int:
        """Give each row a tag, in the order of ``keys``; returns how many rows there are."""
        with self._lock:
            return self.tags.start(self.keys())

    def tags_of(self, keys: npt.NDArray[np.int64]) -> Tags:
        """Return the tag of each key, NO_TAG for one without a row."""
        with self._lock:
            return self.tags.of(keys)

    def upsert(
        self, keys: npt.NDArray[np.int64], rows: Bytes, *, loose: bool, threads: int, tags: Tags | None = None
    ) -> int:
        """Insert or replace rows one after the other; returns how many were not already there as they are."""
        with self._lock:
            self.tags.put(keys, tags)
            last = {key: at for at, key in enumerate(keys.tolist())}
            changed = sum(self._upsert_row(key, rows[at]) for key, at in last.items())
            self._repair_if_due()
            return changed

    def delete(self, keys: npt.NDArray[np.int64], *, threads: int) -> int:
        """Delete rows by key; returns how many existed."""
        with self._lock:
            slots = [self.rows.slot_of.pop(key) for key in dict.fromkeys(keys.tolist()) if key in self.rows.slot_of]
            for slot in slots:
                self._drop(slot)
            self.tags.drop(keys.tolist())
            if slots and not len(self):
                self.clear()
            self._repair_if_due()
            return len(slots)

    def clear(self) -> None:
        """Forget all rows."""
        with self._lock:
            self.rows.clear()
            self.tags.clear()
            self.links.clear()
            self.entry, self.top = None, 0

    def repair(self, *, threads: int) -> None:
        """Link around deleted nodes now and free their slots."""
        with self._lock:
            gone = {slot for slot in self._nodes() if self.rows.weight(slot) == 0}
            if not gone:
                return
            for slot in self._nodes():
                for level, links in enumerate(self.links[slot]):
                    if slot not in gone and not gone.isdisjoint(links):
                        self.links[slot][level] = self._detour(slot, level, gone)
            for slot in gone:
                self.links[slot] = []
                self.rows.free(slot)
            self._choose_entry()
            for slot in self._unreached():
                self._link(slot)
            self.repairs += 1

    def search(
        self,
        queries: Bytes,
        *,
        k: int,
        ef: int,
        scan_rows: int,
        threads: int,
        cancel: Bytes | None = None,
        sieve: Sieve | None = None,
    ) -> Answers | None:
        """Answer queries [q, query bytes]: keys [q, k], distances [q, k], counts [q]; None when cancelled.

        Under a sieve all rows that pass are compared, whatever its plan.
        """
        keys = np.full((len(queries), k), -1, dtype=np.int64)
        distances = np.full((len(queries), k), np.inf, dtype=np.float32)
        counts = np.zeros(len(queries), dtype=np.int64)
        for at, query in enumerate(queries):
            with self._lock:
                probe = self.rows.query(query)
                if sieve is not None:
                    found = self._scan(probe, k, self._passing(sieve), cancel)
                else:
                    found = self._answer(probe, k=k, ef=max(ef, k), scan_rows=scan_rows, cancel=cancel)
                if found is None:
                    return None
                counts[at] = len(found)
                keys[at, : len(found)] = [self.rows.keys[slot] for _, slot in found]
                distances[at, : len(found)] = [apart for apart, _ in found]
        return keys, distances, counts

    def contains(self, keys: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
        """Tell for each key whether it has a row."""
        with self._lock:
            return np.array([key in self.rows.slot_of for key in keys.tolist()], dtype=np.bool_)

    def rows_of(self, keys: npt.NDArray[np.int64]) -> tuple[Bytes, npt.NDArray[np.bool_]]:
        """Return the rows of keys and which were found."""
        with self._lock:
            found = self.contains(keys)
            out = np.zeros((len(keys), self.rows.width), dtype=np.uint8)
            slots = [self.rows.slot_of[key] for key in keys[found].tolist()]
            out[found] = self.rows.data[slots]
            return out, found

    def keys(self) -> npt.NDArray[np.int64]:
        """Return all keys in slot order."""
        with self._lock:
            slots = sorted(self.rows.slot_of.values())
            return np.array([self.rows.keys[slot] for slot in slots], dtype=np.int64)

    def figures(self) -> dict[str, int]:
        """Return counters and sizes by name."""
        with self._lock:
            return reference_sections.figures(self)

    def dump(self) -> Sections:
        """Return a copy of everything as arrays, as the compiled engine has them."""
        with self._lock:
            return reference_sections.dump(self)

    def restore(self, sections: Mapping[str, npt.NDArray[Any]], *, in_place: bool, threads: int) -> str | None:
        """Become what ``dump`` returned; None, or what is wrong with the sections."""
        with self._lock:
            self.clear()
            wrong = reference_sections.restore(self, sections) or self._take_tags(sections)
            if wrong is not None:
                self.clear()
            return wrong

    def _take_tags(self, sections: Mapping[str, npt.NDArray[Any]]) -> str | None:
        is_row = np.isin(sections["states"], (LIVE, TWIN))
        tags = sections["tags"][is_row] if "tags" in sections else None
        return self.tags.take(sections["keys"][is_row], tags)

    def _nodes(self) -> Iterator[int]:
        return (slot for slot in range(len(self.rows.states)) if self.rows.states[slot] in (LIVE, DEAD))

    def _upsert_row(self, key: int, row: Bytes) -> bool:
        rows = self.rows
        before = rows.slot_of.get(key)
        if before is not None and np.array_equal(rows.data[before], row):
            return False
        slot = rows.take(key, row)
        if slot == len(self.links):
            self.links.append([])
        head = rows.head_of.get(rows.identity(slot)) if self.linked else None
        if head is not None:
            rows.states[slot], rows.twin_head[slot] = TWIN, head
            rows.twins.setdefault(head, []).append(slot)
        else:
            rows.states[slot] = LIVE
            if self.linked:
                self._insert(slot)
        if before is not None:
            self._drop(before)
        rows.slot_of[key] = slot
        return True

    def _insert(self, slot: int) -> None:
        self.rows.head_of[self.rows.identity(slot)] = slot
        self.draws += 1
        bits = _mix64((self._seed * 0x9E3779B97F4A7C15 + self.draws * 0xD1B54A32D192ED03) & _MASK)
        level = min(_LEVEL_MAX, int(-math.log(((bits >> 11) + 1) * 2.0**-53) / math.log(self.m)))
        self.links[slot] = [[] for _ in range(level + 1)]
        self._link(slot)
        if self.entry is None or level > self.top:
            self.entry, self.top = slot, level

    def _link(self, slot: int) -> None:
        if self.entry is None:
            return
        probe = self.rows.vectors[slot]
        level = len(self.links[slot]) - 1
        here = self._descend(probe, level)
        for at in range(min(level, self.top), -1, -1):
            found = self._beam(probe, at, here, width=self._ef_construction, weighted=False, cancel=None) or []
            here = found[0][1]
            known = {other for _, other in found} | {slot}
            kept = [other for other in self.links[slot][at] if other not in known]
            edges = sorted([edge for edge in found if edge[1] != slot] + self._edges(probe, kept))
            self.links[slot][at] = [other for _, other in self._diversify(edges, self.m)]
            for other in self.links[slot][at]:
                self._link_back(other, slot, at)

    def _link_back(self, slot: int, other: int, level: int) -> None:
        links = self.links[slot][level]
        room = self.m if level else self.base_links
        if other not in links:
            links.append(other)
        if len(links) > room:
            edges = sorted(self._edges(self.rows.vectors[slot], links))
            self.links[slot][level] = [kept for _, kept in self._diversify(edges, room)]

    def _edges(self, probe: Floats, slots: list[int]) -> list[Edge]:
        return list(zip(self.rows.distances(probe, slots), slots, strict=True)) if slots else []

    def _diversify(self, edges: list[Edge], limit: int) -> list[Edge]:
        if len(edges) <= limit:
            return edges
        chosen: list[Edge] = []
        slots = [slot for _, slot in edges]
        hidden = np.zeros(len(edges), dtype=np.bool_)
        radii = np.array([apart for apart, _ in edges])
        for at, edge in enumerate(edges):
            if not hidden[at] and len(chosen) < limit:
                chosen.append(edge)
                hidden |= np.array(self.rows.distances(self.rows.vectors[edge[1]], slots)) < radii
        return chosen

    def _descend(self, probe: Floats, stop: int) -> int:
        best: Edge = (self.rows.distances(probe, [self.entry or 0])[0], self.entry or 0)
        for level in range(self.top, stop, -1):
            moved = True
            while moved:
                edges = self._edges(probe, self.links[best[1]][level])
                nearest = min(edges, default=best)
                moved = nearest[0] < best[0]
                best = nearest if moved else best
        return best[1]

    def _beam(
        self, probe: Floats, level: int, start: int, *, width: int, weighted: bool, cancel: Bytes | None
    ) -> list[Edge] | None:
        first = self.rows.distances(probe, [start])[0]
        seen, weight = {start}, self.rows.weight(start) if weighted else 1
        frontier: list[Edge] = [(first, start)]
        found: list[Edge] = [(-first, start)] if weight else []
        while frontier and (weight < width or frontier[0][0] <= -found[0][0]):
            if cancel is not None and cancel[0]:
                return None
            _, here = heapq.heappop(frontier)
            around = [slot for slot in self.links[here][level] if slot not in seen]
            seen.update(around)
            for apart, slot in self._edges(probe, around):
                if weight >= width and apart >= -found[0][0]:
                    continue
                heapq.heappush(frontier, (apart, slot))
                more = self.rows.weight(slot) if weighted else 1
                if more:
                    heapq.heappush(found, (-apart, slot))
                weight += more
                while found and weight - (self.rows.weight(found[0][1]) if weighted else 1) >= width:
                    _, out = heapq.heappop(found)
                    weight -= self.rows.weight(out) if weighted else 1
        return sorted((-apart, slot) for apart, slot in found)

    def _answer(self, query: Floats, *, k: int, ef: int, scan_rows: int, cancel: Bytes | None) -> list[Edge] | None:
        live = len(self)
        wanted = min(k, live)
        if cancel is not None and cancel[0]:
            return None
        if wanted and self.linked and live > scan_rows and wanted * 2 < live and ef * 2 < live:
            found = self._beam(query, 0, self._descend(query, 0), width=ef, weighted=True, cancel=cancel)
            if found is None:
                return None
            rows = [(apart, row) for apart, slot in found for row in self.rows.live_rows(slot)][:wanted]
            if len(rows) == wanted:
                return rows
        return self._scan(query, k, sorted(self.rows.slot_of.values()), cancel)

    def _scan(self, query: Floats, k: int, slots: list[int], cancel: Bytes | None) -> list[Edge] | None:
        if cancel is not None and cancel[0]:
            return None
        return sorted(self._edges(query, slots))[:k]

    def _passing(self, sieve: Sieve) -> list[int]:
        """Return the slots of the rows that pass."""
        keys = self.keys()
        return [self.rows.slot_of[key] for key in keys[self.tags.passing(keys, sieve)].tolist()]

    def _drop(self, slot: int) -> None:
        rows = self.rows
        if rows.states[slot] == TWIN:
            rows.twins[rows.twin_head[slot]].remove(slot)
            rows.free(slot)
        elif self.linked:
            rows.states[slot] = DEAD
        else:
            rows.free(slot)

    def _repair_if_due(self) -> None:
        dead = sum(1 for slot in self._nodes() if self.rows.weight(slot) == 0)
        if dead >= max(_DEAD_MIN, len(self) // _DEAD_SHARE):
            self.repair(threads=1)

    def _detour(self, slot: int, level: int, gone: set[int]) -> list[int]:
        seen, open_nodes = {slot}, [slot]
        around: list[int] = []
        for centre in open_nodes:
            for other in self.links[centre][level]:
                if other not in seen:
                    seen.add(other)
                    (open_nodes if other in gone else around).append(other)
        edges = sorted(self._edges(self.rows.vectors[slot], around))
        return [other for _, other in self._diversify(edges, self.m if level else self.base_links)]

    def _choose_entry(self) -> None:
        highest = max(self._nodes(), key=lambda slot: (len(self.links[slot]), -slot), default=None)
        self.entry, self.top = highest, 0 if highest is None else len(self.links[highest]) - 1

    def _unreached(self) -> list[int]:
        open_nodes = [] if self.entry is None else [self.entry]
        seen = set(open_nodes)
        while open_nodes:
            fresh = set(self.links[open_nodes.pop()][0]) - seen
            seen |= fresh
            open_nodes.extend(fresh)
        return [slot for slot in self._nodes() if slot not in seen]
