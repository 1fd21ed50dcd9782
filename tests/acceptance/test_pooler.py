"""PgBouncer in transaction mode between the application and the database; skipped where it is not installed."""

import os
import pwd
import shutil
import socket
import subprocess
import tempfile
import threading
from pathlib import Path

import psycopg
import pytest
from fix_sidecar import wait_until
from psycopg.conninfo import conninfo_to_dict
from table_kit import VectorTable, gaussian, text_of

DIMS, ROWS = 8, 300
TABLE = VectorTable("items", dims=DIMS)
VECTORS = gaussian(ROWS, DIMS, seed=3)
SEARCH = "SELECT id, tier, distance FROM ruvector_search('items', %s, 3)"
CONFIG = """
[databases]
pooled = {target}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = any
pool_mode = transaction
default_pool_size = 2
ignore_startup_parameters = extra_float_digits
logfile = {folder}/log
pidfile = {folder}/pid
"""


@pytest.fixture(scope="module")
def pooled(shared_sidecar, shared_database):
    """The connection string of a pool of two server connections over a live collection."""
    program = shutil.which("pgbouncer") or pytest.skip("there is no pgbouncer")
    with shared_database.connect() as connection:
        TABLE.create(connection)
        TABLE.insert(connection, VECTORS)
        TABLE.attach(connection)
        shared_sidecar.wait_live("items")
    # It does not run as root: then it takes the server's user, who may not enter the folders of pytest.
    folder = Path(tempfile.mkdtemp(prefix="pool-"))
    folder.chmod(0o777)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    wanted = ("host", "port", "user", "password", "dbname")
    target = {name: value for name, value in conninfo_to_dict(shared_database.dsn).items() if name in wanted}
    config = folder / "pgbouncer.ini"
    config.write_text(
        CONFIG.format(
            target=" ".join(f"{name}='{value}'" for name, value in target.items()),
            port=port,
            folder=folder,
        )
    )
    user = _socket_owner(target.get("host", "")) if os.geteuid() == 0 else None
    process = subprocess.Popen([program, "-q", str(config)], user=user, stderr=subprocess.DEVNULL)
    dsn = f"host=127.0.0.1 port={port} dbname=pooled user={target.get('user', 'postgres')}"

    def answers():
        with psycopg.connect(dsn, connect_timeout=2) as connection:
            return connection.execute("SELECT 1").fetchone() == (1,)

    try:
        wait_until(lambda: _quietly(answers), "the pool answers", seconds=20)
        yield dsn
    finally:
        process.terminate()
        process.wait(20)
        shutil.rmtree(folder)


def _socket_owner(host):
    return os.stat(host).st_uid if host.startswith("/") else pwd.getpwnam("nobody").pw_uid


def _quietly(question):
    try:
        return question()
    except psycopg.OperationalError:
        return False


def test_searches_of_many_clients_share_two_connections(pooled):
    problems = []

    def client(number):
        with psycopg.connect(pooled, autocommit=True, prepare_threshold=None) as connection:
            for turn in range(20):
                row = (number * 20 + turn) % ROWS
                found = connection.execute(SEARCH, [text_of(VECTORS[row])]).fetchall()
                if len(found) != 3 or found[0][:2] != (str(row + 1), "hot"):
                    problems.append((number, turn, found))

    clients = [threading.Thread(target=client, args=(number,)) for number in range(8)]
    for each in clients:
        each.start()
    for each in clients:
        each.join(60)
    assert not problems


def test_transaction_sees_its_own_rows_and_nobody_elses(pooled):
    far = [100.0] * DIMS
    with psycopg.connect(pooled, prepare_threshold=None) as one, psycopg.connect(pooled, prepare_threshold=None) as two:
        one.execute("INSERT INTO items VALUES (5000, %s)", [str(far)])
        assert one.execute(SEARCH, [str(far)]).fetchone()[0] == "5000"
        assert two.execute(SEARCH, [str(far)]).fetchone()[0] != "5000"
        one.rollback()
        assert one.execute(SEARCH, [str(far)]).fetchone()[0] != "5000"


def test_setting_of_a_transaction_ends_with_it(pooled):
    with psycopg.connect(pooled, prepare_threshold=None) as connection:
        connection.execute("SET LOCAL ruvector.exactness = 'exact'")
        assert connection.execute(SEARCH, [text_of(VECTORS[0])]).fetchone()[1] == "exact"
        connection.commit()
        assert connection.execute(SEARCH, [text_of(VECTORS[0])]).fetchone()[1] == "hot"
