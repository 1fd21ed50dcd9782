"""Row keys of either kind as the int64 an engine works with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from ruvector import limits
from ruvector.errors import InvalidParameter, StoreFormat
from ruvector.index.protocol import Keys, KeysIn, Sections
from ruvector.values import KeyKind

Numbers = npt.NDArray[np.int64]


class KeyBook(Protocol):
    """Numbers for keys and keys for numbers; only the writer calls ``for_write`` and ``forget``."""

    def for_write(self, keys: KeysIn) -> Numbers:
        """Return the number of each key, a new one for a new key."""
        ...

    def for_read(self, keys: KeysIn) -> Numbers:
        """Return the number of each key; one that no row has for an unknown key."""
        ...

    def names(self, numbers: Numbers) -> Keys | None:
        """Return the keys of numbers, or None when one was forgotten since they were found."""
        ...

    def forget(self, deleted: int, *, live: int, contains: Callable[[Numbers], npt.NDArray[np.bool_]]) -> None:
        """Drop the keys of deleted rows once there are many."""
        ...

    def clear(self) -> None:
        """Drop all keys."""
        ...

    def sections(self, numbers: Numbers) -> Sections:
        """Return what restores the book of these rows."""
        ...


class IntegerKeys:
    """Keys that are int64 already."""

    def for_write(self, keys: KeysIn) -> Numbers:
        """Return the keys as int64 [n]."""
        given = np.asarray(keys)
        if given.size == 0:
            return np.zeros(0, dtype=np.int64)
        if given.ndim != 1 or given.dtype.kind not in "iu":
            raise InvalidParameter(
                f"keys must be a list of whole numbers, these are {given.dtype} with {given.ndim} axes"
            )
        if given.dtype.kind == "u" and given.max() > np.iinfo(np.int64).max:
            raise InvalidParameter(f"key {given.max()} does not fit int64")
        return np.ascontiguousarray(given, dtype=np.int64)

    def for_read(self, keys: KeysIn) -> Numbers:
        """Return the keys as int64 [n]."""
        return self.for_write(keys)

    def names(self, numbers: Numbers) -> Keys | None:
        """Return the numbers."""
        return numbers

    def forget(self, deleted: int, *, live: int, contains: Callable[[Numbers], npt.NDArray[np.bool_]]) -> None:
        """Do nothing: numbers take no room."""

    def clear(self) -> None:
        """Do nothing."""

    def sections(self, numbers: Numbers) -> Sections:
        """Return nothing: the engine holds the keys."""
        return {}


@dataclass(frozen=True, slots=True)
class SavedTexts:
    """The texts of a saved index as they were read: enough to name the rows of an answer."""

    data: bytes
    starts: Numbers  # of each text; one more: the end of the last
    numbers: Numbers  # ascending
    order: Numbers  # the place of the text of each number

    def names(self, numbers: Numbers) -> list[str]:
        """Return the texts of numbers; KeyError when there is one without."""
        if not len(numbers):
            return []
        found = np.minimum(np.searchsorted(self.numbers, numbers), len(self.numbers) - 1)
        if not len(self.numbers) or (self.numbers[found] != numbers).any():
            raise KeyError("a number without a text")
        places = self.order[found]
        starts, ends = self.starts[places].tolist(), self.starts[places + 1].tolist()
        return [self.data[start:end].decode() for start, end in zip(starts, ends, strict=True)]


class TextKeys:
    """Texts numbered in the order they are first seen; a number is never given twice.

    A reader may hold a number whose row was just deleted, so texts of deleted rows stay for a while: they are
    forgotten in one go when there are many. A search that meets such a moment is repeated by its index.

    What was restored stays as it was read until a text is looked up: that takes tables, and those take seconds.
    """

    def __init__(self) -> None:
        """Start without keys."""
        self._saved: SavedTexts | None = None
        self._numbers: dict[str, int] = {}
        self._texts: dict[int, str] = {}
        self._next = 0
        self._deleted = 0

    def for_write(self, keys: KeysIn) -> Numbers:
        """Return the number of each key as int64 [n], a new one for a new key."""
        self._load()
        texts = _texts(keys)
        out = np.empty(len(texts), dtype=np.int64)
        for at, text in enumerate(texts):
            number = self._numbers.get(text)
            if number is None:
                number = self._next
                self._next += 1
                self._texts[number] = text
                self._numbers[text] = number
            out[at] = number
        return out

    def for_read(self, keys: KeysIn) -> Numbers:
        """Return the number of each key as int64 [n]; -1 for an unknown one."""
        self._load()
        texts = _texts(keys)
        return np.fromiter((self._numbers.get(text, -1) for text in texts), dtype=np.int64, count=len(texts))

    def names(self, numbers: Numbers) -> Keys | None:
        """Return the texts of numbers, or None when one was forgotten since they were found."""
        saved = self._saved
        try:
            if saved is not None:
                return saved.names(numbers)
            return [self._texts[number] for number in numbers.tolist()]
        except KeyError:
            return None

    def forget(self, deleted: int, *, live: int, contains: Callable[[Numbers], npt.NDArray[np.bool_]]) -> None:
        """Drop the texts of deleted rows once they outnumber the live ones and the bound of limits.py."""
        self._load()
        self._deleted += deleted
        if self._deleted <= max(limits.TEXT_KEYS_KEPT, live):
            return
        numbers = np.fromiter(self._texts, dtype=np.int64, count=len(self._texts))
        for number in numbers[~contains(numbers)].tolist():
            del self._numbers[self._texts.pop(number)]
        self._deleted = 0

    def clear(self) -> None:
        """Drop all keys; numbers go on from where they were."""
        self._saved = None
        self._numbers, self._texts, self._deleted = {}, {}, 0

    def sections(self, numbers: Numbers) -> Sections:
        """Return the texts of these rows: their bytes in one array, where each ends, and its number."""
        self._load()
        encoded = [self._texts[number].encode() for number in numbers.tolist()]
        ends = np.cumsum(np.fromiter((len(text) for text in encoded), dtype=np.int64, count=len(encoded)))
        return {
            "text_bytes": np.frombuffer(b"".join(encoded), dtype=np.uint8),
            "text_ends": ends.astype(np.int64),
            "text_numbers": np.ascontiguousarray(numbers, dtype=np.int64),
        }

    def restore(self, sections: Sections) -> None:
        """Become the book that ``sections`` described; raises StoreFormat when they do not fit together."""
        ends, numbers, data = sections["text_ends"], sections["text_numbers"], sections["text_bytes"]
        starts = np.concatenate((np.zeros(1, dtype=np.int64), ends))
        if len(ends) != len(numbers) or int(starts[-1]) != len(data) or (np.diff(starts) < 0).any():
            raise StoreFormat("the text keys of the index do not fit together")
        kept = data.tobytes()
        # Where all together are UTF-8 and none begins inside a character, each of them is UTF-8.
        is_inside = (data[starts[starts < len(data)]] & 0xC0) == 0x80
        try:
            kept.decode()
        except UnicodeDecodeError:
            raise StoreFormat("a text key of the index is not UTF-8") from None
        if is_inside.any():
            raise StoreFormat("a text key of the index is not UTF-8")
        is_sorted = (np.diff(numbers) > 0).all()
        order = np.arange(len(numbers)) if is_sorted else np.argsort(numbers, kind="stable")
        ascending = numbers[order]
        if (np.diff(ascending) <= 0).any() or (numbers < 0).any():
            raise StoreFormat("a text key of the index occurs twice")
        self.clear()
        self._saved = SavedTexts(kept, starts, ascending, order)
        self._next = max(self._next, int(numbers.max(initial=-1)) + 1)

    def knows_all(self, numbers: Numbers) -> bool:
        """Tell whether each of these numbers has a text."""
        saved = self._saved
        return bool(np.isin(numbers, list(self._texts) if saved is None else saved.numbers).all())

    def _load(self) -> None:
        """Make the tables of restored texts. Two readers may both do it: they make the same."""
        saved = self._saved
        if saved is None:
            return
        texts = saved.names(saved.numbers)
        given = dict(zip(saved.numbers.tolist(), texts, strict=True))
        numbers = {text: number for number, text in given.items()}
        if len(numbers) != len(texts):
            raise StoreFormat("a text key of the index occurs twice")
        self._texts, self._numbers = given, numbers
        self._saved = None


def _texts(keys: KeysIn) -> list[str]:
    texts: list[Any] = keys.tolist() if isinstance(keys, np.ndarray) else list(keys)  # type: ignore[arg-type]
    for text in texts:
        if not isinstance(text, str):
            raise InvalidParameter(f"keys must be texts, one is {type(text).__name__}")
    return texts


def key_book(kind: KeyKind) -> IntegerKeys | TextKeys:
    """Return an empty book of the kind."""
    return IntegerKeys() if kind is KeyKind.INT64 else TextKeys()
