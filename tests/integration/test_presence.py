"""Every declared function exists in an installed database exactly as declared, and nothing else does."""

import json
from decimal import Decimal

import psycopg
import pytest
from psycopg import sql

from ruvector import systems
from ruvector.alembic.install import install
from ruvector.surface import registry, render

SYSTEMS = systems.load()
FUNCTIONS = {function.name: function for function in registry.functions()}
API = sorted(name for name, function in FUNCTIONS.items() if function.home == "api")
OWN = sorted(set(FUNCTIONS) - set(API))
VOLATILITY = {"i": "immutable", "s": "stable", "v": "volatile"}
PARALLEL = {"immutable": "s", "stable": "u", "volatile": "u"}

CATALOG = """
SELECT p.proname AS name, p.oid, coalesce(p.proargnames, '{}') AS names, p.pronargs AS inputs,
  ARRAY(SELECT format_type(t.oid, NULL) FROM unnest(coalesce(p.proallargtypes, p.proargtypes::oid[]))
        WITH ORDINALITY AS t (oid, place) ORDER BY place) AS types,
  p.prorettype::regtype::text AS result, p.proretset AS returns_rows, p.provolatile::text AS volatility,
  p.proparallel::text AS parallel, p.proisstrict AS is_strict, p.procost AS cost, p.prorows AS rows,
  p.prosecdef AS is_definer,
  l.lanname AS language, p.proconfig AS settings, obj_description(p.oid, 'pg_proc') AS comment, p.prosrc AS body,
  ARRAY(SELECT pg_get_function_arg_default(p.oid, place) FROM generate_series(1, p.pronargs) AS place) AS defaults,
  has_function_privilege('ruvector_user', p.oid, 'EXECUTE') AS is_for_users,
  EXISTS (SELECT FROM aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) a WHERE a.grantee = 0) AS is_public
FROM pg_proc p JOIN pg_language l ON l.oid = p.prolang
WHERE p.pronamespace = %s::regnamespace AND (p.proname LIKE 'ruvector\\_%%' OR p.proname = ANY (%s))
"""


def catalog(connection, schema="public", names=()):
    cursor = connection.cursor(row_factory=psycopg.rows.namedtuple_row)
    rows = cursor.execute(CATALOG, [sql.Identifier(schema).as_string(connection), list(names)]).fetchall()
    found = {row.name: row for row in rows}
    assert len(found) == len(rows), "a name is overloaded: untyped literals would be ambiguous"
    return found


@pytest.fixture(scope="module")
def installed(new_database):
    fresh = new_database("installed")
    with fresh.connect() as connection:
        yield connection, catalog(connection) | catalog(connection, "ruvector", OWN)
    fresh.server.drop_database(fresh.name)


def test_database_has_the_declared_functions_and_no_others(installed):
    assert sorted(installed[1]) == sorted(FUNCTIONS)


@pytest.mark.parametrize("name", sorted(FUNCTIONS))
def test_signature_in_the_database_equals_the_declaration(installed, name):
    function, present = FUNCTIONS[name], installed[1][name]
    columns = function.columns if function.returns_rows else ()
    assert present.names == [item.name for item in (*function.arguments, *columns)]
    assert present.types == [item.type.label for item in (*function.arguments, *columns)]
    assert present.inputs == len(function.arguments)
    assert present.returns_rows == function.returns_rows
    assert present.result == ("record" if len(function.columns) > 1 else function.columns[0].type.label)


@pytest.mark.parametrize("name", sorted(FUNCTIONS))
def test_defaults_in_the_database_equal_the_declaration(installed, name):
    connection, present = installed
    for argument, expression in zip(FUNCTIONS[name].arguments, present[name].defaults, strict=True):
        assert (expression is not None) == argument.is_optional, argument.name
        if expression is not None:
            (value,) = connection.execute(f"SELECT {expression}").fetchone()
            default = argument.default if argument.default is None or value != {} else dict(argument.default)
            assert (float(value) if isinstance(value, Decimal) else value) == default, argument.name


@pytest.mark.parametrize("name", sorted(FUNCTIONS))
def test_attributes_in_the_database_equal_the_declaration(installed, name):
    function, present = FUNCTIONS[name], installed[1][name]
    assert VOLATILITY[present.volatility] == function.volatility
    assert present.parallel == PARALLEL[function.volatility]
    assert present.cost == render.expected_cost(function)
    assert present.is_strict == function.is_strict
    assert function.rows is None or present.rows == function.rows
    assert present.settings == ["search_path=pg_catalog, pg_temp"]
    assert present.comment == function.summary
    assert "@" not in present.body.replace("@>", "").replace("<@", "")


@pytest.mark.parametrize("name", sorted(FUNCTIONS))
def test_rights_in_the_database_equal_the_declaration(installed, name):
    function, present = FUNCTIONS[name], installed[1][name]
    assert not present.is_public
    assert present.is_for_users == (function.access == "user")


