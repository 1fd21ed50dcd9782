"""ruvector.alembic: operations there and back, offline scripts, and autogenerate that ends with nothing to do."""

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from fix_alembic import PLUGIN, entry_point_folder
from orm_kit import DIMS
from sqlalchemy import BigInteger, Column, Index, Integer, MetaData, Table, Text

import ruvector
from ruvector.alembic import plugin
from ruvector.alembic.collection_operations import CutoverOp
from ruvector.errors import InvalidParameter
from ruvector.sqlalchemy import BIT, HALFVEC, VECTOR, Collection


def shop(*, m=None, ef_construction=None, method="hnsw", options=None, opclass="vector_cosine_ops", columns=("price",),
         metric="cosine", collection=True, index=True, dims=DIMS, links=None):  # fmt: skip
    """Return metadata of one table: each argument is what a developer may change."""
    metadata = MetaData()
    items = Table(
        "items",
        metadata,
        Column("id", BigInteger, primary_key=True),
        Column("price", Integer),
        Column("category", Text),
        Column("embedding", VECTOR(dims)),
    )
    if index:
        with_ = options or {key: value for key, value in (("m", m), ("ef_construction", ef_construction)) if value}
        Index(
            "items_embedding_index",
            items.c.embedding,
            postgresql_using=method,
            postgresql_with=with_,
            postgresql_ops={"embedding": opclass},
        )
    if collection:
        Collection("items_embedding", items.c.embedding, metric=metric, columns=columns, m=links)
    return metadata


def body(script, function="upgrade"):
    """Return the operations of one function of a revision."""
    found = re.search(rf"def {function}\(\) -> None:\n(.*?)(?=\n\n\n|\Z)", script, re.DOTALL)[1]
    return [line.strip() for line in found.splitlines() if line.strip() and not re.match(r'\s*("""|#)', line)]


def collections(project):
    return project.rows(
        "SELECT name, table_name, column_name, metric, m, filter_columns FROM ruvector.collection ORDER BY 1"
    )


def test_first_revision_makes_everything_and_a_second_is_empty(new_project, bare_database):
    project = new_project(bare_database, shop(m=24, links=12))
    script = project.autogenerate("first")
    assert "import pgvector.sqlalchemy" in script
    assert f"pgvector.sqlalchemy.VECTOR(dim={DIMS})" in script
    assert body(script)[-3:] == [
        "op.create_vector_index('items_embedding_index', 'items', 'embedding', method='hnsw',"
        " opclass='vector_cosine_ops', m=24)",
        "op.ruvector_install()",
        "op.ruvector_attach('items_embedding', 'items', 'embedding', metric='cosine', columns=['price'], m=12)",
    ]
    assert body(script, "downgrade")[:2] == ["op.ruvector_detach('items_embedding')", "op.ruvector_uninstall()"]
    project.upgrade()
    assert collections(project) == [("items_embedding", "items", "embedding", "cosine", 12, ["price"])]
    assert project.indexes() == {"items_embedding_index": "hnsw (embedding vector_cosine_ops) WITH (m='24')"}
    assert project.is_current()
    project.options = {"include_schemas": True}
    assert project.is_current()  # schema ruvector is not looked at
    project.options = {}
    assert body(project.autogenerate("second")) == ["pass"]
    project.downgrade("base")
    assert project.rows("SELECT to_regnamespace('ruvector')::text, to_regclass('items')::text") == [(None, None)]
    project.upgrade()
    assert project.is_current()


DRIFTS = {
    "m": ({}, {"m": 32}, "m='32'"),
    "ef_construction": ({"m": 32}, {"m": 32, "ef_construction": 99}, "ef_construction='99', m='32'"),
    "options_gone": ({"m": 32}, {"m": 16}, "vector_cosine_ops)"),
    "opclass": ({}, {"opclass": "vector_l2_ops"}, "(embedding vector_l2_ops)"),
    "method": ({}, {"method": "ivfflat", "options": {"lists": 7}}, "ivfflat (embedding vector_cosine_ops)"),
    "lists": (
        {"method": "ivfflat", "options": {"lists": 7}},
        {"method": "ivfflat", "options": {"lists": 9}},
        "lists='9'",
    ),
}


