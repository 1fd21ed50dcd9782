"""The statements of one mirrored table: named queries with its identifiers quoted in."""

from __future__ import annotations

import json
from collections.abc import Sequence

from psycopg import sql

from ruvector import db
from ruvector.values import Collection, ElementType, KeyKind, Metric


class TableStatements:
    """Build the statements that read one table and its changelog. Names are quoted, values are literals."""

    def __init__(self, collection: Collection) -> None:
        self._collection = collection
        self._table = sql.Identifier(collection.table_schema, collection.table_name)
        self._log = sql.Identifier("ruvector", f"changelog_{collection.id}")
        self._types = [sql.SQL(kind) for kind in collection.key_types]  # format_type() wrote them: quoted already
        self._key_columns = [sql.Identifier("i", name) for name in collection.key_columns]

    def changes(self) -> sql.Composed:
        """Return the query of changelog rows beyond a position (parameters xmax, xip)."""
        return self._fill("changes", log_key=self._log_key(), changelog=self._log)

    def changes_seen(self) -> sql.Composed:
        """Return the query of changelog rows within a position (parameter position)."""
        return self._fill("changes_seen", log_key=self._log_key(), changelog=self._log)

    def forget_changes(self) -> sql.Composed:
        """Return the statement that trims one slice (parameters above, below, rows)."""
        return self._fill("forget_changes", changelog=self._log)

    def empty_changelog(self) -> sql.Composed:
        """Return the statement that empties the changelog."""
        return sql.SQL(db.query("mirror", "empty_changelog")).format(changelog=self._log)

    def rows_of_keys(self, keys: Sequence[str]) -> sql.Composed:
        """Return the COPY of the present rows with these keys (texts)."""
        pool = sql.SQL("{}::text[]").format(sql.Literal(list(keys)))
        if len(self._key_columns) == 1:
            match = sql.SQL("{} = ANY ({}::{}[])").format(self._key_columns[0], pool, self._types[0])
        else:
            parts = sql.SQL(", ").join(
                sql.SQL("(u.t::json ->> {})::{}").format(sql.Literal(number), kind)
                for number, kind in enumerate(self._types)
            )
            columns = sql.SQL(", ").join(self._key_columns)
            match = sql.SQL("({}) IN (SELECT {} FROM unnest({}) u (t))").format(columns, parts, pool)
        return self._fill("rows_of_keys", **self._row_parts(), match=match)

    def chunk(self, after: str | None, *, rows: int) -> sql.Composed:
        """Return the COPY of the next rows in key order, after a key (text) or from the start."""
        return self._next_rows("chunk", after, rows)

    def attributes_after(self, after: str | None, *, rows: int) -> sql.Composed:
        """Return the COPY of keys and attributes of the next rows in key order."""
        return self._next_rows("attributes_after", after, rows)

    def sample_keys(self, *, percent: float, rows: int) -> sql.Composed:
        """Return the query of the keys of some rows, spread over the table."""
        return self._fill(
            "sample_keys",
            key_text=self._key_text("i", self._collection.key_columns),
            table=self._table,
            percent=sql.Literal(percent),
            rows=sql.Literal(rows),
        )

    def hashed_rows(
        self, after: str | None, upto: str | None, *, rows: int | None = None, with_attributes: bool = False
    ) -> sql.Composed:
        """Return the query of (key, hash) of the rows in a range of keys: after one, up to another, each optional."""
        parts = self._row_parts() | {
            "attributes": self._attribute_hash() if with_attributes else sql.SQL("0::bigint"),
        }
        return sql.SQL(db.query("verify", "hashed_rows")).format(
            **parts,
            after=sql.SQL("true") if after is None else self._compared(">", after),
            upto=sql.SQL("true") if upto is None else self._compared("<=", upto),
            order=sql.SQL(", ").join(self._key_columns),
            rows=sql.Literal(rows),
            seed=self._seed(sql.SQL("y.key")),
            usable=self._usable(sql.Identifier("y", "sent")),
        )

    def bucket_sums(
        self, after: str | None, *, rows: int, bucket_rows: int, with_attributes: bool = False
    ) -> sql.Composed:
        """Return the query that sums up the hashes of the next rows, bucket by bucket.

        Whole numbers have an order that both sides know, so the last key of a bucket says which rows are in it; the
        order of texts is the database's own, so all keys are sent.
        """
        is_number = self._collection.options.key_kind is KeyKind.INT64
        return sql.SQL(db.query("verify", "bucket_sums")).format(
            hashed_rows=self.hashed_rows(after, None, rows=rows, with_attributes=with_attributes),
            bucket_keys=sql.SQL("ARRAY[max(z.key)::text]" if is_number else "array_agg(z.key ORDER BY z.place)"),
            bucket_rows=sql.Literal(bucket_rows),
        )

    def _usable(self, sent: sql.Identifier) -> sql.Composed:
        """Return the condition that the bytes of a vector are those of a row that an index takes."""
        options = self._collection.options
        elements = {ElementType.F32: 4, ElementType.F16: 2}.get(options.element)
        head = options.dims.to_bytes(4, "big") if elements is None else options.dims.to_bytes(2, "big") + bytes(2)
        usable = sql.SQL("substr({}, 1, 4) = {}").format(sent, sql.Literal(head))
        if options.metric is not Metric.COSINE:
            return usable
        # Rows without direction: all elements zero, or, where zeros are left out, none.
        unwanted = sql.SQL("substr({}, 5, 4)").format(sent) if elements is None else sent
        zero = bytes(4) if elements is None else head + bytes(options.dims * elements)
        return usable + sql.SQL(" AND {} <> {}").format(unwanted, sql.Literal(zero))

    def table_name(self) -> str:
        """Return the quoted, qualified table name, for to_regclass."""
        return self._table.as_string(None)

    def _fill(self, name: str, **parts: sql.Composable) -> sql.Composed:
        return sql.SQL(db.query("capture", name)).format(**parts)

    def _next_rows(self, name: str, after: str | None, rows: int) -> sql.Composed:
        return self._fill(
            name,
            **self._row_parts(),
            after=sql.SQL("true") if after is None else self._compared(">", after),
            order=sql.SQL(", ").join(self._key_columns),
            rows=sql.Literal(rows),
        )

    def _row_parts(self) -> dict[str, sql.Composable]:
        return {
            "key": self._row_key(),
            "column": sql.Identifier(self._collection.column_name),
            "table": self._table,
            "attributes": self._attributes(),
        }

    def _attributes(self) -> sql.Composable:
        """Return the attributes and their hash as more columns of a select list; numeric as text."""
        attributes = self._collection.attributes
        if not attributes:
            return sql.SQL("")
        columns = [
            sql.SQL("{}::text" if each.type == "numeric" else "{}").format(sql.Identifier("i", each.name))
            for each in attributes
        ]
        return sql.SQL(", ") + sql.SQL(", ").join([*columns, self._attribute_hash()])

    def _attribute_hash(self) -> sql.Composed:
        """Return the hash over all attributes of a row, seeded by its key: equal rows of two keys differ.

        Over the bytes that send writes, as that of vectors. hash_record_extended gives NULL and empty arrays the same
        small number whatever the seed: two rows that lost such a change would cancel each other out in a bucket.
        """
        names = sql.SQL(", ").join(sql.Identifier("i", each.name) for each in self._collection.attributes)
        return sql.SQL("hash_array_extended(ARRAY[record_send(ROW({}))], {})").format(
            names, self._seed(self._row_key())
        )

    def _seed(self, key: sql.Composable) -> sql.Composable:
        if self._collection.options.key_kind is KeyKind.INT64:
            return sql.SQL("{}::bigint").format(key)
        return sql.SQL("hash_array_extended(ARRAY[convert_to({}, 'UTF8')], 0)").format(key)

    def _row_key(self) -> sql.Composable:
        if self._collection.options.key_kind is KeyKind.INT64:
            return self._key_columns[0]
        return self._key_text("i", self._collection.key_columns)

    def _log_key(self) -> sql.Composed:
        return self._key_text("l", [f"key_{number}" for number in range(1, len(self._types) + 1)])

    @staticmethod
    def _key_text(alias: str, columns: Sequence[str]) -> sql.Composed:
        names = [sql.Identifier(alias, column) for column in columns]
        if len(names) == 1:
            return sql.SQL("{}::text").format(names[0])
        return sql.SQL("json_build_array({})::text").format(sql.SQL(", ").join(names))

    def _compared(self, operator: str, key: str) -> sql.Composed:
        values = [key] if len(self._types) == 1 else [_plain(value) for value in json.loads(key, parse_float=str)]
        literals = sql.SQL(", ").join(
            sql.SQL("{}::{}").format(sql.Literal(value), kind) for value, kind in zip(values, self._types, strict=True)
        )
        return sql.SQL("({}) {} ({})").format(sql.SQL(", ").join(self._key_columns), sql.SQL(operator), literals)


def _plain(value: object) -> str:
    return ("true" if value else "false") if isinstance(value, bool) else str(value)
