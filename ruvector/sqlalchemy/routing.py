"""Route nearest-neighbour SELECTs of an engine through the sidecar.

Takes: SELECTs of ORM and Core about to be executed.  Gives: the same SELECTs, with the rows a search found as one more
condition where that gives the same rows, untouched otherwise.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from typing import Any

from sqlalchemy import (
    Connection,
    Engine,
    Float,
    Integer,
    MetaData,
    Select,
    event,
    func,
    literal,
    literal_column,
    select,
    tuple_,
)
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlalchemy.sql.elements import BindParameter
from sqlalchemy.sql.expression import ColumnElement, Executable

from ruvector import limits
from ruvector.clock import Clock, SystemClock
from ruvector.errors import InvalidParameter
from ruvector.sqlalchemy.catalog import Registered, registered
from ruvector.sqlalchemy.collection import Collection, collections_of, find_collection
from ruvector.sqlalchemy.filters import LeftAlone
from ruvector.sqlalchemy.nearest import SearchOptions, found_keys, keys_in, search_call
from ruvector.sqlalchemy.shape import Search, search_of

logger = logging.getLogger("ruvector.sqlalchemy")

OPTION = "ruvector"
EF_SEARCH_OPTION = "ruvector_ef_search"
EXACTNESS_OPTION = "ruvector_exactness"


class Routing:
    """Listens to one engine; ``disable`` ends it."""

    def __init__(self, engine: Engine, collections: frozenset[Collection] | None, *, default: bool, clock: Clock):
        self._engine = engine
        self._collections = collections
        self._default = default
        self._clock = clock
        self._registered: Mapping[str, Registered] = {}
        self._registered_until = 0.0
        event.listen(engine, "before_execute", self._before_execute, retval=True)

    def disable(self) -> None:
        """Leave every statement alone from now on."""
        event.remove(self._engine, "before_execute", self._before_execute)

    def _before_execute(
        self, connection: Connection, statement: Executable, multiparams: Any, params: Any, options: Mapping[str, Any]
    ) -> tuple[Executable, Any, Any]:
        if isinstance(statement, Select) and options.get(OPTION, self._default):
            many = isinstance(multiparams, (list, tuple)) and len(multiparams) > 1
            given = params or (multiparams[0] if multiparams else {})
            if not many:
                statement = self._routed(connection, statement, given, options)
        return statement, multiparams, params

    def _routed(
        self, connection: Connection, statement: Select[Any], params: Mapping[str, Any], options: Mapping[str, Any]
    ) -> Select[Any]:
        def value_of(parameter: BindParameter[Any]) -> Any:
            return params.get(parameter.key, parameter.effective_value)

        try:
            search = search_of(statement, collection_of=self._collection_of, value_of=value_of)
            if search is None:
                return statement
            self._check(connection, search.collection)
            asked = SearchOptions(
                options.get(EF_SEARCH_OPTION), search.filter, options.get(EXACTNESS_OPTION),
                max_distance=search.max_distance,
            )  # fmt: skip
            k = search.k if not search.rest else _sufficient(connection, statement, search, asked, params)
        except LeftAlone as reason:
            logger.info("a SELECT by distance is left alone: %s", reason)
            return statement
        logger.debug(
            "collection %s answers a SELECT: k %d, %s%s",
            search.collection.name, k, "with a filter" if search.filter is not None else "no filter",
            f", more than its limit because {search.rest}" if search.rest else "",
        )  # fmt: skip
        return routed(statement, search, k=k, asked=asked)

    def _collection_of(self, column: ColumnElement[Any]) -> Collection | None:
        found = find_collection(column)
        return found if self._collections is None or found in self._collections else None

    def _check(self, connection: Connection, collection: Collection) -> None:
        """Leave alone what the database has not, or has otherwise: a detached collection costs a moment, no error."""
        now = self._clock.now()
        if now >= self._registered_until:
            default_schema = connection.dialect.default_schema_name
            self._registered = {each.name: each for each in registered(connection, default_schema=default_schema)}
            self._registered_until = now + limits.REGISTERED_SECONDS
        found = self._registered.get(collection.name)
        if found is None:
            raise LeftAlone(f"collection {collection.name} is not attached, or this role may not see it")
        if difference := found.difference(collection):
            raise LeftAlone(f"collection {collection.name} is attached with another {difference} than declared")


def enable(
    engine: Engine | AsyncEngine,
    collections: Iterable[Collection] | MetaData | None = None,
    *,
    default: bool = True,
    clock: Clock | None = None,
) -> Routing:
    """Have the sidecar find the rows of ``ORDER BY column <op> :vector LIMIT n`` from now on.

    Args:
        engine: of any driver, sync or async.
        collections: those to route; all that are declared when left out.
        default: whether statements are routed that say nothing. ``execution_options(ruvector=False)`` or ``True``, of a
            statement, a connection, a session or an engine, decides otherwise; ``ruvector_ef_search`` and
            ``ruvector_exactness`` are passed to the search.
        clock: for tests.

    Raises:
        InvalidParameter: the engine is not one of PostgreSQL.
    """
    target = engine.sync_engine if isinstance(engine, AsyncEngine) else engine
    if target.dialect.name != "postgresql":
        raise InvalidParameter(
            f"the engine speaks to {target.dialect.name}", hint="Vector collections live in PostgreSQL."
        )
    chosen = collections_of(collections) if isinstance(collections, MetaData) else collections
    return Routing(target, None if chosen is None else frozenset(chosen), default=default, clock=clock or SystemClock())


def routed(statement: Select[Any], search: Search, *, k: int, asked: SearchOptions) -> Select[Any]:
    """Return a SELECT whose rows are among the ``k`` that a search found; all its own conditions stay.

    The order is that of the distance plus nothing: so the rows come in the same order, but no index of pgvector fits,
    which would look at its own nearest rows only.
    """
    found = search_call(search.collection, search.distance.right, k=literal(k, Integer), options=asked)
    condition = _is_among(search, select(*found_keys(found, search.collection)))
    rest = statement._order_by_clauses[1:]
    order = [search.distance.op("+", return_type=Float())(literal(0.0, Float())), *rest]
    return statement.where(condition).order_by(None).order_by(*order)


def _is_among(search: Search, found: Select[Any]) -> ColumnElement[bool]:
    keys = keys_in(search.distance.left, search.collection)
    return (tuple_(*keys) if len(keys) > 1 else keys[0]).in_(found)


def _sufficient(
    connection: Connection, statement: Select[Any], search: Search, asked: SearchOptions, params: Mapping[str, Any]
) -> int:
    """Return how many rows a search must find so that enough meet the conditions that are not in its filter.

    Raises LeftAlone when the most that a search gives are not enough.
    """
    k = limits.REFILL_FACTOR * search.k
    while k < limits.K_MAX * limits.REFILL_FACTOR:
        k = min(k, limits.K_MAX)
        call = search_call(search.collection, search.distance.right, k=literal(k, Integer), options=asked)
        found = select(*found_keys(call, search.collection)).cte("ruvector_found")
        rows = statement._generate()
        rows._with_options = ()  # of loaders: they change no row
        rows = rows.where(_is_among(search, select(*found.c))).with_only_columns(
            literal_column("1").label("met"), maintain_column_froms=True
        )
        met = rows.order_by(None).offset(None).limit(search.k).subquery()
        counts = select(*(select(func.count()).select_from(each).scalar_subquery() for each in (found, met)))
        there, enough = connection.execute(counts, params, execution_options={OPTION: False}).one()
        if enough >= search.k or there < k:
            return k
        k *= limits.REFILL_FACTOR
    raise LeftAlone(f"{search.rest}, and fewer than {search.k} of the {limits.K_MAX} nearest rows meet its conditions")
