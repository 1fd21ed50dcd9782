"""Vector tables for the acceptance tests: make, fill and attach one, search it, and say what exact SQL would answer."""

import json
from dataclasses import dataclass, field

import numpy as np
import psycopg
import pytest
from psycopg import sql

OPERATORS = {"l2": "<->", "ip": "<#>", "cosine": "<=>", "l1": "<+>", "hamming": "<~>", "jaccard": "<%>"}
# A sign of life of a sidecar, so many seconds ago.
PULSE = """
    WITH beat AS (
      INSERT INTO ruvector.pulse (name, beat_at) VALUES ('main', clock_timestamp() - make_interval(secs => %s))
      ON CONFLICT (name) DO UPDATE SET beat_at = excluded.beat_at RETURNING beat_at)
    SELECT setval('ruvector.beat', (extract(epoch from beat_at) * 1000)::bigint) FROM beat
"""
SEARCH = "SELECT * FROM ruvector_search(%s, %s, k => %s, ef_search => %s, filter => %s)"
SEARCH_BITS = "SELECT * FROM ruvector_search_bits(%s, %s, k => %s, ef_search => %s, filter => %s)"
SEARCH_SPARSE = "SELECT * FROM ruvector_search_sparse(%s, %s, k => %s, filter => %s)"


@dataclass(frozen=True)
class VectorTable:
    """One attached column; the collection is called `name`."""

    name: str
    columns: str = "id bigint PRIMARY KEY"
    dims: int = 8
    metric: str = "l2"
    element: str = "vector"
    key_sql: str = "t.id::text"
    schema: str = "public"
    table: str | None = None
    column: str = "embedding"
    options: dict = field(default_factory=dict)
    dims_given: int | None = None
    typed: bool = True

    @property
    def table_name(self):
        return self.name if self.table is None else self.table

    @property
    def identifier(self):
        return sql.Identifier(self.schema, self.table_name)

    def create(self, connection, *, partition_by=""):
        kind = f"{self.element}({self.dims})" if self.typed else self.element
        connection.execute(
            sql.SQL("CREATE TABLE {} ({}, {} {}) {}").format(
                self.identifier,
                sql.SQL(self.columns),
                sql.Identifier(self.column),
                sql.SQL(kind),
                sql.SQL(partition_by),
            )
        )
        return self

    def attach(self, connection):
        return connection.execute(
            "SELECT ruvector_register_collection(%s, %s, %s, %s, dimensions => %s, distance_metric => %s,"
            " options => %s::jsonb)",
            (
                self.name,
                self.schema,
                self.table_name,
                self.column,
                self.dims_given,
                self.metric,
                json.dumps(self.options),
            ),
        ).fetchone()[0]

    def insert(self, connection, vectors, *, first=1, **columns):
        """Insert one row for each vector with ids from `first`; other columns take lists of values."""
        rows = zip(range(first, first + len(vectors)), *columns.values(), map(text_of, vectors), strict=True)
        # Literals, not parameters: a name may hold a percent sign.
        values = [sql.SQL("({})").format(sql.SQL(", ").join(map(sql.Literal, row))) for row in rows]
        connection.execute(
            sql.SQL("INSERT INTO {} ({}) VALUES {}").format(
                self.identifier,
                sql.SQL(", ").join(map(sql.Identifier, ["id", *columns, self.column])),
                sql.SQL(", ").join(values),
            )
        )

    def random_vectors(self, count, *, seed):
        """Return values for the column: arrays, or texts of bits and sparse vectors."""
        if self.element == "bit":
            return bit_texts(count, self.dims, seed=seed)
        if self.element == "sparsevec":
            return sparse_texts(count, self.dims, seed=seed)
        return list(gaussian(count, self.dims, seed=seed))

    def distances(self, connection, query, *, where="true"):
        """Return the exact distance of every row that matches, as {key text: distance}."""
        literal = sql.SQL("B{}" if self.element == "bit" else "{}::{}")
        statement = sql.SQL(
            "SELECT {key}, (t.{column} {operator} {query})::real FROM {table} t"
            " WHERE t.{column} IS NOT NULL AND ({where})"
        ).format(
            key=sql.SQL(self.key_sql),
            column=sql.Identifier(self.column),
            operator=sql.SQL(OPERATORS[self.metric]),
            query=literal.format(sql.Literal(text_of(query)), sql.SQL(self.element)),
            table=self.identifier,
            where=sql.SQL(where) if isinstance(where, str) else where,
        )
        return {key: distance for key, distance in connection.execute(statement) if not np.isnan(distance)}

    def search(self, connection, query, *, k=10, ef=None, filter_=None, **more):
        """Return rows (id, distance, score, tier, is_exact)."""
        condition = None if filter_ is None else json.dumps(filter_)
        sparse = self.element == "sparsevec"
        statement = SEARCH_SPARSE if sparse else SEARCH_BITS if self.element == "bit" else SEARCH
        values = (self.name, text_of(query), k, *(() if sparse else (ef,)), condition)
        for name, value in more.items():
            statement, values = statement.replace(")", f", {name} => %s)"), (*values, value)
        return connection.execute(statement, values).fetchall()

    def explain(self, connection, query, *, k=10, filter_=None, keys=None, max_distance=None):
        """Return the row of ruvector_explain as a dict."""
        cursor = connection.cursor(row_factory=psycopg.rows.dict_row)
        condition = None if filter_ is None else json.dumps(filter_)
        return cursor.execute(
            "SELECT * FROM ruvector_explain(%s, %s, %s, %s, keys => %s, max_distance => %s)",
            (self.name, text_of(query), k, condition, keys, max_distance),
        ).fetchone()

    def check(self, connection, query, *, k=10, filter_=None, where="true", tier="hot", **more):
        """Compare one search with exact SQL; every row must come through the engine called `tier`."""
        expected = self.distances(connection, query, where=where)
        found = self.search(connection, query, k=k, filter_=filter_, **more)
        assert [row[3] for row in found] == [tier] * len(found)
        assert_nearest(found, expected, k)
        return found