@pytest.mark.parametrize("title", DRIFTS)
def test_drift_of_pgvectors_index_is_seen_and_mended_there_and_back(new_project, bare_database, title):
    before, after, expected = DRIFTS[title]
    project = new_project(bare_database, shop(collection=False, **before))
    project.autogenerate("first")
    project.upgrade()
    assert project.is_current()
    original = project.indexes()
    project.metadata = shop(collection=False, **after)
    script = project.autogenerate("drift")
    assert len(body(script)) == 1
    assert body(script)[0].startswith("op.alter_vector_index('items_embedding_index', 'items', 'embedding'")
    assert body(script)[0].endswith("concurrently=True)")
    project.upgrade()
    assert expected in project.indexes()["items_embedding_index"]
    assert project.is_current()
    project.downgrade()
    assert project.indexes() == original


def test_removed_and_added_index_is_ours(new_project, bare_database):
    project = new_project(bare_database, shop(collection=False, m=24))
    project.autogenerate("first")
    project.upgrade()
    before = project.indexes()
    project.metadata = shop(collection=False, index=False)
    script = project.autogenerate("removed")
    assert body(script) == ["op.drop_vector_index('items_embedding_index', 'items', concurrently=True)"]
    project.upgrade()
    assert (project.indexes(), project.is_current()) == ({}, True)
    project.downgrade()
    assert project.indexes() == before


def test_changed_collection_is_configured_or_attached_again(new_project, database):
    project = new_project(database, shop())
    project.autogenerate("first")
    project.upgrade()
    number = project.scalar("SELECT id FROM ruvector.collection")
    project.metadata = shop(columns=["price", "category"])
    script = project.autogenerate("columns")
    assert body(script) == ["op.ruvector_configure('items_embedding', columns=['category', 'price'])"]
    project.upgrade()
    assert project.rows("SELECT id, filter_columns FROM ruvector.collection") == [(number, ["category", "price"])]
    assert project.is_current()
    project.metadata = shop(metric="l2", columns=())
    script = project.autogenerate("metric")
    assert body(script) == [
        "op.ruvector_detach('items_embedding')",
        "op.ruvector_attach('items_embedding', 'items', 'embedding', metric='l2')",
    ]
    project.upgrade()
    assert collections(project) == [("items_embedding", "items", "embedding", "l2", 16, [])]
    assert project.is_current()
    project.downgrade()
    assert collections(project)[0][3:] == ("cosine", 16, ["category", "price"])
    project.downgrade()
    assert collections(project)[0][3:] == ("cosine", 16, ["price"])


def test_collection_is_detached_before_its_column_or_table_changes(new_project, database):
    project = new_project(database, shop(index=False))
    project.autogenerate("first")
    project.upgrade()
    project.metadata = shop(index=False, dims=DIMS + 1)
    names = [line.split("(")[0] for line in body(project.autogenerate("dims"))]
    assert names[0] == "op.ruvector_detach"
    assert names[-1] == "op.ruvector_attach"
    assert "op.alter_column" in names
    project.upgrade()
    assert project.scalar("SELECT dims FROM ruvector.collection") == DIMS + 1
    assert project.is_current()
    project.metadata = MetaData()
    assert [line.split("(")[0] for line in body(project.autogenerate("gone"))] == [
        "op.ruvector_detach",
        "op.drop_table",
    ]
    project.upgrade()
    assert project.scalar("SELECT count(*) FROM ruvector.collection") == 0
    project.downgrade()
    assert collections(project) == [("items_embedding", "items", "embedding", "cosine", 16, ["price"])]


def test_names_can_be_left_out(new_project, database):
    project = new_project(database, shop())
    project.autogenerate("first")
    project.upgrade()
    project.metadata = shop(collection=False)
    assert not project.is_current()
    project.options = {"include_name": lambda name, kind, parents: kind != "ruvector_collection"}
    assert project.is_current()


def test_collections_of_other_tables_are_nobodys_business(new_project, database, items):
    with database.connect() as connection:
        connection.execute("SELECT ruvector_register_collection('theirs', 'public', 'items', 'embedding')")
    metadata = MetaData()
    Table("others", metadata, Column("id", Integer, primary_key=True))
    project = new_project(database, metadata)
    project.options = {"include_name": lambda name, kind, parents: kind != "table" or name == "others"}
    script = project.autogenerate("first")
    assert "op.create_table" in script
    assert "ruvector" not in script


