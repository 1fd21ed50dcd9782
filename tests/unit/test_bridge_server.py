"""The endpoint over real sockets, byte by byte; its clients are tested in integration."""

import contextlib
import logging
import os
import socket
import stat
import struct
import threading
import time

import pytest
from fix_bridge import MAC, PASSWORD
from scram_client import client_final

from ruvector.bridge import CancelFlag, Server, codec
from ruvector.bridge import server as server_module
from ruvector.bridge import session as session_module
from ruvector.bridge.address import Address, ListenProblem, parse_address
from ruvector.bridge.codec import BodyReader, FrameReader, message
from ruvector.bridge.scram import prepare_password
from ruvector.errors import Cancelled, InvalidParameter


class Client:
    """A client that speaks the protocol message by message."""

    def __init__(self, address, *, user="user", log_in=True, password=PASSWORD, **parameters):
        if address.is_unix:
            self.socket = socket.socket(socket.AF_UNIX)
            self.socket.connect(str(address.socket_path))
        else:
            self.socket = socket.create_connection((address.host, address.port))
        self.socket.settimeout(20)
        self.frames = FrameReader(bytes_max=1 << 28)
        self.parameters = parameters | {"user": user}
        self.key = None
        if log_in:
            self.startup()
            self.prove(password)
            self.key = next(body for kind, body in self.until("Z") if kind == "K")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.socket.close()

    def startup(self, version=196608):
        body = b"".join(f"{name}\0{value}\0".encode() for name, value in self.parameters.items()) + b"\0"
        self.socket.sendall(struct.pack("!ii", len(body) + 8, version) + body)

    def prove(self, password):
        kind, body = self.receive()
        if kind == "R" and body == struct.pack("!i", 0):
            return
        assert (kind, body[:4]) == ("R", struct.pack("!i", 10))
        first = b"n=,r=abc"
        initial = b"n,," + first
        self.send("p", b"SCRAM-SHA-256\0" + struct.pack("!i", len(initial)) + initial)
        kind, body = self.receive()
        assert (kind, body[:4]) == ("R", struct.pack("!i", 11))
        self.send("p", client_final(body[4:], first=first, password=prepare_password(password)))

    def send(self, kind, body=b""):
        self.socket.sendall(message(kind.encode(), body))

    def query(self, text):
        self.send("Q", text.encode() + b"\0")
        return self.until("Z")

    def receive(self):
        found = self.frames.next()
        while found is None:
            data = self.socket.recv(65536)
            if not data:
                return None
            self.frames.feed(data)
            found = self.frames.next()
        return chr(found[0]), found[1]

    def until(self, last):
        messages = []
        while not messages or messages[-1][0] != last:
            found = self.receive()
            assert found is not None, f"the connection was closed before {last}: {messages}"
            messages.append(found)
        return messages


def fields(body):
    return {part[:1].decode(): part[1:].decode() for part in body.split(b"\0") if part}


def kinds(messages):
    return "".join(kind for kind, _ in messages)


def wait_for(condition):
    for _ in range(1000):
        if condition():
            return True
        time.sleep(0.01)
    return False


@pytest.fixture
def address(bridge_server):
    return bridge_server.addresses[0]


@pytest.fixture
def client(address):
    with Client(address) as connected:
        yield connected


def test_encryption_is_refused_and_the_login_goes_on(address):
    with Client(address, log_in=False) as client:
        for code in (codec.GSSENC_REQUEST, codec.SSL_REQUEST):
            client.socket.sendall(struct.pack("!ii", 8, code))
            assert client.socket.recv(1) == b"N"
        client.startup()
        client.prove(PASSWORD)
        assert kinds(client.until("Z")).startswith("RRS")


def test_endless_requests_for_encryption_are_refused(address):
    with Client(address, log_in=False) as client:
        for _ in range(3):
            client.socket.sendall(struct.pack("!ii", 8, codec.SSL_REQUEST))
            assert client.socket.recv(1) == b"N"
        kind, body = client.receive()
        assert (kind, fields(body)["C"]) == ("E", "08P01")
        assert client.receive() is None


