"""Why a query by distance cannot use pgvector's index: pure judgement of its text, as pg_stat_statements keeps it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from ruvector.cli.advice import Remark, remark
from ruvector.values import Metric

METRICS = {metric.operator: metric.value for metric in Metric}
_OPERATOR = r"(?:operator\s*\(\s*(?:[\w\"]+\s*\.\s*)?(<->|<#>|<=>|<\+>|<~>|<%>)\s*\)|(<->|<#>|<=>|<\+>|<~>|<%>))"
_NAME = r'(?:[^\W\d][\w$]*|"(?:[^"]|"")+")'
_COLUMN = rf"(?:{_NAME}\s*\.\s*){{0,2}}({_NAME})"
_VALUE = r"(?:\$\d+|'[^']*'|\(.*\))(?:\s*::\s*[\w.\"]+(?:\s*\(\s*[$\d]+\s*\))?)?"
_FLAGS = re.IGNORECASE | re.DOTALL
_DISTANCE = re.compile(_OPERATOR, _FLAGS)
_PLAIN = (
    re.compile(rf"{_COLUMN}\s*{_OPERATOR}\s*{_VALUE}", _FLAGS),
    re.compile(rf"{_VALUE}\s*{_OPERATOR}\s*{_COLUMN}", _FLAGS),
)
_CAST = re.compile(rf"\(?\s*{_COLUMN}\s*(?:::\s*[\w.\"]+(?:\s*\([^)]*\))?\s*\)?|\)\s*::[^<]*)\s*{_OPERATOR}", _FLAGS)
_ORDER = re.compile(r"\border\s+by\b", _FLAGS)
_DIRECTION = re.compile(r"\s+(?:(asc)|(desc))?(?:\s*nulls\s+(?:first|last))?\s*$", _FLAGS)

NO_LIMIT = "there is no LIMIT: the whole table is sorted"


def asks_by_distance(text: str) -> bool:
    """Tell whether a query computes distances."""
    return re.match(r"\s*(select|with)\b", text, _FLAGS) is not None and _DISTANCE.search(text) is not None


def reasons(text: str, indexes: Sequence[Mapping[str, Any]]) -> list[Remark]:
    """Return what keeps pgvector's indexes from answering a query, each with the change that helps.

    The text is looked at, not parsed: what is not recognised gives no reason.
    """
    key, behind = _order_key(text)
    if key is None:
        return [
            _cause(
                "it computes distances without ORDER BY one of them, which no index answers",
                hint="ORDER BY column <-> $1 LIMIT k, and compare the distances of the rows that come.",
            )
        ]
    found = []
    expression, is_descending = _direction(key)
    if is_descending:
        hint = "Order by the distance itself, ascending; <#> is the negative inner product."
        found.append(_cause("ORDER BY ... DESC: an index gives the nearest first", hint=hint))
    if not re.search(r"\b(limit|fetch)\b", behind, _FLAGS):
        found.append(_cause(NO_LIMIT, hint="Add LIMIT k."))
    distance = _without_parentheses(expression)
    plain = next((match for pattern in _PLAIN if (match := pattern.fullmatch(distance))), None)
    if plain is not None:
        return found + _index_reasons(text, _plain_name(plain), _operator_of(plain), indexes)
    if cast := _CAST.match(distance):
        if not any("::" in index["definition"] for index in indexes if index["table"] in text):
            hint = "Cast the query instead, or build an index over the expression."
            problem = f"column {_plain_name(cast)} is cast, and the index is over the column itself"
            found.append(_cause(problem, hint=hint))
    else:
        hint = "ORDER BY column <=> $1, and compute the expression in the SELECT list."
        found.append(_cause("it orders by an expression of the distance, not by the distance", hint=hint))
    return found


def _index_reasons(text: str, column: str, operator: str, indexes: Sequence[Mapping[str, Any]]) -> list[Remark]:
    own = [index for index in indexes if index["column"] == column and index["table"] in text]
    metric = METRICS[operator]
    if not own:
        hint = f"CREATE INDEX CONCURRENTLY ON ... USING hnsw ({column} vector_{metric}_ops);"
        return [_cause(f"column {column} has no index", hint=hint)]
    if not any(index["operator_class"].endswith(f"_{metric}_ops") for index in own):
        wanted = f"{own[0]['operator_class'].split('_')[0]}_{metric}_ops"
        others = ", ".join(sorted({index["operator_class"] for index in own}))
        hint = f"CREATE INDEX CONCURRENTLY ON {own[0]['table_name']} USING hnsw ({column} {wanted});"
        return [_cause(f"operator {operator} needs an index of {wanted}; there is {others}", hint=hint)]
    if not any(index["is_valid"] for index in own):
        return [_cause("its index is invalid", hint=f"REINDEX INDEX CONCURRENTLY {own[0]['name']};")]
    return []


def _order_key(text: str) -> tuple[str | None, str]:
    """Return the first expression of the ORDER BY that orders by a distance, and the text behind it."""
    for match in _ORDER.finditer(text):
        key, behind = _first_item(text[match.end() :])
        name = _direction(key)[0].strip()
        if re.fullmatch(_NAME, name):
            key = key.replace(name, _named(text, name), 1)
        if _DISTANCE.search(key):
            return key.strip(), behind
    return None, ""


def _first_item(text: str) -> tuple[str, str]:
    """Return the text up to the end of an ORDER BY item, and the rest."""
    depth = 0
    for match in re.finditer(r"[(),;]|\b(?:limit|offset|fetch|for|union)\b", text, _FLAGS):
        sign = match.group()
        if sign == "(":
            depth += 1
        elif sign == ")" and depth > 0:
            depth -= 1
        elif depth == 0:
            return text[: match.start()], text[match.start() :]
    return text, ""


def _named(text: str, name: str) -> str:
    """Return the expression of the SELECT list that has a name; the name itself when there is none."""
    for match in re.finditer(rf"\bas\s+{re.escape(name)}(?![\w$])", text, _FLAGS):
        depth, start = 0, match.start()
        while start > 0:
            sign = text[start - 1]
            depth += (sign == ")") - (sign == "(")
            if depth < 0 or (depth == 0 and sign == ",") or re.search(r"\bselect\s$", text[:start], _FLAGS):
                break
            start -= 1
        return text[start : match.start()].strip()
    return name


def _direction(key: str) -> tuple[str, bool]:
    match = _DIRECTION.search(key)
    return (key[: match.start()], match.group(2) is not None) if match else (key, False)


def _without_parentheses(expression: str) -> str:
    expression = expression.strip()
    while expression.startswith("(") and expression.endswith(")"):
        depth = 0
        for place, sign in enumerate(expression):
            depth += (sign == "(") - (sign == ")")
            if depth == 0 and place < len(expression) - 1:
                return expression
        expression = expression[1:-1].strip()
    return expression


def _operator_of(match: re.Match[str]) -> str:
    return next(group for group in match.groups() if group in METRICS)


def _plain_name(match: re.Match[str]) -> str:
    name = next(group for group in match.groups() if group and group not in METRICS)
    return name[1:-1].replace('""', '"') if name.startswith('"') else name


def _cause(problem: str, *, hint: str) -> Remark:
    return remark(problem, hint=hint, severity="warning")
