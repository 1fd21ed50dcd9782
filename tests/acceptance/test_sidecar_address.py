"""Where the database looks for the sidecar, and how the two talk: advertised addresses and TLS."""

import sys

import psycopg
import pytest
from authority import Authority
from fix_sidecar import RunningSidecar
from table_kit import VectorTable, gaussian

from ruvector.errors import InvalidParameter

QUERY = "SELECT id, tier FROM ruvector_search('items', %s::real[]::vector, 3)"


@pytest.fixture
def run(database, tmp_path):
    """Return a function that starts a sidecar with settings, over a table of 50 rows."""
    started = []
    with database.connect() as connection:
        table = VectorTable("items").create(connection)
        table.insert(connection, gaussian(50, 8, seed=1))
        table.attach(connection)

    def start(**settings):
        started.append(RunningSidecar(database, tmp_path / "files", **settings).start())
        return started[-1]

    yield start
    for sidecar in started:
        sidecar.stop()


def gate(database):
    with database.connect() as connection:
        host, *rest = connection.execute("SELECT host, port, is_encrypted FROM ruvector.gate").fetchone()
        return host.rpartition(",")[2], *rest  # behind the shortcut of this machine, if there is one


def search(database, notices):
    with database.connect() as connection:
        connection.add_notice_handler(lambda notice: notices.append(notice.message_primary))
        return connection.execute(QUERY, [gaussian(1, 8, seed=2)[0].tolist()]).fetchall()


def test_certificate_encrypts_direct_clients_and_the_database_still_finds_the_sidecar(run, database, tmp_path):
    authority = Authority(tmp_path)
    running = run(tls_certificate=authority.certificate, tls_key=authority.key)
    running.wait_live("items")
    address, password = running.sidecar.addresses[0], running.sidecar.client_password()
    assert gate(database) == (address.host, address.port, False)  # one machine: encryption is up to the client
    assert {tier for _, tier in search(database, [])} == {"hot"}
    with psycopg.connect(
        host=address.host, port=address.port, user="ruvector", dbname="ruvector", password=password,
        sslmode="verify-full", sslrootcert=str(authority.root), channel_binding="require",
    ) as connection:  # fmt: skip
        rows = connection.execute("SELECT * FROM ruvector_search('items', '[1,0,0,0,0,0,0,0]', 3)").fetchall()
        assert (len(rows), connection.pgconn.ssl_in_use) == (3, True)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has abstract names of Unix sockets")
@pytest.mark.parametrize("host", [None, "@nobody-listens,127.0.0.1"])
def test_database_takes_the_shortcut_and_finds_the_way_without_it(run, database, host):
    running = run().wait_live("items")
    with database.connect() as connection:
        registered = connection.execute("SELECT host FROM ruvector.gate").fetchone()[0]
        assert registered == f"{running.sidecar.shortcut.host},127.0.0.1"
        connection.execute("UPDATE ruvector.gate SET host = coalesce(%s, %s)", (host, registered.partition(",")[0]))
    assert {tier for _, tier in search(database, [])} == {"hot"}


def test_database_on_another_machine_must_encrypt(run, database, tmp_path):
    authority = Authority(tmp_path)
    run(tls_certificate=authority.certificate, tls_key=authority.key, advertise="sidecar.invalid:7000")
    assert gate(database) == ("sidecar.invalid", 7000, True)
    notices = []
    # Nobody answers at that name, and a libpq without TLS refuses before it asks: exact SQL answers.
    assert {tier for _, tier in search(database, notices)} <= {"exact", "pgvector"}
    assert any("sidecar" in text for text in notices)


def test_advertised_address_is_where_the_database_asks(run, database):
    running = run()
    port = running.sidecar.addresses[0].port
    running.stop()
    run(listen=(f"127.0.0.1:{port}",), advertise="localhost").wait_live("items")
    assert gate(database) == ("localhost", port, False)
    assert {tier for _, tier in search(database, [])} == {"hot"}


@pytest.mark.parametrize("given", ["tls_certificate", "tls_key"])
def test_certificate_without_key_is_refused(run, tmp_path, given):
    authority = Authority(tmp_path)
    path = authority.certificate if given == "tls_certificate" else authority.key
    with pytest.raises(InvalidParameter, match="needs a certificate and its key"):
        run(**{given: path})


def test_address_that_cannot_be_read_is_refused(run):
    with pytest.raises(InvalidParameter, match="cannot be read"):
        run(advertise="host:port")
