"""Checks and rows of a search that a client sends to the sidecar itself, past the database."""

from __future__ import annotations

import math
from collections.abc import Iterable

from ruvector import limits
from ruvector.errors import InvalidParameter, UnsupportedStatement
from ruvector.surface.rows import SearchRow
from ruvector.values import Hit

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


def check_max_distance(max_distance: float | None) -> None:
    """Refuse a distance that is none; None allows any."""
    if max_distance is not None and math.isnan(max_distance):
        raise InvalidParameter("max_distance is not a number", hint="Leave it out to allow any distance.")


def search_rows(hits: Iterable[Hit], max_distance: float | None) -> list[SearchRow]:
    """Return the hits that are no farther than ``max_distance`` (None: all) as rows."""
    most = math.inf if max_distance is None else max_distance
    return [SearchRow(hit.id, hit.distance, hit.score, hit.tier, hit.is_exact) for hit in hits if hit.distance <= most]


def check_options(*, filter_: object, keys: object, exactness: str | None, use_gnn: bool) -> None:
    """Refuse what only the database can answer: filters, exact distances, and what does not exist yet."""
    if exactness is not None and exactness not in EXACTNESS:
        raise InvalidParameter(f"exactness is {exactness[:63]!r}", hint=f"Give one of {', '.join(EXACTNESS)}.")
    if use_gnn:
        raise UnsupportedStatement("use_gnn is not available in this release", hint="Leave use_gnn out.")
    if filter_ is not None or keys is not None:
        raise UnsupportedStatement("the sidecar itself does not evaluate filters", hint=_ASK_THE_DATABASE)
    if exactness == "exact":
        raise UnsupportedStatement("the sidecar itself does not promise exact answers", hint=_ASK_THE_DATABASE)