def test_login_reports_what_drivers_need(address):
    with Client(address, log_in=False, application_name="a", **{"_pq_.future": "1"}) as client:
        client.startup(version=196610)
        assert client.receive() == ("v", struct.pack("!ii", 196608, 1) + b"_pq_.future\0")
        client.prove(PASSWORD)
        reported = dict(body.rstrip(b"\0").split(b"\0") for kind, body in client.until("Z") if kind == "S" and body)
    assert reported.keys() >= {
        *(b"server_version", b"server_encoding", b"client_encoding", b"DateStyle", b"IntervalStyle", b"TimeZone"),
        *(b"integer_datetimes", b"standard_conforming_strings", b"is_superuser"),
    }


@pytest.mark.parametrize(
    ("user", "password", "code"), [("user", "wrong", "28P01"), ("nobody", PASSWORD, "28P01"), ("", PASSWORD, "28000")]
)
def test_login_is_refused(address, user, password, code):
    with Client(address, user=user, log_in=False) as client:
        client.startup()
        if user:
            client.prove(password)
        kind, body = client.receive()
        assert (kind, fields(body)["S"], fields(body)["C"]) == ("E", "FATAL", code)
        assert client.receive() is None


def test_replication_is_refused(address):
    with Client(address, log_in=False, replication="database") as client:
        client.startup()
        kind, body = client.receive()
        assert (kind, fields(body)["C"]) == ("E", "0A000")


def test_requests_before_the_login_are_refused(address):
    with Client(address, log_in=False) as client:
        client.startup()
        assert client.receive()[0] == "R"
        client.send("Q", b"SELECT 1\0")
        kind, body = client.receive()
        assert (kind, fields(body)["C"]) == ("E", "08P01")


def test_messages_of_a_login_are_small(address):
    with Client(address, log_in=False) as client:
        client.startup()
        assert client.receive()[0] == "R"
        client.socket.sendall(b"p" + struct.pack("!i", 5_000))
        assert fields(client.receive()[1])["C"] == "08P01"


def test_same_user_needs_no_password_for_admin_on_the_unix_socket(bridge_server):
    tcp, unix = bridge_server.addresses
    with Client(unix, user="admin", log_in=False) as client:
        client.startup()
        assert client.receive() == ("R", struct.pack("!i", 0))
    with Client(unix, user="bridge", log_in=False) as client:
        client.startup()
        assert client.receive()[1][:4] == struct.pack("!i", 10)
    with Client(tcp, user="admin", log_in=False) as client:
        client.startup()
        assert client.receive()[1][:4] == struct.pack("!i", 10)


def test_search_is_answered_without_the_grammar(address, bridge_backend):
    with Client(address, user="bridge") as client:
        answer = client.query(f"SEARCH {MAC}{{}}")
        assert kinds(answer) == "TDCZ"
        assert BodyReader(answer[1][1]).values() == (None, b"7:7:", b"{0,1,2}", b"0.3333333333333333", b"{}", None)
        assert answer[-2][1] == b"SELECT 1\0"
        assert bridge_backend.payloads == [f"{MAC}{{}}".encode()]
        answer = client.query(f'CALL {MAC}{{"a": 1}}')
        assert BodyReader(answer[1][1]).values() == (b"v", b'{"a": 1}', None)
        answer = client.query(f"SEARCH {MAC}fail")
        assert kinds(answer) == "EZ"
        assert fields(answer[0][1])["C"] == "42704"


def test_logins_may_do_what_they_are_for(address):
    with Client(address, user="bridge") as client:
        assert fields(client.query("SELECT * FROM ruvector_version()")[0][1])["C"] == "42501"
        assert kinds(client.query("SELECT 1; BEGIN; COMMIT")) == "TDCCCZ"
    with Client(address, user="user") as client:
        assert fields(client.query(f"SEARCH {MAC}{{}}")[0][1])["C"] == "42501"
        assert fields(client.query(f"CALL {MAC}{{}}")[0][1])["C"] == "42501"
        assert fields(client.query("SELECT ruvector_repair()")[0][1])["C"] == "42501"
    with Client(address, user="admin") as client:
        assert kinds(client.query(f"SEARCH {MAC}{{}}"))[0] == "T"
        assert kinds(client.query("SELECT ruvector_repair()")) == "TDCZ"


