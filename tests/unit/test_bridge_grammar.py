import pytest

from ruvector.bridge.grammar import parse
from ruvector.bridge.statements import (
    ArrayOf,
    Builtin,
    Call,
    Cast,
    Constants,
    Literal,
    Parameter,
    SelectItem,
    SessionCommand,
    Verb,
    parameter_casts,
)
from ruvector.errors import LimitExceeded, SyntaxProblem, UnsupportedStatement

STAR = (SelectItem("*"),)


def one(text):
    (statement,) = parse(text)
    return statement


def value(text):
    return one(f"SELECT {text}").items[0][1]


@pytest.mark.parametrize("text", ["", " ", ";", ";;", "-- nothing", "/* a /* b */ c */", "\n\t"])
def test_empty_text_has_no_statement(text):
    assert parse(text) == []


def test_statement_of_the_specification_is_read():
    assert one("SELECT * FROM ruvector_search('c', '[1,2,3]', 5);") == Call(
        "ruvector_search", (Literal("c"), Literal("[1,2,3]"), Literal(5)), (), STAR
    )


@pytest.mark.parametrize(
    ("text", "call"),
    [
        ("select * from f()", Call("f", (), (), STAR)),
        ('SELECT * FROM "public"."f"()', Call("f", (), (), STAR)),
        ("SELECT f()", Call("f", (), (), None)),
        ("SELECT public.f($1) AS x", Call("f", (Parameter(1),), (), None, "x")),
        ("SELECT * FROM f() AS t", Call("f", (), (), STAR, "t")),
        ("SELECT t.* FROM f() t", Call("f", (), (), STAR, "t")),
        ("SELECT * FROM f() t(a, b)", Call("f", (), (), STAR, "t", ("a", "b"))),
        ("SELECT id, t.d AS e FROM f() t", Call("f", (), (), (SelectItem("id"), SelectItem("d", "e")), "t")),
        (
            "SELECT * FROM f(1, k => 2, F := 'x')",
            Call("f", (Literal(1),), (("k", Literal(2)), ("f", Literal("x"))), STAR),
        ),
        ("SELECT * FROM f() LIMIT 5", Call("f", (), (), STAR, limit=Literal(5))),
        ("SELECT * FROM f() LIMIT $2", Call("f", (), (), STAR, limit=Parameter(2))),
        ("SELECT * FROM f() LIMIT ALL", Call("f", (), (), STAR)),
        ("SELECT f() LIMIT 1;", Call("f", (), (), None, limit=Literal(1))),
        ("SELECT/**/*FROM--x\nf()", Call("f", (), (), STAR)),
    ],
)
def test_call_is_read(text, call):
    assert one(text) == call


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("'it''s'", Literal("it's")),
        ("''", Literal("")),
        (r"'back\slash'", Literal("back\\slash")),
        (r"E'a\\b\n\t\'\x41\101\u00fc\U0001F600\q'", Literal("a\\b\n\t'AAü😀q")),
        ("E'two '' quotes'", Literal("two ' quotes")),
        ("B'0101'", Literal("0101")),
        ("$$dollar 'quoted'$$", Literal("dollar 'quoted'")),
        ("$a$ $$ $a$", Literal(" $$ ")),
        ("5", Literal(5)),
        ("-5", Literal(-5)),
        ("- 5", Literal(-5)),
        ("+5", Literal(5)),
        ("1.5", Literal(1.5)),
        (".5", Literal(0.5)),
        ("5.", Literal(5.0)),
        ("1e3", Literal(1000.0)),
        ("-1.5E-3", Literal(-0.0015)),
        ("true", Literal(value=True)),
        ("FALSE", Literal(value=False)),
        ("null", Literal(None)),
        ("$12", Parameter(12)),
        ("(5)", Literal(5)),
        ("'5'::int", Cast(Literal("5"), "int")),
        ("'5'::pg_catalog.int4", Cast(Literal("5"), "int4")),
        ("'[1]'::public.vector(3)", Cast(Literal("[1]"), "vector")),
        ("'x'::character varying(5)", Cast(Literal("x"), "character varying")),
        ("1::double precision", Cast(Literal(1), "double precision")),
        ("'{1}'::real[]", Cast(Literal("{1}"), "real[]")),
        ("'{1}'::real[3][4]", Cast(Literal("{1}"), "real[]")),
        ("'1'::text::int", Cast(Cast(Literal("1"), "text"), "int")),
        ("CAST('1' AS int)", Cast(Literal("1"), "int")),
        ("vector '[1,2]'", Cast(Literal("[1,2]"), "vector")),
        ("ARRAY[1, 2.5, NULL]", ArrayOf((Literal(1), Literal(2.5), Literal(None)))),
        ("ARRAY[]::text[]", Cast(ArrayOf(()), "text[]")),
        ("ARRAY[[1],[2]]", ArrayOf((ArrayOf((Literal(1),)), ArrayOf((Literal(2),))))),
        ("ARRAY['[1]'::vector]", ArrayOf((Cast(Literal("[1]"), "vector"),))),
        ("current_user", Builtin("current_user")),
        ("version()", Builtin("version")),
        ("pg_catalog.version()", Builtin("version")),
    ],
)
def test_value_is_read(text, expected):
    assert value(text) == expected


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ("1", "?column?"),
        ("1 AS x", "x"),
        ("1 x", "x"),
        ('1 AS "Big One"', "Big One"),
        ("version()", "version"),
        ("1::int", "int"),
        ("true", "bool"),
        ("ARRAY[1]", "array"),
    ],
)
def test_column_gets_its_label(text, label):
    assert one(f"SELECT {text}").items[0][0] == label