def assert_nearest(found, expected, k):
    """Check ids and distances of an answer against the distances of all rows; equal distances may come in any order."""
    ids = [row[0] for row in found]
    assert len(set(ids)) == len(ids), "a row came twice"
    assert [row[1] for row in found] == sorted(expected.values())[:k]
    assert {row[0]: row[1] for row in found} == {key: expected[key] for key in ids}


def text_of(vector):
    """Return a vector as the text of its type; None and texts stay."""
    if vector is None or isinstance(vector, str):
        return vector
    return "[" + ",".join(repr(float(value)) for value in vector) + "]"


def gaussian(count, dims, *, seed):
    """Return seeded float32 vectors [count, dims]."""
    return np.random.default_rng(seed).standard_normal((count, dims)).astype(np.float32)


def bit_texts(count, bits, *, seed):
    """Return seeded bit strings as texts of 0 and 1."""
    drawn = np.random.default_rng(seed).integers(0, 2, (count, bits))
    return ["".join(map(str, row)) for row in drawn]


def sparse_texts(count, dims, *, seed, elements=5, common=8):
    """Return seeded sparse vectors as texts: half of their elements lie in a few common dimensions."""
    rng = np.random.default_rng(seed)
    texts = []
    for _ in range(count):
        near = rng.choice(min(common, dims), min(common, dims, elements), replace=False)
        far = rng.integers(0, dims, elements)
        indices = sorted({int(index) + 1 for index in (*near, *far)})
        texts.append("{" + ",".join(f"{index}:{rng.normal():.6g}" for index in indices) + f"}}/{dims}")
    return texts


@dataclass(frozen=True)
class Problem:
    """What the database said: code, message, detail, hint."""

    code: str
    message: str
    detail: str
    hint: str


def refused(connection, statement, parameters=None):
    """Execute a statement that must fail; return the error that reached the client."""
    with pytest.raises(psycopg.Error) as caught, connection.transaction():
        connection.execute(statement, parameters)
    diagnosis = caught.value.diag
    return Problem(
        diagnosis.sqlstate, diagnosis.message_primary, diagnosis.message_detail or "", diagnosis.message_hint or ""
    )


def notices_of(connection):
    """Collect the notices of a connection in a list."""
    collected = []
    connection.add_notice_handler(lambda diagnosis: collected.append(diagnosis.message_primary))
    return collected
