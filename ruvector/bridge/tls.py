"""TLS of the endpoint: a certificate that can be replaced while the sidecar runs, and what binds a login to it."""

from __future__ import annotations

import hashlib
import logging
import os
import ssl
import stat
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ruvector.errors import InvalidParameter

_log = logging.getLogger("ruvector.bridge")
_END: Final = "-----END CERTIFICATE-----"
# Signature algorithms by the content of their DER object identifiers; RFC 5929 puts SHA-256 in place of MD5 and SHA-1.
_HASHES: Final = {
    bytes.fromhex("2a864886f70d010104"): "sha256",  # RSA with MD5
    bytes.fromhex("2a864886f70d010105"): "sha256",  # RSA with SHA-1
    bytes.fromhex("2a864886f70d01010b"): "sha256",  # RSA with SHA-256, -384, -512
    bytes.fromhex("2a864886f70d01010c"): "sha384",
    bytes.fromhex("2a864886f70d01010d"): "sha512",
    bytes.fromhex("2a8648ce3d0401"): "sha256",  # ECDSA with SHA-1
    bytes.fromhex("2a8648ce3d040302"): "sha256",  # ECDSA with SHA-256, -384, -512
    bytes.fromhex("2a8648ce3d040303"): "sha384",
    bytes.fromhex("2a8648ce3d040304"): "sha512",
}


@dataclass(frozen=True, slots=True)
class TlsIdentity:
    """A loaded certificate: what handshakes use, and the data of a login's channel binding, None where undefined."""

    context: ssl.SSLContext
    binding: bytes | None


class TlsFiles:
    """A certificate and its key in files; a handshake uses what is in them at that moment.

    A pair that cannot be loaded is an error at the start; later it is logged, and the pair before it stays in use:
    the two files are rarely replaced in one moment.
    """

    def __init__(self, certificate: Path, key: Path) -> None:
        self._files = (certificate, key)
        self._lock = threading.Lock()
        self._seen = self._stamps()
        self._identity = load_identity(certificate, key)

    def current(self) -> TlsIdentity:
        """Return the identity in the files, loaded again when one of them has changed."""
        with self._lock:
            seen = self._stamps()
            if seen != self._seen:
                self._seen = seen
                try:
                    self._identity = load_identity(*self._files)
                    _log.info("loaded the TLS certificate %s again", self._files[0])
                except InvalidParameter as error:
                    _log.error("the TLS certificate before stays in use: %s", error.message)
            return self._identity

    def _stamps(self) -> tuple[tuple[int, int, int] | None, ...]:
        return tuple(map(_stamp, self._files))


def load_identity(certificate: Path, key: Path) -> TlsIdentity:
    """Load a certificate with its chain and its key, both PEM.

    Raises InvalidParameter when a file cannot be read, the two do not belong together, or others may read the key.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        _check_key_file(key)
        # Without a callback OpenSSL would ask for the password of an encrypted key on the terminal.
        context.load_cert_chain(certificate, key, password=lambda: b"")
        text = certificate.read_text(encoding="ascii")
        first = text[: text.index(_END) + len(_END)]
        return TlsIdentity(context, channel_binding(ssl.PEM_cert_to_DER_cert(first[first.index("-----BEGIN") :])))
    except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
        reason = getattr(error, "reason", None) or getattr(error, "strerror", None) or error
        raise InvalidParameter(
            f"the TLS certificate {certificate} with key {key} cannot be used: {reason}",
            hint="Both are PEM files; the certificate's comes first in its file, its key has no password.",
        ) from error


def channel_binding(certificate: bytes) -> bytes | None:
    """Return the data of tls-server-end-point (RFC 5929) for a DER certificate; None for an unknown signature."""
    start, _ = _element(certificate, 0)
    _, signed_end = _element(certificate, start)  # the signed part; its algorithm follows
    algorithm_start, _ = _element(certificate, signed_end)
    name_start, name_end = _element(certificate, algorithm_start)
    algorithm = _HASHES.get(certificate[name_start:name_end])
    return hashlib.new(algorithm, certificate).digest() if algorithm else None


def _element(der: bytes, at: int) -> tuple[int, int]:
    """Return where the content of the DER element at a place starts and ends."""
    size = der[at + 1]
    start = at + 2
    if size >= 0x80:
        start += size & 0x7F
        size = int.from_bytes(der[at + 2 : start], "big")
    return start, start + size


def _check_key_file(key: Path) -> None:
    status = key.stat()
    shared = stat.S_IRWXO | stat.S_IRWXG
    if status.st_uid == 0 and os.geteuid() != 0:
        shared = stat.S_IRWXO | stat.S_IWGRP | stat.S_IXGRP  # root may let our group read it, as for PostgreSQL
    if status.st_mode & shared:
        raise InvalidParameter(
            f"the TLS key {key} can be read by others (mode {stat.S_IMODE(status.st_mode):04o})",
            hint=f"chmod 0600 {key}",
        )


def _stamp(path: Path) -> tuple[int, int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size, status.st_ino
