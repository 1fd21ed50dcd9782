"""Attributes of every type as a real server sends them, read as the index takes them."""

import datetime
import struct
import uuid

import numpy as np
import psycopg
import pytest

from ruvector.capture.attributes import read_attributes
from ruvector.capture.collections import load_collections
from ruvector.capture.reader import TableReader
from ruvector.errors import ProtocolViolation
from ruvector.values import Attribute

INT64 = np.iinfo(np.int64)
EPOCH = datetime.datetime(2000, 1, 1, tzinfo=datetime.UTC)
INF, NAN = float("inf"), float("nan")


def register(connection, name, *columns):
    connection.execute(
        "SELECT ruvector_register_collection(%s, 'public', %s, 'embedding', NULL, 'l2', %s)",
        (name, name, psycopg.types.json.Jsonb({"columns": list(columns)})),
    )


def days(year, month, day):
    return datetime.date(year, month, day).toordinal() - datetime.date(2000, 1, 1).toordinal()


def microseconds(*parts):
    return (datetime.datetime(*parts, tzinfo=datetime.UTC) - EPOCH) // datetime.timedelta(microseconds=1)


# type, the kind of array, and for each literal what is read; None is NULL
TYPES = {
    "boolean": (np.bool_, {"true": True, "false": False, None: None}),
    "smallint": (np.int64, {"-32768": -32768, "32767": 32767, "0": 0, None: None}),
    "integer": (np.int64, {"-2147483648": -(2**31), "2147483647": 2**31 - 1, None: None}),
    "bigint": (np.int64, {"-9223372036854775808": INT64.min, "9223372036854775807": INT64.max, None: None}),
    "real": (np.float64, {"0.1": float(np.float32(0.1)), "-0": -0.0, "NaN": NAN, "-Infinity": -INF,
                          "1e-45": float(np.float32(1e-45)), None: None}),
    "double precision": (np.float64, {"0.1": 0.1, "NaN": NAN, "Infinity": INF, "5e-324": 5e-324,
                                      "-1.7976931348623157e308": -1.7976931348623157e308, None: None}),
    "numeric": (np.float64, {"0.1": 0.1, "12345678901234567890.5": 12345678901234567890.5, "NaN": NAN, "Infinity": INF,
                             "-Infinity": -INF, "1e400": INF, "-1e400": -INF, "1e-400": 0.0, "1.10": 1.1, None: None}),
    "date": (np.int64, {"2000-01-01": 0, "1999-12-31": -1, "2024-02-29": days(2024, 2, 29), "infinity": INT64.max,
                        "-infinity": INT64.min, "4713-01-01 BC": -2451507, None: None}),
    "timestamp without time zone": (np.int64, {"2000-01-01": 0, "1999-12-31 23:59:59.999999": -1, "infinity": INT64.max,
                                               "-infinity": INT64.min, "2024-07-01 12:34:56.789012":
                                               microseconds(2024, 7, 1, 12, 34, 56, 789012), None: None}),
    "timestamp with time zone": (np.int64, {"2000-01-01 00:00+00": 0,
                                            "2024-07-01 14:00+02": microseconds(2024, 7, 1, 12),
                                            "infinity": INT64.max, "-infinity": INT64.min, None: None}),
    "uuid": ("S16", {"00000000-0000-0000-0000-000000000000": bytes(16), "0195f2c0-7c1e-7000-8000-000000000000":
                     uuid.UUID("0195f2c0-7c1e-7000-8000-000000000000").bytes, "ff" * 16: b"\xff" * 16, None: None}),
    "text": (object, {"": "", "größe ✓ 🙂": "größe ✓ 🙂", "a'\"\\": "a'\"\\", "x" * 5000: "x" * 5000, None: None}),
    "character varying": (object, {"ab ": "ab ", "": "", None: None}),
    "name": (object, {"täg": "täg", "": "", None: None}),
    "bpchar": (object, {"ab ": "ab ", "": "", None: None}),
    "text[]": (object, {"{}": (), "{a,NULL,\"\",\"NULL\",ä}": ("a", None, "", "NULL", "ä"),
                        "{{a,b},{c,d}}": ("a", "b", "c", "d"), "[3:4]={p,q}": ("p", "q"),
                        "{NULL}": (None,), None: None}),
    "integer[]": (object, {"{}": (), "{1,NULL,-2147483648}": (1, None, -(2**31)), "{{{1},{2}},{{3},{4}}}": (1, 2, 3, 4),
                           None: None}),
    "bigint[]": (object, {"{}": (), "{9223372036854775807,-1}": (INT64.max, -1), "{{1,2}}": (1, 2), None: None}),
}  # fmt: skip
NUMBERED = {f"c{number}": kind for number, kind in enumerate(TYPES)}


