"""Calls: binding, defaults, rights, and the shape of answers."""

import json
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from ruvector.errors import FunctionNotFound, InternalError, InvalidParameter, PermissionDenied
from ruvector.surface import Context, sql_function
from ruvector.surface.registry import Registry
from ruvector.surface.types import EMPTY_OBJECT, Bool, Double, Int4, Jsonb, Real, RealArray, Rows, Text

CONTEXT: Any = object()
registry = Registry()


@dataclass(frozen=True, slots=True)
class Row:
    name: Text
    value: Double
    facts: Jsonb | None


@sql_function(system="test", volatility="stable", registry=registry)
def ruvector_echo(
    context: Context,
    name: Text,
    k: Int4 = 10,
    *,
    deep: Bool = False,
    filter_: Jsonb | None = None,
    options: Jsonb = EMPTY_OBJECT,
    _snapshot: Text | None = None,
) -> Jsonb:
    """Return what arrived."""
    assert context is CONTEXT
    return {"name": name, "k": k, "deep": deep, "filter": filter_, "options": options, "snapshot": _snapshot}


@sql_function(system="test", volatility="stable", registry=registry)
def ruvector_rows(count: Int4) -> Rows[Row]:
    """Return rows."""
    return [Row(f"row {number}", np.float64(number), {"n": number}) for number in range(count)]


@sql_function(system="test", volatility="stable", registry=registry)
def ruvector_nullable(a: Int4 | None, b: Int4) -> Bool:
    """Tell whether a is missing."""
    return a is None


@sql_function(system="test", volatility="stable", registry=registry)
def ruvector_share(word: Text) -> Real:
    """Return a number that may be no number."""
    return float(word)


@sql_function(system="test", volatility="stable", registry=registry)
def ruvector_vector() -> RealArray:
    """Return numbers."""
    return np.array([1, 2], dtype=np.float32)


@sql_function(system="test", volatility="stable", registry=registry)
def ruvector_broken() -> Jsonb:
    """Return what JSON cannot hold."""
    return {"a": {"b": float("nan")}}


@sql_function(system="test", volatility="volatile", access="admin", registry=registry)
def ruvector_danger() -> Bool:
    """Do what only the owner may."""
    return True


@pytest.mark.parametrize(
    ("args", "kwargs", "changed"),
    [
        (["a"], {}, {}),
        (["a", 3], {}, {"k": 3}),
        (["a", "3", "on"], {}, {"k": 3, "deep": True}),
        ([], {"name": "a", "k": 3}, {"k": 3}),
        (["a"], {"k": None, "deep": None, "options": None}, {}),
        (["a"], {"filter": '{"c": [1]}'}, {"filter": {"c": [1]}}),
        ([7], {}, {"name": "7"}),
    ],
)
def test_invoke_binds(args, kwargs, changed):
    columns, rows = registry.invoke("ruvector_echo", CONTEXT, args, kwargs)
    expected = {"name": "a", "k": 10, "deep": False, "filter": None, "options": {}, "snapshot": None} | changed
    assert [column.name for column in columns] == ["ruvector_echo"]
    assert rows == [(expected,)]


@pytest.mark.parametrize(
    ("name", "args", "kwargs", "error", "words"),
    [
        ("ruvector_none", [], {}, FunctionNotFound, "ruvector_none does not exist"),
        ("ruvector_echo", [], {}, FunctionNotFound, "needs argument name"),
        ("ruvector_echo", ["a", 1, True, None, None, 1], {}, FunctionNotFound, "at most 5 arguments, 6"),
        ("ruvector_echo", ["a"], {"size": 1}, FunctionNotFound, "no argument named size"),
        ("ruvector_echo", ["a"], {"snapshot": "x"}, FunctionNotFound, "no argument named snapshot"),
        ("ruvector_echo", ["a"], {"filter_": "x"}, FunctionNotFound, "no argument named filter_"),
        ("ruvector_echo", ["a"], {"name": "b"}, FunctionNotFound, "argument name twice"),
        ("ruvector_echo", [None], {}, InvalidParameter, "must not be null"),
        ("ruvector_echo", ["a", "x"], {}, InvalidParameter, "integer"),
        ("ruvector_danger", [], {}, PermissionDenied, "permission denied"),
    ],
)
def test_invoke_refuses(name, args, kwargs, error, words):
    with pytest.raises(error, match=words) as caught:
        registry.invoke(name, CONTEXT, args, kwargs)
    assert caught.value.hint


def test_refusal_shows_the_signature():
    with pytest.raises(FunctionNotFound) as caught:
        registry.invoke("ruvector_rows", CONTEXT, [], {})
    assert caught.value.hint == "Signature: ruvector_rows(count integer)"


def test_admin_may_call_everything():
    assert registry.invoke("ruvector_danger", CONTEXT, [], {}, access="admin")[1] == [(True,)]


def test_null_reaches_a_nullable_argument_without_default():
    assert registry.invoke("ruvector_nullable", CONTEXT, [None, 1], {})[1] == [(True,)]


def test_rows_are_python_values_in_column_order():
    columns, rows = registry.invoke("ruvector_rows", CONTEXT, [2], {})
    assert [(column.name, column.type.oid) for column in columns] == [("name", 25), ("value", 701), ("facts", 3802)]
    assert rows == [("row 0", 0.0, {"n": 0}), ("row 1", 1.0, {"n": 1})]
    assert {type(row[1]) for row in rows} == {float}


def test_json_answer_of_rows_is_one_object_each():
    documents = registry.invoke_json("ruvector_rows", CONTEXT, {"count": 1})
    assert [json.loads(document) for document in documents] == [{"name": "row 0", "value": 0.0, "facts": {"n": 0}}]


def test_json_answer_takes_private_arguments():
    (document,) = registry.invoke_json("ruvector_echo", CONTEXT, {"name": "a", "snapshot": "1:2:"})
    assert json.loads(document)["snapshot"] == "1:2:"


@pytest.mark.parametrize(
    ("word", "document"), [("nan", '"NaN"'), ("inf", '"Infinity"'), ("-inf", '"-Infinity"'), ("0.5", "0.5")]
)
def test_json_answer_writes_what_postgresql_reads(word, document):
    assert registry.invoke_json("ruvector_share", CONTEXT, {"word": word}) == [document]


def test_json_answer_of_an_array_is_a_list():
    assert registry.invoke_json("ruvector_vector", CONTEXT, {}) == ["[1.0, 2.0]"]


def test_json_answer_that_is_not_json_is_our_mistake():
    with pytest.raises(InternalError, match="ruvector_broken"):
        registry.invoke_json("ruvector_broken", CONTEXT, {})


def test_json_answer_keeps_rights():
    with pytest.raises(PermissionDenied):
        registry.invoke_json("ruvector_danger", CONTEXT, {})
