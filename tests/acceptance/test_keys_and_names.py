"""Keys of every type, and identifiers of every kind: nothing a table is called or keyed by may break its mirror."""

from dataclasses import dataclass

import pytest
from psycopg import sql
from table_kit import VectorTable, gaussian, refused, text_of

from ruvector import limits

DIMS = 4


@dataclass(frozen=True)
class KeyCase:
    """A table keyed by `columns`; `keys` and `moved` are SQL row values for its key columns."""

    name: str
    definition: str
    key_columns: str
    keys: tuple[str, ...]
    moved: str
    key_sql: str

    @property
    def table(self):
        return VectorTable(f"key_{self.name}", columns=self.definition, dims=DIMS, key_sql=self.key_sql)


INSTANT = "to_char(t.at AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS')"
KEYS = [
    KeyCase("int2", "id int2 PRIMARY KEY", "id", ("-32768", "0", "32767"), "5", "t.id::text"),
    KeyCase("int4", "id int4 PRIMARY KEY", "id", ("-2147483648", "0", "2147483647"), "5", "t.id::text"),
    KeyCase("int8", "id int8 PRIMARY KEY", "id", ("-9223372036854775808", "-1", "9223372036854775807"), "5",
            "t.id::text"),
    KeyCase("uuid", "id uuid PRIMARY KEY", "id",
            ("'00000000-0000-0000-0000-000000000000'", "'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11'",
             "'FFFFFFFF-ffff-ffff-ffff-ffffffffffff'"), "'11111111-1111-1111-1111-111111111111'", "t.id::text"),
    KeyCase("text", "id text PRIMARY KEY", "id",
            ("'it''s'", "'say \"x\", {a}\\b'", "''", "'ключ 鍵 🗝'", "E'line\\nbreak\\ttab'", "'NULL'", "'  padded '",
             "'$$; drop table x; --'", "'%s %(x)s'"), "'moved ''\"\\'", "t.id"),
    KeyCase("varchar", "id varchar(20) PRIMARY KEY", "id", ("'twenty characters ok'", "'b'"), "'c'", "t.id::text"),
    KeyCase("bpchar", "id char(5) PRIMARY KEY", "id", ("'abcde'", "'b'", "'ab'"), "'cd'", "t.id::text"),
    KeyCase("bool", "id bool PRIMARY KEY", "id", ("true",), "false", "t.id::text"),
    KeyCase("numeric", "id numeric PRIMARY KEY", "id", ("1.50", "-0.000001", "123456789012345678901234567890", "'NaN'"),
            "2", "t.id::text"),
    KeyCase("date", "id date PRIMARY KEY", "id", ("'2024-02-29'", "'0044-03-15 BC'", "'infinity'"), "'1999-12-31'",
            "t.id::text"),
    KeyCase("timestamptz", "at timestamptz PRIMARY KEY", "at", ("'2024-02-29 12:00+02'", "'1999-12-31 23:59:59Z'"),
            "'2000-01-01Z'", f"{INSTANT} || '+00'"),
    KeyCase("int_text", "a int, b text, PRIMARY KEY (a, b)", "a, b", ("1, 'x'", "1, 'it''s \"q\", ü'", "2, ''"),
            "3, 'x'", "json_build_array(t.a, t.b)::text"),
    KeyCase("text_timestamptz", "a text, at timestamptz, b numeric(9,2), PRIMARY KEY (b, at, a)", "a, at, b",
            ("'x', '2024-02-29 12:00+02', 1.5", "'x', '2024-02-29 12:00:00.25+02', 1.5", "']', '1999-01-01Z', 0"),
            "'y', '2024-01-01Z', -7", "json_build_array(t.b, t.at, t.a)::text"),
    KeyCase("int_uuid_bool", "a int8, b uuid, c bool, PRIMARY KEY (a, b, c)", "a, b, c",
            ("1, 'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11', true", "1, 'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11', false"),
            "2, 'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11', false", "json_build_array(t.a, t.b, t.c)::text"),
    KeyCase("unique_index", "id int UNIQUE, code text NOT NULL UNIQUE", "code", ("'a'", "'b'"), "'c'", "t.code"),
    KeyCase("identity_and_include", "id int, note text, PRIMARY KEY (id) INCLUDE (note)", "id", ("1", "2"), "3",
            "t.id::text"),
]  # fmt: skip


