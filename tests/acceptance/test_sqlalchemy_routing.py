"""enable(engine): SELECTs by distance give the same rows in the same order through the sidecar, others stay alone."""

import asyncio
import datetime
import decimal
import enum
import json
import logging
import uuid

import pytest
from orm_kit import DIMS, ITEMS, Base, Item, Shop, Tag, async_engine_of, attach, engine_of, watching
from sqlalchemy import (
    CHAR,
    REAL,
    BigInteger,
    Boolean,
    Column,
    Date,
    DateTime,
    Double,
    Enum,
    ForeignKeyConstraint,
    Integer,
    MetaData,
    Numeric,
    SmallInteger,
    String,
    Table,
    Text,
    Uuid,
    and_,
    bindparam,
    create_engine,
    event,
    false,
    func,
    insert,
    join,
    literal,
    not_,
    or_,
    select,
    text,
    true,
    update,
)  # fmt: skip
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import (
    DeclarativeBase,
    Mapped,
    Session,
    aliased,
    contains_eager,
    joinedload,
    load_only,
    mapped_column,
    selectinload,
    sessionmaker,
    subqueryload,
    with_loader_criteria,
)  # fmt: skip
from table_kit import gaussian

from ruvector.errors import InvalidParameter
from ruvector.sqlalchemy import VECTOR, Collection, enable
from ruvector.sqlalchemy.shape import search_of

ROWS = 400
VECTORS = gaussian(ROWS, DIMS, seed=1)
QUERY = gaussian(1, DIMS, seed=2)[0]
DISTANCE = Item.embedding.cosine_distance(QUERY)
OTHER = aliased(Item)
TABLE = Item.__table__
HALF, NAN = decimal.Decimal("0.5"), float("nan")


@pytest.fixture(scope="module")
def engine(shared_database, shared_sidecar):
    with engine_of(shared_database) as engine:
        Base.metadata.create_all(engine)
        with Session(engine) as session:
            session.add_all(Shop(id=n, name=f"shop {n}") for n in range(1, 5))
            session.flush()
            session.execute(insert(Item), [row(n) for n in range(1, ROWS)])
            session.execute(insert(Tag), [{"item_id": n, "text": f"tag {n % 3}"} for n in range(1, ROWS, 2)])
            attach(session, ITEMS)
            session.commit()
        shared_sidecar.wait_live(ITEMS.name)
        yield engine


def row(n):
    return {
        "id": n,
        "category": None if n % 10 == 0 else "abc"[n % 3],
        "price": None if n % 7 == 0 else n,
        "note": "x" * (n % 5),
        "shop_id": 1 + n % 4,
        "maker_id": None if n % 2 else 1 + n % 3,
        "embedding": None if n == 5 else VECTORS[n],
    }


def answers(engine, statement, parameters=None, **options):
    """Return the rows of a SELECT, left alone and routed, and whether it was routed."""
    with Session(engine) as session:
        alone = session.execute(statement, parameters or {}).unique().all()
        routing = enable(engine, [ITEMS])
        try:
            with watching(engine) as seen:
                found = session.execute(statement, parameters or {}, execution_options=options).unique().all()
        finally:
            routing.disable()
        is_routed = any("ruvector_search" in each for each in seen)
        # Objects of one session are the same objects when they have the same identity.
        return [tuple(each) for each in alone], [tuple(each) for each in found], is_routed


def nearest(*entities):
    return select(*entities).order_by(DISTANCE)


