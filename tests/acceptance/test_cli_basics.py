"""What holds for every command: help, versions, errors in one message, exit codes."""

import subprocess
import sys

import pytest

COMMANDS = (
    "demo", "inspect", "install", "uninstall", "attach", "detach", "run", "status", "doctor", "search", "verify",
    "cutover", "config",
)  # fmt: skip
UNREACHABLE = "host=127.0.0.1 port=1 dbname=nothing"


def test_help_lists_every_command(cli):
    answer = cli.process("--help")
    assert answer.code == 0
    assert all(f"\n  {command} " in answer.out for command in COMMANDS)
    assert cli.process().out == answer.out


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(cli, command):
    answer = cli(command, "--help")
    assert answer.code == 0
    assert "Usage:" in answer.out


def test_help_loads_nothing_heavy():
    script = (
        "import sys, ruvector.cli.app; "
        "sys.exit(','.join({'numpy', 'psycopg', 'pydantic', 'rich', 'sqlalchemy', 'alembic'} & set(sys.modules)) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_process_ends_with_the_code_of_the_command(cli):
    answer = cli.process("status", "-d", UNREACHABLE)
    assert (answer.code, answer.out, answer.err.startswith("error: ")) == (4, "", True)
    assert cli.process("nonsense").code == 2


def test_version(cli):
    assert cli("--version").out.startswith("ruvector 0.")


@pytest.mark.parametrize(
    "words",
    [
        ["nonsense"],
        ["attach"],
        ["search", "name"],
        ["search", "name", "--vector", "[1]", "--id", "5"],
        ["verify", "name", "--full", "--sample", "5"],
        ["cutover", "name", "ramp"],
        ["cutover", "name", "ramp", "101"],
        ["cutover", "name", "rollback", "5"],
        ["cutover", "name", "sideways"],
        ["attach", "a.b.c", "--m", "1"],
        ["status", "--format", "yaml"],
    ],
)
def test_wrong_usage_ends_with_2(cli, words):
    answer = cli(*words)
    assert answer.code == 2
    assert answer.out == ""


@pytest.mark.parametrize(
    "words",
    [
        ["inspect"],
        ["install"],
        ["install", "--print-sql"],
        ["uninstall", "--yes"],
        ["attach", "public.items.embedding"],
        ["detach", "items", "--yes"],
        ["run"],
        ["run", "--once"],
        ["status"],
        ["doctor"],
        ["search", "items", "--vector", "[1]"],
        ["verify", "items"],
    ],
)
def test_unreachable_database_ends_with_4(cli, words):
    answer = cli(*words, "-d", UNREACHABLE)
    assert answer.code == 4, answer.err
    assert answer.out == ""
    assert answer.err.startswith("error: ")
    assert "hint: Check --dsn" in answer.err


def test_unreadable_connection_string_is_not_repeated(cli):
    answer = cli("status", "-d", "postgresql://me:secret@[")
    assert answer.code == 1
    assert "secret" not in answer.out + answer.err


@pytest.mark.parametrize("words", [["attach", "public.items.embedding"], ["status"], ["run"], ["verify", "items"]])
def test_missing_installation_says_what_to_run(cli, bare_database, words):
    answer = cli(*words, dsn=bare_database.dsn)
    assert answer.code == 1
    assert "hint: Run: ruvector install" in answer.err


@pytest.mark.parametrize(
    "words",
    [
        ["detach", "ghost", "--yes"],
        ["status", "ghost"],
        ["search", "ghost", "--id", "1"],
        ["verify", "ghost"],
        ["cutover", "ghost", "rollback"],
    ],
)
def test_unknown_collection(rv, words):
    answer = rv(*words)
    assert answer.code == 1
    assert 'error: collection "ghost" does not exist' in answer.err
    assert "hint: List them" in answer.err


def test_argument_that_is_not_utf8(rv):
    answer = rv("search", b"\xff".decode("utf-8", "surrogateescape"), "--vector", "[1]")
    assert (answer.code, answer.err) == (1, "error: an argument is not valid UTF-8\n")