def test_several_statements_stop_at_the_first_error(client):
    answer = client.query("SELECT 1; SELECT * FROM nothing(); SELECT 2")
    assert kinds(answer) == "TDCEZ"
    assert kinds(client.query("")) == "IZ"


def test_failed_block_stays_failed_until_its_end(client):
    assert client.query("BEGIN")[-1][1] == b"T"
    assert client.query("SELECT * FROM nothing()")[-1][1] == b"E"
    assert fields(client.query("SELECT 1")[0][1])["C"] == "25P02"
    assert client.query("ROLLBACK")[-1][1] == b"I"
    assert kinds(client.query("COMMIT")) == "NCZ"


def test_bug_of_a_function_is_logged_without_values(client, caplog):
    with caplog.at_level(logging.DEBUG, logger="ruvector.bridge"):
        error = fields(client.query("SELECT ruvector_bug()")[0][1])
    assert (error["C"], error["M"]) == ("XX000", "internal error of the sidecar")
    assert "ValueError" in caplog.text
    assert "fix_bridge.py" in caplog.text
    assert "secret" not in caplog.text
    assert kinds(client.query("SELECT 1")) == "TDCZ"


def test_error_in_the_extended_protocol_skips_to_sync(client):
    client.send("P", b"\0SELECT * FROM nothing()\0\0\0")
    client.send("B", b"\0\0\0\0\0\0\0\0")
    client.send("E", b"\0\0\0\0\0")
    client.send("S")
    assert kinds(client.until("Z")) == "EZ"


def test_statement_is_described_without_running_it(client):
    client.send("P", b"s\0SELECT id, distance FROM ruvector_search($1, $2, k => $3)\0" + struct.pack("!hI", 1, 25))
    client.send("D", b"Ss\0")
    client.send("S")
    answer = client.until("Z")
    assert kinds(answer) == "1tTZ"
    assert answer[1][1] == struct.pack("!hIII", 3, 25, 25, 23)
    assert answer[2][1][:2] == struct.pack("!h", 2)


def test_portal_gives_rows_in_portions(client):
    client.send("P", b"\0SELECT * FROM ruvector_count_to(5)\0\0\0")
    client.send("B", b"p\0\0\0\0\0\0\0\0")
    for _ in range(3):
        client.send("E", b"p\0" + struct.pack("!i", 2))
    client.send("E", b"missing\0\0\0\0\0")
    client.send("S")
    answer = client.until("Z")
    assert kinds(answer) == "12DDsDDsDCEZ"
    assert answer[-3][1] == b"SELECT 1\0"
    assert fields(answer[-2][1])["C"] == "34000"


def test_portals_end_with_the_transaction(client):
    client.query("BEGIN")
    client.send("P", b"\0SELECT * FROM ruvector_count_to(5)\0\0\0")
    client.send("B", b"p\0\0\0\0\0\0\0\0")
    client.send("E", b"p\0" + struct.pack("!i", 2))
    client.send("S")
    assert kinds(client.until("Z")) == "12DDsZ"
    client.send("E", b"p\0\0\0\0\0")
    client.send("S")
    assert kinds(client.until("Z")) == "DDDCZ"
    client.query("COMMIT")
    client.send("E", b"p\0\0\0\0\0")
    client.send("S")
    assert kinds(client.until("Z")) == "EZ"


