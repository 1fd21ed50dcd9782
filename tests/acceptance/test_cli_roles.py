"""Nobody needs a superuser: an owner installs, another role runs the sidecar, a third one searches."""

import pytest
from psycopg import sql
from psycopg.conninfo import make_conninfo

ROLES = {"owner": "CREATEROLE", "sidecar": "", "application": ""}


@pytest.fixture
def roles(bare_database):
    """Three roles without rights of their own, name to connection string; the first owns the database."""
    database = bare_database
    names = {role: f"{database.name}_{role}" for role in ROLES}
    with database.connect() as connection:
        for role, rights in ROLES.items():
            statement = sql.SQL("CREATE ROLE {} LOGIN PASSWORD 'pw' " + rights)
            connection.execute(statement.format(sql.Identifier(names[role])))
        owner = sql.Identifier(names["owner"])
        connection.execute(sql.SQL("ALTER DATABASE {} OWNER TO {}").format(sql.Identifier(database.name), owner))
        connection.execute(sql.SQL("ALTER SCHEMA public OWNER TO {}").format(owner))
    yield {role: (name, make_conninfo(database.dsn, user=name, password="pw")) for role, name in names.items()}
    with database.connect() as connection:
        for name in map(sql.Identifier, names.values()):
            connection.execute(sql.SQL("REASSIGN OWNED BY {} TO CURRENT_USER").format(name))
            connection.execute(sql.SQL("DROP OWNED BY {}").format(name))
            connection.execute(sql.SQL("DROP ROLE {}").format(name))


def test_roles_without_superuser(cli, bare_database, roles):
    dsn = {role: conninfo for role, (_, conninfo) in roles.items()}
    assert cli("install", "-d", dsn["owner"]).code == 0
    with bare_database.connect(user=roles["owner"][0], password="pw") as connection:
        connection.execute("CREATE TABLE items (id int PRIMARY KEY, embedding vector(2))")
        connection.execute("INSERT INTO items VALUES (1, '[1,0]'), (2, '[0,1]')")
        connection.execute(sql.SQL("GRANT SELECT ON items TO {}").format(sql.Identifier(roles["application"][0])))
    with bare_database.connect() as connection:
        # The roles of the product are shared by the databases of a server: another test may have created them.
        for group, role in (("ruvector_sidecar", "sidecar"), ("ruvector_user", "application")):
            member = sql.Identifier(roles[role][0])
            connection.execute(sql.SQL("GRANT {} TO {}").format(sql.Identifier(group), member))
    assert cli("attach", "public.items.embedding", "-d", dsn["owner"]).code == 0
    done = cli.process("run", "--once", "-d", dsn["sidecar"], "--format", "json")
    assert done.code == 0, done.err
    assert done.document["collections"][0]["rows_indexed"] == 2
    search = cli("search", "items_embedding", "--id", "1", "-k", "1", "--format", "json", "-d", dsn["application"])
    assert [hit["id"] for hit in search.document["hits"]] == ["1"]
    assert cli("status", "-d", dsn["application"]).code == 0


@pytest.mark.parametrize("words", [["attach", "public.items.embedding"], ["verify", "items_embedding"], ["doctor"]])
def test_refused_roles_are_told_which_role_is_needed(cli, roles, bare_database, words):
    dsn = roles["owner"][1]
    assert cli("install", "-d", dsn).code == 0
    with bare_database.connect(user=roles["owner"][0], password="pw") as connection:
        connection.execute("CREATE TABLE items (id int PRIMARY KEY, embedding vector(2))")
    assert cli("attach", "public.items.embedding", "-d", dsn).code == 0
    with bare_database.connect() as connection:
        member = sql.Identifier(roles["application"][0])
        connection.execute(sql.SQL("GRANT ruvector_user TO {}").format(member))
    answer = cli(*words, "-d", roles["application"][1])
    assert answer.code == 1
    assert "permission denied" in answer.err
    assert "hint: Use the role that installed ruvector" in answer.err
