"""One client from its first byte to its last: login, then requests one after the other."""

from __future__ import annotations

import logging
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from ruvector.bridge import codec
from ruvector.bridge.backend import Access, Backend, CancelFlag, Login, Value
from ruvector.bridge.channel import Channel
from ruvector.bridge.dispatch import Dispatcher
from ruvector.bridge.login import authenticate, read_startup
from ruvector.bridge.queries import Queries
from ruvector.bridge.state import REPORTED, SERVER_VERSION, SessionState
from ruvector.bridge.tls import TlsFiles
from ruvector.clock import Clock
from ruvector.errors import InternalError, ProtocolViolation, RuvectorError, SessionProblem, UnsupportedStatement
from ruvector.limits import LOGIN_SECONDS_MAX, SLOW_REQUEST_SECONDS

_log = logging.getLogger("ruvector.bridge")


@dataclass(frozen=True, slots=True)
class SessionKey:
    """What a cancel request must name to reach a session."""

    process_id: int
    secret: bytes

    def __repr__(self) -> str:
        """Show the number only: who knows the secret may cancel."""
        return f"SessionKey({self.process_id})"


class Host(Protocol):
    """What a session needs of the server that runs it."""

    backend: Backend
    clock: Clock
    decoy_secret: bytes
    product_version: str
    tls: TlsFiles | None

    def cancel(self, process_id: int, secret: bytes) -> None:
        """Stop the running request of a session if the secret is the session's own."""
        ...

    def admit(self, session: Session) -> None:
        """Count the session as a client; raise TooManyConnections when there are too many."""
        ...

    def forget(self, session: Session) -> None:
        """Take note that the session has ended."""
        ...