def test_tables_of_the_manifests_exist(installed):
    for system in SYSTEMS:
        for table in __import__(f"ruvector.systems.{system.name}.state", fromlist=["TABLES"]).TABLES:
            assert installed[0].execute("SELECT to_regclass(%s)", [table]).fetchone()[0], table


def test_install_again_keeps_functions_and_what_depends_on_them(database):
    with database.connect() as connection:
        connection.execute("CREATE VIEW collections AS SELECT * FROM ruvector_list_collections()")
        before = catalog(connection)
        install(database.dsn)
        assert catalog(connection) == before


MARKED = f"LANGUAGE sql AS $$\n{render.MARKER}\n"  # how an older release's function begins


@pytest.mark.parametrize(
    "older",
    [
        f"(label text) RETURNS text {MARKED} SELECT $1 $$",
        f"(name text) RETURNS text {MARKED} SELECT $1 $$",
        f"(name text DEFAULT 'a') RETURNS jsonb {MARKED} SELECT to_jsonb($1) $$",
        f"(name text, more int) RETURNS jsonb {MARKED} SELECT '1'::jsonb $$",
        f"(name text, OUT a int, OUT b int) {MARKED} SELECT 1, 2 $$",
    ],
)
def test_install_replaces_an_older_form(database, older):
    with database.connect() as connection:
        before = catalog(connection)["ruvector_index_stats"]
        connection.execute("DROP FUNCTION ruvector_index_stats(text)")
        connection.execute(f"CREATE FUNCTION ruvector_index_stats{older}")
        install(database.dsn)
        assert catalog(connection)["ruvector_index_stats"]._replace(oid=0) == before._replace(oid=0)


def test_install_drops_what_the_release_no_longer_has(database):
    with database.connect() as connection:
        connection.execute(f"CREATE FUNCTION ruvector_gone(a int) RETURNS int {MARKED} SELECT 1 $$")
        install(database.dsn)
        assert sorted(catalog(connection)) == API


@pytest.mark.parametrize("arguments", ["", "a int"])
def test_install_refuses_to_touch_a_stranger_of_the_same_name(bare_database, arguments):
    with bare_database.connect() as connection:
        connection.execute(
            f"CREATE FUNCTION ruvector_version({arguments}) RETURNS text LANGUAGE sql AS $$ SELECT 'x' $$"
        )
        with pytest.raises(Exception, match="does not belong") as caught:
            install(bare_database.dsn)
        assert caught.value.sqlstate == "42723"
        assert "--api-schema" in caught.value.hint
        assert list(catalog(connection)) == ["ruvector_version"]


@pytest.mark.parametrize("schema", ["api", 'Odd "api" it\'s $$ schema'])
def test_install_into_a_schema_of_its_own_and_move(bare_database, schema):
    with bare_database.connect() as connection:
        connection.execute(sql.SQL("CREATE SCHEMA {}").format(sql.Identifier(schema)))
        install(bare_database.dsn, api_schema=schema)
        assert sorted(catalog(connection, schema)) == API
        assert not catalog(connection)
        install(bare_database.dsn)
        assert not catalog(connection, schema)
        assert sorted(catalog(connection)) == API


def test_pgvector_in_a_schema_of_its_own(new_database):
    fresh = new_database("empty")
    schema = sql.Identifier('Ext "x"')
    with fresh.connect() as connection:
        connection.execute(sql.SQL("CREATE SCHEMA {0}; CREATE EXTENSION vector SCHEMA {0}").format(schema))
        install(fresh.dsn)
        (result,) = connection.execute(
            "SELECT proargtypes[1]::regtype::text FROM pg_proc WHERE proname = 'ruvector_search'"
        ).fetchone()
        assert result == f"{schema.as_string(connection)}.vector"
    fresh.server.drop_database(fresh.name)


def test_sidecar_function_sends_named_arguments_and_unpacks_the_answer(database):
    # The remote call is replaced by one that answers with what it was asked: the wrapper alone is under test.
    with database.connect() as connection:
        connection.execute(
            "CREATE OR REPLACE FUNCTION ruvector.call_admin(function_name text, arguments jsonb) RETURNS SETOF jsonb "
            "LANGUAGE sql AS $$ SELECT jsonb_build_object('called', function_name, 'with', arguments) $$"
        )
        (answer,) = connection.execute("SELECT ruvector_verify('items', \"full\" => true)").fetchone()
    assert answer == {
        "called": "ruvector_verify",
        "with": {"collection": "items", "sample": 1000, "full": True, "repair": False},
    }


@pytest.mark.parametrize("document", ["avx2", "", "O'Neil \\ ü"])
def test_sidecar_function_unpacks_a_scalar(database, document):
    with database.connect() as connection:
        connection.execute(
            sql.SQL(
                "CREATE OR REPLACE FUNCTION ruvector.call(function_name text, arguments jsonb) RETURNS SETOF jsonb "
                "LANGUAGE sql AS {}"
            ).format(sql.Literal(sql.SQL("SELECT {}::jsonb").format(json.dumps(document)).as_string(connection)))
        )
        assert connection.execute("SELECT ruvector_simd_info()").fetchone() == (document,)
