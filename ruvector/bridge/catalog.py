"""Recognize queries of system catalogs, which find nothing here: the endpoint has functions and no tables.

Drivers and tools look up types, tables and settings when they connect or complete names. An error there would break
the connection; no rows tell them the truth. A query that must answer with a row (an aggregate) or whose columns are not
written down (``*``) is left to the grammar, which refuses it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Final

from ruvector.bridge.statements import CatalogQuery
from ruvector.bridge.tokens import Token, TokenKind

_SCHEMAS: Final = frozenset({"pg_catalog", "information_schema"})
_AGGREGATES: Final = frozenset(
    {
        *("count", "sum", "min", "max", "avg", "bool_and", "bool_or", "every", "array_agg", "string_agg"),
        *("json_agg", "jsonb_agg", "json_object_agg", "jsonb_object_agg"),
    }
)
_NAMES: Final = (TokenKind.NAME, TokenKind.QUOTED)


def catalog_query(tokens: Sequence[Token], start: int) -> tuple[CatalogQuery, int] | None:
    """Return the query that starts at a SELECT or WITH, and the place of the token after it; None for any other."""
    end = next((place for place, token, depth in _walk(tokens, start) if depth == 0 and _is(token, ";")), None)
    end = len(tokens) - 1 if end is None else end
    if not _reads_catalogs(tokens[start:end]):
        return None
    top = [(place, token) for place, token, depth in _walk(tokens[:end], start) if depth == 0]
    first = next((place for place, token in top if _is_word(token, "select")), None)
    last = next((place for place, token in top if _is_word(token, "from")), None)
    if first is None or last is None or last < first:
        return None
    items = list(_items(tokens, first + 1, last))
    is_grouped = any(_is_word(token, "group") for _, token in top)
    if any(not item or _is(item[-1], "*") or (not is_grouped and _is_aggregate(item)) for item in items):
        return None
    numbers = {int(token.value) for token in tokens[start:end] if token.kind is TokenKind.PARAMETER}
    return CatalogQuery(tuple(map(_label, items)), tuple(sorted(numbers))), end


def _reads_catalogs(tokens: Sequence[Token]) -> bool:
    """Tell whether every relation behind FROM and JOIN is one of the system's, and there is one."""
    own = {  # names of WITH queries stand behind these
        token.value
        for before, token in pairwise(tokens if _is_word(tokens[0], "with") else ())
        if token.kind in _NAMES and (before.value in ("with", "recursive") or _is(before, ","))
    }
    found = False
    for place, token in enumerate(tokens[:-1]):
        if not (_is_word(token, "from") or _is_word(token, "join")) or tokens[place + 1].kind not in _NAMES:
            continue
        path = [tokens[place + 1].value]
        place += 2
        while place + 1 < len(tokens) and _is(tokens[place], ".") and tokens[place + 1].kind in _NAMES:
            path.append(tokens[place + 1].value)
            place += 2
        if place < len(tokens) and _is(tokens[place], "("):
            if path[-1].startswith("ruvector_"):
                return False
            continue
        if path[0] in _SCHEMAS or (len(path) == 1 and path[0].startswith("pg_")):
            found = True
        elif len(path) > 1 or path[0] not in own:
            return False
    return found


def _walk(tokens: Sequence[Token], start: int) -> Iterator[tuple[int, Token, int]]:
    """Yield place, token and depth of parentheses."""
    depth = 0
    for place in range(start, len(tokens)):
        token = tokens[place]
        depth -= _is(token, ")") or _is(token, "]")
        yield place, token, depth
        depth += _is(token, "(") or _is(token, "[")


def _items(tokens: Sequence[Token], start: int, end: int) -> Iterator[Sequence[Token]]:
    """Yield the tokens of each item of a select list."""
    if _is_word(tokens[start], "distinct") or _is_word(tokens[start], "all"):
        start += 1
    begin = start
    for place, token, depth in _walk(tokens[:end], start):
        if depth == 0 and _is(token, ","):
            yield tokens[begin:place]
            begin = place + 1
    yield tokens[begin:end]


def _label(item: Sequence[Token]) -> str:
    """Return the name of a column: its alias, the column itself, or the function."""
    last = item[-1]
    if last.kind in _NAMES and not (len(item) > 1 and _is(item[-2], "::")) and not _is_word(last, "end"):
        return last.value
    call = next((token for token, following in pairwise(item) if _is(following, "(")), None)
    return call.value if call is not None and call.kind in _NAMES else "?column?"


def _is_aggregate(item: Sequence[Token]) -> bool:
    return any(
        token.kind is TokenKind.NAME and token.value in _AGGREGATES and _is(following, "(") and depth == 0
        for (_, token, depth), following in zip(_walk(item, 0), item[1:], strict=False)
    )


def _is(token: Token, symbol: str) -> bool:
    return token.kind is TokenKind.SYMBOL and token.value == symbol


def _is_word(token: Token, word: str) -> bool:
    return token.kind is TokenKind.NAME and token.value == word
