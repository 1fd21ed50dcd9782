"""Frames and messages of the PostgreSQL protocol, version 3, without any input or output."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from ruvector.bridge.backend import Column
from ruvector.bridge.oids import LENGTH_OF
from ruvector.errors import InvalidEncoding, ProtocolViolation, RuvectorError
from ruvector.limits import AUTH_BYTES_MAX, RECEIVE_BYTES, STARTUP_BYTES_MAX

PROTOCOL_MAJOR: Final = 3
PROTOCOL_VERSION: Final = PROTOCOL_MAJOR << 16
CANCEL_REQUEST: Final = 80877102
SSL_REQUEST: Final = 80877103
GSSENC_REQUEST: Final = 80877104

# Kinds of the client's messages.
BIND: Final = ord("B")
CLOSE: Final = ord("C")
COPY_KINDS: Final = frozenset(b"dcf")
DESCRIBE: Final = ord("D")
EXECUTE: Final = ord("E")
FLUSH: Final = ord("H")
FUNCTION_CALL: Final = ord("F")
PARSE: Final = ord("P")
PASSWORD: Final = ord("p")
QUERY: Final = ord("Q")
SYNC: Final = ord("S")
TERMINATE: Final = ord("X")

# Answers that are always the same.
PARSE_COMPLETE: Final = b"1\0\0\0\x04"
BIND_COMPLETE: Final = b"2\0\0\0\x04"
CLOSE_COMPLETE: Final = b"3\0\0\0\x04"
NO_DATA: Final = b"n\0\0\0\x04"
EMPTY_QUERY_RESPONSE: Final = b"I\0\0\0\x04"
PORTAL_SUSPENDED: Final = b"s\0\0\0\x04"
AUTHENTICATION_OK: Final = b"R\0\0\0\x08\0\0\0\0"
READY: Final = {status: b"Z\0\0\0\x05" + status.encode() for status in "ITE"}
ENCRYPTION_ACCEPTED: Final = b"S"
ENCRYPTION_REFUSED: Final = b"N"

_HEADER = struct.Struct("!Bi")
_INT16 = struct.Struct("!h")
_INT32 = struct.Struct("!i")
_LENGTH = struct.Struct("!ci")
_COLUMN = struct.Struct("!ihIhih")


class FrameReader:
    """Cut a stream of bytes into messages; holds at most one message and the bytes received with it."""

    __slots__ = ("_buffer", "_offset", "bytes_max")

    def __init__(self, *, bytes_max: int = AUTH_BYTES_MAX) -> None:
        self._buffer: bytes | bytearray = b""
        self._offset = 0
        self.bytes_max = bytes_max

    def feed(self, data: bytes) -> None:
        """Add bytes as they were received."""
        if self._offset == len(self._buffer):  # the usual case: everything before was used, nothing is copied
            self._buffer = data
        elif isinstance(self._buffer, bytearray):
            del self._buffer[: self._offset]
            self._buffer += data
        else:
            self._buffer = bytearray(self._buffer[self._offset :])
            self._buffer += data
        self._offset = 0

    @property
    def is_empty(self) -> bool:
        """Tell whether nothing was received beyond the messages given out."""
        return self._offset == len(self._buffer)

    def next(self) -> tuple[int, bytes] | None:
        """Return kind and body of the next message, or None when it has not arrived completely.

        Raises ProtocolViolation when its length is below 4 or above ``bytes_max``.
        """
        buffer, offset = self._buffer, self._offset
        if len(buffer) - offset < 5:
            return None
        kind, length = _HEADER.unpack_from(buffer, offset)
        if not 4 <= length <= self.bytes_max:
            raise ProtocolViolation(f"invalid message length {length}", detail=f"at most {self.bytes_max} bytes")
        end = offset + 1 + length
        if end > len(buffer):
            return None
        self._offset = end
        body = self._cut(offset + 5, end)
        if end == len(buffer) > RECEIVE_BYTES:  # a connection that waits does not hold what it was sent
            self._buffer, self._offset = b"", 0
        return kind, body

    def next_startup(self) -> bytes | None:
        """Return the body of the next message of the startup phase, which has no kind, or None when incomplete."""
        buffer, offset = self._buffer, self._offset
        if len(buffer) - offset < 4:
            return None
        (length,) = _INT32.unpack_from(buffer, offset)
        if not 8 <= length <= STARTUP_BYTES_MAX:
            raise ProtocolViolation(f"invalid length of startup packet {length}")
        end = offset + length
        if end > len(buffer):
            return None
        self._offset = end
        return self._cut(offset + 4, end)

    def _cut(self, start: int, end: int) -> bytes:
        if isinstance(self._buffer, bytes):
            return self._buffer[start:end]
        with memoryview(self._buffer) as view:  # one copy instead of two
            return bytes(view[start:end])


class BodyReader:
    """Read the fields of one message; every length is checked before use."""

    __slots__ = ("_body", "_offset")

    def __init__(self, body: bytes) -> None:
        self._body = body
        self._offset = 0

    def raw(self, size: int) -> bytes:
        """Return the next ``size`` bytes."""
        end = self._offset + size
        if size < 0 or end > len(self._body):
            raise ProtocolViolation("insufficient data left in message")
        part = self._body[self._offset : end]
        self._offset = end
        return part

    def int16(self) -> int:
        """Return the next two bytes as a signed number."""
        value: int = _INT16.unpack(self.raw(2))[0]
        return value

    def int32(self) -> int:
        """Return the next four bytes as a signed number."""
        value: int = _INT32.unpack(self.raw(4))[0]
        return value

    def int16_list(self) -> tuple[int, ...]:
        """Return a list of two-byte numbers with its count in front."""
        count = self._count()
        return struct.unpack(f"!{count}h", self.raw(2 * count))

    def uint32_list(self) -> tuple[int, ...]:
        """Return a list of unsigned four-byte numbers with its two-byte count in front."""
        count = self._count()
        return struct.unpack(f"!{count}I", self.raw(4 * count))

    def values(self) -> tuple[bytes | None, ...]:
        """Return a list of values with its count in front, each with its length; -1 is NULL."""
        values: list[bytes | None] = []
        for _ in range(self._count()):
            length = self.int32()
            if length < -1:
                raise ProtocolViolation(f"invalid length of a value: {length}")
            values.append(None if length == -1 else self.raw(length))
        return tuple(values)

    def text(self) -> str:
        """Return the text up to the next zero byte."""
        end = self._body.find(b"\0", self._offset)
        if end < 0:
            raise ProtocolViolation("invalid string in message")
        part = self._body[self._offset : end]
        self._offset = end + 1
        return decode_text(part)

    def rest(self) -> bytes:
        """Return everything that is left."""
        return self.raw(len(self._body) - self._offset)

    def finish(self) -> None:
        """Raise ProtocolViolation unless the whole message was read."""
        if self._offset != len(self._body):
            raise ProtocolViolation("invalid message format: bytes left over")

    def _count(self) -> int:
        count = self.int16() & 0xFFFF  # libpq counts parameters up to 65,535
        if count > len(self._body):
            raise ProtocolViolation("insufficient data left in message")
        return count


def decode_text(data: bytes) -> str:
    """Return UTF-8 bytes as text; raise InvalidEncoding when they are not."""
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise InvalidEncoding(f"invalid byte sequence for encoding UTF8 at byte {error.start}") from None


# The client's messages -------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Startup:
    """A StartupMessage."""

    version: int
    parameters: dict[str, str]

    @property
    def unknown_options(self) -> list[str]:
        """Return the protocol options asked for; none exists in version 3.0."""
        return [name for name in self.parameters if name.startswith("_pq_.")]


@dataclass(frozen=True, slots=True)
class CancelRequest:
    """A CancelRequest."""

    process_id: int
    secret: bytes


@dataclass(frozen=True, slots=True)
class EncryptionRequest:
    """An SSLRequest or GSSENCRequest."""

    code: int

    @property
    def is_tls(self) -> bool:
        """Tell an SSLRequest from a GSSENCRequest."""
        return self.code == SSL_REQUEST


@dataclass(frozen=True, slots=True)
class Parse:
    """A Parse message."""

    name: str
    text: str
    type_oids: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Bind:
    """A Bind message."""

    portal: str
    statement: str
    formats: tuple[int, ...]
    values: tuple[bytes | None, ...]
    result_formats: tuple[int, ...]


def parse_startup(body: bytes) -> Startup | CancelRequest | EncryptionRequest:
    """Read the body of a startup packet, which starts at its code; raise ProtocolViolation when it is malformed."""
    reader = BodyReader(body)
    code = reader.int32()
    if code == CANCEL_REQUEST:
        process_id = reader.int32()
        return CancelRequest(process_id, reader.rest())
    if code in (SSL_REQUEST, GSSENC_REQUEST):
        reader.finish()
        return EncryptionRequest(code)
    if code >> 16 != PROTOCOL_MAJOR:
        raise ProtocolViolation(f"unsupported frontend protocol {code >> 16}.{code & 0xFFFF}: server supports 3.0")
    parameters: dict[str, str] = {}
    name = reader.text()
    while name:  # ends at the empty name; each turn uses bytes of a bounded packet
        parameters[name] = reader.text()
        name = reader.text()
    reader.finish()
    return Startup(code, parameters)


def parse_query(body: bytes) -> str:
    """Read the text of a Query message."""
    reader = BodyReader(body)
    text = reader.text()
    reader.finish()
    return text


def parse_parse(body: bytes) -> Parse:
    """Read a Parse message."""
    reader = BodyReader(body)
    message = Parse(reader.text(), reader.text(), reader.uint32_list())
    reader.finish()
    return message


def parse_bind(body: bytes) -> Bind:
    """Read a Bind message; the counts of its format codes are checked, the values are left as they are."""
    reader = BodyReader(body)
    message = Bind(reader.text(), reader.text(), reader.int16_list(), reader.values(), reader.int16_list())
    reader.finish()
    if len(message.formats) not in (0, 1, len(message.values)):
        raise ProtocolViolation(
            f"bind message has {len(message.formats)} parameter formats but {len(message.values)} parameters"
        )
    if any(code not in (0, 1) for code in message.formats + message.result_formats):
        raise ProtocolViolation("unsupported format code", detail="0 is text, 1 is binary")
    return message


def parse_named(body: bytes) -> tuple[str, str]:
    """Read a Describe or Close message: its kind, ``S`` or ``P``, and the name."""
    reader = BodyReader(body)
    kind = reader.raw(1)
    name = reader.text()
    reader.finish()
    if kind not in (b"S", b"P"):
        raise ProtocolViolation("invalid message subtype", detail="S is a statement, P a portal")
    return kind.decode(), name


def parse_execute(body: bytes) -> tuple[str, int]:
    """Read an Execute message: the portal and the greatest number of rows, 0 for all."""
    reader = BodyReader(body)
    name, rows_max = reader.text(), reader.int32()
    reader.finish()
    return name, max(rows_max, 0)


def parse_sasl_initial(body: bytes) -> tuple[str, bytes]:
    """Read a SASLInitialResponse: mechanism and first message."""
    reader = BodyReader(body)
    mechanism = reader.text()
    data = reader.raw(reader.int32())
    reader.finish()
    return mechanism, data


# The server's messages -------------------------------------------------------------------------------------------


def message(kind: bytes, body: bytes) -> bytes:
    """Return one message."""
    return _LENGTH.pack(kind, len(body) + 4) + body


def authentication_sasl(mechanisms: Sequence[str]) -> bytes:
    """Ask for a SASL exchange by one of the mechanisms, best first."""
    return message(b"R", _INT32.pack(10) + b"".join(name.encode() + b"\0" for name in mechanisms) + b"\0")


def authentication_continue(data: bytes) -> bytes:
    """Carry the server's first SASL message."""
    return message(b"R", _INT32.pack(11) + data)


