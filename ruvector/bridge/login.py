"""The startup phase: encrypt, read who connects, check the password."""

from __future__ import annotations

import os
from typing import Protocol

from ruvector.bridge import codec
from ruvector.bridge.backend import Access, Backend, Login
from ruvector.bridge.channel import Channel
from ruvector.bridge.scram import MECHANISM, MECHANISM_BOUND, ScramExchange, decoy_verifier
from ruvector.bridge.tls import TlsFiles
from ruvector.clock import random_token
from ruvector.errors import AuthenticationFailed, ProtocolViolation, SessionProblem, UnsupportedStatement

_NEGOTIATIONS_MAX = 3  # a request for TLS, one for GSSAPI, then the startup packet itself


class CancelDesk(Protocol):
    """Passes cancel requests on to the session they name."""

    def cancel(self, process_id: int, secret: bytes) -> None:
        """Stop the running request of a session if the secret is the session's own."""
        ...


def read_startup(channel: Channel, desk: CancelDesk, *, tls: TlsFiles | None) -> codec.Startup | None:
    """Return the client's startup packet; None when it only wanted to cancel a request, or left.

    Where there is a certificate, a client of another machine must use it: a password proof and vectors would
    otherwise be readable on the way.
    """
    for _ in range(_NEGOTIATIONS_MAX):
        body = channel.next_startup()
        if body is None:
            return None
        packet = codec.parse_startup(body)
        if isinstance(packet, codec.Startup):
            if tls is not None and not channel.is_encrypted and not channel.is_local:
                raise SessionProblem(
                    "connections from other machines must be encrypted",
                    sqlstate="28000",
                    hint="Connect with sslmode=require or stronger.",
                )
            return packet
        if isinstance(packet, codec.CancelRequest):
            desk.cancel(packet.process_id, packet.secret)
            return None
        usable = tls if packet.is_tls and not channel.is_encrypted else None
        channel.write(codec.ENCRYPTION_REFUSED if usable is None else codec.ENCRYPTION_ACCEPTED)
        channel.flush()
        if usable is not None:
            channel.start_tls(usable.current())
    raise ProtocolViolation("too many requests for encryption before the startup packet")


def authenticate(channel: Channel, startup: codec.Startup, backend: Backend, *, decoy_secret: bytes) -> Login | None:
    """Return the login once its password is proven; None when the client left.

    A process of our own user may use an administrator's login on the Unix socket without a password: it could read
    the sidecar's files anyway. Raises AuthenticationFailed alike for a wrong password and an unknown name.
    """
    name = startup.parameters.get("user", "")
    if not name:
        raise SessionProblem("no PostgreSQL user name specified in startup packet", sqlstate="28000")
    if startup.parameters.get("replication", "off").lower() not in ("off", "false", "no", "0"):
        raise UnsupportedStatement("replication connections are not supported")
    if startup.version != codec.PROTOCOL_VERSION or startup.unknown_options:
        channel.write(codec.negotiate_protocol_version(startup.unknown_options))
    login = backend.authenticate(name)
    if login is not None and login.access is Access.ADMIN and channel.peer_uid() == os.geteuid():
        return login
    verifier = login.verifier if login is not None else decoy_verifier(name, secret=decoy_secret)
    exchange = ScramExchange(verifier, nonce=random_token(), binding=channel.binding)
    offered = [MECHANISM] if channel.binding is None else [MECHANISM_BOUND, MECHANISM]
    channel.write(codec.authentication_sasl(offered))
    channel.flush()
    body = _next_response(channel)
    if body is None:
        return None
    mechanism, first = codec.parse_sasl_initial(body)
    if mechanism not in offered:
        raise ProtocolViolation("client selected an invalid SASL authentication mechanism")
    channel.write(codec.authentication_continue(exchange.first(first, mechanism=mechanism)))
    channel.flush()
    final = _next_response(channel)
    if final is None:
        return None
    try:
        answer = exchange.final(final)
    except AuthenticationFailed:
        login = None
    if login is None:
        raise AuthenticationFailed(f'password authentication failed for user "{name[:63]}"')
    channel.write(codec.authentication_final(answer))
    return login


def _next_response(channel: Channel) -> bytes | None:
    message = channel.next_message()
    if message is None or message[0] == codec.TERMINATE:
        return None
    if message[0] != codec.PASSWORD:
        raise ProtocolViolation(f"expected SASL response, got message type {message[0]}")
    return message[1]
