"""Open a generation: every file is checked through its descriptor before it is mapped."""

from __future__ import annotations

import mmap
import os
import stat
import zlib
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeAlias

import numpy as np
import numpy.typing as npt

from ruvector import limits
from ruvector.errors import InvalidParameter, StoreDamaged, StoreError
from ruvector.kernels.copyformat import page_crcs
from ruvector.store import layout

# No waiting for a writer where somebody put a FIFO, no following of links.
_OPEN = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_PRIVATE = mmap.MAP_PRIVATE | getattr(mmap, "MAP_NORESERVE", 0)


@dataclass(frozen=True, slots=True)
class PageProof:
    """What vouches for a section that was mapped unread: checksums of its pages, and its file to read them from."""

    file: str
    descriptor: int
    head_bytes: int
    checksums: npt.NDArray[np.uint32]  # of the pages behind the head

    def close(self) -> None:
        """Close the descriptor; only once."""
        os.close(self.descriptor)


class Generation:
    """The arrays of one generation, mapped privately: writing to them changes memory, never the files.

    Closing forgets the mappings; arrays handed out before stay valid for as long as they are referred to.
    """

    def __init__(
        self, path: Path, manifest: layout.Manifest, maps: dict[str, mmap.mmap], proofs: dict[str, PageProof]
    ) -> None:
        """Take over the mappings and descriptors; ``open_generation`` is the way to get one."""
        self.path = path
        self.id = manifest.id
        self.meta: Mapping[str, Any] = manifest.meta
        self._sections = {section.name: section for section in manifest.sections}
        self._maps: dict[str, mmap.mmap] | None = maps
        self.proofs: Mapping[str, PageProof] = proofs  # of the sections opened unread, by name

    def __enter__(self) -> Self:
        """Return the generation; leaving the block closes it."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close."""
        self.close()

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the sections, in the order they were written."""
        return tuple(self._sections)

    def section(self, name: str) -> npt.NDArray[Any]:
        """Return one array: private, writable, its data aligned to a memory page.

        Raises:
            InvalidParameter: there is no such section.
            StoreError: the generation was closed.
        """
        if self._maps is None:
            raise StoreError(f"generation {self.path.name} was closed")
        section = self._sections.get(name)
        if section is None:
            raise InvalidParameter(f'generation {self.path.name} has no section "{name}"')
        if section.data_bytes == 0:
            return np.empty(section.shape, dtype=section.dtype)
        flat = np.frombuffer(self._maps[name], dtype=section.dtype, offset=limits.STORE_HEADER_BYTES)
        return flat.reshape(section.shape)

    def keep_proofs(self) -> None:
        """Leave the proofs to whoever took them, who closes them now."""
        self.proofs = {}

    def close(self) -> None:
        """Forget the mappings; repeated, do nothing."""
        for proof in self.proofs.values():
            proof.close()
        self.proofs = {}
        maps, self._maps = self._maps, None
        for mapped in (maps or {}).values():
            with suppress(BufferError):  # an array still refers to it: it goes with the last one
                mapped.close()


# From what a manifest says about itself, the names of sections that are verified later.
Unread: TypeAlias = Callable[[Mapping[str, Any]], Collection[str]]


def read_all(_: Mapping[str, Any]) -> Collection[str]:
    """Leave no section unread."""
    return ()


def open_generation(path: Path, *, verify: bool = True, unread: Unread = read_all) -> Generation:
    """Check a generation and map it.

    Everything is read through descriptors first: kind, owner and mode of each file, its exact size, its head, and with
    ``verify`` the checksum of every page. Nothing is mapped before all of it was found right. Of the sections that
    ``unread`` names for the facts of the manifest only the heads are read: ``proofs`` holds what is needed to verify
    their pages later. A file that is made shorter after this returned is not noticed before the system ends the
    program with SIGBUS.

    Raises:
        StoreDamaged: a file is missing, truncated, changed, of another generation, or not safely ours.
        StoreFormat: another version or another kind of machine wrote it.
        StoreError: the folder cannot be read.
    """
    try:
        folder = os.open(path, _OPEN | os.O_DIRECTORY)
    except OSError as error:
        raise StoreError(f"generation {path} cannot be opened: {error.strerror}") from error
    maps: dict[str, mmap.mmap] = {}
    proofs: dict[str, PageProof] = {}
    try:
        _check_owner(os.fstat(folder), path.name)
        manifest = layout.decode_manifest(_read_small(folder, layout.MANIFEST_FILE, limits.MANIFEST_BYTES_MAX))
        checksums = _read_checksums(folder, manifest)
        first_page = 0
        later = unread(manifest.meta)
        for section in manifest.sections:
            pages = checksums[first_page : first_page + section.pages]
            first_page += section.pages
            with _opened(folder, section.file) as (descriptor, size):
                is_unread = section.name in later
                _check_section(descriptor, size, section, manifest.id, pages, read=verify and not is_unread)
                if is_unread and section.data_bytes:
                    head_bytes = limits.STORE_HEADER_BYTES
                    behind_head = pages[head_bytes // limits.PAGE_BYTES :]
                    proofs[section.name] = PageProof(section.file, os.dup(descriptor), head_bytes, behind_head)
                if section.data_bytes:
                    maps[section.name] = mmap.mmap(
                        descriptor, section.file_bytes, flags=_PRIVATE, prot=mmap.PROT_READ | mmap.PROT_WRITE
                    )
    except BaseException as error:
        for mapped in maps.values():
            mapped.close()
        for proof in proofs.values():
            proof.close()
        if isinstance(error, OSError):
            raise StoreError(f"generation {path} cannot be read: {error.strerror}") from error
        raise
    finally:
        os.close(folder)
    return Generation(path, manifest, maps, proofs)


def _check_section(
    descriptor: int,
    size: int,
    section: layout.Section,
    generation_id: str,
    checksums: npt.NDArray[np.uint32],
    *,
    read: bool,
) -> None:
    if size != section.file_bytes:
        raise StoreDamaged(f'"{section.file}" has {size} bytes; the manifest says {section.file_bytes}')
    if zlib.crc32(layout.encode_checksums(checksums)) != section.checksum:
        raise StoreDamaged(f'the page checksums of "{section.file}" contradict the manifest')
    if read:
        _check_pages(descriptor, section, checksums)
    head = os.pread(descriptor, limits.STORE_HEADER_BYTES, 0)
    if len(head) != limits.STORE_HEADER_BYTES:
        raise StoreDamaged(f'"{section.file}" became shorter while it was read')
    layout.check_head(head, section, generation_id=generation_id)


def _check_pages(descriptor: int, section: layout.Section, checksums: npt.NDArray[np.uint32]) -> None:
    """Read the file once, in blocks of whole pages, and compare each page."""
    block = bytearray(min(limits.STORE_BLOCK_BYTES, section.file_bytes))
    view = memoryview(block)
    page = 0
    for start in range(0, section.file_bytes, limits.STORE_BLOCK_BYTES):
        wanted = min(limits.STORE_BLOCK_BYTES, section.file_bytes - start)
        _read_into(descriptor, view[:wanted], start, file=section.file)
        found = page_crcs(view[:wanted], limits.PAGE_BYTES)
        wrong = np.flatnonzero(found != checksums[page : page + len(found)])
        if len(wrong):
            raise StoreDamaged(f'page {page + int(wrong[0])} of "{section.file}" has a wrong checksum')
        page += len(found)


def _read_checksums(folder: int, manifest: layout.Manifest) -> npt.NDArray[np.uint32]:
    expected = manifest.pages * 4
    data = _read_small(folder, layout.CHECKSUM_FILE, expected)
    if len(data) != expected or zlib.crc32(data) != manifest.checksum:
        raise StoreDamaged(f'"{layout.CHECKSUM_FILE}" is truncated or changed')
    return layout.decode_checksums(data)


def _read_small(folder: int, name: str, bytes_max: int) -> bytes:
    """Return the whole content of a file of at most ``bytes_max`` bytes."""
    with _opened(folder, name) as (descriptor, size):
        if size > bytes_max:
            raise StoreDamaged(f'"{name}" has {size} bytes; at most {bytes_max} are possible')
        data = bytearray(size)
        _read_into(descriptor, memoryview(data), 0, file=name)
        return bytes(data)


def _read_into(descriptor: int, view: memoryview, offset: int, *, file: str) -> None:
    while len(view):
        count = os.preadv(descriptor, [view], offset)
        if count == 0:
            raise StoreDamaged(f'"{file}" became shorter while it was read')
        view = view[count:]
        offset += count


@contextmanager
def _opened(folder: int, name: str) -> Iterator[tuple[int, int]]:
    """Open a file of the folder that is a plain file and safely ours; give its descriptor and its size."""
    try:
        descriptor = os.open(name, _OPEN, dir_fd=folder)
    except OSError as error:
        raise StoreDamaged(f'"{name}" cannot be opened: {error.strerror}') from error
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise StoreDamaged(f'"{name}" is not a plain file')
        _check_owner(status, name)
        yield descriptor, status.st_size
    finally:
        os.close(descriptor)


def _check_owner(status: os.stat_result, name: str) -> None:
    if status.st_uid not in (os.geteuid(), 0):
        raise StoreDamaged(f'"{name}" belongs to another account (uid {status.st_uid})')
    if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise StoreDamaged(f'"{name}" can be written by other accounts', hint="chmod go-w it, if nobody did.")