def insert(connection, case, key, vector):
    connection.execute(
        sql.SQL("INSERT INTO {} ({}, embedding) VALUES ({}, {})").format(
            case.table.identifier, sql.SQL(case.key_columns), sql.SQL(key), sql.Literal(text_of(vector))
        )
    )


def matches(case, key):
    return sql.SQL("({}) = ({})").format(sql.SQL(case.key_columns), sql.SQL(key))


@pytest.fixture(scope="module")
def small_chunks():
    """One row for each chunk of the first copy, so that it goes on after every kind of key."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(limits, "COPY_CHUNK_ROWS", 1)
        yield


@pytest.fixture(scope="module")
def keyed(small_chunks, shared_sidecar, shared_database):
    """Every table of KEYS: all but one row before the attach, the last through the triggers."""
    with shared_database.connect() as connection:
        connection.execute("SET timezone = 'UTC'")
        for case in KEYS:
            case.table.create(connection)
            vectors = gaussian(len(case.keys), DIMS, seed=3)
            for key, vector in list(zip(case.keys, vectors, strict=True))[:-1]:
                insert(connection, case, key, vector)
            case.table.attach(connection)
            insert(connection, case, case.keys[-1], vectors[-1])
        shared_sidecar.wait_live(*(case.table.name for case in KEYS))
        yield connection


@pytest.mark.parametrize("case", KEYS, ids=lambda case: case.name)
def test_key_follows_its_row(keyed, shared_sidecar, case):
    """Copy, INSERT, UPDATE of the vector, UPDATE of the key, DELETE: from the overlay, and again from the index."""
    table, query = case.table, gaussian(1, DIMS, seed=4)[0]
    steps = [
        None,
        sql.SQL("UPDATE {} SET embedding = '[9,9,9,9]' WHERE {}").format(table.identifier, matches(case, case.keys[0])),
        sql.SQL("UPDATE {} SET ({}) = ROW({}) WHERE {}").format(
            table.identifier, sql.SQL(case.key_columns), sql.SQL(case.moved), matches(case, case.keys[0])
        ),
        sql.SQL("DELETE FROM {} WHERE {}").format(table.identifier, matches(case, case.moved)),
    ]
    for step in steps:
        if step is not None:
            assert keyed.execute(step).rowcount == 1
        table.check(keyed, query)
        shared_sidecar.wait_applied(table.name)
        table.check(keyed, query)
        assert table.explain(keyed, query)["overlay_rows"] == 0
    report = keyed.execute('SELECT ruvector_verify(%s, "full" => true)', (table.name,)).fetchone()[0]
    assert (report["differences"], report["checked"]) == (0, len(case.keys) - 1)


@pytest.mark.parametrize("zone", ["UTC", "Asia/Kolkata", "America/St_Johns"])
@pytest.mark.parametrize("style", ["ISO, DMY", "SQL, MDY", "German", "Postgres"])
def test_time_keys_do_not_depend_on_session_settings(keyed, zone, style):
    case = next(case for case in KEYS if case.name == "timestamptz")
    expected = case.table.distances(keyed, gaussian(1, DIMS, seed=4)[0])
    with keyed.transaction():
        keyed.execute("SELECT set_config('timezone', %s, true), set_config('datestyle', %s, true)", (zone, style))
        found = case.table.search(keyed, gaussian(1, DIMS, seed=4)[0])
    assert {row[0] for row in found} == set(expected)
    assert {row[3] for row in found} == {"hot"}


# Each name serves as table, schema, column, key column, filter column and collection at once.
NAMES = {
    "upper_case": "MixedCase",
    "spaces": " two  spaces ",
    "quotes": 'a"";drop table "x',
    "apostrophes": "it's''",
    "statement": '"; DROP TABLE ruvector.collection; --',
    "dots": "a.b.c",
    "dollars": "x$$y$body$z$capture$ $template$ $create$",
    "percent": "100%s %(key)s %I %1$s %",
    "placeholders": "{id}{column}{table}{name_literal}{}{0}",
    "install_placeholders": "@api@ @vector@ @dblink@",
    "newlines": "line\nbreak\r\ttab -- comment",
    "comment": "/* not a comment",
    "backslash": "back\\slash\\n\\'",
    "unicode": "таблица_向量_🧭",
    "longest": "n" * 63,
    "longest_unicode": "ü" * 31 + "x",
    "keyword": "select",
    "alias": "i",
    "variable_query": "query",
    "variable_dims": "dims",
    "variable_pool": "pool",
    "variable_k": "k",
    "variable_ids": "ids",
    "record": "c",
    "pseudo_rows": "new",
    "key_like": "key_1",
    "control": "a\x01b\x7f",
    "glob": "a*?[b]",
    "ours": "ruvector",
    "pg_catalog_function": "vector_dims",
}  # fmt: skip


def named_table(name):
    """Return a table whose parts all carry the name; its key and filter column get a letter before it, when it fits."""
    fits = len(name.encode()) < 63
    key, category = (f"k{name}", f"c{name}") if fits else ("key", "category")
    identifier = sql.Identifier(key).as_string()
    table = VectorTable(
        name,
        columns=f"{identifier} text PRIMARY KEY, {sql.Identifier(category).as_string()} text",
        dims=DIMS,
        schema=name,
        table=name,
        column=name,
        key_sql=f"t.{identifier}",
        options={"columns": [category]},
    )
    return table, category


@pytest.fixture(scope="module")
def named(small_chunks, shared_sidecar, shared_database):
    with shared_database.connect() as connection:
        tables = {}
        for title, name in NAMES.items():
            table, category = named_table(name)
            if name != "ruvector":
                connection.execute(sql.SQL("CREATE SCHEMA {}").format(sql.Identifier(name)))
            table.create(connection)
            for number, vector in enumerate(gaussian(6, DIMS, seed=5)):
                if number == 3:
                    table.attach(connection)
                row = (f"{name} {number}", f"{name}{number % 2}", text_of(vector))
                connection.execute(
                    sql.SQL("INSERT INTO {} VALUES ({})").format(
                        table.identifier, sql.SQL(", ").join(map(sql.Literal, row))
                    )
                )
            tables[title] = (table, category)
        shared_sidecar.wait_live(*NAMES.values())
        yield connection, tables


@pytest.mark.parametrize("title", NAMES)
def test_hostile_name_works_as_every_kind_of_name(named, shared_sidecar, title):
    connection, tables = named
    table, category = tables[title]
    query = gaussian(1, DIMS, seed=6)[0]
    table.check(connection, query)
    value = table.name + "1"
    condition = sql.SQL("t.{} = {}").format(sql.Identifier(category), sql.Literal(value))
    assert len(table.check(connection, query, filter_={category: value}, where=condition)) == 3
    explained = table.explain(connection, query, filter_={category: [value]})
    assert (explained["engine"], explained["selectivity"]) == ("ruvector", 0.5)
    shared_sidecar.wait_applied(table.name)
    assert connection.execute('SELECT ruvector_verify(%s, "full" => true)', (table.name,)).fetchone()[0]["checked"] == 6
    listed = connection.execute(
        "SELECT table_ref FROM ruvector_list_collections() WHERE name = %s", (table.name,)
    ).fetchone()[0]
    assert listed == connection.execute("SELECT format('%%I.%%I.%%I', %s::text, %s::text, %s::text)",
                                        (table.name,) * 3).fetchone()[0]  # fmt: skip
    status = connection.execute("SELECT state FROM ruvector_consistency_status(%s)", (table.name,)).fetchone()
    assert status == ("live",)


def test_hostile_names_can_be_detached(named, shared_sidecar):
    """Runs last of this file: every trace of every name goes, and the tables still take writes."""
    connection, tables = named
    for table, _ in tables.values():
        assert connection.execute("SELECT ruvector_unregister_collection(%s)", (table.name,)).fetchone() == (True,)
        connection.execute(sql.SQL("DELETE FROM {}").format(table.identifier))
    left = connection.execute(
        "SELECT count(*) FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid WHERE c.relname = ANY (%s)"
        " AND NOT t.tgisinternal", (list(NAMES.values()),)
    ).fetchone()  # fmt: skip
    assert left == (0,)


def test_sixty_four_bytes_are_refused(keyed):
    problem = refused(keyed, "SELECT ruvector_register_collection(%s, 'public', 'key_int4', 'embedding')", ("ü" * 32,))
    assert (problem.code, problem.message) == ("22023", "a collection name must have 1 to 63 bytes, not 64")
    assert problem.hint == "Choose a shorter name."