def test_expression_and_ordinary_indexes_stay_alembics(new_project, bare_database):
    metadata = shop(collection=False, index=False)
    items = metadata.tables["items"]
    Index("by_price", items.c.price)
    Index(
        "by_half",
        items.c.embedding.cast(HALFVEC(DIMS)).label("half"),
        postgresql_using="hnsw",
        postgresql_ops={"half": "halfvec_l2_ops"},
    )
    Index("cheap", items.c.embedding, postgresql_using="hnsw", postgresql_ops={"embedding": "vector_l2_ops"},
          postgresql_where=items.c.price < 10)  # fmt: skip
    project = new_project(bare_database, metadata)
    created = [line for line in body(project.autogenerate("first")) if "index(" in line]
    assert [line.split("(")[0] for line in created] == ["op.create_index", "op.create_index", "op.create_vector_index"]
    assert "where='price < 10'" in created[2]
    project.upgrade()
    assert project.indexes()["cheap"] == "hnsw (embedding vector_l2_ops) WHERE (price < 10)"
    assert project.is_current()


def test_every_vector_type_is_rendered_with_its_import(new_project, bare_database):
    metadata = MetaData()
    Table("kinds", metadata, Column("id", Integer, primary_key=True), Column("a", HALFVEC(3)), Column("b", BIT(5)))
    project = new_project(bare_database, metadata)
    script = project.autogenerate("first")
    assert "pgvector.sqlalchemy.HALFVEC(dim=3)" in script
    assert "pgvector.sqlalchemy.BIT(length=5)" in script
    project.upgrade()
    assert project.is_current()


HANDMADE = """op.create_vector_index("by_l2", "items", "embedding", opclass="vector_l2_ops", m=8, concurrently=True)
op.ruvector_install()
op.ruvector_attach("it's 100% x", "items", "embedding", metric="cosine", columns=["price"], m=8, ef_construction=40)
op.ruvector_configure("it's 100% x", columns=["category"])
op.alter_vector_index("by_l2", "items", "embedding", opclass="vector_cosine_ops", m=8, concurrently=True)"""
BACK = """op.drop_vector_index("by_l2", "items", concurrently=True)
op.ruvector_detach("it's 100% x")
op.ruvector_uninstall()"""


@pytest.mark.parametrize("offline", [False, True])
def test_operations_do_the_same_online_and_offline(new_project, bare_database, offline):
    project = new_project(bare_database, shop(index=False, collection=False))
    project.autogenerate("table")
    project.revision("ours", HANDMADE, BACK)
    if offline:
        script = project.sql()
        assert "COMMIT;\n\nCREATE INDEX CONCURRENTLY by_l2" in script
        run_script(bare_database, script)
    else:
        project.upgrade()
    assert project.rows("SELECT name, m, ef_construction, filter_columns FROM ruvector.collection") == [
        ("it's 100% x", 8, 40, ["category"])
    ]
    assert project.indexes() == {"by_l2": "hnsw (embedding vector_cosine_ops) WITH (m='8')"}
    if offline:
        head = project.scalar("SELECT version_num FROM alembic_version")
        run_script(bare_database, project.sql(f"{head}:-1", down=True))
    else:
        project.downgrade()
    assert project.rows("SELECT to_regnamespace('ruvector')::text, to_regclass('items')::text") == [(None, "items")]
    assert project.indexes() == {}


@pytest.mark.parametrize("offline", [False, True])
def test_cutover_goes_there_and_back(new_project, database, items, offline):
    steps = """op.ruvector_rollback("items_embedding")
op.ruvector_cutover("items_embedding", 0, guard={"min_recall": 0.9}, reason="it's 100%")"""
    with database.connect() as connection:
        connection.execute("SELECT ruvector_register_collection('items_embedding', 'public', 'items', 'embedding')")
        project = new_project(database, shop(index=False, collection=False))
        project.revision("ramp", steps, 'op.ruvector_rollback("items_embedding", reason="back")')
        state = "SELECT state, percent, reason, guard FROM ruvector_cutover_status()"
        if offline:
            run_script(database, project.sql())
        else:
            project.upgrade()
        assert connection.execute(state).fetchone() == ("ramp", 0, "it's 100%", {"min_recall": 0.9})
        project.downgrade()
        assert connection.execute(state).fetchone()[:3] == ("off", 0, "back")
    with pytest.raises(InvalidParameter, match="not to 'half'"):
        CutoverOp("items_embedding", "half")
    assert CutoverOp("items_embedding", "complete").reverse().name == "items_embedding"


