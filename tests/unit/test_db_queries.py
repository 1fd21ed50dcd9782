"""Named queries are found by name, and connection strings are completed."""

import pytest
from psycopg.conninfo import conninfo_to_dict

from ruvector import resources
from ruvector.db import conninfo, named_queries, query
from ruvector.db.queries import parse_queries
from ruvector.errors import InternalError, InvalidParameter


def test_queries_are_split_by_name():
    text = "-- A file.\n\n-- name: first\n-- Why it is there.\nSELECT 1;\n\n--name:second_2\nSELECT '-- name: x';\n"
    assert parse_queries(text, file="f.sql") == {
        "first": "-- Why it is there.\nSELECT 1;",
        "second_2": "SELECT '-- name: x';",
    }


@pytest.mark.parametrize(("text", "problem"), [
    ("SELECT 1;\n-- name: a\nSELECT 1", "line 1: SQL before"),
    ("-- name: a\nSELECT 1\n-- name: a\nSELECT 1", "line 3"),
    ("-- name: \nSELECT 1", "line 1"),
    ("-- name: A b\nSELECT 1", "line 1"),
    ("-- name: a\n-- nothing\n\n", '"a" is empty'),
])  # fmt: skip
def test_malformed_files_are_refused(text, problem):
    with pytest.raises(InternalError, match=problem):
        parse_queries(text, file="f.sql")


def test_every_shipped_file_can_be_read():
    for path in (resources.root("sql") / "queries").glob("*.sql"):
        if "-- name:" not in path.read_text():
            continue  # a script, run whole
        for name in named_queries(path.stem):
            assert query(path.stem, name)


@pytest.mark.parametrize("group", ["missing", "../010_schema", "", "a/b"])
def test_missing_file_is_our_mistake(group):
    with pytest.raises(InternalError, match="missing"):
        query(group, "anything")


def test_dsn_wins_over_the_environment(monkeypatch):
    monkeypatch.setenv("RUVECTOR_DSN", "dbname=from_environment")
    assert conninfo_to_dict(conninfo("dbname=given", application_name="a"))["dbname"] == "given"
    assert conninfo_to_dict(conninfo(None, application_name="a"))["dbname"] == "from_environment"
    monkeypatch.delenv("RUVECTOR_DSN")
    assert "dbname" not in conninfo_to_dict(conninfo(None, application_name="a"))


def test_dsn_of_sqlalchemy_is_understood():
    found = conninfo_to_dict(conninfo("postgresql+psycopg://me@somewhere:77/base", application_name="a"))
    assert (found["user"], found["host"], found["port"], found["dbname"]) == ("me", "somewhere", "77", "base")


def test_settings_of_the_user_win(monkeypatch):
    found = conninfo_to_dict(conninfo("connect_timeout=77", application_name="ruvector test"))
    assert found["connect_timeout"] == "77"
    assert found["application_name"] == "ruvector test"
    monkeypatch.setenv("PGCONNECT_TIMEOUT", "5")
    assert "connect_timeout" not in conninfo_to_dict(conninfo("", application_name="a"))


def test_unreadable_dsn_is_not_repeated():
    with pytest.raises(InvalidParameter) as caught:
        conninfo("password=secret oops", application_name="a")
    assert "secret" not in str(caught.value) + caught.value.detail + caught.value.hint
    assert caught.value.__cause__ is None
