"""The generations of one index: numbered folders in a private folder."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy.typing as npt

from ruvector import limits
from ruvector.errors import InvalidParameter, LimitExceeded, StoreError
from ruvector.store import layout
from ruvector.store.reader import Generation, Unread, open_generation, read_all
from ruvector.store.writer import remove_folder, write_generation

_NAME = re.compile(r"gen-([0-9]{6,12})")
_LEFTOVER = re.compile(r"gen-([0-9]{6,12})\.(partial|removed)")
_REMOVED = ".removed"


class GenerationStore:
    """A folder of generations; opening one creates the folder with mode 0700, repeated it does nothing."""

    def __init__(self, root: Path) -> None:
        """Create the folder if needed.

        Raises:
            StoreError: it cannot be created, is a link, belongs to another account or can be written by others.
        """
        self.root = root
        try:
            root.mkdir(mode=0o700, parents=True, exist_ok=True)
            status = root.lstat()
        except OSError as error:
            raise StoreError(f"{root} cannot be used: {error.strerror}") from error
        if not stat.S_ISDIR(status.st_mode):
            raise StoreError(f"{root} is not a folder")
        if status.st_uid not in (os.geteuid(), 0) or status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            raise StoreError(
                f"{root} belongs to another account or can be written by others",
                hint="Give it to the account of the sidecar and set its mode to 0700.",
            )

    def new_path(self) -> Path:
        """Return the path of the next generation; nothing is created."""
        numbers = [int(match[1]) for name in _names(self.root) if (match := _NAME.match(name)) is not None]
        return self.root / f"gen-{max(numbers, default=0) + 1:06d}"

    def write(self, sections: Mapping[str, npt.NDArray[Any]], *, meta: Mapping[str, Any]) -> Path:
        """Write the next generation; durable when this returns. See ``write_generation``."""
        return write_generation(self.new_path(), sections, meta=meta).path

    def open(self, path: Path, *, verify: bool = True, unread: Unread = read_all) -> Generation:
        """Open a finished generation. See ``open_generation``."""
        return open_generation(path, verify=verify, unread=unread)

    def list(self) -> list[Path]:
        """Return the finished generations, newest first."""
        found = [(int(match[1]), name) for name in _names(self.root) if (match := _NAME.fullmatch(name)) is not None]
        paths = (self.root / name for _, name in sorted(found, reverse=True))
        return [path for path in paths if (path / layout.MANIFEST_FILE).exists()]

    def remove(self, path: Path) -> None:
        """Remove one generation; when there is none, do nothing. An open one stays readable to those who have it.

        Raises:
            InvalidParameter: the path is not a generation of this store.
            StoreError: it cannot be removed.
        """
        if path.parent != self.root or _NAME.fullmatch(path.name) is None:
            raise InvalidParameter(f"{path} is not a generation of {self.root}")
        doomed = path.with_name(path.name + _REMOVED)
        try:
            remove_folder(doomed)
            if path.is_symlink() or path.exists():
                path.rename(doomed)  # from here on it is no generation, even if this stops half-way
                remove_folder(doomed)
        except OSError as error:
            raise StoreError(f"generation {path.name} cannot be removed: {error.strerror}") from error

    def remove_partial(self) -> None:
        """Remove what an interrupted write or removal left behind."""
        try:
            for name in _names(self.root):
                if _LEFTOVER.fullmatch(name) is not None:
                    remove_folder(self.root / name)
        except OSError as error:
            raise StoreError(f"{self.root} cannot be cleaned: {error.strerror}") from error


def _names(root: Path) -> list[str]:
    """Return the names of all entries of a store."""
    try:
        names = sorted(os.listdir(root))
    except OSError as error:
        raise StoreError(f"{root} cannot be read: {error.strerror}") from error
    if len(names) > limits.GENERATIONS_MAX:
        raise LimitExceeded(f"{root} holds {len(names)} entries; at most {limits.GENERATIONS_MAX} are possible")
    return names
