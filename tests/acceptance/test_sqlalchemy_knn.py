"""ruvector.sqlalchemy without routing: types, declared collections, and knn over every kind of vector and key."""

import uuid

import numpy as np
import pytest
from orm_kit import DIMS, attach, engine_of, refusal_of
from pgvector import Bit, HalfVector, SparseVector, Vector
from sqlalchemy import ARRAY, Column, Integer, MetaData, Table, Text, Uuid, cast, func, insert, inspect, select
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, aliased, mapped_column
from table_kit import gaussian

from ruvector.errors import InvalidParameter
from ruvector.sparse import SparseVectors
from ruvector.sqlalchemy import BIT, HALFVEC, SPARSEVEC, VECTOR, Collection, collections_of

ROWS = 60


class Base(DeclarativeBase):
    pass


class Word(Base):
    """The key is text, and attributes have other names than columns."""

    __tablename__ = "words"
    name: Mapped[str] = mapped_column("spelled", Text, primary_key=True)
    kind: Mapped[int] = mapped_column("class")
    point: Mapped[list[float]] = mapped_column("emb edding", VECTOR(DIMS))


class Page(Base):
    __tablename__ = "pages"
    book: Mapped[uuid.UUID] = mapped_column(Uuid, primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True)
    title: Mapped[str] = mapped_column(primary_key=True)
    point: Mapped[list[float]] = mapped_column(HALFVEC(DIMS))


prints = Table("prints", Base.metadata, Column("id", Integer, primary_key=True), Column("bits", BIT(16)))
terms = Table("terms", Base.metadata, Column("id", Integer, primary_key=True), Column("weights", SPARSEVEC(50)))

WORDS = Collection("words", Word.point, metric="l2", columns=[Word.kind])
PAGES = Collection("pages", Page.point, metric="cosine")
PRINTS = Collection("prints", prints.c.bits)
TERMS = Collection("terms", terms.c.weights, metric="ip")
BOOKS = [uuid.UUID(int=1), uuid.UUID(int=2**127)]
QUERY = gaussian(1, DIMS, seed=1)[0]


def sparse(number):
    return SparseVector({number % 50: 1.5, (number * 7) % 50: 0.5}, 50)


@pytest.fixture(scope="module")
def engine(shared_database, shared_sidecar):
    with engine_of(shared_database) as engine:
        Base.metadata.create_all(engine)
        vectors = gaussian(ROWS, DIMS, seed=2)
        with Session(engine) as session:
            session.add_all(Word(name=f"it's {n}", kind=n % 3, point=vectors[n]) for n in range(ROWS))
            session.add_all(
                Page(book=BOOKS[n % 2], number=n, title=f'"{n}", ü', point=Vector(vectors[n])) for n in range(ROWS)
            )
            session.execute(insert(prints), [{"id": n, "bits": f"{n * 911:016b}"[-16:]} for n in range(ROWS)])
            session.execute(insert(terms), [{"id": n, "weights": sparse(n)} for n in range(ROWS)])
            attach(session, WORDS, PAGES, PRINTS, TERMS)
            session.commit()
        shared_sidecar.wait_live("words", "pages", "prints", "terms")
        yield engine


@pytest.fixture
def session(engine):
    with Session(engine) as session:
        yield session


def test_collections_stand_in_metadata():
    assert collections_of(Base.metadata) == [WORDS, PAGES, PRINTS, TERMS]
    assert collections_of([MetaData(), Base.metadata]) == [WORDS, PAGES, PRINTS, TERMS]
    assert WORDS.filter_columns == ("class",)
    assert (WORDS.metric, PRINTS.metric) == ("l2", "hamming")
    assert WORDS.column is Word.__table__.c["emb edding"]


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: Collection("words", Page.number), "has type"),
        (lambda: Collection("words", Page.point), 'collection "words" of words.emb edding is declared already'),
        (lambda: Collection("other", Word.point), 'collection "words" of words.emb edding is declared already'),
        (lambda: Collection("n" * 64, Word.point), "64 bytes"),
        (lambda: Collection("", Word.point), "0 bytes"),
        (lambda: Collection("other", prints.c.bits, metric="l2"), "metric 'l2' does not work"),
        (lambda: Collection("other", Page.point, metric="jaccard"), "metric 'jaccard' does not work"),
        (lambda: Collection("other", Page.point, columns=["nothing"]), "has no column 'nothing'"),
        (lambda: Collection("other", func.now()), "is not a column of a table"),
        (lambda: Word.kind.expression.table.c.spelled.label("x"), None),
    ],
)
def test_wrong_declaration_is_refused(build, message):
    if message is None:
        build()
        return
    with pytest.raises(InvalidParameter, match=message) as caught:
        build()
    assert caught.value.hint


def test_undeclared_column_has_no_knn():
    table = Table("loose", MetaData(), Column("id", Integer, primary_key=True), Column("v", VECTOR(3)))
    with pytest.raises(InvalidParameter, match=r"loose\.v is not declared as a collection"):
        table.c.v.knn([1, 2, 3])
    with pytest.raises(InvalidParameter, match="called pages"):
        Word.point.knn(QUERY, collection="pages")


def test_knn_joins_entities_by_a_text_key(session):
    near = Word.point.knn(QUERY, 5, collection="words")
    rows = session.execute(
        select(Word, near.distance, near.tier, near.is_exact, near.score)
        .join(near, near.on)
        .order_by(near.distance)
    ).all()  # fmt: skip
    expected = session.scalars(select(Word).order_by(Word.point.l2_distance(QUERY)).limit(5)).all()
    assert [row[0] for row in rows] == expected  # the very same objects of the session
    assert {row[2] for row in rows} == {"hot"}
    exact = session.scalars(
        select(Word.point.l2_distance(QUERY)).order_by(Word.point.l2_distance(QUERY)).limit(5)
    ).all()
    assert [row[1] for row in rows] == pytest.approx(exact, rel=1e-6)


