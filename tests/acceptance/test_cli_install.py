"""install and uninstall from the command line."""

import pytest
from psycopg import sql


def has_schema(database):
    with database.connect() as connection:
        return connection.execute("SELECT to_regnamespace('ruvector') IS NOT NULL").fetchone()[0]


def test_install_twice_equals_once(cli, bare_database):
    for _ in range(2):
        document = cli.json("install", dsn=bare_database.dsn)
        assert any("900_functions.sql" in step for step in document["steps"])
    with bare_database.connect() as connection:
        assert connection.execute("SELECT ruvector_version()").fetchone()[0].startswith("0.")


def test_install_dry_run_changes_nothing(cli, bare_database):
    document = cli.json("install", "--dry-run", dsn=bare_database.dsn)
    assert document["dry_run"]
    assert document["steps"][0] == "would create schema ruvector"
    assert not has_schema(bare_database)


def test_print_sql_changes_nothing(cli, bare_database):
    answer = cli("install", "--print-sql", dsn=bare_database.dsn)
    assert answer.code == 0
    assert "ruvector_search" in answer.out
    assert not has_schema(bare_database)


def test_api_schema(cli, bare_database):
    with bare_database.connect() as connection:
        connection.execute('CREATE SCHEMA "Api x"')
    assert cli("install", "--api-schema", "Api x", dsn=bare_database.dsn).code == 0
    with bare_database.connect() as connection:
        assert connection.execute('SELECT "Api x".ruvector_version()').fetchone()
    assert cli.json("status", dsn=bare_database.dsn)["collections"] == []


def test_missing_api_schema(cli, bare_database):
    answer = cli("install", "--api-schema", "ghost", dsn=bare_database.dsn)
    assert (answer.code, 'schema "ghost" does not exist' in answer.err) == (1, True)


def test_missing_privilege_names_the_grant(cli, bare_database):
    role = f"{bare_database.name}_role"
    with bare_database.connect() as connection:
        connection.execute(sql.SQL("CREATE ROLE {} LOGIN PASSWORD 'x'").format(sql.Identifier(role)))
    try:
        answer = cli("install", "-d", f"{bare_database.dsn} options='-c role={role}'")
        assert answer.code == 1
        assert "may not create a schema" in answer.err
        assert "hint: As its owner: GRANT CREATE ON DATABASE" in answer.err
        assert not has_schema(bare_database)
    finally:
        with bare_database.connect() as connection:
            connection.execute(sql.SQL("DROP ROLE {}").format(sql.Identifier(role)))


def test_uninstall_without_a_terminal_needs_yes(rv, database):
    answer = rv("uninstall")
    assert answer.code == 2
    assert "--yes" in answer.err
    assert has_schema(database)


def test_uninstall_removes_ours_and_keeps_the_table(rv, database, items):
    rv.json("attach", items)
    assert rv.json("uninstall", "--dry-run")["detached"] == ["items_embedding"]
    assert has_schema(database)
    assert rv.json("uninstall", "--yes") == {
        "schema": 1, "command": "uninstall", "dry_run": False, "was_installed": True, "detached": ["items_embedding"],
    }  # fmt: skip
    assert not has_schema(database)
    with database.connect() as connection:
        assert connection.execute("SELECT count(*) FROM items").fetchone() == (300,)
        assert connection.execute("SELECT count(*) FROM pg_trigger WHERE NOT tgisinternal").fetchone() == (0,)
    assert not rv.json("uninstall")["was_installed"]


@pytest.mark.parametrize("words", [["status"], ["attach", "public.items.embedding"]])
def test_after_uninstall_commands_say_so(rv, words):
    rv("uninstall", "--yes")
    answer = rv(*words)
    assert (answer.code, "ruvector install" in answer.err) == (1, True)