@pytest.mark.parametrize(
    ("messages", "code"),
    [
        ([("P", b"s\0SELECT 1\0\0\0"), ("P", b"s\0SELECT 1\0\0\0")], "42P05"),
        ([("B", b"\0missing\0\0\0\0\0\0\0")], "26000"),
        ([("P", b"\0SELECT 1; SELECT 2\0\0\0")], "42601"),
        ([("P", b"\0SELECT $2\0\0\0")], "42P02"),
        ([("P", b"\0SELECT $1\0\0\0"), ("B", b"\0\0\0\0\0\0\0\0")], "08P01"),
        ([("P", b"\0SELECT 1\0\0\0"), ("B", b"p\0\0\0\0\0\0\0\0"), ("B", b"p\0\0\0\0\0\0\0\0")], "42P03"),
        ([("D", b"X\0")], "08P01"),
        ([("D", b"Pmissing\0")], "34000"),
        ([("P", b"\0SELECT \xff\0\0\0")], "22021"),
        ([("P", b"\0SELECT ruvector_types()\0\0\0")], "0A000"),
        ([("P", b"\0SELECT x FROM ruvector_types()\0\0\0")], "42703"),
        ([("P", b"\0SELECT 1::nonsense\0\0\0"), ("B", b"\0\0\0\0\0\0\0\0"), ("E", b"\0\0\0\0\0")], "42704"),
    ],
)
def test_extended_protocol_errors_have_their_codes(client, messages, code):
    for kind, body in messages:
        client.send(kind, body)
    client.send("S")
    errors = [fields(body)["C"] for kind, body in client.until("Z") if kind == "E"]
    assert errors == [code]
    assert kinds(client.query("SELECT 1")) == "TDCZ"


def test_commands_run_in_the_extended_protocol(client):
    for text in (b"BEGIN", b"SET a.b = 1", b"SHOW a.b", b"DEALLOCATE ALL", b"", b"COMMIT"):
        client.send("P", b"\0" + text + b"\0\0\0")
        client.send("B", b"\0\0\0\0\0\0\0\0")
        client.send("D", b"P\0")
        client.send("E", b"\0\0\0\0\0")
    client.send("C", b"Snothing\0")
    client.send("H")
    client.send("S")
    answer = client.until("Z")
    assert kinds(answer) == "12nC" + "12nC" + "12TDC" + "12nC"[:0] + "12nC" + "12nI" + "12nC" + "3Z"


def test_function_call_message_is_refused(client):
    client.send("F")
    answer = client.until("Z")
    assert kinds(answer) == "EZ"
    assert fields(answer[0][1])["C"] == "0A000"


def test_unknown_message_ends_the_connection(client):
    client.send("y")
    kind, body = client.receive()
    assert (kind, fields(body)["S"], fields(body)["C"]) == ("E", "FATAL", "08P01")
    assert client.receive() is None


def test_copy_messages_outside_a_copy_are_ignored(client):
    client.send("d", b"data")
    client.send("f", b"reason\0")
    assert kinds(client.query("SELECT 1")) == "TDCZ"


def test_message_above_the_bound_ends_the_connection(client):
    client.socket.sendall(b"Q" + struct.pack("!i", 4 * 1024 * 1024 + 1))
    kind, body = client.receive()
    assert (kind, fields(body)["C"]) == ("E", "08P01")


def test_large_requests_and_answers_pass(client):
    text = "x" * 3_000_000
    answer = client.query(f"SELECT '{text}'")
    assert BodyReader(answer[1][1]).values() == (text.encode(),)
    assert kinds(client.query("SELECT * FROM ruvector_count_to(10000)")) == "T" + "D" * 10_000 + "CZ"


def test_prepared_statements_are_bounded(client):
    for number in range(1_001):
        client.send("P", b"s%d\0SELECT 1\0\0\0" % number)
    client.send("S")
    answer = client.until("Z")
    assert kinds(answer) == "1" * 1_000 + "EZ"
    assert fields(answer[-2][1])["C"] == "54000"


def test_held_bytes_are_bounded(client):
    big = b"SELECT '" + b"x" * 4_000_000 + b"'"
    for number in range(9):
        client.send("P", b"s%d\0" % number + big + b"\0\0\0")
    client.send("S")
    answer = client.until("Z")
    assert kinds(answer) == "1" * 8 + "EZ"