ROUTED = {
    "entity": nearest(Item).limit(10),
    "entity_and_distance": nearest(Item, DISTANCE).limit(10),
    "label": select(Item, DISTANCE.label("distance")).order_by(DISTANCE.label("distance")).limit(10),
    "name_of_label": select(Item, DISTANCE.label("distance")).order_by("distance").limit(10),
    "ascending": select(Item).order_by(DISTANCE.asc()).limit(10),
    "columns": nearest(Item.id, Item.note, 1 - DISTANCE, func.coalesce(Item.price, 0)).limit(10),
    "tie_broken_by_key": nearest(Item).order_by(Item.id).limit(10),
    "offset": nearest(Item).limit(10).offset(20),
    "core": select(TABLE.c.id, TABLE.c.note).order_by(TABLE.c.embedding.cosine_distance(QUERY)).limit(10),
    "core_alias": (lambda t: select(t.c.id).order_by(t.c.embedding.cosine_distance(QUERY)).limit(10))(TABLE.alias()),
    "orm_alias": select(OTHER).order_by(OTHER.embedding.cosine_distance(QUERY)).limit(10),
    "one": nearest(Item).limit(1),
    "more_than_there_are": nearest(Item).where(Item.embedding.is_not(None)).limit(2000),
    # conditions
    "equal": nearest(Item).where(Item.category == "a").limit(10),
    "by_keyword": nearest(Item).filter_by(category="b").limit(10),
    "unequal": nearest(Item).where(Item.category != "a").limit(10),
    "range": nearest(Item).where(Item.price >= 50, Item.price < 90).limit(10),
    "between": nearest(Item).where(Item.price.between(50, 90)).limit(10),
    "list": nearest(Item).where(Item.price.in_([1, 2, 3, 70])).limit(10),
    "not_in_list": nearest(Item).where(Item.category.not_in(["a", "b"])).limit(10),
    "empty_list": nearest(Item).where(Item.price.in_([])).limit(10),
    "null": nearest(Item).where(Item.category.is_(None)).limit(10),
    "not_null": nearest(Item).where(Item.category.is_not(None)).limit(10),
    "or": nearest(Item).where(or_(Item.price < 20, and_(Item.category == "b", Item.price > 350))).limit(10),
    "not": nearest(Item).where(not_(or_(Item.category == "a", Item.price > 300))).limit(10),
    "nothing_matches": nearest(Item).where(Item.price == -1).limit(10),
    "true": nearest(Item).where(true(), Item.price < 40).limit(10),
    "distance_below": nearest(Item).where(DISTANCE < 0.5).limit(50),
    "distance_at_most": nearest(Item).where(DISTANCE <= 0.7, Item.category == "a").limit(300),
    "two_bounds": nearest(Item).where(and_(DISTANCE < 1, DISTANCE <= 0.6)).limit(300),
    "vector_given": nearest(Item).where(Item.embedding.is_not(None), Item.category == "c").limit(10),
    # joins and options
    "inner_join_of_a_foreign_key": nearest(Item, Shop).join(Item.shop).limit(10),
    "the_other_way_round": nearest(Item).select_from(Shop).join(Item, Item.shop_id == Shop.id).limit(10),
    "outer_join": nearest(Item, Shop.name).outerjoin(Item.maker).limit(10),
    "core_join": select(TABLE.c.id, Shop.__table__.c.name)
    .select_from(join(TABLE, Shop.__table__, TABLE.c.shop_id == Shop.__table__.c.id))
    .order_by(TABLE.c.embedding.cosine_distance(QUERY)).limit(10),
    "joinedload": nearest(Item).options(joinedload(Item.shop), joinedload(Item.maker)).limit(10),
    "joinedload_of_many": nearest(Item).options(joinedload(Item.tags)).limit(10),
    "selectinload": nearest(Item).options(selectinload(Item.tags)).limit(10),
    "subqueryload": nearest(Item).options(subqueryload(Item.tags)).limit(10),
    "contains_eager": nearest(Item).join(Item.shop).options(contains_eager(Item.shop)).limit(10),
    "load_only": nearest(Item).options(load_only(Item.note)).limit(10),
}  # fmt: skip


@pytest.mark.parametrize("title", ROUTED)
def test_same_objects_in_the_same_order_through_the_sidecar(engine, title):
    alone, found, is_routed = answers(engine, ROUTED[title])
    assert is_routed
    assert found == alone
    assert len(found) > 0 or title in ("nothing_matches", "empty_list")


@pytest.mark.parametrize(
    ("condition", "most"),
    [
        (DISTANCE < 0.5, 0.5), (and_(DISTANCE <= 1, DISTANCE < 0.5), 0.5), (DISTANCE < HALF, None),
        (Item.price < 7, None), (DISTANCE < NAN, None),
    ],
)  # fmt: skip
def test_a_search_looks_no_farther_than_the_statement(condition, most):
    statement = nearest(Item).where(condition).limit(5)
    found = search_of(statement, collection_of=lambda _: ITEMS, value_of=lambda given: given.effective_value)
    assert found.max_distance == most