@pytest.mark.parametrize(
    ("text", "command"),
    [
        ("BEGIN", SessionCommand(Verb.BEGIN)),
        ("begin work", SessionCommand(Verb.BEGIN)),
        ("BEGIN TRANSACTION ISOLATION LEVEL SERIALIZABLE, READ ONLY", SessionCommand(Verb.BEGIN)),
        ("START TRANSACTION ISOLATION LEVEL REPEATABLE READ", SessionCommand(Verb.START_TRANSACTION)),
        ("COMMIT", SessionCommand(Verb.COMMIT)),
        ("END", SessionCommand(Verb.COMMIT)),
        ("ROLLBACK", SessionCommand(Verb.ROLLBACK)),
        ("ABORT TRANSACTION", SessionCommand(Verb.ROLLBACK)),
        ("SAVEPOINT s", SessionCommand(Verb.SAVEPOINT, "s")),
        ('RELEASE SAVEPOINT "S"', SessionCommand(Verb.RELEASE, "S")),
        ("ROLLBACK TO SAVEPOINT s", SessionCommand(Verb.ROLLBACK_TO, "s")),
        ("SET a.b = 'c'", SessionCommand(Verb.SET, "a.b", "c")),
        ("SET LOCAL Search_Path TO a, b", SessionCommand(Verb.SET, "search_path", "a, b")),
        ("SET SESSION x = -5", SessionCommand(Verb.SET, "x", "-5")),
        ("SET x TO DEFAULT", SessionCommand(Verb.SET, "x", None)),
        ("SET TIME ZONE 'UTC'", SessionCommand(Verb.SET, "timezone", "UTC")),
        ("SET TRANSACTION READ ONLY", SessionCommand(Verb.SET)),
        ("SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY", SessionCommand(Verb.SET)),
        ("RESET ALL", SessionCommand(Verb.RESET)),
        ("RESET x", SessionCommand(Verb.RESET, "x")),
        ("SHOW server_version", SessionCommand(Verb.SHOW, "server_version")),
        ("SHOW TRANSACTION ISOLATION LEVEL", SessionCommand(Verb.SHOW, "transaction_isolation")),
        ("SHOW TIME ZONE", SessionCommand(Verb.SHOW, "timezone")),
        ("DISCARD ALL", SessionCommand(Verb.DISCARD, "all")),
        ("DEALLOCATE PREPARE s", SessionCommand(Verb.DEALLOCATE, "s")),
        ("DEALLOCATE ALL", SessionCommand(Verb.DEALLOCATE)),
        ('DEALLOCATE "all"', SessionCommand(Verb.DEALLOCATE, "all")),
    ],
)
def test_session_statement_is_read(text, command):
    assert one(text) == command


