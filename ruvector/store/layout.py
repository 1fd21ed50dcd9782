"""The bytes of a generation: file heads, page checksums and the manifest; nothing here touches a file.

A generation is a folder. Each section is one file: a head of 4 KiB and the array in C order and native byte order. The
file ``checksums`` holds the CRC-32 of every 4 KiB page of every section, heads included; ``manifest.json`` lists the
sections and holds the checksum of that file and of itself. The format can express numbers only, never code.
"""

from __future__ import annotations

import json
import math
import re
import struct
import sys
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from ruvector import limits
from ruvector.errors import InvalidParameter, LimitExceeded, StoreDamaged, StoreFormat

Json: TypeAlias = "Mapping[str, Json] | Sequence[Json] | str | int | float | bool | None"

FORMAT = 3  # 2: pages of 4 KiB instead of 64; 3: codes of a multiple of eight dimensions
MANIFEST_FILE = "manifest.json"
CHECKSUM_FILE = "checksums"
PARTIAL = ".partial"

_MAGIC = b"RVSTORE\n"
_ORDER_MARK = 0x01020304
# magic, byte order mark, format, id, section name, element type, axes, lengths of the axes, bytes of the array
_HEAD = struct.Struct(f"=8sII32s{limits.SECTION_NAME_BYTES_MAX}s8sI{limits.SECTION_AXES_MAX}QQ")
_SECTION_NAME = re.compile(r"[a-z][a-z0-9_]*")
_GENERATION_ID = re.compile(r"[0-9a-f]{32}")
_ELEMENT = re.compile(r"[biuf](1|2|4|8)")
_ENVELOPE = re.compile(rb'\{"crc32":"([0-9a-f]{8})","manifest":(.*)\}\n', re.DOTALL)