def messages(caplog):
    return [record.getMessage() for record in caplog.records if record.name == "ruvector.sqlalchemy"]


# statements with conditions that are no filter, and why
REFILLED = {
    "unfilterable_column": (nearest(Item).where(Item.note == "x").limit(10), "column note is no filter column"),
    "half_a_condition": (nearest(Item).where(Item.price < 99, Item.note == "x").limit(10), "column note"),
    "function_in_condition": (nearest(Item).where(func.lower(Item.category) == "a").limit(10), "lower"),
    "like": (nearest(Item).where(Item.category.like("a%")).limit(10), "operator like_op"),
    "two_columns": (nearest(Item).where(Item.price == Item.id).limit(10), "with an expression"),
    "subquery": (nearest(Item).where(Item.price.in_(select(Shop.id))).limit(10), "operator in_op"),
    "condition_on_partner": (nearest(Item).join(Item.shop).where(Shop.name == "shop 1").limit(10), "not one on"),
    "null_value": (nearest(Item).where(Item.price == bindparam("p", None, Integer)).limit(10), "NoneType"),
    "distance_above": (nearest(Item).where(DISTANCE > 0.5).limit(10), "is not one on a column"),
    "nothing_meets_it": (nearest(Item).where(Item.note == "y").limit(10), "column note"),
    "offset_and_rest": (nearest(Item).where(Item.note == "xx", Item.price > 9).limit(7).offset(8), "column note"),
    "half_an_or": (nearest(Item).where(or_(Item.note == "x", Item.price < 99)).limit(10), "column note"),
    "eager_and_rest": (nearest(Item).where(Item.note == "x").options(joinedload(Item.tags)).limit(10), "column note"),
    "bound_and_rest": (nearest(Item).where(Item.note == "x", DISTANCE < 0.8).limit(300), "column note"),
    "core_and_rest": (select(TABLE.c.id).where(TABLE.c.note.like("xx%")).limit(30)
                      .order_by(TABLE.c.embedding.cosine_distance(QUERY)), "column note"),
}  # fmt: skip


@pytest.mark.parametrize("title", REFILLED)
def test_conditions_that_are_no_filter_are_asked_of_the_rows_found(engine, title, caplog):
    statement, reason = REFILLED[title]
    with caplog.at_level(logging.DEBUG, "ruvector.sqlalchemy"):
        alone, found, is_routed = answers(engine, statement)
    assert is_routed
    assert found == alone
    assert len(found) > 0 or title in ("nothing_meets_it", "null_value", "two_columns")
    (told,) = messages(caplog)
    assert "more than its limit because" in told
    assert reason in told


def test_a_search_is_widened_until_enough_rows_meet_the_conditions(engine):
    statement = nearest(Item.id).where(Item.id % 40 == 7).limit(3)
    with Session(engine) as session:
        alone = session.scalars(statement).all()
        routing = enable(engine, [ITEMS])
        try:
            with watching(engine) as seen:
                assert session.scalars(statement).all() == alone
        finally:
            routing.disable()
    tries = [each for each in seen if "ruvector_found" in each]
    assert len(alone) == 3
    assert len(tries) > 1
    assert "ruvector_search" in seen[-1]
    assert "ruvector_found" not in seen[-1]