@pytest.fixture(scope="module")
def readers(shared_database):
    """Tables with an integer key and a text key, and a reader of each."""
    opened = {}
    with shared_database.connect() as connection:
        for name, key in (("numbers", "bigint"), ("texts", "text")):
            columns = ", ".join(f"{column} {kind}" for column, kind in NUMBERED.items())
            connection.execute(f"CREATE TABLE {name} (id {key} PRIMARY KEY, {columns}, embedding vector(2))")
            longest = max(len(values) for _, values in TYPES.values())
            for at in range(longest):
                row = [at, "[1,2]"] + [list(values)[at % len(values)] for _, values in TYPES.values()]
                places = ", ".join(["%s"] * len(row))
                connection.execute(f"INSERT INTO {name} (id, embedding, {', '.join(NUMBERED)}) VALUES ({places})", row)
            connection.execute(f"INSERT INTO {name} (id, c1) VALUES (900, 5)")  # no vector
            connection.execute(
                "SELECT ruvector_register_collection(%s, 'public', %s, 'embedding', NULL, 'l2',"
                " jsonb_build_object('columns', %s::text[]))", (name, name, list(NUMBERED)),
            )  # fmt: skip
        for collection in load_collections(connection):
            opened[collection.name] = TableReader(shared_database.dsn, collection)
        yield opened
    for reader in opened.values():
        reader.close()


def as_list(values):
    """Return values and NULLs as one list; a NULL's place in the array says nothing."""
    return [
        value if there else None for value, there in zip(values.values.tolist(), values.present.tolist(), strict=True)
    ]


@pytest.mark.parametrize("table", ["numbers", "texts"])
@pytest.mark.parametrize("kind", TYPES)
def test_every_type_is_read_as_it_is_stored(readers, table, kind):
    column = next(name for name, each in NUMBERED.items() if each == kind)
    dtype, values = TYPES[kind]
    reader = readers[table]
    with reader.at_snapshot():
        rows = reader.chunk_after(None)
    assert next(each.type for each in reader.collection.attributes if each.name == column) == kind
    found = rows.attributes.columns[column]
    assert found.values.dtype == np.dtype(dtype)
    expected = [list(values.values())[int(key) % len(values)] for key in rows.keys]
    got = as_list(found)
    if kind == "uuid":  # numpy drops zero bytes at the end when it gives one out
        got = [None if value is None else value.ljust(16, b"\x00") for value in got]
    np.testing.assert_equal(got, expected)  # NaN equals NaN
    if kind in ("text[]", "integer[]", "bigint[]"):
        assert all(value is None or type(value) is tuple for value in got)


@pytest.mark.parametrize("table", ["numbers", "texts"])
def test_all_ways_to_read_rows_give_the_same_attributes(readers, table):
    reader = readers[table]
    with reader.at_snapshot():
        chunk = reader.chunk_after(None)
        keys = [str(key) for key in chunk.keys]
        some = reader.rows_of(keys)
        filled_keys, filled, last = reader.attributes_after(None)
        beyond = reader.attributes_after(last)
        hashed = reader.row_hashes(None, None, with_attributes=True)
        bare = reader.row_hashes(None, None)
    assert (len(filled_keys), len(beyond[0])) == (len(keys) + 1, 0), "rows without a vector are read too"
    places = {key: at for at, key in enumerate(map(str, filled_keys))}
    order = np.array([places[key] for key in keys])
    again = {key: at for at, key in enumerate(map(str, some.keys))}
    for rows, at in ((filled, order), (some.attributes, np.array([again[key] for key in keys]))):
        np.testing.assert_array_equal(rows.hashes[at], chunk.attributes.hashes)
        for name, values in chunk.attributes.columns.items():
            np.testing.assert_equal(np.array(as_list(rows.columns[name]), dtype=object)[at].tolist(), as_list(values))
    # What verification compares is the hash of the vector combined with that of the attributes.
    combined = [hashed[key] ^ bare[key] for key in keys]
    assert combined == chunk.attributes.hashes.tolist()


