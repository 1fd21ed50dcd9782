"""The attributes of the rows of one index, and which rows pass a filter."""

from __future__ import annotations

import json
import threading
from collections import Counter, OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ruvector import limits
from ruvector.errors import InvalidParameter, StoreFormat
from ruvector.index.columns import Column, Mask, new_column
from ruvector.index.filters import Constant, Expression, KnownColumn, evaluate, parse
from ruvector.index.protocol import NO_TAG, Plan, Sections, Sieve, Tags
from ruvector.values import Attribute, AttributeRows, AttributeValues

_PREFIX = "attribute"


@dataclass(slots=True)
class _Held:
    """One attribute: its column, and the rows that were written since it is there."""

    column: Column
    known: Mask


@dataclass(slots=True)
class _Entry:
    """A filter that was asked for, and what passes it."""

    expression: Expression
    mask: Mask
    sieve: Sieve
    is_exact: bool
    position: int  # in the log of written tags

    @property
    def nbytes(self) -> int:
        return self.mask.nbytes + (0 if self.sieve.bits is None else self.sieve.bits.nbytes)


class AttributeTable:
    """Columns by tag. One thread writes, any number ask; a sieve that was given out never changes.

    A tag that was freed is used again only when no search is under way that began before: its sieve might let the new
    row pass for the old one's sake.
    """

    def __init__(self, attributes: Sequence[Attribute] = (), *, rows: int = 0, is_strict: bool = False) -> None:
        """Start with so many rows of which nothing is known.

        ``is_strict``: filters come from a program, and values that do not fit their column are refused.
        """
        self._is_strict = is_strict
        self._lock = threading.Lock()
        self._hashed: tuple[Attribute, ...] = ()  # in order of their names; the hashes of rows are over these
        self._held: dict[str, _Held] = {}
        self._is_filled = True  # every row was written since the attributes are these
        self._size = rows
        self._live: Mask = np.ones(rows, dtype=np.bool_)
        self._hashes: npt.NDArray[np.int64] = np.zeros(rows, dtype=np.int64)
        self._free: list[int] = []
        self._cooling: list[tuple[int, list[int]]] = []  # freed tags, and the searches that may still mean them
        self._searches: Counter[int] = Counter()
        self._turn = 0
        self._log: list[npt.NDArray[np.int64]] = []
        self._logged = 0  # tags that were ever written to the log
        self._kept = 0  # of them, those still in it
        self._cache: OrderedDict[str, _Entry] = OrderedDict()
        self.set_attributes(attributes)

    # ---- columns -------------------------------------------------------------------------------------------------

    @property
    def attributes(self) -> tuple[Attribute, ...]:
        """Return the attributes in order of their names."""
        return self._hashed

    def set_attributes(self, attributes: Sequence[Attribute]) -> None:
        """Have exactly these columns; a new one, or one in another version, knows none of the rows that are there."""
        wanted = tuple(sorted(attributes, key=lambda each: each.name))
        with self._lock:
            if wanted == self._hashed:
                return
            self._hashed, self._is_filled = wanted, not self._live.any()
            before, self._held = self._held, {}
            for attribute in wanted:
                held = before.get(attribute.name)
                if held is not None and held.column.attribute == attribute:
                    self._held[attribute.name] = held
                    continue
                column = new_column(attribute)
                if column is None:
                    continue  # filters on it are the database's affair
                column.resize(len(self._live))
                self._held[attribute.name] = _Held(column, np.zeros(len(self._live), np.bool_))
            self._cache.clear()

    @property
    def is_filled(self) -> bool:
        """Tell whether every row was written since the attributes are these; else some values and hashes are not known.

        Without attributes there is nothing to know.
        """
        return self._is_filled or not self._hashed

    def mark_filled(self) -> None:
        """Note that every row was written since the attributes are these."""
        with self._lock:
            for held in self._held.values():
                held.known[:] = True
            self._is_filled = True
            self._cache.clear()  # what was not certain is now

    # ---- rows ----------------------------------------------------------------------------------------------------

    def place(self, numbers: npt.NDArray[np.int64], tags: Tags) -> Tags:
        """Return the tags of rows, new ones for those that have none; the same key gets the same.

        Nothing passes a filter for the sake of a new tag until it was written: it may still have an older row's values.
        """
        missing = tags == NO_TAG
        if not missing.any():
            return tags
        with self._lock:
            fresh, places = np.unique(numbers[missing], return_inverse=True)
            given = np.array(self._take(len(fresh)), dtype=np.uint32)
            out = tags.copy()
            out[missing] = given[places]
            return out

    def _take(self, count: int) -> list[int]:
        oldest = min(self._searches, default=self._turn)
        while self._cooling and self._cooling[0][0] < oldest:
            self._free += self._cooling.pop(0)[1]
        used = [self._free.pop() for _ in range(min(count, len(self._free)))]
        first, self._size = self._size, self._size + count - len(used)
        if self._size > len(self._live):
            capacity = max(self._size, len(self._live) * 5 // 4, 64)
            self._live = np.concatenate((self._live, np.zeros(capacity - len(self._live), dtype=np.bool_)))
            self._hashes = np.concatenate((self._hashes, np.zeros(capacity - len(self._hashes), dtype=np.int64)))
            for held in self._held.values():
                held.column.resize(capacity)
                held.known = np.concatenate((held.known, np.zeros(capacity - len(held.known), dtype=np.bool_)))
        return used + list(range(first, self._size))

    def write(self, tags: Tags, rows: AttributeRows | None) -> int:
        """Set the attributes of rows; what is not given of them is not known. Returns how many have another hash."""
        at = tags.astype(np.int64)
        with self._lock:
            hashes = np.zeros(len(at), dtype=np.int64) if rows is None else rows.hashes
            self._live[at] = True
            changed = int((self._hashes[at] != hashes).sum())
            self._hashes[at] = hashes
            for name, held in self._held.items():
                given = None if rows is None else rows.columns.get(name)
                if given is not None:
                    held.column.write(at, given)
                else:
                    self._is_filled = False
                held.known[at] = given is not None
            self._note(at)
            return changed

    def release(self, tags: Tags) -> None:
        """Forget rows that were deleted."""
        at = np.unique(tags[tags != NO_TAG]).astype(np.int64)
        at = at[self._live[at]]
        if not len(at):
            return
        with self._lock:
            self._live[at] = False
            self._cooling.append((self._turn, at.tolist()))
            self._turn += 1
            self._note(at)

    def clear(self) -> None:
        """Forget all rows."""
        attributes = self.attributes
        with self._lock:
            self._hashed, self._held = (), {}
            self._size, self._live, self._hashes = 0, np.zeros(0, np.bool_), np.zeros(0, np.int64)
            self._free, self._cooling, self._turn = [], [], self._turn + 1
            self._log, self._kept = [], 0
            self._logged += 1
            self._cache.clear()
        self.set_attributes(attributes)

    def hashes(self, tags: Tags) -> npt.NDArray[np.int64]:
        """Return the hashes of rows by tag; 0 for NO_TAG."""
        found = tags != NO_TAG
        out = np.zeros(len(tags), dtype=np.int64)
        out[found] = self._hashes[tags[found]]
        return out

    def _note(self, tags: npt.NDArray[np.int64]) -> None:
        """Remember that rows were written, for the filters in the cache."""
        if not self._cache:
            return
        self._log.append(tags)
        self._logged += len(tags)
        self._kept += len(tags)
        most = max(limits.FILTER_LOG_TAGS_MAX, self._size // 4)  # of more a new evaluation is cheaper
        while self._kept > most:
            self._kept -= len(self._log.pop(0))

    # ---- filters -------------------------------------------------------------------------------------------------

    @contextmanager
    def search(self) -> Iterator[None]:
        """Keep the tags of a sieve from being used again until the search with it has ended."""
        with self._lock:
            turn = self._turn
            self._searches[turn] += 1
        try:
            yield
        finally:
            with self._lock:
                self._searches[turn] -= 1
                if not self._searches[turn]:
                    del self._searches[turn]

    def sieve(self, filter_: Mapping[str, Any], plan: Plan) -> Sieve | None:
        """Return what a filter lets pass; None: every row, for certain.

        Raises:
            InvalidParameter, LimitExceeded: it is no filter on these columns.
        """
        key = _cache_key(filter_)
        with self._lock:
            entry = self._cache.get(key) if key is not None else None
            if entry is None:
                columns = {name: held.column for name, held in self._held.items()}
                expression = parse(filter_, columns, is_strict=self._is_strict)
                if expression == Constant(value=True):
                    return None
                entry = self._evaluated(expression)
                if key is not None:
                    self._remember(key, entry)
            elif entry.position != self._logged:
                self._refresh(entry)
            if key is not None and key in self._cache:
                self._cache.move_to_end(key)
            found = entry.sieve
            return Sieve(found.bits, found.count, plan=plan, is_exact=entry.is_exact)

    def passing(self, filter_: Mapping[str, Any], tags: Tags) -> tuple[Mask, bool]:
        """Tell for rows by tag whether they pass, and whether that is certain; NO_TAG does not."""
        sieve = self.sieve(filter_, Plan.AUTO)
        found: Mask = tags != NO_TAG
        if sieve is None or sieve.bits is None:
            return found, True
        bits = sieve.bits
        at = tags.astype(np.int64)
        found &= at < 64 * len(bits)
        words = bits[at[found] >> 6] >> (at[found] & 63).astype(np.uint64)
        found[found] = words & np.uint64(1) != 0
        return found, sieve.is_exact

    def _evaluated(self, expression: Expression) -> _Entry:
        mask, is_exact = self._evaluate(expression, slice(0, self._size), self._size)
        mask &= self._live[: self._size]
        return _Entry(expression, mask, _sieve_of(mask), is_exact, self._logged)

    def _refresh(self, entry: _Entry) -> None:
        """Bring what passes a filter up to date, by the rows written since if they are few."""
        missed = self._logged - entry.position
        if missed > self._kept:
            fresh = self._evaluated(entry.expression)
            entry.mask, entry.sieve, entry.is_exact = fresh.mask, fresh.sieve, fresh.is_exact
        else:
            recent: list[npt.NDArray[np.int64]] = []
            for tags in reversed(self._log):
                if missed <= 0:
                    break
                recent.append(tags)
                missed -= len(tags)
            written = np.unique(np.concatenate(recent))
            mask = np.zeros(self._size, dtype=np.bool_)
            mask[: len(entry.mask)] = entry.mask
            passing, is_exact = self._evaluate(entry.expression, written, len(written))
            mask[written] = passing & self._live[written]
            entry.mask, entry.sieve, entry.is_exact = mask, _sieve_of(mask), entry.is_exact and is_exact
        entry.position = self._logged

    def _evaluate(self, expression: Expression, at: Any, count: int) -> tuple[Mask, bool]:
        columns = {
            name: KnownColumn(held.column, None if self._is_filled else held.known | ~self._live)
            for name, held in self._held.items()
        }
        return evaluate(expression, columns, at, count)

    def _remember(self, key: str, entry: _Entry) -> None:
        self._cache[key] = entry
        total = sum(each.nbytes for each in self._cache.values())
        while len(self._cache) > 1 and (
            len(self._cache) > limits.FILTER_CACHE_MAX or total > limits.FILTER_CACHE_BYTES
        ):
            total -= self._cache.popitem(last=False)[1].nbytes

    # ---- saving --------------------------------------------------------------------------------------------------

    def sections(self) -> Sections:
        """Return everything as arrays; for the writer."""
        out: Sections = {
            f"{_PREFIX}_live": self._live[: self._size].view(np.uint8).copy(),
            f"{_PREFIX}_hashes": self._hashes[: self._size].copy(),
        }
        for number, name in enumerate(sorted(self._held)):
            held = self._held[name]
            for part, array in held.column.sections().items():
                is_by_row = part in ("values", "present")
                out[f"{_PREFIX}_{number}_{part}"] = (array[: self._size] if is_by_row else array).copy()
            out[f"{_PREFIX}_{number}_known"] = held.known[: self._size].view(np.uint8).copy()
        described = [asdict(attribute) for attribute in self._hashed]
        document = json.dumps(
            {"columns": described, "is_filled": self._is_filled, "is_strict": self._is_strict}
        ).encode()
        return out | {f"{_PREFIX}s": np.frombuffer(document, dtype=np.uint8)}

    @classmethod
    def from_sections(cls, sections: Sections) -> AttributeTable | None:
        """Return the table that ``sections`` described; None when they hold none. Raises StoreFormat."""
        if f"{_PREFIX}s" not in sections:
            return None
        try:
            document = json.loads(sections[f"{_PREFIX}s"].tobytes())
            attributes = [Attribute(**each) for each in document["columns"]]
            table, is_filled = cls(is_strict=bool(document["is_strict"])), bool(document["is_filled"])
            live, hashes = sections[f"{_PREFIX}_live"], sections[f"{_PREFIX}_hashes"]
        except (ValueError, TypeError, KeyError) as error:
            raise StoreFormat(f"the attributes of the index cannot be read: {error}") from None
        if live.dtype != np.uint8 or hashes.dtype != np.int64 or live.shape != hashes.shape or (live > 1).any():
            raise StoreFormat("the attributes of the index do not fit together")
        table._size = len(live)
        table._live, table._hashes = np.array(live).view(np.bool_), np.array(hashes)
        table._free = np.flatnonzero(~table._live)[::-1].tolist()
        table.set_attributes(attributes)
        table._is_filled = is_filled
        for number, name in enumerate(sorted(table._held)):
            head = f"{_PREFIX}_{number}_"
            parts = {part.removeprefix(head): array for part, array in sections.items() if part.startswith(head)}
            held = table._held[name]
            try:
                held.column.restore(parts, table._size)
                known = parts["known"]
            except KeyError as error:
                raise StoreFormat(f'attribute "{name}" lacks section {error}') from None
            if known.dtype != np.uint8 or known.shape != live.shape or (known > 1).any():
                raise StoreFormat(f'the rows of attribute "{name}" are missing')
            held.known = np.array(known).view(np.bool_)
        return table

    def check_tags(self, tags: npt.NDArray[np.uint32]) -> None:
        """Raise StoreFormat unless these are the tags of exactly the rows that are here."""
        if len(tags) != int(self._live.sum()) or (len(tags) and int(tags.max()) >= self._size):
            raise StoreFormat("rows and attributes of the index do not fit together")

    @property
    def nbytes(self) -> int:
        """Return about how much memory the columns take."""
        by_row = self._live.nbytes + self._hashes.nbytes
        return by_row + sum(held.column.nbytes + held.known.nbytes for held in self._held.values())


def _sieve_of(mask: Mask) -> Sieve:
    bits = np.zeros((len(mask) + 63) // 64 * 8, dtype=np.uint8)
    packed = np.packbits(mask, bitorder="little")
    bits[: len(packed)] = packed
    return Sieve(bits.view(np.uint64), int(np.count_nonzero(mask)))


def _cache_key(filter_: Mapping[str, Any]) -> str | None:
    """Return what a filter is remembered under; None for one that is too long, or holds values without a text."""
    try:
        key = json.dumps(filter_, sort_keys=True, default=_tagged)
    except (TypeError, ValueError):
        return None
    return key if len(key) <= limits.FILTER_CACHE_KEY_BYTES else None


def _tagged(value: object) -> object:
    if isinstance(value, (np.ndarray, set, frozenset)):
        raise TypeError("not remembered")
    return [type(value).__name__, str(value)]


def refuse_filter() -> InvalidParameter:
    """Return the error for a filter on an index without attributes."""
    return InvalidParameter(
        "this index has no attributes to filter by", hint="Add rows with attributes, or attach with --columns."
    )


def chosen_rows(rows: AttributeRows, mask: Mask) -> AttributeRows:
    """Return the attributes of some of the rows."""
    columns = {
        name: AttributeValues(np.asarray(each.values)[mask], each.present[mask]) for name, each in rows.columns.items()
    }
    return AttributeRows(columns, rows.hashes[mask])