TAGGED = Table("tagged", MetaData(), Column("id", Integer, primary_key=True), Column("v", VECTOR(DIMS)))
LEFT_ALONE = {
    "no_limit": (nearest(Item), "it has no limit"),
    "descending": (select(Item).order_by(DISTANCE.desc()).limit(10), None),
    "other_order": (select(Item).order_by(Item.price).limit(10), None),
    "other_metric": (select(Item).order_by(Item.embedding.l2_distance(QUERY)).limit(10), "it orders by l2"),
    "further_order": (nearest(Item).order_by(Item.price).limit(10), "something else than distance and key"),
    "text": (nearest(Item).where(text("price < 10")).limit(10), "TextClause"),
    "false": (nearest(Item).where(false()).limit(10), "False_ is no filter"),
    "volatile": (nearest(Item).where(func.random() < 2).limit(10), "function random"),
    "text_in_condition": (nearest(Item).where(or_(Item.note == "x", text("price < 10"))).limit(10), "TextClause"),
    "nullable_foreign_key": (nearest(Item).join(Item.maker).limit(10), "may drop rows"),
    "join_to_many": (nearest(Item).join(Item.tags).limit(10), "may drop rows"),
    "join_with_more": (nearest(Item).join(Shop, and_(Shop.id == Item.shop_id, Shop.id > 1)).limit(10), "may drop"),
    "full_join": (nearest(Item.id).join(Shop, Item.maker_id == Shop.id, full=True).limit(10), "full outer join"),
    "two_tables": (nearest(Item.id, Shop.id).where(Item.shop_id == Shop.id).limit(10), "2 sources"),
    "distinct": (nearest(Item.id, DISTANCE).distinct().limit(10), "DISTINCT"),
    "group": (nearest(Item.id).group_by(Item.id).limit(10), "GROUP BY"),
    "window": (nearest(Item.id, func.row_number().over(order_by=DISTANCE)).limit(10), "window function"),
    "set_returning": (nearest(Item.id, func.generate_series(1, 2)).limit(10), "generate_series"),
    "for_update": (nearest(Item).with_for_update().limit(10), "FOR UPDATE"),
    "fetch": (nearest(Item).fetch(10), "FETCH"),
    "limit_expression": (nearest(Item).limit(literal(5) + 5).limit(select(func.count(Shop.id)).scalar_subquery()),
                         "expression"),
    "too_many": (nearest(Item.id).limit(10_001), "10001 rows"),
    "vector_of_a_row": (select(Item).order_by(Item.embedding.cosine_distance(
        select(Item.embedding).where(Item.id == 7).scalar_subquery())).limit(3), "an expression, not a value"),
    "zero_vector": (select(Item.id).where(Item.id < 9).order_by(Item.embedding.cosine_distance([0.0] * DIMS), Item.id)
                    .limit(3), "no direction"),
    "loader_criteria": (nearest(Item).options(with_loader_criteria(Item, Item.note == "x")).limit(10), "criteria"),
    "undeclared": (select(TAGGED).order_by(TAGGED.c.v.l2_distance(QUERY)).limit(3), None),
    "union": (select(Item.id).limit(3).union(select(Shop.id)), None),
    "as_subquery": (select(nearest(Item.id).limit(3).subquery().c.id), None),
}  # fmt: skip


@pytest.mark.parametrize("title", LEFT_ALONE)
def test_other_statements_are_left_alone_and_the_log_says_why(engine, title, caplog):
    statement, reason = LEFT_ALONE[title]
    if title == "undeclared":
        TAGGED.create(engine, checkfirst=True)
    with caplog.at_level(logging.DEBUG, "ruvector.sqlalchemy"):
        alone, found, is_routed = answers(engine, statement)
    assert not is_routed
    if title != "for_update":
        assert sorted(map(str, found)) == sorted(map(str, alone))
    told = messages(caplog)
    assert len(told) == (0 if reason is None else 1)
    assert all(reason in message for message in told)


class Word(enum.StrEnum):
    SAME = "n3"


TYPED = Table(
    "typed",
    MetaData(),
    Column("id", Integer, primary_key=True),
    Column("flag", Boolean),
    Column("small", SmallInteger),
    Column("big", BigInteger),
    Column("double", Double),
    Column("single", REAL),
    Column("price", Numeric(10, 2)),
    Column("code", CHAR(4)),
    Column("day", Date),
    Column("at", DateTime(timezone=True)),
    Column("local", DateTime),
    Column("tag", Uuid),
    Column("name", Text),
    Column("kind", Enum("x", "y", native_enum=False)),
    Column("v", VECTOR(DIMS)),
)
NOON = datetime.datetime(2024, 2, 1, 12)
TYPES = Collection("typed", TYPED.c.v, columns=[c.name for c in TYPED.c if c.name not in ("id", "v")])
T = TYPED.c


