"""Values of a call: what every type accepts and refuses."""

import contextlib
import typing

import numpy as np
import pytest

from ruvector import limits
from ruvector.errors import DimensionMismatch, InvalidParameter, InvalidVector, UserError
from ruvector.surface import coercion, types
from ruvector.surface.types import SqlType


def read(hint, value):
    (sql_type,) = [item for item in typing.get_args(hint) if isinstance(item, SqlType)]
    return sql_type.read(value)


@pytest.mark.parametrize(
    ("hint", "value", "expected"),
    [
        (types.Text, "a", "a"),
        (types.Text, 5, "5"),
        (types.Int4, 5, 5),
        (types.Int4, " -5 ", -5),
        (types.Int4, 5.0, 5),
        (types.Int4, 2**31 - 1, 2**31 - 1),
        (types.Int8, -(2**63), -(2**63)),
        (types.Real, "0.5", 0.5),
        (types.Double, 1, 1.0),
        (types.Bool, True, True),
        (types.Bool, "off", False),
        (types.Bool, "T", True),
        (types.Jsonb, '{"a": [1, null]}', {"a": [1, None]}),
        (types.Jsonb, {"a": 1}, {"a": 1}),
        (types.TextArray, ["a", None, "b"], ["a", None, "b"]),
        (types.TextArray, '{a, "b,\\"c" ,NULL,"NULL"}', ["a", 'b,"c', None, "NULL"]),
        (types.TextArray, "{}", []),
        (types.TextArray, '{""}', [""]),
    ],
)
def test_value_is_read(hint, value, expected):
    assert read(hint, value) == expected


@pytest.mark.parametrize(
    ("hint", "value"),
    [
        (types.Text, 1.5),
        (types.Text, True),
        (types.Text, ["a"]),
        (types.Int4, 2**31),
        (types.Int4, 1.5),
        (types.Int4, float("inf")),
        (types.Int4, True),
        (types.Int4, "five"),
        (types.Int4, "9" * 5000),
        (types.Real, "much"),
        (types.Real, 10**400),
        (types.Real, False),
        (types.Bool, 1),
        (types.Bool, "maybe"),
        (types.Jsonb, "{"),
        (types.Jsonb, "[NaN]"),
        (types.Jsonb, "[" * 100_000),
        (types.Jsonb, b"{}"),
        (types.TextArray, "a,b"),
        (types.TextArray, "{a,}"),
        (types.TextArray, "{{a}}"),
        (types.TextArray, '{"a'),
        (types.TextArray, '{"a\\'),
        (types.TextArray, '{"a"b}'),
        (types.TextArray, '{a"b}'),
        (types.RealArray, "[1,true]"),
        (types.Vector, "[1,true]"),
        (types.Vector, '["1"]'),
        (types.Vector, "[[1],[2]]"),
        (types.Vector, "1,2"),
        (types.Vector, '{"a": 1}'),
        (types.Vector, 5),
        (types.Vector, [None]),
        (types.VectorArray, "[1,2]"),
        (types.Bits, 101),
    ],
)
def test_value_of_the_wrong_kind_is_refused(hint, value):
    with pytest.raises(InvalidParameter) as caught:
        read(hint, value)
    assert caught.value.sqlstate == "22023"
    assert len(caught.value.message) < 200


@pytest.mark.parametrize(
    "value", ["[1, 2.5]", [1, 2.5], (1, 2.5), np.array([1, 2.5]), np.array([1, 2.5], dtype=np.float16)]
)
def test_vector_is_read(value):
    vector = read(types.Vector, value)
    assert vector.dtype == np.float32
    assert vector.tolist() == [1, 2.5]


@pytest.mark.parametrize(
    "value", ["[]", [], [float("nan")], "[1e39]", [float("-inf")], np.zeros(limits.DIMS_MAX + 1, dtype=np.float32)]
)
def test_impossible_vector_is_refused(value):
    with pytest.raises(InvalidVector) as caught:
        read(types.Vector, value)
    assert caught.value.hint


@pytest.mark.parametrize("value", ["[[1,2],[3,4]]", '{"[1,2]","[3,4]"}', ["[1,2]", [3, 4]]])
def test_vectors_are_read(value):
    assert [vector.tolist() for vector in read(types.VectorArray, value)] == [[1, 2], [3, 4]]


def test_vectors_of_two_widths_are_refused():
    with pytest.raises(DimensionMismatch):
        read(types.VectorArray, "[[1,2],[3]]")


def test_too_many_vectors_are_refused():
    with pytest.raises(InvalidParameter, match="too many"):
        read(types.VectorArray, [[1.0]] * (limits.BATCH_QUERIES_MAX + 1))


def test_bits_are_packed_first_bit_highest():
    bits = read(types.Bits, "1000000001")
    assert bits.bits == 10
    assert bits.packed.tolist() == [0b10000000, 0b01000000]


@pytest.mark.parametrize("value", ["", "102", "1x", "\u0661", "1" * (limits.BITS_MAX + 1)])
def test_impossible_bits_are_refused(value):
    with pytest.raises(InvalidVector):
        read(types.Bits, value)


def test_reals_may_hold_what_json_cannot():
    numbers = read(types.RealArray, "{1,NaN,-Infinity}")
    assert numbers.dtype == np.float32
    assert str(numbers.tolist()) == "[1.0, nan, -inf]"


def test_array_literal_is_read_in_linear_time_steps():
    # Half a megabyte of the worst kind (escapes, blanks): a quadratic reader would run into the session's timeout.
    items = coercion.parse_array_literal("{" + ",".join(['"\\"\\\\"', "  a  "] * 60_000) + "}")
    assert items[:2] == ['"\\', "a"]
    assert len(items) == 120_000


def test_every_refusal_is_one_of_ours():
    hints = [value for value in vars(types).values() if getattr(value, "__metadata__", None)]
    values = [None, object(), b"\xff", "\x00", [[]], {"a": object()}, float("nan"), -1, "{", "[", "é", [None]]
    for hint in hints:
        for value in values:
            if any(isinstance(item, SqlType) for item in hint.__metadata__):
                with contextlib.suppress(UserError):  # whatever else is raised fails the test
                    read(hint, value)
