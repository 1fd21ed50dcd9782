"""Names of columns are read as SQL reads them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ruvector.client import ColumnName, parse_column, parse_names
from ruvector.errors import InvalidParameter

NAMES = st.text(
    st.characters(blacklist_characters="\0", blacklist_categories=("Cs",)), min_size=1, max_size=15
)  # at most 60 bytes


def quoted(name):
    return '"' + name.replace('"', '""') + '"'


@given(st.tuples(NAMES, NAMES, NAMES))
def test_quoted_names_come_back(parts):
    assert parse_column(".".join(map(quoted, parts))) == ColumnName(*parts)


@given(st.lists(NAMES, min_size=1, max_size=5))
def test_quoted_lists_come_back(names):
    assert parse_names(" , ".join(map(quoted, names))) == tuple(names)


@given(st.text(max_size=40))
def test_any_text_is_read_or_refused(text):
    try:
        found = parse_column(text)
    except InvalidParameter:
        return
    assert all(0 < len(part.encode()) <= 63 for part in (found.schema, found.table, found.column))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("public.Items.EMBEDDING", ("public", "items", "embedding")),
        ('"We""ird"."T.x"."emb"', ('We"ird', "T.x", "emb")),
        (" a . b . c ", ("a", "b", "c")),
        ("größe.tabelle.c$1", ("größe", "tabelle", "c$1")),
    ],
)
def test_column_names(text, expected):
    assert parse_column(text) == ColumnName(*expected)


@pytest.mark.parametrize(
    "text", ["", "a", "a.b", "a.b.c.d", "a..c", 'a."".c', 'a."b.c', "a.b.1c", "a.b.c;", "a.b-c.d", f"a.b.{'c' * 64}"]
)
def test_wrong_names_are_refused(text):
    with pytest.raises(InvalidParameter):
        parse_column(text)


def test_empty_list():
    assert parse_names("") == ()