def typed_row(n):
    """Every seventh row is empty."""
    if n % 7 == 0:
        return {"id": n, "v": VECTORS[n]} | dict.fromkeys(TYPES.filter_columns)
    moment = NOON + datetime.timedelta(hours=n)
    return {
        "id": n, "v": VECTORS[n], "flag": n % 2 == 0, "small": n - 50, "big": n * 10**10,
        "double": n / 3, "single": n / 10, "price": decimal.Decimal(n) / 100, "code": f"c{n % 3}",
        "day": moment.date(), "local": moment,
        "at": moment.replace(tzinfo=datetime.UTC), "tag": uuid.UUID(int=n % 5), "kind": "xy"[n % 2],
        "name": f"n{n % 4}",
    }  # fmt: skip


ZONE = datetime.timezone(datetime.timedelta(hours=5, minutes=30))
BY_TYPE = [
    (T.flag, True),
    (~T.flag, True),
    (not_(T.flag), True),
    (T.flag == true(), True),
    (T.flag != true(), True),
    (or_(T.flag, T.small > 40), True),
    (T.flag.is_(None), True),
    (T.flag.is_(True), False),  # false for NULL, where a filter gives NULL
    (T.small < -40, True),
    (T.small < 40_000, False),
    (T.big == 71 * 10**10, True),
    (T.big > 2**63, False),
    (T.double > 1 / 3, True),
    (T.double == 20 / 3, True),
    (T.double < float("inf"), False),
    (T.single == 0.3, False),  # compared as double precision, so never equal
    (T.price == decimal.Decimal("0.13"), True),
    (T.price.in_([decimal.Decimal("0.130"), 1]), True),
    (T.price < decimal.Decimal("NaN"), False),
    (T.code == "c1", False),
    (T.day >= datetime.date(2024, 2, 3), True),
    (T.day > NOON, False),
    (T.at < NOON.replace(day=3, tzinfo=ZONE), True),
    (T.at < NOON.replace(day=3), False),  # the zone of the session
    (T.local < NOON.replace(day=3), True),
    (T.local < NOON.replace(day=3, tzinfo=ZONE), False),
    (T.tag == uuid.UUID(int=3), True),
    (T.tag.in_([uuid.UUID(int=3), uuid.UUID(int=9)]), True),
    (T.kind == "x", False),
    (T.name == Word.SAME, False),  # the driver sends the name of an Enum, not its value
    (T.name == "n3", True),
    (T.small.between(-5, 5), True),
    (T.small.not_in([-49, -48]), True),
    (T.small + 1 == 3, False),
    (literal(3) == T.small, False),
]


@pytest.fixture(scope="module")
def typed(engine, shared_sidecar):
    with engine.begin() as connection:
        TYPED.create(connection)
        connection.execute(insert(TYPED), [typed_row(n) for n in range(100)])
        attach(connection, TYPES)
    shared_sidecar.wait_live("typed")
    routing = enable(engine, [TYPES])
    yield engine
    routing.disable()


@pytest.mark.parametrize(("condition", "expected"), BY_TYPE, ids=lambda value: str(value)[:50])
def test_condition_means_the_same_for_every_type(typed, condition, expected):
    statement = select(TYPED.c.id).where(condition).order_by(TYPED.c.v.l2_distance(QUERY)).limit(9)
    with typed.connect() as connection:
        connection.execute(text("SET timezone = 'America/St_Johns'"))
        with watching(typed) as seen:
            try:
                found = connection.scalars(statement).all()
            except DBAPIError:
                found = None
        is_filter = any("ruvector_search" in each for each in seen) and not any(
            "ruvector_found" in each for each in seen
        )
        assert is_filter == expected
        if found is not None:
            assert found == connection.scalars(statement.execution_options(ruvector=False)).all()
        assert found or not expected


def test_log_names_collection_and_rows_but_no_vector(engine, caplog):
    with caplog.at_level(logging.DEBUG, "ruvector.sqlalchemy"):
        answers(engine, ROUTED["range"])
    assert messages(caplog) == ["collection items_embedding answers a SELECT: k 10, with a filter"]


