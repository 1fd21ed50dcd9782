"""The sidecar process as people run it: least privileges, numpy kernels, one pass, collections that come and go."""

import os
import subprocess
import sys

import psycopg
import pytest
from fix_process import wait_for_state
from fix_sidecar import running_sidecar, wait_until
from psycopg.conninfo import make_conninfo

SETUP = """
CREATE TABLE items (id bigint PRIMARY KEY, embedding vector(8));
INSERT INTO items SELECT n, (SELECT array_agg(sin(n * g)) FROM generate_series(1, 8) g)::vector FROM generate_series(1, 300) n;
SELECT ruvector_register_collection('items', 'public', 'items', 'embedding', NULL, 'cosine');
"""  # noqa: E501
SEARCH = "SELECT array_agg(id ORDER BY distance), min(tier) FROM ruvector_search('items', {query}, 10)".format(
    query="(SELECT embedding FROM items WHERE id = 5)"
)
EXACT = """
SELECT array_agg(e.id::text ORDER BY e.d) FROM (
  SELECT i.id, (i.embedding <=> (SELECT embedding FROM items WHERE id = 5)) + 0 AS d FROM items i ORDER BY 2 LIMIT 10) e
"""


@pytest.fixture
def items(database):
    with database.connect() as connection:
        connection.execute(SETUP)
    return database


def check_search(database, name="items"):
    with database.connect() as connection:
        found, tier = connection.execute(SEARCH).fetchone()
        assert tier == "hot"
        assert found == connection.execute(EXACT).fetchone()[0]


@pytest.mark.parametrize("kernels", ["compiled", "numpy"])
def test_the_whole_product_runs_on_either_kernels(items, sidecar_process, kernels):
    sidecar_process.start(env={"RUVECTOR_KERNELS": kernels})
    wait_for_state(items, "items", "live", process=sidecar_process)
    with items.connect() as connection:
        info = connection.execute("SELECT ruvector_simd_info()").fetchone()[0]
        assert ("numpy" in info) is (kernels == "numpy"), info
        connection.execute("UPDATE items SET embedding = '[1,1,1,1,1,1,1,1]' WHERE id = 7")
        assert connection.execute("SELECT ruvector_wait_applied('items', 20000)").fetchone()[0]
    check_search(items)


def test_a_role_with_only_the_sidecars_rights_is_enough(items, tmp_path):
    with items.connect() as connection:
        connection.execute(f"CREATE ROLE side_{items.name} LOGIN PASSWORD 'side' IN ROLE ruvector_sidecar")
    dsn = make_conninfo(items.dsn, user=f"side_{items.name}", password="side")
    try:
        with running_sidecar(items, tmp_path / "data", dsn=dsn, checkpoint_seconds=0.1) as sidecar:
            sidecar.wait_live("items")
            check_search(items)
            with items.connect() as connection:
                connection.execute("DELETE FROM items WHERE id = 11")
            sidecar.wait_applied("items")
            written = sidecar.data_dir / "collection-1"
            before = set(written.iterdir())
            wait_until(lambda: not set(written.iterdir()) <= before, "a checkpoint")
        with psycopg.connect(dsn) as connection, pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute("SELECT ruvector.register('x', 'public', 'items', 'embedding', NULL, 'l2', '{}')")
    finally:
        with items.connect() as connection:
            connection.execute(f"DROP OWNED BY side_{items.name}; DROP ROLE side_{items.name}")


def test_run_once_catches_up_and_leaves_a_checkpoint(items, tmp_path):
    command = [sys.executable, "-m", "ruvector", "run", "--once", "--dsn", items.dsn, "--data-dir", str(tmp_path / "d")]
    for expected in (300, 299):
        done = subprocess.run([*command, "--format", "json"], capture_output=True, text=True, env=dict(os.environ))
        assert done.returncode == 0, done.stderr
        assert f'"rows_indexed": {expected}' in done.stdout
        with items.connect() as connection:
            connection.execute("DELETE FROM items WHERE id = 1")
            checkpoint, token = connection.execute(
                "SELECT (SELECT count(*) FROM ruvector.consumer), (SELECT count(*) FROM ruvector.live)"
            ).fetchone()
        assert (checkpoint, token) == (1, 0)


def test_collections_come_and_go_while_it_runs(items, sidecar):
    sidecar.wait_live("items")
    with items.connect() as connection:
        connection.execute(
            "CREATE TABLE more AS SELECT id, embedding FROM items; ALTER TABLE more ADD PRIMARY KEY (id)"
        )
        connection.execute("SELECT ruvector_register_collection('more', 'public', 'more', 'embedding', NULL, 'l2')")
    wait_until(lambda: "more" in [worker.mirror.collection.name for worker in sidecar.sidecar.workers.all()], "more")
    sidecar.wait_live("more")
    folder = sidecar.data_dir / f"collection-{sidecar.mirror('more').collection.id}"
    assert folder.is_dir()
    with items.connect() as connection:
        connection.execute("SELECT ruvector_unregister_collection('more')")
        connection.execute("INSERT INTO more VALUES (1000, '[1,2,3,4,5,6,7,8]')")
    wait_until(lambda: not folder.exists(), "the files of a detached collection to go")
    sidecar.wait_live("items")
    check_search(items)


def test_a_restored_copy_of_the_database_is_copied_again(items, new_database, tmp_path):
    """A copy made with CREATE DATABASE ... TEMPLATE carries rows that speak of another database."""
    with running_sidecar(items, tmp_path / "data") as sidecar:
        sidecar.wait_live("items")
        with items.connect() as connection:
            old = connection.execute("SELECT instance_id FROM ruvector.instance").fetchone()
    clone = f"{items.name}_clone"
    items.server.create_database(clone, template=items.name)
    try:
        copied = type(items)(items.server, clone)
        with running_sidecar(copied, tmp_path / "data") as sidecar:
            sidecar.wait_live("items")
            check_search(copied)
            with copied.connect() as connection:
                assert connection.execute("SELECT instance_id FROM ruvector.instance").fetchone() != old
    finally:
        items.server.drop_database(clone)


def test_another_version_of_the_schema_is_refused(items, tmp_path):
    with items.connect() as connection:
        connection.execute("UPDATE ruvector.instance SET installed_version = '0.0.1'")
    command = [sys.executable, "-m", "ruvector", "run", "--once", "--dsn", items.dsn, "--data-dir", str(tmp_path / "d")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 1
    assert "schema ruvector has version 0.0.1, this program" in done.stderr
    assert "ruvector install" in done.stderr


def test_half_written_generations_are_removed(items, tmp_path):
    leftover = tmp_path / "data" / "collection-1" / "gen-000007.partial"
    leftover.mkdir(parents=True, mode=0o700)
    leftover.parent.chmod(0o700)
    (leftover / "rows").write_bytes(b"half")
    with running_sidecar(items, tmp_path / "data") as sidecar:
        sidecar.wait_live("items")
        assert not leftover.exists()