def authentication_final(data: bytes) -> bytes:
    """Carry the server's last SASL message."""
    return message(b"R", _INT32.pack(12) + data)


def parameter_status(name: str, value: str) -> bytes:
    """Report a setting of the session."""
    return message(b"S", name.encode() + b"\0" + value.encode() + b"\0")


def backend_key_data(process_id: int, secret: bytes) -> bytes:
    """Tell what a CancelRequest must carry."""
    return message(b"K", _INT32.pack(process_id) + secret)


def negotiate_protocol_version(unknown_options: Sequence[str]) -> bytes:
    """Tell that version 3.0 without options is spoken."""
    options = b"".join(option.encode() + b"\0" for option in unknown_options)
    return message(b"v", struct.pack("!ii", PROTOCOL_VERSION, len(unknown_options)) + options)


def command_complete(tag: str) -> bytes:
    """Report the end of a statement."""
    return message(b"C", tag.encode() + b"\0")


def row_description(columns: Sequence[Column], formats: Sequence[int]) -> bytes:
    """Describe the columns of an answer; ``formats`` has one code per column."""
    parts = [_INT16.pack(len(columns))]
    for column, code in zip(columns, formats, strict=True):
        parts.append(column.name.encode() + b"\0")
        parts.append(_COLUMN.pack(0, 0, column.type_oid, LENGTH_OF.get(column.type_oid, -1), -1, code))
    return message(b"T", b"".join(parts))


def parameter_description(type_oids: Sequence[int]) -> bytes:
    """Describe the parameters of a prepared statement."""
    return message(b"t", struct.pack(f"!H{len(type_oids)}I", len(type_oids), *type_oids))


def error_response(error: RuvectorError, *, severity: str = "ERROR") -> bytes:
    """Carry an error, or a notice's fields, with code, message, detail and hint."""
    return message(b"E", _report(error.sqlstate, error.message, severity, detail=error.detail, hint=error.hint))


def notice_response(text: str, *, sqlstate: str, severity: str = "WARNING") -> bytes:
    """Carry a warning."""
    return message(b"N", _report(sqlstate, text, severity, detail="", hint=""))


def _report(sqlstate: str, text: str, severity: str, *, detail: str, hint: str) -> bytes:
    fields = (("S", severity), ("V", severity), ("C", sqlstate), ("M", text), ("D", detail), ("H", hint))
    # A zero byte ends a field and half a surrogate pair has no UTF-8 form: neither may damage the message.
    return (
        b"".join((name + value.replace("\0", "")).encode(errors="replace") + b"\0" for name, value in fields if value)
        + b"\0"
    )