def test_hash_differs_by_key_and_by_value(shared_database, readers):
    reader = readers["numbers"]
    with shared_database.connect() as connection:
        connection.execute(
            "INSERT INTO numbers (id, c1, c11, embedding) SELECT n, 7, 'x', '[1,2]' FROM generate_series(100, 104) n"
        )
        connection.execute("UPDATE numbers SET c1 = NULL WHERE id = 103")
        connection.execute("INSERT INTO numbers (id, embedding) VALUES (105, '[1,2]'), (106, '[1,2]')")  # all NULL
    picked = [str(key) for key in range(100, 107)]
    with reader.at_snapshot():
        rows = reader.rows_of(picked)
    first = rows.attributes.hashes[np.argsort(rows.keys)]
    assert len(set(first.tolist())) == 7
    with shared_database.connect() as connection:
        connection.execute("UPDATE numbers SET c11 = 'y' WHERE id = 100")
        connection.execute("UPDATE numbers SET c14 = '{}' WHERE id = 105")
    with reader.at_snapshot():
        rows = reader.rows_of(picked)
    changed = rows.attributes.hashes[np.argsort(rows.keys)] != first
    assert changed.tolist() == [True, False, False, False, False, True, False]
    with shared_database.connect() as connection:
        connection.execute("DELETE FROM numbers WHERE id BETWEEN 100 AND 106")


@pytest.mark.parametrize(("kind", "lost"), [("text[]", "{}"), ("text[]", "{NULL}"), ("text", ""), ("integer", "0")])
@pytest.mark.parametrize("others", [[], ["more"]])
def test_equal_changes_of_two_rows_do_not_cancel_each_other_out(database, kind, lost, others):
    """A bucket combines the hashes of its rows: what two of them lost must show, NULL and empty arrays too."""
    with database.connect() as connection:
        connection.execute(f"CREATE TABLE pairs (id int PRIMARY KEY, a {kind}, more int, embedding vector(2))")
        connection.execute("INSERT INTO pairs SELECT n, NULL, n % 7, '[1,2]' FROM generate_series(1, 640) n")
        register(connection, "pairs", "a", *others)
        reader = TableReader(database.dsn, load_collections(connection)[0])
        try:
            with reader.at_snapshot():
                before = reader.bucket_sums(None, with_attributes=True)
            connection.execute("UPDATE pairs SET a = %s WHERE id %% 64 IN (3, 40)", (lost,))
            with reader.at_snapshot():
                after = reader.bucket_sums(None, with_attributes=True)
        finally:
            reader.close()
    assert len(before) == 10
    assert [old.combined != new.combined for old, new in zip(before, after, strict=True)] == [True] * 10


@pytest.mark.parametrize("kind", list(TYPES))
def test_a_collection_with_this_column_alone_is_hashed(database, kind):
    """A record of one column; no type of a filter lacks a hash."""
    with database.connect() as connection:
        connection.execute(f'CREATE TABLE alone (id int PRIMARY KEY, "a ""b" {kind}, embedding vector(2))')
        for at, literal in enumerate(TYPES[kind][1]):
            connection.execute("INSERT INTO alone VALUES (%s, %s, '[1,2]')", (at, literal))
        register(connection, "alone", 'a "b')
        reader = TableReader(database.dsn, load_collections(connection)[0])
    try:
        with reader.at_snapshot():
            rows = reader.chunk_after(None)
    finally:
        reader.close()
    assert list(rows.attributes.columns) == ['a "b']
    assert len(rows.attributes.hashes) == len(TYPES[kind][1])
    assert 0 not in rows.attributes.hashes


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        ("integer", bytes(3)), ("boolean", b""), ("uuid", bytes(15)), ("date", bytes(8)), ("text", b"\xff\xfe"),
        ("text[]", bytes(11)), ("text[]", struct.pack(">iii", 7, 0, 25)),
        ("text[]", struct.pack(">iiIii", 1, 0, 25, 1, 1)),
        ("text[]", struct.pack(">iiIiii", 1, 0, 25, 1, 1, 5) + b"abc"),
        ("integer[]", struct.pack(">iiIiii", 1, 0, 23, 1, 1, 3) + b"abc"),
        ("text[]", struct.pack(">iiIiiii", 2, 0, 25, 2**31 - 1, 1, 2**31 - 1, 1)),
    ],
)  # fmt: skip
def test_what_no_server_sends_is_refused(kind, body):
    spans = np.array([[[0, len(body)], [len(body), 8]]], dtype=np.int64)
    with pytest.raises(ProtocolViolation, match="COPY data cannot be read"):
        read_attributes(body + bytes(8), spans, [Attribute("a", kind)])


@pytest.mark.parametrize("kind", TYPES)
def test_no_rows_have_columns_without_values(kind):
    rows = read_attributes(b"", np.empty((0, 2, 2), dtype=np.int64), [Attribute("a", kind)])
    assert (len(rows.columns["a"].values), len(rows.columns["a"].present), len(rows.hashes)) == (0, 0, 0)
    assert rows.columns["a"].values.dtype == np.dtype(TYPES[kind][0])
