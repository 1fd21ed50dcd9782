"""Declaring a SQL function: what is read from it, and what is refused."""

from dataclasses import dataclass
from typing import Any

import pytest

from ruvector.errors import InternalError, UnsupportedStatement
from ruvector.surface import Context, database_only, sql_function
from ruvector.surface.registry import Registry
from ruvector.surface.types import EMPTY_OBJECT, Bool, Int4, Int8, Jsonb, Real, RealArray, Rows, Text, Vector


@dataclass(frozen=True, slots=True)
class Report:
    tier: Text
    vectors: Int8
    share: Real | None


def declare(function, *, registry=None, **options):
    registry = registry or Registry()
    sql_function(system="test", volatility="stable", registry=registry, **options)(function)
    return registry.get(function.__name__)


def ruvector_report(
    context: Context,
    collection: Text,
    query: Vector,
    *,
    k: Int4 = 10,
    ratio: Real = 0.5,
    filter_: Jsonb | None = None,
    options: Jsonb = EMPTY_OBJECT,
    deep: Bool = False,
    metric: Text = "l2",
    _snapshot: Text | None = None,
) -> Rows[Report]:
    """Report what a tier
    holds.

    Longer words.
    """
    return []


def test_declaration_reads_signature():
    function = declare(ruvector_report, rows=5)
    assert [(a.name, a.type.label, a.nullable, a.is_optional) for a in function.arguments] == [
        ("collection", "text", False, False),
        ("query", "vector", False, False),
        ("k", "integer", False, True),
        ("ratio", "real", False, True),
        ("filter", "jsonb", True, True),
        ("options", "jsonb", False, True),
        ("deep", "boolean", False, True),
        ("metric", "text", False, True),
    ]
    assert [a.name for a in function.private_arguments] == ["snapshot"]
    assert [(c.name, c.type.label) for c in function.columns] == [
        ("tier", "text"),
        ("vectors", "bigint"),
        ("share", "real"),
    ]
    assert function.returns_rows
    assert function.takes_context
    assert (function.summary, function.details) == ("Report what a tier holds.", "Longer words.")
    assert function.signature == (
        "ruvector_report(collection text, query vector, k integer = 10, ratio real = 0.5, filter jsonb = NULL, "
        "options jsonb = '{}', deep boolean = false, metric text = 'l2')"
    )


def test_scalar_result_is_one_column_with_the_function_name():
    def ruvector_norm(v: RealArray) -> Real:
        """Return a norm."""
        return 1.0

    function = declare(ruvector_norm)
    assert [(c.name, c.type.oid) for c in function.columns] == [("ruvector_norm", 700)]
    assert not function.returns_rows
    assert not function.takes_context


def no_prefix(a: Int4) -> Int4:
    """Do."""
    return a


def ruvector_undocumented(a: Int4) -> Int4:
    return a


def ruvector_untyped(a) -> Int4:
    """Do."""
    return a


def ruvector_python_type(a: int) -> Int4:
    """Do."""
    return a


def ruvector_no_result(a: Int4):
    """Do."""


def ruvector_python_result(a: Int4) -> int:
    """Do."""
    return a


def ruvector_rows_of_scalars(a: Int4) -> Rows[int]:
    """Do."""
    return []


def ruvector_two_types(a: Int4 | Text) -> Int4:
    """Do."""
    return 1


def ruvector_many(*a: Int4) -> Int4:
    """Do."""
    return 1


def ruvector_default_first(*, a: Int4 = 1, b: Int4) -> Int4:
    """Do."""
    return b


@pytest.mark.parametrize(
    ("function", "words"),
    [
        (no_prefix, "starts with ruvector_"),
        (ruvector_undocumented, "docstring"),
        (ruvector_untyped, "argument a has no type"),
        (ruvector_python_type, "no SQL type"),
        (ruvector_no_result, "the result has no type"),
        (ruvector_python_result, "no SQL type"),
        (ruvector_rows_of_scalars, "dataclass"),
        (ruvector_two_types, "no SQL type"),
        (ruvector_many, "plain argument"),
        (ruvector_default_first, "b needs a default"),
    ],
)
def test_declaration_refuses(function, words):
    with pytest.raises(InternalError, match=words):
        declare(function)


def test_declaration_refuses_a_second_use_of_a_name():
    registry = Registry()
    declare(ruvector_report, registry=registry)
    with pytest.raises(InternalError, match="declared twice"):
        declare(ruvector_report, registry=registry)


def test_declaration_refuses_rows_of_a_scalar():
    def ruvector_one() -> Int4:
        """Do."""
        return 1

    with pytest.raises(InternalError, match="rows="):
        declare(ruvector_one, rows=3)


def test_database_function_needs_its_body(tmp_path):
    def ruvector_inside(context: Context) -> Text:
        """Do."""
        database_only()

    with pytest.raises(InternalError, match=r"ruvector_inside\.sql is missing"):
        declare(ruvector_inside, runs="database", bodies=tmp_path)
    (tmp_path / "ruvector_inside.sql").write_text("begin return 'x'; end")
    registry = Registry()
    assert declare(ruvector_inside, runs="database", bodies=tmp_path, registry=registry).runs == "database"
    context: Any = object()
    with pytest.raises(UnsupportedStatement, match="database only"):
        registry.invoke("ruvector_inside", context, [], {})
