"""The SQL and the reference page that follow from declarations."""

from dataclasses import dataclass

import pytest

from ruvector.errors import InternalError
from ruvector.surface import Context, System, database_only, render, sql_function
from ruvector.surface.registry import Registry
from ruvector.surface.types import EMPTY_OBJECT, Bool, CollectionName, Int4, Jsonb, Real, Rows, Text, Vector


@dataclass(frozen=True, slots=True)
class Neighbor:
    id: Text
    distance: Real


registry = Registry()


@sql_function(system="test", volatility="stable", rows=7, registry=registry)
def ruvector_near(
    context: Context, collection: CollectionName, query: Vector, *, full: Bool = False, options: Jsonb = EMPTY_OBJECT
) -> Rows[Neighbor]:
    """Return a caller's neighbours.

    More words.
    """
    return []


@sql_function(system="test", volatility="volatile", access="admin", registry=registry)
def ruvector_count(context: Context) -> Int4:
    """Count."""
    return 1


def in_database(tmp_path, body):
    (tmp_path / "ruvector_inside.sql").write_text(body)
    inside = Registry()

    @sql_function(system="test", volatility="immutable", runs="database", cost=5, registry=inside, bodies=tmp_path)
    def ruvector_inside(word: Text = "it's") -> Text:
        """Say a word."""
        database_only()

    return render.render_function(inside.get("ruvector_inside"), bodies=tmp_path)


def test_sidecar_rows_are_unpacked(tmp_path):
    text = render.render_function(registry.get("ruvector_near"), bodies=tmp_path)
    assert text.endswith(
        """
create or replace function @api@.ruvector_near(
  collection text,
  query @vector@.vector,
  "full" boolean default false,
  options jsonb default '{}'
)
returns table (
  id text,
  distance real
)
language plpgsql stable parallel unsafe security invoker cost 10000 rows 7
set search_path = pg_catalog, pg_temp
as $api_body$
-- ruvector api function
#variable_conflict use_column
begin
  return query select a.id, a.distance
    from ruvector.call('ruvector_near', jsonb_build_object('collection', ruvector_near.collection, """
        """'query', ruvector_near.query, 'full', ruvector_near."full", 'options', ruvector_near.options)) """
        """as c(document),
    lateral jsonb_to_record(c.document) as a(id text, distance real);
end
$api_body$;
comment on function @api@.ruvector_near(text, @vector@.vector, boolean, jsonb) is
  'Return a caller''s neighbours.';
revoke all on function @api@.ruvector_near(text, @vector@.vector, boolean, jsonb) from public, ruvector_user;
grant execute on function @api@.ruvector_near(text, @vector@.vector, boolean, jsonb) to ruvector_user;"""
    )


def test_admin_function_is_granted_to_nobody(tmp_path):
    text = render.render_function(registry.get("ruvector_count"), bodies=tmp_path)
    assert "grant" not in text
    assert "ruvector.call_admin('ruvector_count', jsonb_build_object())" in text
    assert "revoke all on function @api@.ruvector_count() from public, ruvector_user;" in text


def test_database_body_is_copied_with_its_settings(tmp_path):
    text = in_database(tmp_path, "-- language: sql\n-- security: definer\n-- Why.\nselect $$a$$ || word\n")
    assert "language sql immutable parallel safe security definer strict cost 5\n" in text
    assert "as $api_body$\n-- ruvector api function\n-- Why.\nselect $$a$$ || word\n$api_body$;" in text
    assert "word text default 'it''s'" in text


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("-- language: c\nx", "not sql or plpgsql"),
        ("-- security: root\nx", "invoker or definer"),
        ("-- language: sql\n", "empty"),
        ("select $api_body$x$api_body$", "quote around bodies"),
        ("select @vecor@.f()", "unknown placeholder @vecor@"),
    ],
)
def test_database_body_is_checked(tmp_path, body, words):
    with pytest.raises(InternalError, match=words):
        in_database(tmp_path, body)


def test_argument_and_column_of_one_name_are_refused_where_postgresql_would(tmp_path):
    clash = Registry()

    @sql_function(system="test", volatility="stable", registry=clash)
    def ruvector_clash(id: Text) -> Rows[Neighbor]:  # noqa: A002 - the clash under test
        """Clash."""
        return []

    with pytest.raises(InternalError, match="one name: id"):
        render.render_function(clash.get("ruvector_clash"), bodies=tmp_path)


@pytest.mark.parametrize(
    ("value", "sql"),
    [(None, "null"), (True, "true"), (3, "3"), (0.5, "0.5"), ("o'k", "'o''k'"), (EMPTY_OBJECT, "'{}'")],
)
def test_default_is_written(value, sql):
    assert render.render_default(value) == sql


def test_default_without_a_sql_form_is_refused():
    with pytest.raises(InternalError):
        render.render_default([1])


def test_reference_lists_every_function():
    page = render.render_reference(registry.functions(), [System("test", "What it does."), System("empty", "Nothing.")])
    assert "## Test\n\nWhat it does.\n\n### ruvector_count\n" in page
    assert "-> TABLE(id text, distance real)" in page
    assert "More words.\n\n*stable · sidecar · user*" in page
    assert "Empty" not in page
