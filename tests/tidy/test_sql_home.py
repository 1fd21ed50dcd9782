"""SQL lives in .sql files: queries are named, functions pin their search_path, every body has a declaration."""

import ast
import re

import pytest
from tidy import source_tree

from ruvector import systems
from ruvector.surface import registry

SQL_ROOT = source_tree.ROOT / "sql"
# render.py writes the DDL that follows from declarations; errors.py quotes statements in hints for people.
WRITERS = {"ruvector/surface/render.py", "ruvector/errors.py"}
STATEMENT = re.compile(
    r"""^\s*(
        select\s[^.]*\sfrom\s | insert\s+into\s | update\s+\S+\s+set\s | delete\s+from\s | truncate\s+(table\s)? \S+\s*$
      | (create|alter|drop)\s+(or\s+replace\s+)?(unlogged\s+|temp\s+|temporary\s+|unique\s+)?
        (table|index|function|schema|extension|trigger|role|view|type|database|server)\b
      | copy\s+(\(|\S+\s+(to|from)\s) | with\s+\S+\s+as\s*\( | (grant|revoke)\s.*\son\s | lock\s+table\s
    )""",
    re.VERBOSE | re.DOTALL,
)


def is_sql(text):
    # Only one case at a time: an English sentence begins "Create schema ...", a statement never does.
    head = text.lstrip()[:12]
    word = re.match(r"[A-Za-z]+", head)
    return bool(word and (word.group().isupper() or word.group().islower()) and STATEMENT.match(text.lower()))


def hint_nodes(tree):
    """Return strings shown to people: hint=, help= and the like may quote a statement."""
    nodes = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.keyword) and node.arg in ("hint", "help", "detail", "epilog"):
            nodes |= set(ast.walk(node.value))
        if isinstance(node, ast.Assign) and any(ast.unparse(target).endswith("hint") for target in node.targets):
            nodes |= set(ast.walk(node.value))
    return nodes


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("SELECT a FROM b", True),
        ("select 1", False),
        ("  insert into t values (1)", True),
        ("COPY (SELECT 1) TO STDOUT", True),
        ("Create schema ruvector first", False),
        ("create table t (a int)", True),
        ("update of a row", False),
        ("DROP FUNCTION {}", True),
        ("with care", False),
    ],
)
def test_statement_is_recognized(text, expected):
    assert is_sql(text) == expected


def test_no_sql_in_python():
    wrong = []
    for module in source_tree.modules():
        if module.label in WRITERS:
            continue
        skipped = source_tree.docstring_nodes(module.tree) | hint_nodes(module.tree)
        wrong += [
            f"{module.at(node)}: {node.value[:60]!r}"
            for node in ast.walk(module.tree)
            if isinstance(node, ast.Constant)
            and isinstance(node.value, str)
            and node not in skipped
            and is_sql(node.value)
        ]
    assert not wrong, "\n".join(wrong)


def test_queries_are_named_and_described():
    wrong = []
    for path in sorted((SQL_ROOT / "queries").glob("*.sql")):
        lines = path.read_text(encoding="utf-8").splitlines()
        names = [line.removeprefix("-- name:").strip() for line in lines if line.startswith("-- name:")]
        wrong += [f"{path.name}: {name} twice" for name in names if names.count(name) > 1]
        for number, line in enumerate(lines[:-1]):
            if line.startswith("-- name:") and not lines[number + 1].startswith("-- "):
                wrong.append(f"{path.name}:{number + 1}: no sentence says what the query gives")
    assert not wrong, "\n".join(wrong)


def test_functions_pin_their_search_path():
    wrong = []
    for path in sorted(SQL_ROOT.glob("*.sql")):
        text = path.read_text(encoding="utf-8")
        for found in re.finditer(r"^create (or replace )?function (\S+?)\(.*?\bas \$", text, re.DOTALL | re.MULTILINE):
            if "set search_path = pg_catalog, pg_temp" not in found.group():
                wrong.append(f"{path.name}: {found.group(2)}")
    assert not wrong, "\n".join(wrong)


def test_every_body_belongs_to_a_declared_function():
    systems.load()
    bodies = {path.stem for path in (SQL_ROOT / "bodies").glob("*.sql")}
    assert bodies == {function.name for function in registry.functions() if function.runs == "database"}


def test_placeholders_are_known():
    wrong = [
        f"{path.relative_to(SQL_ROOT)}: {name}"
        for path in sorted(SQL_ROOT.rglob("*.sql"))
        for name in re.findall(r"@\w+@", path.read_text(encoding="utf-8"))
        if name not in ("@api@", "@vector@", "@dblink@")
    ]
    assert not wrong, "\n".join(wrong)
