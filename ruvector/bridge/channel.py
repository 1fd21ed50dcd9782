"""One client's socket: messages in, buffered answers out."""

from __future__ import annotations

import contextlib
import socket
import struct

from ruvector.bridge.codec import FrameReader
from ruvector.limits import RECEIVE_BYTES, REQUEST_BYTES_MAX, SEND_BYTES


class Channel:
    """Reads messages from a connected socket and sends answers in as few calls as possible."""

    def __init__(self, connected: socket.socket) -> None:
        self._socket = connected
        self._frames = FrameReader()
        self._pending: list[bytes] = []
        self._pending_bytes = 0
        self._is_flush_due = False

    def allow_requests(self) -> None:
        """Raise the bound of one message from a login's to a request's."""
        self._frames.bytes_max = REQUEST_BYTES_MAX

    def next_startup(self) -> bytes | None:
        """Wait for the next message of the startup phase; None when the client is gone."""
        body = self._frames.next_startup()
        while body is None and self._receive():
            body = self._frames.next_startup()
        return body

    def next_message(self) -> tuple[int, bytes] | None:
        """Wait for the next message; None when the client is gone.

        What was marked for sending leaves when no complete request is left, so that a pipeline is answered at once.
        """
        message = self._frames.next()
        while message is None:
            if self._is_flush_due:
                self.flush()
            if not self._receive():
                return None
            message = self._frames.next()
        return message

    def write(self, data: bytes) -> None:
        """Add a message to the answer; a large answer is sent in pieces."""
        self._pending.append(data)
        self._pending_bytes += len(data)
        if self._pending_bytes >= SEND_BYTES:
            self.flush()

    def mark_for_sending(self) -> None:
        """Let the answer leave before the next wait for the client."""
        self._is_flush_due = True

    def flush(self) -> None:
        """Send everything now; raises OSError when the client is gone."""
        self._is_flush_due = False
        if self._pending:
            data = b"".join(self._pending)
            self._pending.clear()
            self._pending_bytes = 0
            self._socket.sendall(data)

    def drop_pending(self) -> None:
        """Forget what was not sent."""
        self._pending.clear()
        self._pending_bytes = 0

    def fileno(self) -> int:
        """Return the file descriptor, -1 when closed."""
        return self._socket.fileno()

    def peer_uid(self) -> int | None:
        """Return the user id of the process at the other end of a Unix socket, None where it cannot be known."""
        option = getattr(socket, "SO_PEERCRED", None)
        if option is None or self._socket.family != socket.AF_UNIX:
            return None
        credentials = struct.Struct("3i")
        uid: int = credentials.unpack(self._socket.getsockopt(socket.SOL_SOCKET, option, credentials.size))[1]
        return uid

    def stop_receiving(self) -> None:
        """Let a waiting receive end as if the client had gone; answers can still be sent. Any thread may call it."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RD)

    def break_off(self) -> None:
        """End receiving and sending at once; any thread may call it."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Give the socket back; only the thread that reads from it may call this."""
        self._socket.close()

    def _receive(self) -> bool:
        data = self._socket.recv(RECEIVE_BYTES)
        if not data:
            return False
        self._frames.feed(data)
        return True
