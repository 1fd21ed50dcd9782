"""Pages that go bad on disk between two starts of the sidecar: no wrong answer, and the mirror is made anew."""

import pytest
from fix_process import wait_for_state
from fix_sidecar import wait_until

from ruvector import kernels, limits

pytestmark = pytest.mark.fault

DIMS = 32
ROWS = 6_000
SETUP = f"""
CREATE TABLE items (id bigint PRIMARY KEY, embedding vector({DIMS}));
INSERT INTO items
SELECT n, (SELECT array_agg(sin(n * (g + 3)) + cos(n + g * g)) FROM generate_series(1, {DIMS}) g)::vector
FROM generate_series(1, {ROWS}) n;
SELECT ruvector_register_collection('items', 'public', 'items', 'embedding', NULL, 'l2');
"""
SEARCH = """
SELECT array_agg(s.id ORDER BY s.distance, s.id), min(s.tier)
FROM ruvector_search('items', (SELECT embedding FROM items WHERE id = %s), 10) s
"""
EXACT = """
SELECT array_agg(id::text ORDER BY d, id) FROM (
  SELECT id, embedding <-> (SELECT embedding FROM items WHERE id = %s) AS d FROM items ORDER BY 2, 1 LIMIT 10) e
"""


def damage(folder, section):
    """Change a byte in the middle of a section of the newest generation."""
    path = max(folder.glob("gen-*")) / f"index_{section}.section"
    with path.open("r+b") as file:
        file.seek(limits.STORE_HEADER_BYTES + (path.stat().st_size - limits.STORE_HEADER_BYTES) // 2)
        byte = file.read(1)
        file.seek(-1, 1)
        file.write(bytes([byte[0] ^ 0xFF]))
    return path


@pytest.mark.skipif(not kernels.IS_COMPILED, reason="the numpy engine reads everything first")
@pytest.mark.parametrize("section", ["rows", "links", "keys"])
def test_a_damaged_page_leads_to_a_rebuild_and_never_to_a_wrong_answer(database, sidecar_process, section):
    with database.connect() as connection:
        connection.execute(SETUP)
        sidecar_process.start()
        wait_for_state(database, "items", "live", process=sidecar_process)
        assert sidecar_process.terminate() == 0
        path = damage(sidecar_process.data_dir / "collection-1", section)
        sidecar_process.start()
        for turn in range(200):
            asked = turn * 29 % ROWS + 1
            found, _ = connection.execute(SEARCH, (asked,)).fetchone()
            exact = connection.execute(EXACT, (asked,)).fetchone()[0]
            assert found[0] == exact[0]
            assert len(set(found) & set(exact)) >= 8
        # It was live, or about to be, when the page was found: the worker says so, and not the one who opens files.
        wait_until(lambda: f'of "{path.name}" has' in sidecar_process.output(), "the damage to be found")
        assert "mirror of items: page" in sidecar_process.output()
        wait_for_state(database, "items", "live", process=sidecar_process)
        wait_until(lambda: connection.execute(SEARCH, (7,)).fetchone()[1] == "hot", "the sidecar to answer again")
        report = connection.execute("SELECT ruvector_verify('items', \"full\" => true)").fetchone()[0]
    assert report["differences"] == 0
    assert report["checked"] == ROWS
