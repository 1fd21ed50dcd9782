"""Write one generation: beside its place first, made durable, then renamed."""

from __future__ import annotations

import errno
import os
import shutil
import zlib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ruvector import limits
from ruvector.clock import random_token
from ruvector.errors import LimitExceeded, StoreError, ensure
from ruvector.kernels.copyformat import page_crcs
from ruvector.store import layout

# A file system that cannot allocate ahead says so with one of these; it then reports a full disk at the write.
_NO_ALLOCATION = (errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS)


def write_generation(
    path: Path, sections: Mapping[str, npt.NDArray[Any]], *, meta: Mapping[str, Any]
) -> layout.GenerationInfo:
    """Write arrays as the generation ``path``; when this returns they survive a power failure.

    Until the last step everything lies in ``path`` + ".partial"; a leftover of that name is replaced. Repeating after
    a failure is safe.

    Args:
        path: the folder to create; its parent exists.
        sections: name (lower-case identifier) to array of plain numbers, any layout.
        meta: JSON facts kept in the manifest, such as options and position.

    Raises:
        StoreError: the folder exists already, the disk is full, or a write or fsync failed.
        InvalidParameter, LimitExceeded: the arrays or facts cannot be stored.
    """
    if len(sections) > limits.SECTIONS_MAX:
        raise LimitExceeded(f"a generation has {len(sections)} sections; at most {limits.SECTIONS_MAX} are stored")
    described = {name: layout.check_section(name, array) for name, array in sections.items()}
    layout.encode_manifest(layout.Manifest(id="", sections=(), checksum=0, meta=meta))
    partial = path.with_name(path.name + layout.PARTIAL)
    try:
        if path.exists() or path.is_symlink():
            raise StoreError(f"{path} exists already", hint="A finished generation is never changed.")
        remove_folder(partial)
        partial.mkdir(mode=0o700)
        info = _write_folder(partial, sections, described, meta=meta)
        partial.rename(path)
        _sync_folder(path.parent)
    except OSError as error:
        # After a failed write or fsync nobody knows what the disk holds: the files are given up, never tried again.
        shutil.rmtree(partial, ignore_errors=True)
        raise StoreError(f"generation {path.name} cannot be written: {error.strerror or error}") from error
    return replace(info, path=path)


def remove_folder(folder: Path) -> None:
    """Remove a folder of ours with all it holds, or the link in its place; do nothing when there is none."""
    if folder.is_symlink() or folder.is_file():
        folder.unlink()
    elif folder.exists():
        shutil.rmtree(folder)


def _write_folder(
    folder: Path,
    arrays: Mapping[str, npt.NDArray[Any]],
    described: Mapping[str, layout.Section],
    *,
    meta: Mapping[str, Any],
) -> layout.GenerationInfo:
    generation_id = random_token()
    finished: list[layout.Section] = []
    all_checksums: list[bytes] = []
    for name, section in described.items():
        checksums = _write_section(folder / section.file, arrays[name], section, generation_id=generation_id)
        all_checksums.append(checksums)
        finished.append(replace(section, checksum=zlib.crc32(checksums)))
    checksum_data = b"".join(all_checksums)
    _write_file(folder / layout.CHECKSUM_FILE, checksum_data)
    manifest = layout.Manifest(
        id=generation_id, sections=tuple(finished), checksum=zlib.crc32(checksum_data), meta=meta
    )
    manifest_data = layout.encode_manifest(manifest)
    unnamed = folder / f"{layout.MANIFEST_FILE}.tmp"
    _write_file(unnamed, manifest_data)
    unnamed.rename(folder / layout.MANIFEST_FILE)
    _sync_folder(folder)
    total = sum(section.file_bytes for section in finished) + len(checksum_data) + len(manifest_data)
    return layout.GenerationInfo(path=folder, id=generation_id, bytes=total)


def _write_section(path: Path, array: npt.NDArray[Any], section: layout.Section, *, generation_id: str) -> bytes:
    """Write one array to a new file and return the checksums of its pages."""
    native = np.ascontiguousarray(array, dtype=section.dtype)
    data = native.reshape(-1).view(np.uint8).data if native.size else memoryview(b"")
    head = layout.encode_head(section, generation_id=generation_id)
    checksums = [page_crcs(head, limits.PAGE_BYTES)]
    descriptor = _create(path, section.file_bytes)
    try:
        _write_all(descriptor, head, 0)
        for start in range(0, len(data), limits.STORE_BLOCK_BYTES):
            block = data[start : start + limits.STORE_BLOCK_BYTES]
            checksums.append(page_crcs(block, limits.PAGE_BYTES))
            _write_all(descriptor, block, len(head) + start)
        ensure(sum(map(len, checksums)) == section.pages, "a section was written short")
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    return layout.encode_checksums(np.concatenate(checksums))


def _write_file(path: Path, data: bytes) -> None:
    descriptor = _create(path, len(data))
    try:
        _write_all(descriptor, data, 0)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _create(path: Path, size: int) -> int:
    """Create a private file with all its space, so that a full disk is an error here and not a signal later."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        if size and hasattr(os, "posix_fallocate"):
            try:
                os.posix_fallocate(descriptor, 0, size)
            except OSError as error:
                if error.errno not in _NO_ALLOCATION:
                    raise
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _write_all(descriptor: int, data: bytes | memoryview, offset: int) -> None:
    view = memoryview(data)
    while len(view):
        written = os.pwrite(descriptor, view, offset)
        if written == 0:
            raise OSError(errno.EIO, "nothing was written")
        view = view[written:]
        offset += written


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