def test_cancel_needs_the_secret(address, bridge_backend):
    with Client(address) as client:
        client.send("Q", b"SELECT ruvector_wait()\0")
        assert bridge_backend.waiting.wait(10)
        process_id, secret = client.key[:4], client.key[4:]
        for wrong in (b"\0\0\0\0", b"", secret[:2], secret + b"x"):
            cancel(address, process_id, wrong)
        assert not bridge_backend.cancelled.is_set()
        cancel(address, process_id, secret)
        answer = client.until("Z")
        assert fields(answer[0][1])["C"] == "57014"
        cancel(address, process_id, secret)  # nothing runs any more: nothing happens
        assert kinds(client.query("SELECT ruvector_version()")) == "TDCZ"


def cancel(address, process_id, secret):
    with socket.create_connection((address.host, address.port)) as connected:
        body = struct.pack("!i", codec.CANCEL_REQUEST) + process_id + secret
        connected.sendall(struct.pack("!i", len(body) + 4) + body)
        connected.settimeout(20)
        with contextlib.suppress(ConnectionResetError):
            while connected.recv(100):
                pass


def test_deadline_of_the_request_is_kept(client):
    error = fields(client.query("SELECT ruvector_wait(50)")[0][1])
    assert (error["C"], error["M"]) == ("57014", "canceling statement due to statement timeout")


def test_request_ends_when_its_client_is_gone(bridge_server, bridge_backend):
    for address in bridge_server.addresses:
        bridge_backend.waiting.clear()
        bridge_backend.cancelled.clear()
        with Client(address, user="admin") as client:
            client.send("Q", b"SELECT ruvector_wait()\0")
            assert bridge_backend.waiting.wait(10)
        assert bridge_backend.cancelled.wait(10)


def test_slow_login_is_closed(bridge_backend, monkeypatch):
    monkeypatch.setattr(session_module, "LOGIN_SECONDS_MAX", 0.1)
    with Server(bridge_backend, ["127.0.0.1:0"]) as server:
        with Client(server.addresses[0], log_in=False) as silent, Client(server.addresses[0], log_in=False) as half:
            half.startup()
            assert half.receive()[0] == "R"
            assert half.receive() is None
            assert silent.receive() is None
        with Client(server.addresses[0]) as client:
            assert kinds(client.query("SELECT 1")) == "TDCZ"


def test_connections_are_bounded(bridge_backend):
    with Server(bridge_backend, ["127.0.0.1:0"], connections_max=2) as server:
        address = server.addresses[0]
        with Client(address), Client(address), Client(address, log_in=False) as third:
            third.startup()
            kind, body = third.receive()
            assert (kind, fields(body)["S"], fields(body)["C"]) == ("E", "FATAL", "53300")
            assert third.receive() is None
        assert wait_for(lambda: server.connections == 0)
        with Client(address) as client:
            assert kinds(client.query("SELECT 1")) == "TDCZ"


def test_flood_of_silent_clients_gets_no_threads(bridge_backend, monkeypatch):
    monkeypatch.setattr(server_module, "PENDING_LOGINS_MAX", 2)
    with Server(bridge_backend, ["127.0.0.1:0"], connections_max=1) as server, contextlib.ExitStack() as stack:
        address = server.addresses[0]
        for _ in range(3):
            stack.enter_context(Client(address, log_in=False))
        assert wait_for(lambda: server.connections == 3)
        with Client(address, log_in=False) as refused:
            kind, body = refused.receive()
            assert (kind, fields(body)["C"]) == ("E", "53300")
        assert server.connections == 3


def test_close_cancels_requests_and_says_goodbye(bridge_backend):
    server = Server(bridge_backend, ["127.0.0.1:0"])
    server.start()
    with Client(server.addresses[0]) as idle, Client(server.addresses[0]) as busy:
        busy.send("Q", b"SELECT ruvector_wait()\0")
        assert bridge_backend.waiting.wait(10)
        server.close()
        server.close()
        assert [fields(body)["C"] for kind, body in [idle.receive()]] == ["57P01"]
        answer = []
        while (found := busy.receive()) is not None:
            answer.append(found)
        assert [fields(body)["C"] for kind, body in answer if kind == "E"] == ["57014", "57P01"]
    assert not [thread.name for thread in threading.enumerate() if thread.name.startswith("ruvector-bridge")]


