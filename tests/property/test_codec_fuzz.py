"""Whatever a client sends, the endpoint closes its connection in the end, keeps no thread and serves the next one."""

import contextlib
import socket
import struct
import threading

import psycopg
import pytest
from fix_bridge import MemoryBackend, tcp_dsn, unix_dsn
from hypothesis import given, settings
from hypothesis import strategies as st

from ruvector.bridge import Server, codec

BODIES = st.one_of(
    st.binary(max_size=60),
    st.sampled_from(
        [
            *(b"SELECT 1\0", b"BEGIN\0", b"SEARCH \0", b"CALL \0", b"\0", b"\0SELECT 1\0\0\0", b"s\0SELECT $1\0\0\0"),
            *(b"\0\0\0\0\0\0\0\0", b"\0s\0\0\0\0\x01\0\0\0\x01x\0\0", b"\0\0\0\0\0", b"S\0", b"P\0", b"Ss\0"),
            *(b"\0SELECT * FROM ruvector_types()\0\0\0", b"\0\0\0\0\0\0\0\x01\0\x01"),
        ]
    ),
)
MESSAGES = st.one_of(
    st.tuples(st.sampled_from(b"QPBDECSHXdcfFp"), BODIES).map(lambda each: codec.message(bytes(each[:1]), each[1])),
    st.tuples(st.integers(0, 255), st.integers(-(2**31), 2**31 - 1), st.binary(max_size=20)).map(
        lambda each: struct.pack("!Bi", each[0], each[1]) + each[2]
    ),
    st.binary(max_size=40),
)
STARTUPS = st.one_of(
    st.binary(max_size=60),
    st.tuples(
        st.integers(-(2**31), 2**31 - 1) | st.integers(0, 40),
        st.sampled_from([196608, codec.SSL_REQUEST, codec.GSSENC_REQUEST, codec.CANCEL_REQUEST, 0]),
        st.sampled_from([b"user\0admin\0\0", b"user\0user\0\0", b"user\0", b"\0"]) | st.binary(max_size=30),
    ).map(lambda each: struct.pack("!ii", each[0], each[1]) + each[2]),
)
LOGIN = struct.pack("!ii", 4 + 4 + len(b"user\0admin\0\0"), 196608) + b"user\0admin\0\0"


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with Server(MemoryBackend(), ["127.0.0.1:0", f"unix:{tmp_path_factory.mktemp('b')}"], port=0) as started:
        yield started


def talk(address, data):
    """Send bytes, close our side, read until the endpoint closes its own."""
    with socket.socket(socket.AF_UNIX if address.is_unix else socket.AF_INET) as client:
        client.settimeout(20)
        client.connect(str(address.socket_path) if address.is_unix else (address.host, address.port))
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            client.sendall(data)
            client.shutdown(socket.SHUT_WR)
            while client.recv(65536):
                pass


def bridge_threads():
    return [thread for thread in threading.enumerate() if thread.name.startswith("ruvector-bridge-")]


@settings(max_examples=150, deadline=None)
@given(st.lists(STARTUPS, min_size=1, max_size=4).map(b"".join))
def test_any_bytes_before_the_login_end_the_connection(server, data):
    talk(server.addresses[0], data)


@settings(max_examples=150, deadline=None)
@given(st.lists(MESSAGES, max_size=12).map(b"".join), st.integers(0, 30))
def test_any_bytes_after_the_login_end_the_connection(server, data, missing):
    talk(server.addresses[1], LOGIN + data[: max(len(data) - missing, 0)])


def test_endpoint_is_unharmed_afterwards(server):
    for dsn in (tcp_dsn(server), unix_dsn(server)):
        with psycopg.connect(dsn) as connection:
            assert connection.execute("SELECT ruvector_version()").fetchone() == ("memory",)
    for thread in bridge_threads():
        if thread.name not in ("ruvector-bridge-accept", "ruvector-bridge-watch"):
            thread.join(20)
    assert {thread.name for thread in bridge_threads()} == {"ruvector-bridge-accept", "ruvector-bridge-watch"}
    assert server.connections == 0
