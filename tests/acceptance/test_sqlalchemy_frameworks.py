"""Sessions of web frameworks are routed because their engine is."""

import asyncio
import warnings

import pytest
from orm_kit import DIMS, ITEMS, Base, Item, Shop, async_engine_of, attach, engine_of, url_of, watching
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session
from table_kit import gaussian

from ruvector.sqlalchemy import enable

QUERY = gaussian(1, DIMS, seed=2)[0].tolist()
STATEMENT = select(Item).order_by(Item.embedding.cosine_distance(QUERY)).limit(3)


@pytest.fixture(scope="module")
def expected(shared_database, shared_sidecar):
    with engine_of(shared_database) as engine:
        Base.metadata.create_all(engine)
        with Session(engine) as session:
            session.add(Shop(id=1, name="one"))
            session.flush()
            vectors = gaussian(50, DIMS, seed=1)
            session.add_all(Item(id=n, shop_id=1, embedding=vectors[n]) for n in range(50))
            attach(session, ITEMS)
            session.commit()
            shared_sidecar.wait_live(ITEMS.name)
            return [item.id for item in session.scalars(STATEMENT)]


def test_flask_sqlalchemy(shared_database, expected):
    flask = pytest.importorskip("flask")
    SQLAlchemy = pytest.importorskip("flask_sqlalchemy").SQLAlchemy  # noqa: N806 - a class
    app = flask.Flask(__name__)
    app.config["SQLALCHEMY_DATABASE_URI"] = url_of(shared_database)
    database = SQLAlchemy(app)
    with app.app_context():
        enable(database.engine)

    @app.get("/nearest")
    def nearest():
        return [item.id for item in database.session.scalars(STATEMENT)]

    with app.app_context(), watching(database.engine) as seen:
        assert app.test_client().get("/nearest").json == expected
        database.engine.dispose()
    assert "ruvector_search" in seen[-1]


def test_fastapi_with_async_sessions(shared_database, expected):
    fastapi = pytest.importorskip("fastapi")
    pytest.importorskip("greenlet")
    httpx = pytest.importorskip("httpx")

    async def run():
        async with async_engine_of(shared_database) as engine:
            enable(engine)

            async def get_session():
                async with AsyncSession(engine) as session:
                    yield session

            app = fastapi.FastAPI()

            @app.get("/nearest")
            async def nearest(session=fastapi.Depends(get_session)):  # noqa: B008 - FastAPI's way
                return [item.id for item in await session.scalars(STATEMENT)]

            transport = httpx.ASGITransport(app)
            with watching(engine.sync_engine) as seen:
                async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
                    return (await client.get("/nearest")).json(), seen[-1]

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found, last = asyncio.run(run())
    assert found == expected
    assert "ruvector_search" in last