def test_parameters_of_the_execution_count(engine):
    statement = (
        select(Item)
        .where(Item.price < bindparam("below"), Item.category.in_(bindparam("among", expanding=True)))
        .order_by(Item.embedding.cosine_distance(bindparam("near", type_=VECTOR(DIMS))))
        .limit(bindparam("rows", type_=Integer))
    )
    for below, rows in ((100, 3), (200, 7)):
        given = {"below": below, "among": ["a", "c"], "near": VECTORS[below], "rows": rows}
        alone, found, is_routed = answers(engine, statement, given)
        assert is_routed
        assert found == alone
        assert len(found) == rows


def test_vector_of_wrong_dimensions_is_pgvectors_error(engine):
    with pytest.raises(Exception, match="different vector dimensions 8 and 3"):
        answers(engine, select(Item).order_by(Item.embedding.cosine_distance([1, 2, 3])).limit(3))


@pytest.fixture
def routing(engine):
    routing = enable(engine, Base.metadata)
    yield routing
    routing.disable()


def is_routed(engine, run):
    with watching(engine) as seen:
        run()
    return any("ruvector_search" in each for each in seen)


def test_options_decide_for_statement_call_connection_and_session(engine, routing):
    statement = nearest(Item).limit(3)
    with Session(engine) as session:
        assert is_routed(engine, lambda: session.scalars(statement).all())
        assert not is_routed(engine, lambda: session.scalars(statement.execution_options(ruvector=False)).all())
        assert not is_routed(engine, lambda: session.scalars(statement, execution_options={"ruvector": False}).all())
        assert is_routed(engine, lambda: session.query(Item).order_by(DISTANCE).first())
    with Session(engine.execution_options(ruvector=False)) as session:
        assert not is_routed(engine, lambda: session.scalars(statement).all())
        assert is_routed(engine, lambda: session.scalars(statement, execution_options={"ruvector": True}).all())
    with Session(engine) as session:
        session.connection(execution_options={"ruvector": False})
        assert not is_routed(engine, lambda: session.scalars(statement).all())
    with engine.connect().execution_options(ruvector=False) as connection:
        assert not is_routed(engine, lambda: connection.execute(statement).all())


def test_off_by_default_when_asked(engine):
    routing = enable(engine, default=False)
    try:
        with Session(engine) as session:
            statement = nearest(Item).limit(3)
            assert not is_routed(engine, lambda: session.scalars(statement).all())
            assert is_routed(engine, lambda: session.scalars(statement.execution_options(ruvector=True)).all())
    finally:
        routing.disable()


def test_search_options_are_passed_on(engine, routing):
    statement = nearest(Item).limit(5)
    with Session(engine) as session:
        expected = session.scalars(statement, execution_options={"ruvector": False}).all()
        options = {"ruvector_ef_search": 300, "ruvector_exactness": "exact"}
        assert session.scalars(statement, execution_options=options).all() == expected
        with pytest.raises(Exception, match="unknown exactness 'nonsense'"):
            session.scalars(statement, execution_options={"ruvector_exactness": "nonsense"}).all()


def test_criteria_that_an_event_adds_are_noticed(engine, routing):
    """The usual way of soft deletes: the condition is added while the session executes."""
    with Session(engine) as session:

        @event.listens_for(session, "do_orm_execute")
        def add(state):
            state.statement = state.statement.options(with_loader_criteria(Item, Item.id > 5))

        assert not is_routed(engine, lambda: session.scalars(nearest(Item).limit(3)).all())


def test_deep_conditions_are_asked_of_the_rows_found(engine, routing):
    def nested(depth):
        condition = Item.price > 3
        for _ in range(depth):
            condition = not_(and_(condition, Item.price > 1))
        return nearest(Item).where(condition).limit(3)

    with Session(engine) as session:
        for depth in (5, 40):
            assert is_routed(engine, lambda depth=depth: session.scalars(nested(depth)).all())
        for depth in range(10, 20):  # around the bound: whoever answers, it is no error
            session.scalars(nested(depth)).all()


def test_own_uncommitted_rows_are_found(engine, routing):
    with Session(engine) as session:
        session.add(Item(id=ROWS + 1, shop_id=1, category="a", embedding=QUERY))
        statement = nearest(Item).where(Item.category == "a").limit(2)
        assert session.scalars(statement).first().id == ROWS + 1  # flushed by the query itself
        session.execute(update(Item).where(Item.id == ROWS + 1).values(category="b"))
        assert session.scalars(statement).first().id != ROWS + 1
        session.rollback()


