"""SQLAlchemy over the databases of the tests: engines, and models with every kind of vector and key."""

import contextlib

import psycopg
from psycopg.conninfo import conninfo_to_dict
from sqlalchemy import URL, BigInteger, ForeignKey, Text, create_engine, event, func, literal, pool, select
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship

from ruvector.sqlalchemy import VECTOR, Collection

DIMS = 8


class Base(DeclarativeBase):
    """Models of the routing tests: items of shops, with tags."""


class Shop(Base):
    __tablename__ = "shops"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]


class Item(Base):
    __tablename__ = "items"
    id: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    category: Mapped[str | None]
    price: Mapped[int | None]
    note: Mapped[str | None] = mapped_column(Text)
    shop_id: Mapped[int] = mapped_column(ForeignKey(Shop.id))
    maker_id: Mapped[int | None] = mapped_column(ForeignKey(Shop.id))
    embedding: Mapped[list[float] | None] = mapped_column(VECTOR(DIMS))
    shop: Mapped[Shop] = relationship(foreign_keys=shop_id)
    maker: Mapped[Shop | None] = relationship(foreign_keys=maker_id)
    tags: Mapped[list["Tag"]] = relationship(order_by="Tag.id")


class Tag(Base):
    __tablename__ = "tags"
    id: Mapped[int] = mapped_column(primary_key=True)
    item_id: Mapped[int] = mapped_column(ForeignKey(Item.id))
    text: Mapped[str]


ITEMS = Collection("items_embedding", Item.embedding, metric="cosine", columns=[Item.category, "price"])


def url_of(database):
    """Return the address of a database; everything libpq understands goes into its query."""
    options = {name: str(value) for name, value in conninfo_to_dict(database.dsn).items()}
    return URL.create("postgresql+psycopg", database=options.pop("dbname"), query=options)


@contextlib.contextmanager
def engine_of(database, **options):
    engine = create_engine(url_of(database), poolclass=pool.NullPool, **options)
    try:
        yield engine
    finally:
        engine.dispose()


@contextlib.asynccontextmanager
async def async_engine_of(database, **options):
    engine = create_async_engine(url_of(database), poolclass=pool.NullPool, **options)
    try:
        yield engine
    finally:
        await engine.dispose()


@contextlib.contextmanager
def watching(engine):
    """Collect the statements that reach the driver."""
    seen = []

    def listen(connection, cursor, statement, parameters, context, executemany):
        seen.append(statement)

    event.listen(engine, "before_cursor_execute", listen)
    try:
        yield seen
    finally:
        event.remove(engine, "before_cursor_execute", listen)


def attach(connection, *collections):
    """Attach declared collections."""
    for collection in collections:
        connection.execute(
            select(
                func.ruvector_register_collection(
                    collection.name, "public", collection.table.name, collection.column.name, None, collection.metric,
                    literal({"columns": list(collection.filter_columns)}, JSONB),
                )
            )
        )  # fmt: skip


def refusal_of(caught):
    """Return SQLSTATE of an error of the database."""
    assert isinstance(caught.value.orig, psycopg.Error)
    return caught.value.orig.sqlstate
