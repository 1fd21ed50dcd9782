"""The numpy twin of the COPY BINARY decoder."""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ruvector.errors import InvalidParameter, ProtocolViolation, ensure
from ruvector.limits import BITS_MAX, COPY_FIELDS_MAX, DIMS_MAX, SPARSE_DIMS_MAX, SPARSE_ELEMENTS_MAX
from ruvector.sparse import SparseVectors
from ruvector.values import DecodedRows

if TYPE_CHECKING:
    from typing_extensions import Buffer

    from ruvector.values import RowKeys

SIGNATURE = b"PGCOPY\n\xff\r\n\x00"
ELEMENT_TYPES = {"f32": ">f4", "f16": ">f2", "bit": "u1", "sparse": ">f4"}
DIMENSIONS = {"f32": DIMS_MAX, "f16": DIMS_MAX, "bit": BITS_MAX, "sparse": SPARSE_DIMS_MAX}
SPARSE_HEADER = struct.Struct(">iii")  # dimensions, number of elements, and a word that is not used
KEY_FORMATS = {2: ">h", 4: ">i", 8: ">q"}


def decode(buffer: Buffer, *, key_kind: str, element: str, dims: int, fields: int = 0) -> DecodedRows:
    """Decode the complete data of one COPY of key, vector and further fields; see ruvector._ext.copyformat.decode."""
    if key_kind not in ("int64", "text"):
        raise InvalidParameter(f'unknown kind of key "{key_kind}"', hint="Use int64 or text.")
    if element not in ELEMENT_TYPES:
        raise InvalidParameter(f'unknown element type "{element}"', hint="Use f32, f16, bit or sparse.")
    if not 1 <= dims <= DIMENSIONS[element]:
        raise InvalidParameter(f"{dims} dimensions are outside the supported range")
    if not 0 <= fields <= COPY_FIELDS_MAX:
        raise InvalidParameter(f"a COPY cannot have {fields} more fields")
    walk = _Walk(bytes(_bytes_of(buffer)), has_text_keys=key_kind == "text", element=element, dims=dims, fields=fields)
    walk.run()
    vectors = _sparse_rows(walk.payloads, dims) if element == "sparse" else _dense_rows(walk.payloads, element, dims)

    def finished(keys: list[Any]) -> RowKeys:
        return keys if walk.has_text_keys else np.array(keys, np.int64)

    return DecodedRows(
        keys=finished(walk.keys),
        vectors=vectors,
        missing_keys=finished(walk.missing_keys),
        wrong_keys=finished(walk.wrong_keys),
        last_key=None if walk.last_key is None else str(walk.last_key),
        spans=np.array(walk.spans, np.int64).reshape(-1, fields, 2) if fields else None,
        missing_spans=np.array(walk.missing_spans, np.int64).reshape(-1, fields, 2) if fields else None,
    )


def _dense_rows(payloads: list[bytes], element: str, dims: int) -> NDArray[Any]:
    width = (dims + 7) // 8 if element == "bit" else dims
    dtype = np.dtype(ELEMENT_TYPES[element])
    bodies = b"".join(payload[4:] for payload in payloads)
    return np.frombuffer(bodies, dtype).reshape(-1, width).astype(dtype.newbyteorder("="))


