"""What the sidecar lets pass against what PostgreSQL says: never a row less, the same where it calls itself exact.

Random filters over random rows of every type; the values are drawn from few, so that comparisons meet equal ones.
"""

import json
import random
from dataclasses import replace

import numpy as np
import psycopg
import pytest

from ruvector.capture.collections import load_collections
from ruvector.capture.reader import TableReader
from ruvector.index.attributes import AttributeTable
from ruvector.index.protocol import NO_TAG, Plan
from ruvector.values import AttributeRows, AttributeValues

ROWS, FILTERS = 400, 500
# The types of filters, and values that are met often; every sixth row has NULL.
VALUES = {
    "boolean": [True, False],
    "smallint": [-32768, -1, 0, 7, 32767],
    "integer": [-2147483648, -3, 0, 1, 2, 2147483647],
    "bigint": [-9223372036854775808, -1, 0, 9007199254740993, 9223372036854775807],
    "real": [0.1, -0.0, 0.5, 1e-45, 3.4e38, "NaN", "Infinity", "-Infinity"],
    "double precision": [0.1, -0.0, 0, 0.30000000000000004, 0.3, 5e-324, "NaN", "Infinity", "-Infinity"],
    "numeric": [
        "0.1", "0.10000000000000000001", "1e30", "1000000000000000000000000000001", "-5", "1e400", "NaN", "-Infinity"
    ],
    "date": ["2024-02-29", "1999-12-31", "2000-01-01", "infinity", "-infinity", "0044-03-15 BC", "10000-01-01"],
    "timestamp without time zone": ["2024-07-01 12:34:56.789012", "1999-12-31 23:59:59", "infinity", "0001-01-01"],
    "timestamp with time zone": ["2024-07-01 14:00+02", "2024-07-01 12:00Z", "-infinity", "1900-01-01 00:00+00:00"],
    "uuid": ["00000000-0000-0000-0000-000000000000", "ff000000-0000-0000-0000-000000000000", "f" * 32, "0" * 30 + "01"],
    "text": ["", "a", "A", "ä", "aa", "b", "Ω", "it's", "x y", "NULL"],
    "text COLLATE \"C\"": ["", "a", "A", "ä", "aa", "b", "Ω", "\U0001f642", "\uffff", "x y"],
    "text COLLATE blind": ["a", "A", "ä", "b", "B", ""],
    "character varying": ["a", "a ", "b", ""],
    "character(3)": ["a", "a ", "ab", "", "b"],
    "name": ["a", "b", ""],
    "text[]": [[], ["a"], ["a", "b"], ["b", None], [None], ["A", "it's {,\"}"]],
    "integer[]": [[], [1], [1, 2], [2, None], [None], [-2147483648]],
    "bigint[]": [[9223372036854775807], [1], [1, 2, 3], [None, 1]],
}  # fmt: skip
BLIND = "provider = icu, locale = 'und-u-ks-level2', deterministic = false"
NAMES = {f"c{number}": kind for number, kind in enumerate(VALUES)}


@pytest.fixture(scope="module")
def table(shared_database):
    """A table with all types, its collection, and the attributes as the sidecar reads them."""
    choose = random.Random(71)
    with shared_database.connect() as connection:
        try:
            connection.execute(f"CREATE COLLATION blind ({BLIND})")
        except psycopg.errors.FeatureNotSupported:  # a server without ICU calls no different texts equal
            connection.execute('CREATE COLLATION blind FROM "C"')
        columns = ", ".join(f"{name} {kind}" for name, kind in NAMES.items())
        connection.execute(f"CREATE TABLE oracle (id bigint PRIMARY KEY, {columns}, embedding vector(2))")
        names = ", ".join(["id", *NAMES])
        for key in range(ROWS):
            row = [None if choose.random() < 1 / 6 else choose.choice(VALUES[kind]) for kind in NAMES.values()]
            places = ", ".join(["%s"] * (len(row) + 1))
            connection.execute(f"INSERT INTO oracle ({names}, embedding) VALUES ({places}, '[1,2]')", [key, *row])
        connection.execute(
            "SELECT ruvector_register_collection('oracle', 'public', 'oracle', 'embedding', NULL, 'l2', %s)",
            (psycopg.types.json.Jsonb({"columns": list(NAMES)}),),
        )
        (collection,) = load_collections(connection)
        reader = TableReader(shared_database.dsn, collection)
        try:
            with reader.at_snapshot():
                rows = reader.chunk_after(None)
        finally:
            reader.close()
        yield connection, collection, rows


def is_text(kind):
    return not kind.endswith("[]") and kind.startswith(("text", "char", "name"))


def fresh_table(collection, rows, *, are_ordered=True):
    """The rows in a table; unless ``are_ordered`` as if the collations ordered texts in some other way."""
    known = [replace(each, is_ordered=each.is_ordered and are_ordered) for each in collection.attributes]
    attributes = AttributeTable(known)
    tags = attributes.place(rows.keys, np.full(len(rows.keys), NO_TAG, dtype=np.uint32))
    attributes.write(tags, rows.attributes)
    attributes.mark_filled()
    return attributes, tags


def literal(choose, kind):
    """A value of a filter on a column of this type: for lists one element."""
    if choose.random() < 0.05:
        return None
    value = choose.choice(VALUES[kind])
    if kind.endswith("[]"):
        return choose.choice(value) if value else None
    return value


def condition(choose, kind):
    operators = ["$eq", "$ne"] if kind.endswith("[]") else ["$eq", "$ne", "$lt", "$lte", "$gt", "$gte"]
    what = choose.random()
    if what < 0.15:
        return literal(choose, kind)
    if what < 0.6:
        chosen = choose.sample(operators, choose.choice([1, 1, 2]))
        return {operator: literal(choose, kind) for operator in chosen}
    if what < 0.9:
        values = [literal(choose, kind) for _ in range(choose.choice([0, 1, 2, 4]))]
        return values if choose.random() < 0.3 else {choose.choice(["$in", "$nin"]): values}
    return {"$exists": choose.random() < 0.5}