def run_script(database, script):
    """Run a script as psql does: one statement after the other, so that COMMIT and CONCURRENTLY work."""
    with database.connect() as connection:
        for statement in split(script):
            connection.execute(statement.encode())


def split(script):
    """Split at semicolons at the end of a line outside dollar quotes."""
    statement, quote = [], None
    for line in script.splitlines():
        statement.append(line)
        for tag in re.findall(r"\$\w*\$", line):
            quote = None if quote == tag else (quote or tag)
        if quote is None and re.search(r";\s*(--.*)?$", line):
            yield "\n".join(statement)
            statement = []


def test_altering_concurrently_takes_up_a_build_that_failed(new_project, bare_database):
    project = new_project(bare_database, shop(collection=False))
    project.autogenerate("first")
    project.upgrade()
    with bare_database.connect() as connection:
        connection.execute("CREATE INDEX items_embedding_index_new ON items USING hnsw (embedding vector_l1_ops)")
    project.revision("alter", "op.alter_vector_index('items_embedding_index', 'items', 'embedding', method='ivfflat',"
                     " opclass='vector_ip_ops', lists=3, concurrently=True)")  # fmt: skip
    project.upgrade()
    assert project.indexes() == {"items_embedding_index": "ivfflat (embedding vector_ip_ops) WITH (lists='3')"}


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("op.create_vector_index('i', 'items', 'embedding', opclass='vector_l2_ops', lists=3)", "hnsw has no option"),
        ("op.create_vector_index('i', 'items', 'embedding', opclass='x', method='gin')", "no index method 'gin'"),
    ],
)
def test_wrong_operation_is_refused(new_project, bare_database, line, message):
    project = new_project(bare_database, MetaData())
    project.revision("wrong", line)
    with pytest.raises(InvalidParameter, match=message):
        project.upgrade()


def test_wrong_filter_column_is_an_error_of_the_database(new_project, database):
    project = new_project(database, shop())
    project.autogenerate("first")
    project.revision("wrong", "op.ruvector_configure('items_embedding', columns=['embedding'])")
    with pytest.raises(Exception, match=r"column embedding of public\.items does not exist or cannot be filtered"):
        project.upgrade()
    assert project.rows("SELECT to_regclass('items')::text") == [("items",)]


def test_index_of_a_partitioned_table_is_not_built_concurrently(new_project, bare_database):
    def partitioned(**options):
        metadata = shop(collection=False, **options)
        metadata.tables["items"].dialect_options["postgresql"]["partition_by"] = "HASH (id)"
        return metadata

    project = new_project(bare_database, partitioned())
    project.autogenerate("first")
    project.upgrade()
    project.metadata = partitioned(m=8)
    assert "concurrently" not in project.autogenerate("drift")
    project.upgrade()
    assert project.is_current()


@pytest.mark.parametrize("first", ["from alembic import op", "import alembic.command", "import ruvector.alembic"])
def test_entry_point_is_loaded_by_alembic(tmp_path, first):
    """Whatever is imported first: Alembic loads its plug-ins while it is half imported itself."""
    root = Path(ruvector.__file__).resolve().parents[1]
    declared = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]["entry-points"]
    assert declared["alembic.plugins"] == {PLUGIN: plugin.__name__}
    program = (
        f"{first}\n"
        "from alembic.runtime.plugins import _all_plugins\n"
        "from alembic.operations import Operations\n"
        f"print({PLUGIN!r} in _all_plugins, hasattr(Operations, 'ruvector_attach'))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={"PYTHONPATH": f"{root}{os.pathsep}{entry_point_folder(tmp_path)}"},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert done.stdout.split() == ["True", "True"]
