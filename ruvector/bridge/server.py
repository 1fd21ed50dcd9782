"""Listen, run one thread per client, watch deadlines and vanished clients, close in order."""

from __future__ import annotations

import contextlib
import hmac
import logging
import select
import selectors
import socket
import threading
from collections.abc import Sequence

import ruvector
from ruvector.bridge import codec
from ruvector.bridge.address import DEFAULT_PORT, Address, Listener, listen, listen_in_abstract, parse_address
from ruvector.bridge.backend import Backend
from ruvector.bridge.channel import Channel
from ruvector.bridge.session import Session, SessionKey
from ruvector.bridge.tls import TlsFiles
from ruvector.clock import Clock, SystemClock, random_token
from ruvector.errors import InvalidParameter, TooManyConnections, ensure
from ruvector.limits import CLOSE_SECONDS_MAX, CONNECTIONS_MAX, PENDING_LOGINS_MAX, SEND_SECONDS_MAX, WATCH_SECONDS

_log = logging.getLogger("ruvector.bridge")
_GONE = select.POLLHUP | select.POLLERR | getattr(select, "POLLRDHUP", 0)
_TOO_MANY = TooManyConnections("sorry, too many clients already", hint="Close connections or use a pool.")


class Server:
    """The wire endpoint: from ``start`` to ``close`` it answers clients at its addresses.

    ``listen_at`` holds texts for parse_address; ``port`` is used where they name none, 0 takes a free one. The
    addresses in use stand in ``addresses`` after the start, and in ``shortcut`` a faster one for this machine, where
    the system has it. With ``tls`` clients may encrypt, those of other machines must.
    """

    def __init__(
        self,
        backend: Backend,
        listen_at: Sequence[str],
        *,
        port: int = DEFAULT_PORT,
        connections_max: int = CONNECTIONS_MAX,
        socket_mode: int = 0o700,
        tls: TlsFiles | None = None,
        clock: Clock | None = None,
        product_version: str = ruvector.__version__,
    ) -> None:
        self.backend = backend
        self.clock: Clock = clock if clock is not None else SystemClock()
        self.decoy_secret = bytes.fromhex(random_token())
        self.product_version = product_version
        self.tls = tls
        self.addresses: list[Address] = []
        self.shortcut: Address | None = None
        self._wanted = [parse_address(text, port=port) for text in listen_at]
        self._connections_max = connections_max
        self._socket_mode = socket_mode
        self._listeners: list[Listener] = []
        self._lock = threading.Lock()  # guards the two dictionaries
        self._sessions: dict[int, Session] = {}
        self._threads: dict[int, threading.Thread] = {}
        self._service_threads: list[threading.Thread] = []
        self._closing = threading.Event()
        self._waker: tuple[socket.socket, socket.socket] | None = None

    def __enter__(self) -> Server:
        """Start; close at the end of the block."""
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def connections(self) -> int:
        """Return the number of clients, those that are logging in included."""
        return len(self._sessions)

    def start(self) -> None:
        """Listen at every address; raise ListenProblem when one cannot be used, then none is."""
        ensure(not self._listeners and not self._closing.is_set(), "a server starts once")
        if not self._wanted:
            raise InvalidParameter("the endpoint needs at least one address", hint="Give HOST:PORT or unix:DIRECTORY.")
        try:
            # TCP first: when its port was chosen by the system, the Unix socket is named after it.
            for wanted in sorted(self._wanted, key=lambda each: each.is_unix):
                taken = self._listeners[0].address.port if self._listeners else DEFAULT_PORT
                address = Address(wanted.host, taken) if wanted.is_unix and wanted.port == 0 else wanted
                listener = listen(address, socket_mode=self._socket_mode)
                listener.socket.settimeout(0)
                self._listeners.append(listener)
        except BaseException:
            self._close_listeners()
            raise
        self.addresses = [listener.address for listener in self._listeners]
        shortcut = listen_in_abstract(f"ruvector-{random_token()}", self.addresses[0].port)
        if shortcut is not None:
            shortcut.socket.settimeout(0)
            self._listeners.append(shortcut)
            self.shortcut = shortcut.address
        self._waker = socket.socketpair()
        for target, name in ((self._accept_clients, "accept"), (self._watch, "watch")):
            thread = threading.Thread(target=target, name=f"ruvector-bridge-{name}", daemon=True)
            thread.start()
            self._service_threads.append(thread)
        _log.info("listening at %s", ", ".join(map(str, self.addresses)))
        for address in self.addresses:
            if not address.is_local and self.tls is None:
                _log.warning("%s can be reached from other machines; what is sent there is not encrypted", address)

    def close(self) -> None:
        """Stop listening, cancel running requests, tell clients, wait a bounded time; may be called again."""
        self._closing.set()
        if self._waker is not None:
            self._waker[1].send(b"\0")
        for thread in self._service_threads:
            thread.join()
        self._close_listeners()
        for at_once in (False, True):
            deadline = self.clock.now() + CLOSE_SECONDS_MAX / 2
            with self._lock:
                sessions, threads = list(self._sessions.values()), list(self._threads.values())
            for session in sessions:
                session.end(at_once=at_once)
            for thread in threads:
                thread.join(max(deadline - self.clock.now(), 0.0))
        if self._waker is not None:
            for end in self._waker:
                end.close()
            self._waker = None

    def end_sessions(self) -> None:
        """Have every client connect anew, wherever the database then says."""
        with self._lock:
            sessions = list(self._sessions.values())
        for session in sessions:
            session.end(at_once=False)

    # What sessions ask ------------------------------------------------------------------------------------------

    def cancel(self, process_id: int, secret: bytes) -> None:
        """Stop the running request of a session if the secret is the session's own; silent otherwise."""
        with self._lock:
            session = self._sessions.get(process_id)
        if session is not None and hmac.compare_digest(session.key.secret, secret) and session.busy_since is not None:
            session.cancel.set()

    def admit(self, session: Session) -> None:
        """Count the session as a client; raise TooManyConnections when there are too many."""
        with self._lock:
            admitted = sum(each.is_admitted for each in self._sessions.values())
            if admitted >= self._connections_max:
                raise _TOO_MANY
            session.is_admitted = True

    def forget(self, session: Session) -> None:
        """Take note that the session has ended."""
        with self._lock:
            self._sessions.pop(session.key.process_id, None)
            self._threads.pop(session.key.process_id, None)

    # Threads ----------------------------------------------------------------------------------------------------

    def _accept_clients(self) -> None:
        waker = self._waker
        ensure(waker is not None, "the server was started")
        with selectors.DefaultSelector() as selector:
            if waker is not None:
                selector.register(waker[0], selectors.EVENT_READ, None)
            for listener in self._listeners:
                selector.register(listener.socket, selectors.EVENT_READ, listener)
            while not self._closing.is_set():
                for key, _ in selector.select():
                    if key.data is not None:
                        self._accept(key.data)

    def _accept(self, listener: Listener) -> None:
        try:
            connected, _ = listener.socket.accept()
        except (BlockingIOError, ConnectionAbortedError, InterruptedError):
            return
        except OSError as error:  # out of file descriptors: wait for clients to leave
            _log.error("cannot accept a connection: %s", error.strerror)
            self.clock.sleep(WATCH_SECONDS)
            return
        try:
            connected.settimeout(None)
            if not listener.address.is_unix:
                connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                connected.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            self._start_session(connected)
        except (OSError, RuntimeError) as error:  # RuntimeError: the system gives no more threads
            _log.error("cannot serve a connection: %s", type(error).__name__)
            connected.close()

    def _start_session(self, connected: socket.socket) -> None:
        if len(self._sessions) >= self._connections_max + PENDING_LOGINS_MAX:
            # No thread is spent on this client; the message fits the empty send buffer of a new socket.
            connected.settimeout(0)
            with contextlib.suppress(OSError):
                connected.send(codec.error_response(_TOO_MANY, severity="FATAL"))
            connected.close()
            return
        with self._lock:
            session = Session(Channel(connected), self, key=self._new_key())
            process_id = session.key.process_id
            thread = threading.Thread(target=session.run, name=f"ruvector-bridge-{process_id}", daemon=True)
            self._sessions[process_id] = session
            self._threads[process_id] = thread
        try:
            thread.start()
        except RuntimeError:
            self.forget(session)
            raise

    def _new_key(self) -> SessionKey:
        """Return a key whose number no session has; the caller holds the lock."""
        token = bytes.fromhex(random_token())
        process_id = int.from_bytes(token[:4], "big") & 0x7FFFFFFF
        while process_id == 0 or process_id in self._sessions:  # ends soon: sessions are few, numbers are many
            process_id = (process_id + 1) & 0x7FFFFFFF
        return SessionKey(process_id, token[4:8])

    def _watch(self) -> None:
        """Enforce deadlines of logins and requests, and cancel requests whose client is gone."""
        while not self._closing.wait(WATCH_SECONDS):
            now = self.clock.now()
            with self._lock:
                sessions = list(self._sessions.values())
            busy: list[Session] = []
            for session in sessions:
                login_deadline, busy_since = session.login_deadline, session.busy_since
                if login_deadline is not None and now > login_deadline:
                    session.channel.break_off()
                elif busy_since is not None and now - busy_since > WATCH_SECONDS:
                    busy.append(session)
            for session in busy:
                self._watch_request(session, now=now)

    def _watch_request(self, session: Session, *, now: float) -> None:
        """Stop a request that is past its deadline or has lost its client."""
        deadline = session.cancel.deadline
        if now > deadline + SEND_SECONDS_MAX:
            session.channel.break_off()
        elif now > deadline:
            session.cancel.set("canceling statement due to statement timeout")
        elif _is_gone(session.channel):
            session.cancel.set("the client is gone")

    def _close_listeners(self) -> None:
        for listener in self._listeners:
            listener.close()
        self._listeners.clear()


def _is_gone(channel: Channel) -> bool:
    descriptor = channel.fileno()
    if descriptor < 0:
        return True
    poll = select.poll()
    poll.register(descriptor, _GONE)
    return bool(poll.poll(0))
