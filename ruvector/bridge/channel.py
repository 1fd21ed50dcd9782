"""One client's socket: messages in, buffered answers out."""

from __future__ import annotations

import contextlib
import ipaddress
import socket
import ssl
import struct

from ruvector.bridge.codec import FrameReader
from ruvector.bridge.tls import TlsIdentity
from ruvector.errors import ProtocolViolation
from ruvector.limits import BRIDGE_BYTES_MAX, RECEIVE_BYTES, REQUEST_BYTES_MAX, SEND_BYTES


class Channel:
    """Reads messages from a connected socket and sends answers in as few calls as possible."""

    def __init__(self, connected: socket.socket) -> None:
        self._socket = connected
        self.is_encrypted = False
        self.binding: bytes | None = None  # what a login over TLS may be bound to
        self._frames = FrameReader()
        self._pending: list[bytes] = []
        self._pending_bytes = 0
        self._is_flush_due = False

    def allow_requests(self, *, is_bridge: bool) -> None:
        """Raise the bound of one message from a login's to a request's; the database itself may send more."""
        self._frames.bytes_max = BRIDGE_BYTES_MAX if is_bridge else REQUEST_BYTES_MAX

    def start_tls(self, identity: TlsIdentity) -> None:
        """Do the server's part of a TLS handshake; raises OSError when it fails."""
        if not self._frames.is_empty:
            # Sent in the clear before the handshake, it would be taken for what the client said over TLS.
            raise ProtocolViolation("received unencrypted data after a request for TLS")
        # The handshake apart: until then the socket must be known, for the deadline of the login to break it off.
        encrypted = identity.context.wrap_socket(self._socket, server_side=True, do_handshake_on_connect=False)
        self._socket = encrypted
        encrypted.do_handshake()
        self.is_encrypted, self.binding = True, identity.binding

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

    @property
    def is_local(self) -> bool:
        """Tell whether the client runs on this machine: over a Unix socket or the loopback interface."""
        if self._socket.family == socket.AF_UNIX:
            return True
        host = ipaddress.ip_address(self._socket.getpeername()[0].partition("%")[0])
        return (getattr(host, "ipv4_mapped", None) or host).is_loopback

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
        self._shut_down(socket.SHUT_RD)

    def break_off(self) -> None:
        """End receiving and sending at once; any thread may call it."""
        self._shut_down(socket.SHUT_RDWR)

    def close(self) -> None:
        """Give the socket back; only the thread that reads from it may call this."""
        if isinstance(self._socket, ssl.SSLSocket):
            # Tell the client that nothing was cut off, without a wait for what it says to that.
            with contextlib.suppress(OSError, ValueError):
                self._socket.settimeout(0)
                self._socket.unwrap()
        self._socket.close()

    def _shut_down(self, how: int) -> None:
        # Not the method of SSLSocket: it forgets the encryption, and the session's thread would send in the clear.
        with contextlib.suppress(OSError):
            socket.socket.shutdown(self._socket, how)

    def _receive(self) -> bool:
        data = self._socket.recv(RECEIVE_BYTES)
        if not data:
            return False
        self._frames.feed(data)
        return True
