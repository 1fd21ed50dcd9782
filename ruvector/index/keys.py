"""Row keys of either kind as the int64 an engine works with."""

from __future__ import annotations

from collections.abc import Callable
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


class TextKeys:
    """Texts numbered in the order they are first seen; a number is never given twice.

    A reader may hold a number whose row was just deleted, so texts of deleted rows stay for a while: they are
    forgotten in one go when there are many. A search that meets such a moment is repeated by its index.
    """

    def __init__(self) -> None:
        """Start without keys."""
        self._numbers: dict[str, int] = {}
        self._texts: dict[int, str] = {}
        self._next = 0
        self._deleted = 0

    def for_write(self, keys: KeysIn) -> Numbers:
        """Return the number of each key as int64 [n], a new one for a new key."""
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
        texts = _texts(keys)
        return np.fromiter((self._numbers.get(text, -1) for text in texts), dtype=np.int64, count=len(texts))

    def names(self, numbers: Numbers) -> Keys | None:
        """Return the texts of numbers, or None when one was forgotten since they were found."""
        try:
            return [self._texts[number] for number in numbers.tolist()]
        except KeyError:
            return None

    def forget(self, deleted: int, *, live: int, contains: Callable[[Numbers], npt.NDArray[np.bool_]]) -> None:
        """Drop the texts of deleted rows once they outnumber the live ones and the bound of limits.py."""
        self._deleted += deleted
        if self._deleted <= max(limits.TEXT_KEYS_KEPT, live):
            return
        numbers = np.fromiter(self._texts, dtype=np.int64, count=len(self._texts))
        for number in numbers[~contains(numbers)].tolist():
            del self._numbers[self._texts.pop(number)]
        self._deleted = 0

    def clear(self) -> None:
        """Drop all keys; numbers go on from where they were."""
        self._numbers, self._texts, self._deleted = {}, {}, 0

    def sections(self, numbers: Numbers) -> Sections:
        """Return the texts of these rows: their bytes in one array, where each ends, and its number."""
        encoded = [self._texts[number].encode() for number in numbers.tolist()]
        ends = np.cumsum(np.fromiter((len(text) for text in encoded), dtype=np.int64, count=len(encoded)))
        return {
            "text_bytes": np.frombuffer(b"".join(encoded), dtype=np.uint8),
            "text_ends": ends.astype(np.int64),
            "text_numbers": np.ascontiguousarray(numbers, dtype=np.int64),
        }

    def restore(self, sections: Sections) -> None:
        """Become the book that ``sections`` described; raises StoreFormat when they do not fit together."""
        ends, numbers = sections["text_ends"], sections["text_numbers"]
        data = sections["text_bytes"].tobytes()
        starts = np.concatenate((np.zeros(1, dtype=np.int64), ends))
        if len(ends) != len(numbers) or int(starts[-1]) != len(data) or (np.diff(starts) < 0).any():
            raise StoreFormat("the text keys of the index do not fit together")
        try:
            texts = [data[start:end].decode() for start, end in zip(starts[:-1].tolist(), ends.tolist(), strict=True)]
        except UnicodeDecodeError:
            raise StoreFormat("a text key of the index is not UTF-8") from None
        self.clear()
        self._texts = dict(zip(numbers.tolist(), texts, strict=True))
        self._numbers = {text: number for number, text in self._texts.items()}
        self._next = max(self._next, int(numbers.max(initial=-1)) + 1)
        if len(self._numbers) != len(texts) or (numbers < 0).any():
            raise StoreFormat("a text key of the index occurs twice")


def _texts(keys: KeysIn) -> list[str]:
    texts: list[Any] = keys.tolist() if isinstance(keys, np.ndarray) else list(keys)  # type: ignore[arg-type]
    for text in texts:
        if not isinstance(text, str):
            raise InvalidParameter(f"keys must be texts, one is {type(text).__name__}")
    return texts


def key_book(kind: KeyKind) -> IntegerKeys | TextKeys:
    """Return an empty book of the kind."""
    return IntegerKeys() if kind is KeyKind.INT64 else TextKeys()