def test_knn_takes_a_filter_and_search_options(session):
    near = Word.point.knn(QUERY, 4, filter={"class": {"$in": (1, 2)}}, ef_search=200, exactness="exact")
    rows = session.execute(select(Word.name, near.tier).join(near, near.on).order_by(near.distance)).all()
    expected = select(Word.name).where(Word.kind.in_([1, 2])).order_by(Word.point.l2_distance(QUERY)).limit(4)
    assert [row[0] for row in rows] == session.scalars(expected).all()
    assert {row[1] for row in rows} == {"exact"}


def test_knn_among_keys_given_as_a_list_a_select_or_an_expression(session):
    chosen = select(Word.name).where(Word.kind == 1)
    exact = session.scalars(chosen.order_by(Word.point.l2_distance(QUERY)).limit(4)).all()
    names = session.scalars(chosen).all()
    for keys in (names, chosen, func.array(chosen.scalar_subquery(), type_=ARRAY(Text))):
        near = Word.point.knn(QUERY, 4, keys=keys)
        found = session.execute(select(Word.name, near.tier).join(near, near.on).order_by(near.distance)).all()
        assert [row[0] for row in found] == exact
        assert {row[1] for row in found} == {"hot"}
    numbers = select(prints.c.id).where(prints.c.id < 9)
    near = prints.c.bits.knn("0101010101010101", 50, keys=numbers)
    assert len(session.execute(select(near.distance).join_from(prints, near, near.on)).all()) == 9
    near = Word.point.knn(QUERY, 4, keys=[])
    assert session.execute(select(Word.name).join(near, near.on)).all() == []


def test_knn_within_a_distance(session):
    distance = Word.point.l2_distance(QUERY)
    exact = session.execute(select(Word.name, distance).order_by(distance).limit(9)).all()
    most = (exact[6][1] + exact[7][1]) / 2
    near = Word.point.knn(QUERY, 500, max_distance=most)
    found = session.scalars(select(Word.name).join(near, near.on).order_by(near.distance)).all()
    assert found == [row[0] for row in exact[:7]]
    near = terms.c.weights.knn(sparse(9), 50, max_distance=-1)
    distance = terms.c.weights.max_inner_product(sparse(9))
    expected = session.scalars(select(distance).where(distance <= -1).order_by(distance)).all()
    statement = select(near.distance).join_from(terms, near, near.on).order_by(near.distance)
    assert session.scalars(statement).all() == expected


def test_knn_of_an_alias_joins_the_alias(session):
    other = aliased(Word)
    near = other.point.knn(select(Word.point).where(Word.name == "it's 7").scalar_subquery(), 3)
    names = session.scalars(select(other.name).join(near, near.on).order_by(near.distance)).all()
    assert names[0] == "it's 7"
    assert len(names) == 3


@pytest.mark.parametrize("kind", [list, np.asarray, Vector, lambda v: HalfVector(v.tolist())])
def test_composite_key_and_every_python_vector(session, kind):
    value = kind(QUERY.astype(np.float16).astype(np.float32))
    near = Page.point.knn(value, 6)
    found = session.scalars(select(Page).join(near, near.on).order_by(near.distance)).all()
    assert found == session.scalars(select(Page).order_by(Page.point.cosine_distance(value)).limit(6)).all()


@pytest.mark.parametrize("text", ["0101010101010101", "1111111111111111"])
def test_bits_in_core(engine, text):
    as_array = np.array([bit == "1" for bit in text])
    with engine.connect() as connection:
        for value in (text, Bit(text), as_array):
            near = prints.c.bits.knn(value, 5)
            rows = connection.execute(
                select(prints.c.id, near.distance).join_from(prints, near, near.on).order_by(near.distance)
            ).all()
            distance = prints.c.bits.hamming_distance(value)
            assert [row[1] for row in rows] == connection.scalars(select(distance).order_by(distance).limit(5)).all()


def test_sparse_in_core(engine):
    rows = SparseVectors.from_texts([sparse(9).to_text()])
    with engine.connect() as connection:
        for value in (sparse(9), rows):
            near = terms.c.weights.knn(value, 5, filter={})
            found = connection.execute(select(near.distance).join_from(terms, near, near.on).order_by(near.distance))
            distance = terms.c.weights.max_inner_product(value)
            assert found.scalars().all() == connection.scalars(select(distance).order_by(distance).limit(5)).all()


def test_null_and_reflected_types_work_as_pgvectors(engine):
    reflected = {column["name"]: column["type"] for column in inspect(engine).get_columns("words")}
    assert str(reflected["emb edding"]) == "VECTOR(8)"
    with engine.connect() as connection:
        for kind in (VECTOR(), HALFVEC(), SPARSEVEC(), BIT(3)):
            assert connection.scalar(select(cast(None, kind))) is None


def test_detached_collection_is_an_error_of_the_database(session):
    table = Table("later", MetaData(), Column("id", Integer, primary_key=True), Column("v", VECTOR(3)))
    Collection("later", table.c.v)
    with pytest.raises(DBAPIError) as caught:
        session.execute(select(table.c.v.knn([1, 2, 3]).distance))
    assert refusal_of(caught) == "42704"