class Session:
    """Serves one client on the thread that calls ``run``."""

    def __init__(self, channel: Channel, host: Host, *, key: SessionKey) -> None:
        self.key = key
        self.channel = channel
        self.cancel = CancelFlag(host.clock)
        self.login_deadline: float | None = host.clock.now() + LOGIN_SECONDS_MAX
        self.busy_since: float | None = None  # when the running request started
        self.is_admitted = False
        self._host = host
        self._is_closing = False
        self._is_skipping = False  # after an error in the extended protocol, until Sync

    def run(self) -> None:
        """Serve the client until it leaves, breaks the protocol or the server closes; never raises."""
        try:
            login, startup = self._log_in()
            if login is not None and startup is not None:
                self._serve(login, SessionState(startup.parameters))
        except OSError as error:
            _log.debug("connection %d lost: %s", self.key.process_id, type(error).__name__)
        except RuvectorError as error:
            _log.info("connection %d closed: %s %s", self.key.process_id, error.sqlstate, error.message)
            self._say_goodbye(error)
        except Exception as error:  # noqa: BLE001  # the border of the thread: a client must not end the server
            self._say_goodbye(_as_internal(error))
        finally:
            self.channel.close()
            self._host.forget(self)

    def end(self, *, at_once: bool) -> None:
        """Ask the session to end, from any thread: the running request is cancelled, its error still sent.

        With ``at_once`` the socket is broken off, so that a client that does not read cannot hold it.
        """
        self._is_closing = True
        self.cancel.set("terminating connection due to administrator command")
        if at_once:
            self.channel.break_off()
        else:
            self.channel.stop_receiving()

    # Login ------------------------------------------------------------------------------------------------------

    def _log_in(self) -> tuple[Login | None, codec.Startup | None]:
        startup = read_startup(self.channel, self._host, tls=self._host.tls)
        if startup is None:
            return None, None
        self._host.admit(self)
        login = authenticate(self.channel, startup, self._host.backend, decoy_secret=self._host.decoy_secret)
        self.login_deadline = None
        return login, startup

    def _greet(self, state: SessionState) -> None:
        write = self.channel.write
        write(codec.AUTHENTICATION_OK)
        for name, reported in REPORTED.items():
            write(codec.parameter_status(reported, state.settings[name]))
        write(codec.backend_key_data(self.key.process_id, self.key.secret))
        write(codec.READY[state.transaction])
        self.channel.flush()

    # Requests ---------------------------------------------------------------------------------------------------

    def _serve(self, login: Login, state: SessionState) -> None:
        builtins: dict[str, Value] = {
            "version": f"PostgreSQL {SERVER_VERSION} (ruvector {self._host.product_version})",
            "current_schema": "public",
            "current_catalog": "ruvector",
            "current_database": "ruvector",
            "current_user": login.name,
            "session_user": login.name,
            "user": login.name,
            "pg_advisory_unlock_all": "",
            "pg_backend_pid": self.key.process_id,
            "pg_is_in_recovery": False,
        }
        dispatcher = Dispatcher(self._host.backend, access=login.access, builtins=builtins)
        queries = Queries(self.channel, state, dispatcher, self.cancel)
        handlers: dict[int, Callable[[bytes], None]] = {
            codec.PARSE: queries.parse,
            codec.BIND: queries.bind,
            codec.DESCRIBE: queries.describe,
            codec.EXECUTE: queries.execute,
            codec.CLOSE: queries.close,
        }
        self.channel.allow_requests(is_bridge=login.access is Access.BRIDGE)
        self._greet(state)
        while not self._is_closing:
            message = self.channel.next_message()
            if message is None or message[0] == codec.TERMINATE:
                break
            kind, body = message
            if kind == codec.QUERY:
                self._is_skipping = False
                self._attempt(queries.simple, body, queries)
                self.channel.write(codec.READY[state.transaction])
                self.channel.mark_for_sending()
            elif kind == codec.SYNC:
                self._is_skipping = False
                queries.sync()
                self.channel.write(codec.READY[state.transaction])
                self.channel.mark_for_sending()
            elif kind == codec.FLUSH:
                self.channel.mark_for_sending()
            elif kind in handlers:
                if not self._is_skipping:
                    self._is_skipping = not self._attempt(handlers[kind], body, queries)
            elif kind == codec.FUNCTION_CALL:
                self._refuse_function_call(queries, state)
            elif kind not in codec.COPY_KINDS:  # a client that aborts a COPY may still send these
                raise ProtocolViolation(f"invalid frontend message type {kind}")
        if self._is_closing:
            raise SessionProblem("terminating connection due to administrator command", sqlstate="57P01")

    def _attempt(self, handle: Callable[[bytes], None], body: bytes, queries: Queries) -> bool:
        """Run one message as a request: answer its error, if any; return whether it went well."""
        started = self._host.clock.now()
        self.cancel.arm(now=started)
        self.busy_since = started
        try:
            handle(body)
        except OSError:
            raise
        except RuvectorError as error:
            self._report(error, queries)
            return False
        except Exception as error:  # noqa: BLE001  # a bug in one function must not end the session
            self._report(_as_internal(error), queries)
            return False
        finally:
            self.busy_since = None
            elapsed = self._host.clock.now() - started
            if elapsed > SLOW_REQUEST_SECONDS:
                _log.warning("connection %d: %s took %.3f s", self.key.process_id, queries.label, elapsed)
        return True

    def _report(self, error: RuvectorError, queries: Queries) -> None:
        queries.fail()
        self.channel.write(codec.error_response(error))
        self.channel.mark_for_sending()

    def _refuse_function_call(self, queries: Queries, state: SessionState) -> None:
        self._is_skipping = False
        self._report(UnsupportedStatement("the function call message is not supported"), queries)
        self.channel.write(codec.READY[state.transaction])
        self.channel.mark_for_sending()

    def _say_goodbye(self, error: RuvectorError) -> None:
        try:
            self.channel.write(codec.error_response(error, severity="FATAL"))
            self.channel.flush()
        except OSError:
            self.channel.drop_pending()


def _as_internal(error: Exception) -> InternalError:
    """Log where an unexpected error came from, without its text, which may hold values; return what is answered."""
    frames = traceback.extract_tb(error.__traceback__)
    places = "".join(f"\n  {frame.filename}:{frame.lineno} in {frame.name}" for frame in frames)
    _log.error("internal error %s%s", type(error).__name__, places)
    return InternalError("internal error of the sidecar", detail=f"{type(error).__name__}; see the log of the sidecar")
