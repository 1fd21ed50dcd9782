"""Read names of columns as SQL writes them: items.embedding, "We""ird"."T.x"."emb"."""

from __future__ import annotations

import re
from dataclasses import dataclass

from ruvector import limits
from ruvector.errors import InvalidParameter

# A quoted part, or an unquoted one; PostgreSQL takes every letter beyond ASCII.
_PART = re.compile(r'"((?:[^"]|"")+)"|([A-Za-z_\u0080-\U0010ffff][\w$]*)')
_HINT = 'Write names as SQL does: public.items.embedding, or "My Table" in double quotes ("" stands for one quote).'


@dataclass(frozen=True, slots=True)
class ColumnName:
    """A column of a table, each part as the catalog has it."""

    schema: str
    table: str
    column: str

    @property
    def collection(self) -> str:
        """Return the default name of its collection."""
        return f"{self.table}_{self.column}"


def parse_column(text: str) -> ColumnName:
    """Read SCHEMA.TABLE.COLUMN; unquoted parts are folded to lower case, as in SQL.

    Raises:
        InvalidParameter: it has not three parts, or a part is not an identifier.
    """
    parts = _split(text, separator=".")
    if len(parts) != 3:
        raise InvalidParameter(f"{text} has {len(parts)} parts, not the three of SCHEMA.TABLE.COLUMN", hint=_HINT)
    return ColumnName(*parts)


def parse_names(text: str) -> tuple[str, ...]:
    """Read a list of column names, separated by commas."""
    return _split(text, separator=",") if text.strip() else ()


def _split(text: str, *, separator: str) -> tuple[str, ...]:
    names: list[str] = []
    position = 0
    while True:
        position += len(text[position:]) - len(text[position:].lstrip())
        found = _PART.match(text, position)
        if found is None:
            raise InvalidParameter(f"{text} cannot be read at character {position + 1}", hint=_HINT)
        name = found[1].replace('""', '"') if found[1] is not None else found[2].lower()
        if len(name.encode()) > limits.IDENTIFIER_BYTES_MAX or "\0" in name:
            raise InvalidParameter(
                f"the name {name} has {len(name.encode())} bytes; PostgreSQL's names have at most "
                f"{limits.IDENTIFIER_BYTES_MAX}",
                hint="Give the name as the catalog has it.",
            )
        names.append(name)
        rest = text[found.end() :].lstrip()
        if not rest:
            return tuple(names)
        if not rest.startswith(separator):
            raise InvalidParameter(f"{text} cannot be read at character {len(text) - len(rest) + 1}", hint=_HINT)
        position = len(text) - len(rest) + 1
