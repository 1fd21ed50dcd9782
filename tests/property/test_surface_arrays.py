"""Array literals: what PostgreSQL writes is read back, and no text breaks the reader."""

import contextlib

from hypothesis import given
from hypothesis import strategies as st

from ruvector.errors import UserError
from ruvector.surface import coercion


def written(item):
    """Write one item as PostgreSQL's array_out does when it quotes."""
    if item is None:
        return "NULL"
    return '"' + item.replace("\\", "\\\\").replace('"', '\\"') + '"'


@given(st.lists(st.none() | st.text(max_size=20), max_size=20))
def test_literal_is_read_back(items):
    assert coercion.parse_array_literal("{" + ",".join(map(written, items)) + "}") == items


@given(st.text(alphabet='{}",\\ aN\n', max_size=60))
def test_any_text_is_read_or_refused(text):
    with contextlib.suppress(UserError):
        coercion.parse_array_literal(text)


@given(st.text(max_size=60) | st.lists(st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=5)))
def test_any_value_is_a_vector_or_refused(value):
    for read in (coercion.read_vector, coercion.read_vectors, coercion.read_bits, coercion.read_jsonb):
        with contextlib.suppress(UserError):
            read(value)