def random_filter(choose, depth=0):
    what = choose.random()
    if depth < 3 and what < 0.25:
        return {"$not": random_filter(choose, depth + 1)}
    if depth < 3 and what < 0.5:
        parts = [random_filter(choose, depth + 1) for _ in range(choose.choice([1, 2, 3]))]
        return {choose.choice(["$and", "$or"]): parts}
    chosen = choose.sample(list(NAMES), choose.choice([1, 1, 1, 2, 3]))
    return {name: condition(choose, NAMES[name]) for name in chosen}


def in_the_database(connection, filter_):
    """Return the keys that PostgreSQL's own condition is true for, and the filter as the sidecar gets it."""
    where, canonical = connection.execute(
        "SELECT f.condition, f.canonical FROM ruvector.collection c, ruvector.filter_parts(c, %s) f",
        (json.dumps(filter_),),
    ).fetchone()
    found = connection.execute(f"SELECT id FROM oracle i WHERE {where}".replace("%", "%%"))
    return {row[0] for row in found}, canonical


@pytest.mark.parametrize("seed", range(4))
def test_no_row_is_lost_and_exact_means_equal(table, seed):
    connection, collection, rows = table
    attributes, tags = fresh_table(collection, rows, are_ordered=seed % 2 == 0)
    again = AttributeTable.from_sections(attributes.sections())
    choose = random.Random(seed)
    exact = 0
    for _ in range(FILTERS // 4):
        filter_ = random_filter(choose)
        expected, canonical = in_the_database(connection, filter_)
        passing = {int(key) for key in rows.keys[attributes.passing(canonical, tags)[0]]}
        assert expected <= passing, filter_
        sieve = attributes.sieve(canonical, Plan.AUTO)
        is_exact = sieve is None or sieve.is_exact
        assert (ROWS if sieve is None else sieve.count) == len(passing), filter_
        if is_exact:
            assert passing == expected, filter_
        exact += is_exact
        assert again.passing(canonical, tags)[0].tolist() == attributes.passing(canonical, tags)[0].tolist()
    assert exact > FILTERS // 4 // 3


@pytest.mark.parametrize("name", NAMES)
def test_each_type_alone(table, name):
    """Every value with every operator; what the sidecar cannot know for certain is named here."""
    connection, collection, rows = table
    attributes, tags = fresh_table(collection, rows)
    kind = NAMES[name]
    elements = VALUES[kind]
    if kind.endswith("[]"):
        elements = {element for each in elements for element in each if element is not None}
    operators = ["$eq", "$ne"] if kind.endswith("[]") else ["$eq", "$ne", "$lt", "$lte", "$gt", "$gte"]
    unsure = set()
    for value in elements:
        for operator in [*operators, "$in", "$nin"]:
            for wrapped in (False, True):
                filter_ = {name: {operator: [value] if operator in ("$in", "$nin") else value}}
                filter_ = {"$not": filter_} if wrapped else filter_
                expected, canonical = in_the_database(connection, filter_)
                passing = {int(key) for key in rows.keys[attributes.passing(canonical, tags)[0]]}
                is_exact = attributes.passing(canonical, tags)[1]
                assert passing == expected if is_exact else expected <= passing, filter_
                if not is_exact:
                    unsure.add(operator)
    attribute = next(each for each in collection.attributes if each.name == name)
    if kind == "numeric" or not attribute.is_bytewise:
        assert unsure
    elif kind != "date":  # there are years that Python does not know
        order = {"$lt", "$lte", "$gt", "$gte"}
        assert unsure == (order if is_text(kind) and not attribute.is_ordered else set())


def picked(rows, at):
    columns = {name: AttributeValues(each.values[at], each.present[at]) for name, each in rows.columns.items()}
    return AttributeRows(columns, rows.hashes[at])


def test_rows_that_are_written_again_are_asked_again(table):
    """The cache of filters follows writes, deletes, and columns that are filled late."""
    connection, collection, rows = table
    choose = random.Random(72)
    asked = [random_filter(choose) for _ in range(25)]
    expected = {}
    for filter_ in asked:
        expected[json.dumps(filter_)] = in_the_database(connection, filter_)
    # first with the values of other rows, in other places
    attributes = AttributeTable(collection.attributes)
    tags = attributes.place(rows.keys, np.full(ROWS, NO_TAG, dtype=np.uint32))
    order = np.random.default_rng(73).permutation(ROWS)
    attributes.write(tags, picked(rows.attributes, order))
    for _, canonical in expected.values():
        attributes.sieve(canonical, Plan.AUTO)
    for start in range(0, ROWS, 16):
        end = start + 16
        attributes.write(tags[start:end], picked(rows.attributes, np.arange(start, end)))
        keys, canonical = choose.choice(list(expected.values()))
        passing = rows.keys[:end][attributes.passing(canonical, tags[:end])[0]]
        assert keys & set(rows.keys[:end].tolist()) <= set(passing.tolist())
    attributes.release(tags[100:200])
    left = np.r_[0:100, 200:ROWS]
    for keys, canonical in expected.values():
        sieve = attributes.sieve(canonical, Plan.AUTO)
        is_exact = sieve is None or sieve.is_exact
        passing = set(rows.keys[left][attributes.passing(canonical, tags[left])[0]].tolist())
        kept = keys & set(rows.keys[left].tolist())
        assert passing == kept if is_exact else kept <= passing
        assert sieve is None or sieve.count == len(passing)