def test_statements_are_separated_by_semicolons():
    verbs = [statement.verb for statement in parse("ROLLBACK TO SAVEPOINT s2; RELEASE SAVEPOINT s2;")]
    assert verbs == [Verb.ROLLBACK_TO, Verb.RELEASE]
    assert one("SELECT 'a;b', 1") == Constants((("?column?", Literal("a;b")), ("?column?", Literal(1))))


@pytest.mark.parametrize(
    "text",
    [
        "INSERT INTO t VALUES (1)",
        "DELETE FROM t",
        "EXPLAIN SELECT 1",
        "PREPARE p AS SELECT 1",
        "SET ROLE x",
        "SELECT * FROM t",
        "SELECT * FROM f() WHERE id = 1",
        "SELECT * FROM f() ORDER BY distance",
        "SELECT * FROM f(), g()",
        "SELECT * FROM f() JOIN g() ON true",
        "SELECT * FROM f() LIMIT 1 OFFSET 2",
        "SELECT count(*) FROM f()",
        "SELECT DISTINCT id FROM f()",
        "SELECT id",
        "SELECT f(), g()",
        "SELECT f(), 1",
        "SELECT * FROM f(g())",
        "SELECT * FROM f(1 + 2)",
        "SELECT * FROM f(a)",
        "SELECT * FROM f((SELECT 1))",
        "SELECT 1 UNION SELECT 2",
        "SELECT 1 + 1",
        "SELECT x'ff'",
        "SHOW ALL",
        "* FROM f()",
    ],
)
def test_other_statements_are_refused_with_a_hint(text):
    with pytest.raises(UnsupportedStatement) as raised:
        parse(text)
    assert raised.value.sqlstate == "0A000"
    assert "ruvector_<function>" in raised.value.hint


@pytest.mark.parametrize(
    "text",
    [
        "SELECT",
        "SELECT 'open",
        'SELECT "open',
        'SELECT ""',
        "SELECT E'open\\'",
        "SELECT E'\\u12'",
        "SELECT E'\\xff'",
        "SELECT E'\\ud800'",
        "SELECT B'012'",
        "SELECT $$ open",
        "SELECT $x",
        "SELECT /* open",
        "SELECT 5x",
        "SELECT $0",
        "SELECT $99999999",
        "SELECT ARRAY[1",
        "SELECT ARRAY[1 2]",
        "SELECT CAST(1 AS",
        "SELECT 1::",
        "SELECT (1",
        "SELECT * FROM f(",
        "SELECT * FROM f(1",
        "SELECT * FROM f(k => 1, 2)",
        "SELECT * FROM f(k => 1, k => 2)",
        "SELECT * FROM f() AS",
        "SELECT " + "9" * 50,
        "BEGIN; SELECT 'open",
        "SAVEPOINT",
        "SET x",
        "5",
        "'text'",
    ],
)
def test_broken_statements_are_refused(text):
    with pytest.raises((SyntaxProblem, UnsupportedStatement)):
        parse(text)


@pytest.mark.parametrize(
    "text",
    [
        "SELECT " + "(" * 100 + "1" + ")" * 100,
        "SELECT 1" + "::int" * 100,
        "SELECT ARRAY" + "[" * 100 + "]" * 100,
        "SELECT * FROM f(" + ",".join("1" * 101) + ")",
        ";".join(["SELECT 1"] * 101),
        "SELECT " + ",".join(["1"] * 101),
    ],
)
def test_bounds_hold(text):
    with pytest.raises(LimitExceeded):
        parse(text)


def test_parameters_are_found_with_their_casts():
    call = one("SELECT * FROM f($2, $1::int, ARRAY[$3]::real[], k => $4) LIMIT $5")
    assert parameter_casts(call) == {1: "int", 2: None, 3: "real", 4: None, 5: "int8"}


def test_time_grows_with_the_length_only():
    # A quadratic tokenizer would need minutes for these; no time is asserted, the suite's limit is enough.
    assert len(value("'" + "''" * 500_000 + "'").value) == 500_000
    assert len(value("ARRAY[" + ",".join(["0.125"] * 50_000) + "]").items) == 50_000
    with pytest.raises(SyntaxProblem):
        parse("/*" * 300_000)
