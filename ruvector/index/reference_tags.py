"""The tags of the numpy engines, and what a sieve lets pass."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from ruvector.index.protocol import NO_TAG, Sieve, Tags


class ReferenceTags:
    """The tag of each key, once there are tags; not thread-safe."""

    def __init__(self) -> None:
        """Start without tags."""
        self.is_started = False
        self._of_key: dict[int, int] = {}

    def start(self, keys: npt.NDArray[np.int64]) -> int:
        """Number the rows that are there."""
        self.is_started = True
        self._of_key = {key: tag for tag, key in enumerate(keys.tolist())}
        return len(self._of_key)

    def put(self, keys: npt.NDArray[np.int64], tags: Tags | None) -> None:
        """Remember the tags that rows came with."""
        if self.is_started != (tags is not None):
            raise ValueError("all rows have tags, or none")
        if tags is not None:
            self._of_key.update(zip(keys.tolist(), tags.tolist(), strict=True))

    def drop(self, keys: Iterable[int]) -> None:
        """Forget the tags of deleted rows."""
        for key in keys:
            self._of_key.pop(key, None)

    def clear(self) -> None:
        """Forget all rows."""
        self._of_key.clear()

    def of(self, keys: npt.NDArray[np.int64]) -> Tags:
        """Return the tag of each key, NO_TAG for one without a row."""
        return np.array([self._of_key.get(key, NO_TAG) for key in keys.tolist()], dtype=np.uint32)

    def take(self, keys: npt.NDArray[np.int64], tags: npt.NDArray[np.uint32] | None) -> str | None:
        """Become what was saved for these rows; None, or what is wrong."""
        self.is_started, self._of_key = tags is not None, {}
        if tags is None:
            return None
        if tags.dtype != np.uint32 or tags.shape != keys.shape:
            return f"section tags is {tags.dtype} {tags.shape} instead of one number a row"
        if len(tags) and int(tags.max()) >= 2 * len(tags) + 1024:
            return "a row has no tag"
        if len(np.unique(tags)) != len(tags):
            return "two rows have one tag"
        self.put(keys, tags)
        return None

    def passing(self, keys: npt.NDArray[np.int64], sieve: Sieve) -> npt.NDArray[np.bool_]:
        """Tell which keys a sieve lets pass."""
        if sieve.bits is None:
            members = sieve.members if sieve.members is not None else np.zeros(0, dtype=np.int64)
            return np.isin(keys, members)
        if not self.is_started:
            raise ValueError("a sieve by tags needs an index with tags")
        tags = self.of(keys).astype(np.int64)
        is_known = tags < 64 * len(sieve.bits)
        bits = np.unpackbits(sieve.bits.view(np.uint8), bitorder="little")
        passes = np.zeros(len(keys), dtype=np.bool_)
        passes[is_known] = bits[tags[is_known]] != 0
        return passes
