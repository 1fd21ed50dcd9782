"""An application's migrations with our operations pass the checks of pytest-alembic, on a real server."""

import pytest
import pytest_alembic
from pytest_alembic import Config
from pytest_alembic.tests import (  # collected here, with the fixture below
    test_model_definitions_match_ddl,
    test_single_head_revision,
    test_up_down_consistency,
    test_upgrade,
)
from sqlalchemy import BigInteger, Column, Index, Integer, MetaData, Table

from ruvector.sqlalchemy import VECTOR, Collection

__all__ = [
    "test_model_definitions_match_ddl",
    "test_single_head_revision",
    "test_up_down_consistency",
    "test_upgrade",
]


def shop(*, columns, indexed):
    """Return the metadata of one release of an application."""
    metadata = MetaData()
    items = Table("items", metadata, Column("id", BigInteger, primary_key=True), Column("price", Integer),
                  Column("stock", Integer), Column("embedding", VECTOR(3)))  # fmt: skip
    if indexed:
        Index("items_hnsw", items.c.embedding, postgresql_using="hnsw", postgresql_with={"m": 8},
              postgresql_ops={"embedding": "vector_l2_ops"})  # fmt: skip
    Collection("items_embedding", items.c.embedding, metric="l2", columns=columns)
    return metadata


@pytest.fixture
def alembic_runner(new_project, bare_database):
    project = new_project(bare_database, shop(columns=["price"], indexed=False))
    project.autogenerate("first")
    project.upgrade()
    project.metadata = shop(columns=["price", "stock"], indexed=True)
    project.autogenerate("second")
    project.revision("ramp", "op.ruvector_rollback('items_embedding')\nop.ruvector_cutover('items_embedding', 0)",
                     "op.ruvector_rollback('items_embedding')")  # fmt: skip
    project.downgrade("base")
    with pytest_alembic.runner(Config.from_raw_config(project.config), project.engine) as runner:
        yield runner
