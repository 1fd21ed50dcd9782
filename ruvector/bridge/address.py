"""Where the endpoint listens: TCP addresses and Unix sockets."""

from __future__ import annotations

import fcntl
import ipaddress
import os
import socket
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ruvector.errors import InvalidParameter, RuvectorError
from ruvector.limits import CONNECTIONS_MAX, SOCKET_PATH_BYTES_MAX

DEFAULT_PORT: Final = 5433
_HINT: Final = "Use HOST:PORT, [IPV6]:PORT or unix:DIRECTORY."


@dataclass(frozen=True, slots=True)
class Address:
    """A place to listen, or where the endpoint listens: a host, or the folder of a Unix socket, and a port.

    A host that starts with "@" is a folder in the abstract namespace of Linux, as libpq writes it: a name, not a file.
    """

    host: str
    port: int

    @property
    def is_unix(self) -> bool:
        """Tell whether the host is a folder."""
        return self.host.startswith(("/", "@"))

    @property
    def is_local(self) -> bool:
        """Tell whether only programs of this machine can reach the address; unsure means no."""
        if self.is_unix or self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False

    @property
    def is_any(self) -> bool:
        """Tell whether the address stands for every interface of the machine, where nobody can connect to."""
        try:
            return not self.is_unix and ipaddress.ip_address(self.host).is_unspecified
        except ValueError:
            return False

    @property
    def socket_path(self) -> Path:
        """Return the path of the Unix socket, named as libpq looks for it."""
        return Path(self.host) / f".s.PGSQL.{self.port}"

    def __str__(self) -> str:
        """Return the form that parse_address reads, with the port."""
        if self.is_unix:
            return f"unix:{self.socket_path}"
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class ListenProblem(RuvectorError):
    """The endpoint cannot listen at an address."""

    sqlstate = "58000"  # system_error
    hint = "Choose another address with --listen, or stop the program that uses it."


def parse_address(text: str, *, port: int = DEFAULT_PORT) -> Address:
    """Read ``HOST:PORT``, ``HOST``, ``[IPV6]:PORT`` or ``unix:DIRECTORY``; ``port`` is used where none is given.

    Raises InvalidParameter for anything else.
    """
    if text.startswith("unix:"):
        folder = text.removeprefix("unix:")
        if not folder:
            raise InvalidParameter(f'the address "{text}" names no folder', hint=_HINT)
        return Address(str(Path(folder).absolute()), port)
    if text.startswith("["):
        host, closing, rest = text[1:].partition("]")
        if not closing or (rest and not rest.startswith(":")):
            raise InvalidParameter(f'the address "{text}" cannot be read', hint=_HINT)
        port_text = rest[1:]
    else:
        host, _, port_text = text.rpartition(":") if text.count(":") == 1 else (text, "", "")
    if not host or host.startswith("/") or (port_text and not port_text.isdecimal()):
        raise InvalidParameter(f'the address "{text}" cannot be read', hint=_HINT)
    chosen = int(port_text) if port_text else port
    if chosen > 65_535:
        raise InvalidParameter(f"the port {chosen} is above 65535", hint=_HINT)
    return Address(host, chosen)


@dataclass(slots=True)
class Listener:
    """A listening socket, and what must be removed with it."""

    address: Address
    socket: socket.socket
    lock_descriptor: int | None = None

    def close(self) -> None:
        """Stop listening; a Unix socket's file is removed."""
        self.socket.close()
        if self.lock_descriptor is not None:
            self.address.socket_path.unlink(missing_ok=True)
            os.close(self.lock_descriptor)  # the lock file stays: removing it would race with its next owner


def listen(address: Address, *, socket_mode: int = 0o700) -> Listener:
    """Listen at an address; port 0 of TCP takes a free one.

    A missing folder of a Unix socket is made with mode 0700. An existing one must be ours and not writable by others.
    ``socket_mode`` is the mode of the socket itself. Raises ListenProblem when the address cannot be used.
    """
    try:
        return _listen_unix(address, socket_mode=socket_mode) if address.is_unix else _listen_tcp(address)
    except OSError as error:
        raise ListenProblem(f"cannot listen at {address}: {error.strerror or error}") from error


def listen_in_abstract(name: str, port: int) -> Listener | None:
    """Listen at a name in the abstract namespace of Unix sockets; None where the system has none or it is taken.

    Like a port of the loopback interface every program of the machine can reach it, with less work for the kernel.
    """
    address = Address(f"@{name}", port)
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        listening.bind(f"\0{name}/.s.PGSQL.{port}")
        listening.listen(CONNECTIONS_MAX)
    except OSError:
        listening.close()
        return None
    return Listener(address, listening)


def _listen_tcp(address: Address) -> Listener:
    family, kind, protocol, _, target = socket.getaddrinfo(
        address.host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    listening = socket.socket(family, kind, protocol)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(target)
        listening.listen(CONNECTIONS_MAX)
    except OSError:
        listening.close()
        raise
    return Listener(Address(address.host, listening.getsockname()[1]), listening)


def _listen_unix(address: Address, *, socket_mode: int) -> Listener:
    path = address.socket_path
    if len(os.fsencode(path)) > SOCKET_PATH_BYTES_MAX:
        raise ListenProblem(
            f"the socket path {path} has {len(os.fsencode(path))} bytes, at most {SOCKET_PATH_BYTES_MAX} are possible",
            hint="Choose a shorter folder.",
        )
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    status = path.parent.stat()
    if status.st_uid != os.geteuid() or status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise ListenProblem(
            f"the folder {path.parent} belongs to another user or can be written by others",
            hint="Use a folder of your own with mode 0700.",
        )
    descriptor = os.open(f"{path}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        path.unlink(missing_ok=True)  # holding the lock: what lies there was left by a process that died
        listening.bind(str(path))
        path.chmod(socket_mode)
        listening.listen(CONNECTIONS_MAX)
    except BlockingIOError:
        listening.close()
        os.close(descriptor)
        raise ListenProblem(f"another sidecar listens at {path}") from None
    except OSError:
        listening.close()
        os.close(descriptor)
        raise
    return Listener(address, listening, descriptor)