def _sparse_rows(payloads: list[bytes], dims: int) -> SparseVectors:
    counts = [(len(payload) - SPARSE_HEADER.size) // 8 for payload in payloads]
    middles = [SPARSE_HEADER.size + 4 * count for count in counts]
    indices = b"".join(payload[SPARSE_HEADER.size : at] for payload, at in zip(payloads, middles, strict=True))
    values = b"".join(payload[at:] for payload, at in zip(payloads, middles, strict=True))
    return SparseVectors(np.cumsum([0, *counts]), np.frombuffer(indices, ">i4"), np.frombuffer(values, ">f4"), dims)


def decode_vector(payload: Buffer) -> NDArray[np.float32]:
    """Decode one vector as vector_send gives it into float32[dims]; raises ProtocolViolation."""
    body = bytes(_bytes_of(payload))
    dims = _checked_dims(body, "f32", 0)
    if not 1 <= dims <= DIMS_MAX:
        raise _violation("a vector has an impossible header", 0)
    return np.frombuffer(body, ">f4", offset=4).astype(np.float32)


def page_crcs(buffer: Buffer, page_bytes: int) -> NDArray[np.uint32]:
    """Return the CRC-32 of every page of the buffer as uint32[pages]; the last page may be short."""
    ensure(page_bytes > 0, "a page must have at least one byte")
    view = _bytes_of(buffer)
    return np.array(
        [zlib.crc32(view[start : start + page_bytes]) for start in range(0, len(view), page_bytes)], np.uint32
    )


def _bytes_of(buffer: Buffer) -> memoryview:
    view = memoryview(buffer)
    # memoryview refuses to cast arrays without elements.
    return view.cast("B") if view.nbytes else memoryview(b"")


def _violation(problem: str, offset: int) -> ProtocolViolation:
    return ProtocolViolation(f"COPY data cannot be read: {problem}, at byte {offset}")


def _checked_dims(body: bytes, element: str, offset: int) -> int:
    """Return the dimensions a vector field states, after comparing them with its length."""
    if element == "sparse":
        return _checked_sparse(body, offset)
    if len(body) < 4:
        raise _violation("a vector's length does not fit its dimensions", offset)
    if element == "bit":
        (dims,) = struct.unpack_from(">i", body)
        payload_bytes = (dims + 7) // 8
        is_possible = dims >= 0
    else:
        dims, unused = struct.unpack_from(">hh", body)
        payload_bytes = dims * np.dtype(ELEMENT_TYPES[element]).itemsize
        is_possible = dims >= 0 and unused == 0
    if not is_possible:
        raise _violation("a vector has an impossible header", offset)
    if len(body) - 4 != payload_bytes:
        raise _violation("a vector's length does not fit its dimensions", offset)
    if element == "bit" and dims % 8 and body[-1] & (0xFF >> (dims % 8)):
        raise _violation("bits are set behind the end of a bit string", offset)
    return int(dims)


def _checked_sparse(body: bytes, offset: int) -> int:
    if len(body) < SPARSE_HEADER.size:
        raise _violation("a vector's length does not fit its dimensions", offset)
    dims, count, unused = SPARSE_HEADER.unpack_from(body)
    if dims < 0 or not 0 <= count <= SPARSE_ELEMENTS_MAX or unused:
        raise _violation("a vector has an impossible header", offset)
    if len(body) - SPARSE_HEADER.size != 8 * count:
        raise _violation("a vector's length does not fit its dimensions", offset)
    indices = np.frombuffer(body, ">i4", count, SPARSE_HEADER.size).astype(np.int64)
    if (np.diff(indices, prepend=-1) <= 0).any() or indices.max(initial=-1) >= dims:
        raise _violation("the indices of a sparse vector do not ascend within its dimensions", offset)
    if not np.isfinite(np.frombuffer(body, ">f4", count, SPARSE_HEADER.size + 4 * count)).all():
        raise _violation("a sparse vector holds NaN or infinity", offset)
    return int(dims)


@dataclass(slots=True)
class _Walk:
    """One pass over the buffer."""

    data: bytes
    has_text_keys: bool
    element: str
    dims: int
    fields: int
    at: int = 0
    keys: list[Any] = field(default_factory=list)
    missing_keys: list[Any] = field(default_factory=list)
    wrong_keys: list[Any] = field(default_factory=list)
    payloads: list[bytes] = field(default_factory=list)
    spans: list[list[tuple[int, int]]] = field(default_factory=list)
    missing_spans: list[list[tuple[int, int]]] = field(default_factory=list)
    last_key: Any = None

    def run(self) -> None:
        """Read header, rows and end marker; nothing may follow."""
        if len(self.data) < 19:
            raise _violation("the data ends too early", 0)
        if not self.data.startswith(SIGNATURE):
            raise _violation("the signature of COPY BINARY is missing", 0)
        flags, extension = struct.unpack_from(">II", self.data, len(SIGNATURE))
        if flags >> 16:
            raise _violation("a flag is set that this program does not know", 0)
        self.at = 19
        self._take(extension)
        while self._row():
            pass
        if self.at != len(self.data):
            raise _violation("bytes follow the end marker", self.at)

    def _take(self, count: int) -> bytes:
        if count > len(self.data) - self.at:
            raise _violation("the data ends too early", self.at)
        self.at += count
        return self.data[self.at - count : self.at]

    def _field(self) -> bytes | None:
        (length,) = struct.unpack(">i", self._take(4))
        if length < -1:
            raise _violation("a field has a negative length", self.at)
        return None if length == -1 else self._take(length)

    def _key(self) -> Any:
        body = self._field()
        if body is None:
            raise _violation("a key is NULL", self.at)
        if self.has_text_keys:
            if b"\x00" in body:
                raise _violation("a text key holds a zero byte", self.at)
            try:
                return body.decode("utf-8")
            except UnicodeDecodeError as error:
                raise _violation(f"a text key is not UTF-8 ({error.reason})", self.at) from error
        if len(body) not in KEY_FORMATS:
            raise _violation("an integer key must have 2, 4 or 8 bytes", self.at)
        return struct.unpack(KEY_FORMATS[len(body)], body)[0]

    def _row(self) -> bool:
        """Read one row; tell whether there was one."""
        (fields,) = struct.unpack(">h", self._take(2))
        if fields == -1:
            return False
        if fields != 2 + self.fields:
            raise _violation("a row has another number of fields than key, vector and attributes are", self.at)
        key = self.last_key = self._key()
        vector = self._field()
        is_usable = vector is not None and _checked_dims(vector, self.element, self.at) == self.dims
        spans = [self._span() for _ in range(self.fields)]
        if vector is None:
            self.missing_keys.append(key)
            self.missing_spans.append(spans)
        elif not is_usable:
            self.wrong_keys.append(key)
        else:
            self.keys.append(key)
            self.payloads.append(vector)
            self.spans.append(spans)
        return True

    def _span(self) -> tuple[int, int]:
        """Pass over a field; return where it lies."""
        body = self._field()
        return (self.at, -1) if body is None else (self.at - len(body), len(body))
