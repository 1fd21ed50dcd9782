"""TLS of the endpoint: psycopg's libpq as the client, certificates of an authority made for the test."""

import contextlib
import logging
import socket
import struct
from datetime import datetime

import psycopg
import pytest
from authority import Authority
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from fix_bridge import PASSWORD, MemoryBackend, tcp_dsn, unix_dsn
from scram_client import client_final

from ruvector.bridge import Server, codec
from ruvector.bridge.channel import Channel
from ruvector.bridge.login import read_startup
from ruvector.bridge.scram import MECHANISM, MECHANISM_BOUND, ScramExchange, ScramVerifier
from ruvector.bridge.tls import TlsFiles, channel_binding
from ruvector.errors import InvalidParameter, ProtocolViolation, SessionProblem

SSL_REQUEST = struct.pack("!ii", 8, codec.SSL_REQUEST)
STARTUP = b"user\0user\0\0"


@pytest.fixture
def authority(tmp_path):
    return Authority(tmp_path)


@pytest.fixture
def server(authority, tmp_path_factory):
    folder = tmp_path_factory.mktemp("b")
    tls = TlsFiles(authority.certificate, authority.key)
    with Server(MemoryBackend(), ["127.0.0.1:0", f"unix:{folder}"], port=0, tls=tls) as server:
        yield server
    assert server.connections == 0


def search_over(dsn):
    with psycopg.connect(dsn) as connection:
        rows = connection.execute("SELECT * FROM ruvector_search('c', '[1,2,3]', 5)").fetchall()
        assert [row[0] for row in rows] == ["0", "1", "2", "3", "4"]
        return connection.pgconn.ssl_in_use


@pytest.mark.parametrize("mode", ["prefer", "require", "verify-ca", "verify-full"])
@pytest.mark.parametrize("binding", ["disable", "prefer", "require"])
def test_client_encrypts_and_binds_its_login(server, authority, mode, binding):
    options = {"sslmode": mode, "sslrootcert": str(authority.root), "channel_binding": binding}
    assert search_over(tcp_dsn(server, **options))


def test_a_local_client_may_do_without(server):
    assert not search_over(tcp_dsn(server, sslmode="disable"))
    assert not search_over(unix_dsn(server, user="user", password=PASSWORD))


def test_wrong_password_is_refused(server):
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        psycopg.connect(tcp_dsn(server, password="wrong", sslmode="require", channel_binding="require"))


def test_without_a_certificate_encryption_is_refused(bridge_server):
    with pytest.raises(psycopg.OperationalError, match="does not support SSL"):
        psycopg.connect(tcp_dsn(bridge_server, sslmode="require"))
    assert not search_over(tcp_dsn(bridge_server, sslmode="prefer"))


def test_strange_authority_is_refused_by_the_client(server, tmp_path_factory):
    other = Authority(tmp_path_factory.mktemp("other"))
    with pytest.raises(psycopg.OperationalError, match="certificate verify failed"):
        psycopg.connect(tcp_dsn(server, sslmode="verify-full", sslrootcert=str(other.root)))
    assert search_over(tcp_dsn(server, sslmode="require"))  # the endpoint goes on


def test_large_requests_and_answers_pass(server):
    with psycopg.connect(tcp_dsn(server, sslmode="require")) as connection:
        text = "x" * 200_000
        assert connection.execute("SELECT ruvector_echo(%s)", [text]).fetchone() == (repr(text),)
        assert len(connection.execute("SELECT * FROM ruvector_count_to(100000)").fetchall()) == 100_000


def test_a_request_is_cancelled_over_tls(server):
    backend = server.backend
    with psycopg.connect(tcp_dsn(server, sslmode="require"), autocommit=True) as connection:
        connection.execute("SELECT 1")
        with contextlib.closing(psycopg.connect(tcp_dsn(server, sslmode="require"), autocommit=True)) as second:
            second.pgconn.send_query(b"SELECT ruvector_wait(20000)")
            assert backend.waiting.wait(20)
            second.cancel_safe()
            assert backend.cancelled.wait(20)


def test_new_certificate_is_used_without_a_restart(server, authority):
    before = server.tls.current().binding
    with psycopg.connect(tcp_dsn(server, sslmode="require")) as connection:
        authority.issue()
        assert search_over(tcp_dsn(server, sslmode="verify-full", sslrootcert=str(authority.root)))
        assert server.tls.current().binding != before
        assert connection.execute("SELECT 1").fetchone() == (1,)  # a connection of the old certificate stays


def test_damaged_new_certificate_leaves_the_old_one_in_use(server, authority, caplog):
    authority.certificate.write_text("nonsense")
    with caplog.at_level(logging.ERROR, logger="ruvector.bridge"):
        assert search_over(tcp_dsn(server, sslmode="verify-full", sslrootcert=str(authority.root)))
    assert "stays in use" in caplog.text
    authority.issue()
    assert search_over(tcp_dsn(server, sslmode="verify-full", sslrootcert=str(authority.root)))


