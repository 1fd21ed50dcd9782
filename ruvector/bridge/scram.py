"""SCRAM-SHA-256 for the server's side (RFC 5802, RFC 7677), as libpq speaks it."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import stringprep
import unicodedata
from dataclasses import dataclass

from ruvector.clock import random_token
from ruvector.errors import AuthenticationFailed, InvalidParameter, ProtocolViolation
from ruvector.limits import SCRAM_ITERATIONS

MECHANISM = "SCRAM-SHA-256"
MECHANISM_BOUND = "SCRAM-SHA-256-PLUS"
_BOUND_HEADER = b"p=tls-server-end-point"
_PREFIX = "SCRAM-SHA-256$"
_PROHIBITED = (
    stringprep.in_table_c12,
    stringprep.in_table_c21_c22,
    stringprep.in_table_c3,
    stringprep.in_table_c4,
    stringprep.in_table_c5,
    stringprep.in_table_c6,
    stringprep.in_table_c7,
    stringprep.in_table_c8,
    stringprep.in_table_c9,
    stringprep.in_table_a1,
)


def _mac(key: bytes, data: bytes) -> bytes:
    return hmac.digest(key, data, "sha256")


@dataclass(frozen=True, slots=True)
class ScramVerifier:
    """What the server keeps of a password; the password cannot be derived from it."""

    salt: bytes
    iterations: int
    stored_key: bytes
    server_key: bytes

    def __repr__(self) -> str:
        """Name the class only: a verifier must not end up in a log."""
        return "ScramVerifier(...)"

    @classmethod
    def from_password(
        cls, password: str, *, salt: bytes | None = None, iterations: int = SCRAM_ITERATIONS
    ) -> ScramVerifier:
        """Derive the verifier of a password; a fresh random salt of 16 bytes is used when none is given."""
        salt = bytes.fromhex(random_token()) if salt is None else salt
        salted = hashlib.pbkdf2_hmac("sha256", prepare_password(password), salt, iterations)
        stored_key = hashlib.sha256(_mac(salted, b"Client Key")).digest()
        return cls(salt, iterations, stored_key, _mac(salted, b"Server Key"))

    @classmethod
    def from_text(cls, text: str) -> ScramVerifier:
        """Read the form PostgreSQL keeps in pg_authid: ``SCRAM-SHA-256$<iterations>:<salt>$<stored>:<server>``."""
        try:
            if not text.startswith(_PREFIX):
                raise ValueError
            parameters, keys = text[len(_PREFIX) :].split("$")
            iterations, salt = parameters.split(":")
            stored_key, server_key = (base64.b64decode(key, validate=True) for key in keys.split(":"))
            verifier = cls(base64.b64decode(salt, validate=True), int(iterations), stored_key, server_key)
        except (ValueError, binascii.Error):
            raise InvalidParameter("the text is not a SCRAM-SHA-256 verifier") from None
        if verifier.iterations < 1 or len(stored_key) != 32 or len(server_key) != 32:
            raise InvalidParameter("the text is not a SCRAM-SHA-256 verifier")
        return verifier

    def to_text(self) -> str:
        """Return the form that from_text reads."""
        salt, stored_key, server_key = (
            base64.b64encode(part).decode() for part in (self.salt, self.stored_key, self.server_key)
        )
        return f"{_PREFIX}{self.iterations}:{salt}${stored_key}:{server_key}"


def prepare_password(password: str) -> bytes:
    """Normalise a password with SASLprep (RFC 4013); like PostgreSQL, keep it as it is where SASLprep forbids it."""
    if password.isascii():
        return password.encode()
    mapped = "".join(
        " " if stringprep.in_table_c12(character) else character
        for character in password
        if not stringprep.in_table_b1(character)
    )
    normal = unicodedata.normalize("NFKC", mapped)
    if not normal or any(is_prohibited(character) for is_prohibited in _PROHIBITED for character in normal):
        return password.encode()
    has_right_to_left = any(stringprep.in_table_d1(character) for character in normal)
    if has_right_to_left and (
        any(stringprep.in_table_d2(character) for character in normal)
        or not stringprep.in_table_d1(normal[0])
        or not stringprep.in_table_d1(normal[-1])
    ):
        return password.encode()
    return normal.encode()


def decoy_verifier(login: str, *, secret: bytes) -> ScramVerifier:
    """Return a verifier no password fits, the same for the same name.

    A client that asks for an unknown login must see what it would see with a wrong password.
    """
    seed = _mac(secret, login.encode())
    return ScramVerifier(seed[:16], SCRAM_ITERATIONS, _mac(seed, b"stored"), _mac(seed, b"server"))


class ScramExchange:
    """One login: two messages from the client, two answers.

    ``binding`` is the data of tls-server-end-point when the mechanism with channel binding was offered: a login that
    somebody in the middle passes on over another TLS connection then fails.
    """

    def __init__(self, verifier: ScramVerifier, *, nonce: str, binding: bytes | None = None) -> None:
        self._verifier = verifier
        self._own_nonce = nonce
        self._binding = binding
        self._is_bound = False
        self._nonce = ""
        self._gs2_header = b""
        self._client_first_bare = b""
        self._server_first = b""

    def first(self, message: bytes, *, mechanism: str = MECHANISM) -> bytes:
        """Answer client-first with salt and iteration count; raise ProtocolViolation when it is malformed."""
        self._is_bound = mechanism == MECHANISM_BOUND
        parts = message.split(b",", 2)
        if len(parts) != 3 or parts[0] not in ((_BOUND_HEADER,) if self._is_bound else (b"n", b"y")):
            raise ProtocolViolation("malformed SCRAM message: its header does not fit the mechanism")
        if parts[0] == b"y" and self._binding is not None:
            # The client can bind and believes that we cannot: somebody took the offer away.
            raise ProtocolViolation("SCRAM channel binding negotiation error")
        # The name in the message is ignored, as PostgreSQL does: libpq leaves it empty, the startup packet has it.
        self._gs2_header = parts[0] + b"," + parts[1] + b","
        self._client_first_bare = parts[2]
        attributes = parts[2].split(b",")
        if parts[1] or len(attributes) < 2 or attributes[0][:2] != b"n=" or attributes[1][:2] != b"r=":
            raise ProtocolViolation("malformed SCRAM message: user name and nonce expected")
        client_nonce = attributes[1][2:]
        if not client_nonce or any(not 0x21 <= byte <= 0x7E for byte in client_nonce):
            raise ProtocolViolation("malformed SCRAM message: the nonce must be printable")
        self._nonce = client_nonce.decode() + self._own_nonce
        salt = base64.b64encode(self._verifier.salt).decode()
        self._server_first = f"r={self._nonce},s={salt},i={self._verifier.iterations}".encode()
        return self._server_first

    def final(self, message: bytes) -> bytes:
        """Check the client's proof and return the server's own; raise AuthenticationFailed when it is wrong."""
        without_proof, found, proof_text = message.rpartition(b",p=")
        attributes = without_proof.split(b",")
        if not found or len(attributes) < 2:
            raise ProtocolViolation("malformed SCRAM message: channel binding, nonce and proof expected")
        try:
            proof = base64.b64decode(proof_text, validate=True)
        except binascii.Error:
            raise ProtocolViolation("malformed SCRAM message: the proof is not base64") from None
        bound_to = self._gs2_header + (self._binding or b"" if self._is_bound else b"")
        if attributes[0] != b"c=" + base64.b64encode(bound_to):
            raise ProtocolViolation("SCRAM channel binding check failed")
        if not hmac.compare_digest(attributes[1], b"r=" + self._nonce.encode()):
            raise ProtocolViolation("malformed SCRAM message: the nonce does not match")
        if len(proof) != 32:
            raise ProtocolViolation("malformed SCRAM message: the proof has the wrong size")
        exchange = b",".join((self._client_first_bare, self._server_first, without_proof))
        signature = _mac(self._verifier.stored_key, exchange)
        client_key = bytes(left ^ right for left, right in zip(proof, signature, strict=True))
        if not hmac.compare_digest(hashlib.sha256(client_key).digest(), self._verifier.stored_key):
            raise AuthenticationFailed("the password proof is wrong")
        return b"v=" + base64.b64encode(_mac(self._verifier.server_key, exchange))