def test_pgvectors_index_does_not_cut_the_answer(engine):
    """An hnsw scan with the routed condition as a filter would look at its nearest rows only."""
    with engine.connect() as connection:
        connection.execute(text("CREATE INDEX ON items USING hnsw (embedding vector_cosine_ops)"))
        connection.execute(text("SET LOCAL enable_seqscan = off; SET LOCAL hnsw.ef_search = 1"))
        plain = connection.execute(nearest(Item.id).limit(10)).all()
        routing = enable(engine)
        try:
            found = connection.execute(nearest(Item.id).limit(10)).all()
        finally:
            routing.disable()
        connection.rollback()
        assert len(plain) < len(found) == 10


class Hands:
    """A clock that a test sets."""

    time = 0.0

    def now(self):
        return self.time

    def sleep(self, seconds):
        self.time += seconds


def test_what_is_not_attached_as_declared_is_left_alone(shared_database, engine, caplog):
    metadata = MetaData()
    table = Table("parts", metadata, Column("id", Integer, primary_key=True), Column("price", Integer),
                  Column("name", String), Column("v", VECTOR(DIMS)))  # fmt: skip
    parts = Collection("parts", table.c.v, metric="l2", columns=["price"])
    metadata.create_all(engine)
    clock = Hands()
    routing = enable(engine, clock=clock)
    statement = select(table.c.id).order_by(table.c.v.l2_distance(QUERY)).limit(3)

    def run():
        with engine.connect() as connection:
            connection.execute(statement)

    def attached(metric, columns):
        with shared_database.connect() as connection:
            connection.execute(
                "SELECT ruvector_register_collection('parts', 'public', 'parts', 'v', NULL, %s, %s)",
                (metric, json.dumps({"columns": columns})),
            )
        clock.sleep(60)

    def detached():
        with shared_database.connect() as connection:
            connection.execute("SELECT ruvector_unregister_collection('parts')")
        clock.sleep(60)

    try:
        with caplog.at_level(logging.INFO, "ruvector.sqlalchemy"):
            assert not is_routed(engine, run)
            attached("cosine", ["price"])
            assert not is_routed(engine, run)
            detached()
            attached("l2", ["name"])
            assert not is_routed(engine, run)
            detached()
            attached("l2", ["price", "name"])
            assert is_routed(engine, run)
            detached()
            assert not is_routed(engine, run)
    finally:
        routing.disable()
    reasons = [message.partition(": ")[2] for message in messages(caplog)]
    assert reasons == [
        "collection parts is not attached, or this role may not see it",
        "collection parts is attached with another metric than declared",
        "collection parts is attached with another list of filter columns than declared",
        "collection parts is not attached, or this role may not see it",
    ]
    assert parts.table is table


def test_database_without_ruvector_is_left_alone(bare_database):
    metadata = MetaData()
    table = Table("lonely", metadata, Column("a", Text, primary_key=True), Column("v", VECTOR(3)))
    Collection("lonely", table.c.v)
    with engine_of(bare_database) as engine:
        enable(engine)
        metadata.create_all(engine)
        with engine.connect() as connection:
            connection.execute(insert(table), [{"a": "x", "v": [1, 2, 3]}])
            assert connection.scalars(select(table.c.a).order_by(table.c.v.l2_distance([1, 2, 3])).limit(1)).all() == [
                "x"
            ]


