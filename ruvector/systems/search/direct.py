"""Checks and rows of a search that a client sends to the sidecar itself, past the database."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from ruvector import limits
from ruvector.errors import InvalidParameter, LimitExceeded, UnsupportedStatement
from ruvector.surface.rows import SearchRow
from ruvector.values import Hit, Restriction

EXACTNESS = ("fast", "balanced", "exact")
_ASK_THE_DATABASE = "Send the same statement to the database: it joins the rows, so it can."


def check_k(k: int) -> None:
    """Refuse a number of neighbours outside 1 to K_MAX."""
    if not 1 <= k <= limits.K_MAX:
        raise InvalidParameter(f"k is {k}", hint=f"Give 1 to {limits.K_MAX}.")


def check_ef(ef_search: int | None) -> None:
    """Refuse a beam outside 1 to EF_MAX; None is the collection's own."""
    if ef_search is not None and not 1 <= ef_search <= limits.EF_MAX:
        raise InvalidParameter(f"ef_search is {ef_search}", hint=f"Give 1 to {limits.EF_MAX}.")


def restriction(filter_: object, keys: Sequence[str | None] | None, max_distance: float | None) -> Restriction:
    """Return which rows may be in an answer; keys that are NULL are those of no row.

    Raises InvalidParameter for a distance that is none, and a filter that is no object.
    """
    if max_distance is not None and math.isnan(max_distance):
        raise InvalidParameter("max_distance is not a number", hint="Leave it out to allow any distance.")
    if filter_ is not None and not isinstance(filter_, dict):
        raise InvalidParameter("a filter must be a JSON object", hint='For example {"category": "a"}.')
    if keys is not None and len(keys) > limits.FILTER_KEYS_MAX:
        raise LimitExceeded(f"{len(keys)} keys were given, at most {limits.FILTER_KEYS_MAX} are allowed")
    return Restriction(filter_, None if keys is None else [key for key in keys if key is not None], max_distance)


def search_rows(hits: Iterable[Hit], max_distance: float | None) -> list[SearchRow]:
    """Return the hits that are no farther than ``max_distance`` (None: all) as rows."""
    most = math.inf if max_distance is None else max_distance
    return [SearchRow(hit.id, hit.distance, hit.score, hit.tier, hit.is_exact) for hit in hits if hit.distance <= most]


def check_options(*, exactness: str | None, use_gnn: bool) -> None:
    """Refuse what only the database can answer, exact distances, and what does not exist yet."""
    if exactness is not None and exactness not in EXACTNESS:
        raise InvalidParameter(f"exactness is {exactness[:63]!r}", hint=f"Give one of {', '.join(EXACTNESS)}.")
    if use_gnn:
        raise UnsupportedStatement("use_gnn is not available in this release", hint="Leave use_gnn out.")
    if exactness == "exact":
        raise UnsupportedStatement("the sidecar itself does not promise exact answers", hint=_ASK_THE_DATABASE)
