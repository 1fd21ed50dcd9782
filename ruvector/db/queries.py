"""Load the named queries of sql/queries."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from types import MappingProxyType

from ruvector import limits, resources
from ruvector.errors import InternalError

_NAME = re.compile(r"--[ \t]*name:[ \t]*(.*)")
_IDENTIFIER = re.compile(r"[a-z][a-z0-9_]*")


def query(group: str, name: str) -> str:
    """Return the SQL text of the query ``name`` in sql/queries/``group``.sql.

    Raises:
        InternalError: there is no such file or no such name in it.
    """
    found = named_queries(group).get(name)
    if found is None:
        raise InternalError(f'sql/queries/{group}.sql has no query named "{name}"')
    return found


@lru_cache(maxsize=limits.QUERY_FILES_MAX)
def named_queries(group: str) -> Mapping[str, str]:
    """Return all queries of one file, name to text; the file is read once."""
    path = resources.root("sql") / "queries" / f"{group}.sql"
    if _IDENTIFIER.fullmatch(group) is None or not path.is_file():
        raise InternalError(f"sql/queries/{group}.sql is missing from this installation of ruvector")
    return MappingProxyType(parse_queries(path.read_text(encoding="utf-8"), file=path.name))


def parse_queries(text: str, *, file: str) -> dict[str, str]:
    """Split a file of ``-- name: foo`` sections; the comment after the name stays with its query.

    Raises:
        InternalError: a name is malformed or used twice, a query is empty, or SQL stands before the first name.
    """
    sections: dict[str, list[str]] = {}
    current: list[str] | None = None
    for number, line in enumerate(text.splitlines(), start=1):
        header = _NAME.fullmatch(line.strip())
        if header is not None:
            name = header[1].strip()
            if _IDENTIFIER.fullmatch(name) is None or name in sections:
                raise InternalError(f'{file}, line {number}: "{name}" is not a name, or it is used twice')
            current = sections[name] = []
        elif current is not None:
            current.append(line)
        elif line.strip() and not line.lstrip().startswith("--"):
            raise InternalError(f"{file}, line {number}: SQL before the first name")
    for name, lines in sections.items():
        if all(not line.strip() or line.lstrip().startswith("--") for line in lines):
            raise InternalError(f'{file}: the query "{name}" is empty')
    return {name: "\n".join(lines).strip() for name, lines in sections.items()}