def test_composite_keys_and_composite_foreign_keys(shared_database, shared_sidecar, engine):
    metadata = MetaData()
    books = Table(
        "books", metadata, Column("code", String, primary_key=True), Column("part", Integer, primary_key=True)
    )
    pages = Table(
        "leaves", metadata, Column("book", String, primary_key=True), Column("volume", Integer, primary_key=True),
        Column("number", Integer, primary_key=True), Column("v", VECTOR(DIMS)),
    )  # fmt: skip
    pages.append_constraint(ForeignKeyConstraint(["book", "volume"], ["books.code", "books.part"]))
    collection = Collection("leaves", pages.c.v)
    metadata.create_all(engine)
    with engine.begin() as connection:
        connection.execute(insert(books), [{"code": "it's", "part": 1}, {"code": "b", "part": 1}])
        connection.execute(
            insert(pages),
            [{"book": "it's" if n % 2 else "b", "volume": 1, "number": n, "v": VECTORS[n]} for n in range(100)],
        )
        attach(connection, collection)
    shared_sidecar.wait_live("leaves")
    distance = pages.c.v.l2_distance(QUERY)
    whole = and_(pages.c.book == books.c.code, pages.c.volume == books.c.part)
    half = pages.c.book == books.c.code
    routing = enable(engine)
    try:
        with engine.connect() as connection:
            for condition, expected in ((whole, True), (half, False)):
                statement = select(pages.c.number, books.c.code).join(books, condition).order_by(distance).limit(7)
                alone = connection.execute(statement.execution_options(ruvector=False)).all()
                with watching(engine) as seen:
                    assert connection.execute(statement).all() == alone
                assert any("ruvector_search" in each for each in seen) == expected
    finally:
        routing.disable()


def test_async_engine_and_session(shared_database, engine):
    pytest.importorskip("greenlet")

    async def run():
        async with async_engine_of(shared_database) as async_engine:
            enable(async_engine, [ITEMS])
            with watching(async_engine.sync_engine) as seen:
                async with AsyncSession(async_engine) as session:
                    statement = nearest(Item).options(joinedload(Item.shop)).where(Item.price < 200).limit(5)
                    found = (await session.scalars(statement)).all()
                    alone = (await session.scalars(statement, execution_options={"ruvector": False})).all()
        return found, alone, [each for each in seen if "ruvector_search" in each]

    found, alone, routed = asyncio.run(run())
    assert len(found) == 5
    assert found == alone
    assert len(routed) == 1


def test_sessions_of_a_sessionmaker_are_routed(engine, routing):
    make = sessionmaker(engine)
    with make.begin() as session:
        assert is_routed(engine, lambda: session.scalars(nearest(Item).limit(2)).all())


def test_engine_of_another_database_is_refused():
    with pytest.raises(InvalidParameter, match="speaks to sqlite"):
        enable(create_engine("sqlite://"))


def test_single_table_inheritance_is_left_alone(engine):
    class Local(DeclarativeBase):
        pass

    class Thing(Local):
        __tablename__ = "things"
        id: Mapped[int] = mapped_column(primary_key=True)
        kind: Mapped[str]
        v: Mapped[list[float]] = mapped_column(VECTOR(DIMS))
        __mapper_args__ = {"polymorphic_on": "kind", "polymorphic_identity": "thing"}

    class Tool(Thing):
        __mapper_args__ = {"polymorphic_identity": "tool"}

    collection = Collection("things", Thing.v)
    Local.metadata.create_all(engine)
    with Session(engine) as session:
        attach(session, collection)
        session.commit()
        routing = enable(engine)
        try:
            for entity, expected in ((Thing, True), (Tool, False)):
                statement = select(entity).order_by(entity.v.l2_distance(QUERY)).limit(2)
                assert is_routed(engine, lambda statement=statement: session.scalars(statement).all()) == expected
        finally:
            routing.disable()


def test_a_routed_select_obeys_the_cutover(engine):
    statement = select(Item).order_by(DISTANCE).limit(5)
    steps = ("ruvector_rollback(:name)", "ruvector_cutover(:name, 50)", "ruvector_cutover(:name, 100)",
             "ruvector_cutover_complete(:name)")  # fmt: skip
    for step in steps:
        with Session(engine) as session:
            session.execute(select(text(step)).params(name=ITEMS.name))
            session.commit()
            tiers = session.scalars(
                text("SELECT tier FROM ruvector_search(:name, :query, k => 5)"),
                {"name": ITEMS.name, "query": str(QUERY.tolist())},
            ).all()
        if "50" not in step:
            assert set(tiers) == {"pgvector" if "rollback" in step else "hot"}
        alone, routed, was_routed = answers(engine, statement)
        assert was_routed
        assert [item.id for (item,) in alone] == [item.id for (item,) in routed]
