"""Connections work, and the database's errors arrive as ours with code, detail and hint."""

import pytest

from ruvector.db import connect, translated
from ruvector.errors import Cancelled, DatabaseError, DatabaseUnreachable


def test_connection_names_itself(bare_database):
    with connect(bare_database.dsn, application_name="ruvector test") as connection:
        assert connection.autocommit
        assert connection.execute("SHOW application_name").fetchone() == ("ruvector test",)


def test_connection_with_transactions(bare_database):
    with connect(bare_database.dsn, application_name="ruvector test", autocommit=False) as connection:
        connection.execute("CREATE TABLE gone ()")
        connection.rollback()
        assert connection.execute("SELECT to_regclass('gone')").fetchone() == (None,)


@pytest.mark.parametrize("dsn", ["host=/nonexistent", "host=127.0.0.1 port=1", "host=name.invalid"])
def test_nothing_there_is_unreachable(dsn):
    with pytest.raises(DatabaseUnreachable):
        connect(dsn, application_name="ruvector test")


def test_missing_database_is_unreachable(postgres):
    with pytest.raises(DatabaseUnreachable, match="no_such_database"):
        connect(postgres.dsn("no_such_database"), application_name="ruvector test")


def test_error_keeps_code_detail_and_hint(bare_database):
    statement = (
        "DO $$ BEGIN RAISE 'it failed' USING errcode = '22012', detail = 'the detail', hint = 'the hint'; END $$"
    )
    with (
        connect(bare_database.dsn, application_name="ruvector test") as connection,
        pytest.raises(DatabaseError, match="it failed") as caught,
        translated(),
    ):
        connection.execute(statement)
    assert (caught.value.sqlstate, caught.value.detail, caught.value.hint) == ("22012", "the detail", "the hint")


def test_timeout_is_cancelled(bare_database):
    with connect(bare_database.dsn, application_name="ruvector test") as connection:
        connection.execute("SET statement_timeout = 1")
        with pytest.raises(Cancelled), translated():
            connection.execute("SELECT pg_sleep(60)")


def test_terminated_session_is_unreachable(bare_database):
    with (
        connect(bare_database.dsn, application_name="ruvector test") as victim,
        connect(bare_database.dsn, application_name="ruvector test") as other,
    ):
        other.execute("SELECT pg_terminate_backend(%s, 10000)", (victim.info.backend_pid,))
        for _ in range(2):
            with pytest.raises(DatabaseUnreachable), translated():
                victim.execute("SELECT 1")


@pytest.mark.fault
def test_killed_server_is_unreachable(private_postgres):
    private_postgres.start()
    with connect(private_postgres.dsn(), application_name="ruvector test") as connection:
        private_postgres.kill()
        with pytest.raises(DatabaseUnreachable), translated():
            connection.execute("SELECT 1")
    with pytest.raises(DatabaseUnreachable):
        connect(private_postgres.dsn(), application_name="ruvector test")