@dataclass(frozen=True, slots=True)
class Section:
    """One array of a generation; ``checksum`` is the CRC-32 of the checksums of its pages."""

    name: str
    element: str
    shape: tuple[int, ...]
    checksum: int

    @property
    def file(self) -> str:
        """The name of its file."""
        return f"{self.name}.section"

    @property
    def dtype(self) -> np.dtype[Any]:
        """The element type, in native byte order."""
        return np.dtype(self.element)

    @property
    def data_bytes(self) -> int:
        """Bytes of the array."""
        return math.prod(self.shape) * self.dtype.itemsize

    @property
    def file_bytes(self) -> int:
        """Bytes of the file."""
        return limits.STORE_HEADER_BYTES + self.data_bytes

    @property
    def pages(self) -> int:
        """Pages of the file, the last one perhaps shorter."""
        return -(-self.file_bytes // limits.PAGE_BYTES)


@dataclass(frozen=True, slots=True)
class Manifest:
    """Everything a generation says about itself."""

    id: str
    sections: tuple[Section, ...]
    checksum: int
    meta: Mapping[str, Any]

    @property
    def pages(self) -> int:
        """Pages of all sections."""
        return sum(section.pages for section in self.sections)


@dataclass(frozen=True, slots=True)
class GenerationInfo:
    """What was written, and where."""

    path: Path
    id: str
    bytes: int


def check_section(name: str, array: npt.NDArray[Any]) -> Section:
    """Return the description of an array to write, its checksum still zero.

    Raises:
        InvalidParameter: the name or the element type cannot be stored.
        LimitExceeded: the array has too many axes.
    """
    if _SECTION_NAME.fullmatch(name) is None or len(name) > limits.SECTION_NAME_BYTES_MAX:
        raise InvalidParameter(
            f'"{name}" is not a section name', hint="Use lower-case letters, digits and underscores."
        )
    element = f"{array.dtype.kind}{array.dtype.itemsize}"
    if _ELEMENT.fullmatch(element) is None:
        raise InvalidParameter(f'section "{name}" has elements of type {array.dtype}; only plain numbers are stored')
    if array.ndim > limits.SECTION_AXES_MAX:
        raise LimitExceeded(f'section "{name}" has {array.ndim} axes; at most {limits.SECTION_AXES_MAX} are stored')
    return Section(name=name, element=element, shape=array.shape, checksum=0)


def encode_head(section: Section, *, generation_id: str) -> bytes:
    """Return the first 4 KiB of a section's file."""
    lengths = section.shape + (0,) * (limits.SECTION_AXES_MAX - len(section.shape))
    head = _HEAD.pack(
        _MAGIC,
        _ORDER_MARK,
        FORMAT,
        generation_id.encode("ascii"),
        section.name.encode("ascii"),
        section.element.encode("ascii"),
        len(section.shape),
        *lengths,
        section.data_bytes,
    )
    return head.ljust(limits.STORE_HEADER_BYTES, b"\0")


def check_head(head: bytes, section: Section, *, generation_id: str) -> None:
    """Compare the head of a file with what the manifest promises.

    Raises:
        StoreFormat: the file is none of ours, of another version or of a machine with the other byte order.
        StoreDamaged: it belongs to another generation or section, or says something else about its array.
    """
    magic, mark, number, found_id, *_ = _HEAD.unpack_from(head)
    if magic != _MAGIC:
        raise StoreFormat(f'"{section.file}" is not a file of this store')
    if mark != _ORDER_MARK:
        raise StoreFormat(f'"{section.file}" was written on a machine with another byte order')
    if number != FORMAT:
        raise StoreFormat(f'"{section.file}" has format {number}; this program reads format {FORMAT}')
    if found_id != generation_id.encode("ascii"):
        raise StoreDamaged(f'"{section.file}" belongs to another generation')
    if head != encode_head(section, generation_id=generation_id):
        raise StoreDamaged(f'the head of "{section.file}" contradicts the manifest')


def encode_checksums(checksums: npt.NDArray[np.uint32]) -> bytes:
    """Return page checksums as they stand in the file: 4 bytes each, little endian."""
    return checksums.astype("<u4", copy=False).tobytes()


def decode_checksums(data: bytes) -> npt.NDArray[np.uint32]:
    """Return page checksums from the file's bytes."""
    return np.frombuffer(data, dtype="<u4").astype(np.uint32)


def encode_manifest(manifest: Manifest) -> bytes:
    """Return the bytes of manifest.json.

    Raises:
        InvalidParameter: ``meta`` is not JSON.
        LimitExceeded: the manifest is too large.
    """
    content = {
        "format": FORMAT,
        "byte_order": sys.byteorder,
        "page_bytes": limits.PAGE_BYTES,
        "id": manifest.id,
        "checksums_crc32": manifest.checksum,
        "sections": [
            {
                "name": section.name,
                "element": section.element,
                "shape": list(section.shape),
                "file_bytes": section.file_bytes,
                "crc32": section.checksum,
            }
            for section in manifest.sections
        ],
        "meta": manifest.meta,
    }
    try:
        body = json.dumps(content, allow_nan=False, separators=(",", ":"), sort_keys=True).encode("ascii")
    except (TypeError, ValueError) as error:
        raise InvalidParameter(f"the facts about a generation must be JSON: {error}") from error
    encoded = b'{"crc32":"%08x","manifest":%s}\n' % (zlib.crc32(body), body)
    if len(encoded) > limits.MANIFEST_BYTES_MAX:
        raise LimitExceeded(f"the manifest has {len(encoded)} bytes; at most {limits.MANIFEST_BYTES_MAX} are stored")
    return encoded


def decode_manifest(data: bytes) -> Manifest:
    """Return the manifest from the bytes of manifest.json.

    Raises:
        StoreDamaged: its checksum is wrong, or it describes sections that cannot be.
        StoreFormat: another version or byte order wrote it.
    """
    envelope = _ENVELOPE.fullmatch(data)
    if envelope is None:
        raise StoreDamaged(f'"{MANIFEST_FILE}" is truncated or is no manifest')
    if zlib.crc32(envelope[2]) != int(envelope[1], 16):
        raise StoreDamaged(f'"{MANIFEST_FILE}" has a wrong checksum')
    try:
        content = json.loads(envelope[2])
        found = (content["format"], content["byte_order"], content["page_bytes"])
    except (ValueError, RecursionError, LookupError, TypeError) as error:
        raise StoreDamaged(f'"{MANIFEST_FILE}" cannot be read') from error
    wanted = (FORMAT, sys.byteorder, limits.PAGE_BYTES)
    if found != wanted:
        raise StoreFormat(
            f'"{MANIFEST_FILE}" has format, byte order and page size {found}; this program reads {wanted}'
        )
    try:
        return _checked_manifest(content)
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        raise StoreDamaged(f'"{MANIFEST_FILE}" describes something that cannot be') from error


def _checked_manifest(content: Any) -> Manifest:
    """Build the manifest; every value is looked at, anything odd is a ValueError."""
    sections = tuple(_checked_section(entry) for entry in content["sections"])
    manifest = Manifest(
        id=content["id"], sections=sections, checksum=content["checksums_crc32"], meta=dict(content["meta"])
    )
    if _GENERATION_ID.fullmatch(manifest.id) is None:
        raise ValueError(manifest.id)
    if len(sections) > limits.SECTIONS_MAX or len({section.name for section in sections}) != len(sections):
        raise ValueError(len(sections))
    return manifest


def _checked_section(entry: Any) -> Section:
    section = Section(
        name=entry["name"], element=entry["element"], shape=tuple(entry["shape"]), checksum=entry["crc32"]
    )
    fits = (
        _SECTION_NAME.fullmatch(section.name) is not None
        and len(section.name) <= limits.SECTION_NAME_BYTES_MAX
        and _ELEMENT.fullmatch(section.element) is not None
        and len(section.shape) <= limits.SECTION_AXES_MAX
        and all(type(length) is int and 0 <= length < 2**48 for length in section.shape)
        and type(section.checksum) is int
        and section.file_bytes == entry["file_bytes"]
    )
    if not fits:
        raise ValueError(section.name)
    return section