def test_close_does_not_wait_for_clients_that_do_not_read(bridge_backend, monkeypatch):
    monkeypatch.setattr(server_module, "CLOSE_SECONDS_MAX", 0.2)
    server = Server(bridge_backend, ["127.0.0.1:0"])
    server.start()
    with Client(server.addresses[0]) as client:
        client.send("Q", b"SELECT * FROM ruvector_count_to(2000000)\0")
        assert client.receive()[0] == "T"
        server.close()
    assert wait_for(lambda: server.connections == 0)


def test_unix_socket_is_private_and_replaces_a_stale_one(bridge_backend, tmp_path_factory):
    folder = tmp_path_factory.mktemp("b") / "new"
    with Server(bridge_backend, [f"unix:{folder}"], port=6000) as server:
        path = server.addresses[0].socket_path
        assert path.name == ".s.PGSQL.6000"
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        assert stat.S_IMODE(path.stat().st_mode) == 0o700
        with pytest.raises(ListenProblem, match="another sidecar"):
            Server(bridge_backend, [f"unix:{folder}"], port=6000).start()
        assert path.exists()
    assert not path.exists()
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(path))
    with (
        Server(bridge_backend, [f"unix:{folder}"], port=6000) as server,
        Client(server.addresses[0], user="admin") as client,
    ):
        assert kinds(client.query("SELECT 1")) == "TDCZ"


def test_folder_that_others_can_write_is_refused(bridge_backend, tmp_path_factory):
    folder = tmp_path_factory.mktemp("b")
    folder.chmod(0o777)
    with pytest.raises(ListenProblem, match="written by others"):
        Server(bridge_backend, [f"unix:{folder}"]).start()


def test_socket_path_is_bounded(bridge_backend, tmp_path):
    with pytest.raises(ListenProblem, match="bytes"):
        Server(bridge_backend, [f"unix:{tmp_path}/{'x' * 120}"]).start()


def test_taken_port_is_named(bridge_server, bridge_backend):
    port = bridge_server.addresses[0].port
    with pytest.raises(ListenProblem, match=f"127.0.0.1:{port}"):
        Server(bridge_backend, [f"127.0.0.1:{port}"]).start()
    with pytest.raises(InvalidParameter, match="at least one address"):
        Server(bridge_backend, []).start()


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("127.0.0.1:7000", Address("127.0.0.1", 7000)),
        ("localhost", Address("localhost", 5433)),
        ("[::1]:7000", Address("::1", 7000)),
        ("[::1]", Address("::1", 5433)),
        ("::1", Address("::1", 5433)),
        ("unix:/run/ruvector", Address("/run/ruvector", 5433)),
        ("unix:run", Address(os.path.abspath("run"), 5433)),
    ],
)
def test_address_is_read(text, address):
    assert parse_address(text) == address


@pytest.mark.parametrize("text", ["", ":7000", "unix:", "[::1", "[::1]x", "host:port", "host:70000", "/run/x"])
def test_broken_address_is_refused(text):
    with pytest.raises(InvalidParameter):
        parse_address(text)


@pytest.mark.parametrize(
    ("text", "is_local"),
    [("127.0.0.1", True), ("[::1]:1", True), ("localhost", True), ("unix:x", True), ("192.0.2.1", False), ("h", False)],
)
def test_address_that_others_can_reach_is_known(text, is_local):
    assert parse_address(text).is_local == is_local


def test_deadline_of_a_request_moves(bridge_server):
    flag = CancelFlag(bridge_server.clock)
    flag.arm(now=bridge_server.clock.now())
    usual = flag.deadline
    flag.expire_within(3_000)
    assert flag.deadline == usual
    flag.allow(3_000)
    assert flag.deadline > usual
    flag.check()
    flag.expire_within(-1)
    with pytest.raises(Cancelled, match="timeout"):
        flag.check()
    assert flag.is_set
    assert flag.array[0] == 1
    flag.arm(now=bridge_server.clock.now())
    assert not flag.is_set