def test_certificate_that_cannot_be_used_is_refused_at_the_start(authority, tmp_path):
    for certificate, key, says in [
        (tmp_path / "missing.pem", authority.key, "No such file"),
        (authority.certificate, tmp_path / "missing.key", "No such file"),
        (authority.root, authority.key, "MISMATCH"),
        (authority.key, authority.key, "cannot be used"),
    ]:
        with pytest.raises(InvalidParameter, match=says) as caught:
            TlsFiles(certificate, key)
        assert caught.value.hint


def test_key_that_others_can_read_is_refused(authority):
    authority.key.chmod(0o644)
    with pytest.raises(InvalidParameter, match="can be read by others"):
        TlsFiles(authority.certificate, authority.key)


def test_garbage_after_the_request_is_refused(server):
    # What comes in the clear together with the request must never count as said over TLS (CVE-2021-23214).
    address = next(each for each in server.addresses if not each.is_unix)
    with socket.create_connection((address.host, address.port), timeout=20) as client:
        client.sendall(SSL_REQUEST + struct.pack("!ii", 8 + len(STARTUP), 196608) + STARTUP)
        answer = b""
        while data := client.recv(4096):
            answer += data
    assert answer.startswith(b"S")
    assert b"08P01" in answer


def test_handshake_that_is_never_finished_ends_with_the_login_deadline(server):
    address = next(each for each in server.addresses if not each.is_unix)
    with socket.create_connection((address.host, address.port), timeout=20) as client:
        client.sendall(SSL_REQUEST)
        assert client.recv(1) == b"S"
        assert client.recv(1) == b""  # after LOGIN_SECONDS_MAX


class RemoteChannel(Channel):
    """A client of another machine, as far as the address tells."""

    is_local = False


def test_client_of_another_machine_must_encrypt(authority):
    tls = TlsFiles(authority.certificate, authority.key)
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.sendall(struct.pack("!ii", 8 + len(STARTUP), 196608) + STARTUP)
        with pytest.raises(SessionProblem, match="must be encrypted") as caught:
            read_startup(RemoteChannel(ours), None, tls=tls)
    assert caught.value.sqlstate == "28000"
    assert "sslmode=require" in caught.value.hint


# Channel binding ---------------------------------------------------------------------------------------------------

BOUND_FIRST = b"p=tls-server-end-point,,n=,r=abc"


def bound_exchange(binding):
    return ScramExchange(ScramVerifier.from_password("pencil"), nonce="xyz", binding=binding)


def test_login_bound_to_another_channel_is_refused():
    for binding, passes in [(b"here", True), (b"there", False)]:
        login = bound_exchange(binding)
        server_first = login.first(BOUND_FIRST, mechanism=MECHANISM_BOUND)
        # base64 of b"p=tls-server-end-point,,here"
        final = client_final(server_first, binding=b"c=cD10bHMtc2VydmVyLWVuZC1wb2ludCwsaGVyZQ==")
        if passes:
            assert login.final(final).startswith(b"v=")
        else:
            with pytest.raises(ProtocolViolation, match="channel binding"):
                login.final(final)


@pytest.mark.parametrize(
    ("first", "mechanism"),
    [
        (b"n,,n=,r=abc", MECHANISM_BOUND),
        (b"y,,n=,r=abc", MECHANISM_BOUND),
        (b"p=tls-unique,,n=,r=abc", MECHANISM_BOUND),
        (BOUND_FIRST, MECHANISM),
        (b"y,,n=,r=abc", MECHANISM),  # the offer of binding was taken away on the way
    ],
)
def test_header_that_does_not_fit_the_mechanism_is_refused(first, mechanism):
    with pytest.raises(ProtocolViolation):
        bound_exchange(b"here").first(first, mechanism=mechanism)


@pytest.mark.parametrize(
    ("make_key", "algorithm"),
    [
        (lambda: ec.generate_private_key(ec.SECP256R1()), hashes.SHA256()),
        (lambda: ec.generate_private_key(ec.SECP256R1()), hashes.SHA384()),
        (lambda: ec.generate_private_key(ec.SECP384R1()), hashes.SHA512()),
        (lambda: rsa.generate_private_key(65537, 2048), hashes.SHA256()),
        (lambda: rsa.generate_private_key(65537, 2048), hashes.SHA512()),
        (ed25519.Ed25519PrivateKey.generate, None),
    ],
)
def test_binding_is_the_hash_that_the_signature_names(make_key, algorithm):
    key = make_key()
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost" * 7)])
    start = x509.CertificateBuilder(name, name, public_key=key.public_key())
    certificate = (
        start.serial_number(1)
        .not_valid_before(datetime(2020, 1, 1))
        .not_valid_after(datetime(2040, 1, 1))
        .sign(key, algorithm)
    )
    der = certificate.public_bytes(Encoding.DER)
    if algorithm is None:
        assert channel_binding(der) is None
    else:
        assert channel_binding(der) == certificate.fingerprint(algorithm)
