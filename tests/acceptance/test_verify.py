"""Verification: hashes on both sides, every kind of difference found exactly, repairs, and the one that always runs."""

import threading

import numpy as np
import pytest
from fix_sidecar import running_sidecar, wait_until
from table_kit import VectorTable, gaussian

from ruvector.capture.collections import load_collections
from ruvector.capture.reader import TableReader
from ruvector.mirror.hashes import array_hashes, text_hashes
from ruvector.mirror.verify import hashes_of

ROWS = 200
COMPOSITE = "region text, id int, PRIMARY KEY (region, id)"
TABLES = [
    VectorTable("v_l2", dims=5),
    VectorTable("v_cosine", dims=5, metric="cosine", columns="id int PRIMARY KEY"),
    VectorTable("v_untyped", dims=3, typed=False, dims_given=3),
    VectorTable("v_half", dims=7, element="halfvec", metric="cosine", columns="id text PRIMARY KEY"),
    VectorTable("v_bit", dims=13, element="bit", metric="hamming"),
    VectorTable("v_sparse", dims=50, element="sparsevec", metric="cosine", columns="id text PRIMARY KEY"),
    VectorTable("v_pair", dims=4, columns=COMPOSITE, key_sql="json_build_array(t.region, t.id)::text"),
]


def zero_of(table):
    return {"bit": "0" * table.dims, "sparsevec": "{}/" + str(table.dims)}.get(table.element, [0.0] * table.dims)


def fill(connection, table):
    table.create(connection)
    extra = {"region": ["ab"[n % 2] for n in range(ROWS)]} if "region" in table.columns else {}
    table.insert(connection, table.random_vectors(ROWS, seed=61), **extra)
    more = {"region": ["a"] * 2} if "region" in table.columns else {}
    table.insert(connection, [None, zero_of(table)], first=ROWS + 1, **more)
    if not table.typed:
        table.insert(connection, [[1.0, 2.0]], first=ROWS + 3)
    table.attach(connection)


@pytest.fixture(scope="module")
def tables(shared_database, shared_sidecar):
    with shared_database.connect() as connection:
        for table in TABLES:
            fill(connection, table)
        shared_sidecar.wait_live(*(table.name for table in TABLES))
        yield connection


def full(sidecar, table, *, repair=False):
    return sidecar.worker(table.name).verify(sample=1, full=True, repair=repair)


@pytest.mark.parametrize("seed", [0, 1, -5, 2**40 + 3])
def test_hash_is_postgresqls_own(shared_database, seed):
    rng = np.random.default_rng(62)
    contents = [rng.bytes(length) for length in [*range(40), 1540]]
    rows = np.zeros((len(contents), 1548), dtype=np.uint8)
    for row, content in zip(rows, contents, strict=True):
        row[: len(content)] = np.frombuffer(content, dtype=np.uint8)
    lengths = np.array([len(content) for content in contents])
    seeds = np.full(len(contents), seed).astype(np.uint64)
    texts = ["", "a", "äöü ∞", "x" * 100, "[1, 2]"]
    with shared_database.connect() as connection:
        expected = connection.execute(
            "SELECT hash_array_extended(ARRAY[b], %s) FROM unnest(%s::bytea[]) b", (seed, contents)
        ).fetchall()
        of_texts = connection.execute(
            "SELECT hash_array_extended(ARRAY[convert_to(t, 'UTF8')], 0) FROM unnest(%s::text[]) t", (texts,)
        ).fetchall()
    assert array_hashes(rows, lengths, seeds).astype(np.int64).tolist() == [row[0] for row in expected]
    assert text_hashes(texts).astype(np.int64).tolist() == [row[0] for row in of_texts]


@pytest.mark.parametrize("table", TABLES, ids=[table.name for table in TABLES])
def test_both_sides_hash_a_row_alike(tables, shared_database, shared_sidecar, table):
    collection = next(each for each in load_collections(tables) if each.name == table.name)
    reader = TableReader(shared_database.dsn, collection)
    try:
        with reader.at_snapshot():
            hashed = reader.row_hashes(None, None)
    finally:
        reader.close()
    mirror = shared_sidecar.mirror(table.name)
    keys = mirror.index.keys()
    ours = hashes_of(mirror, keys).astype(np.int64).tolist()
    theirs = {key: value for key, value in hashed.items() if value is not None}
    assert dict(zip(map(str, keys), ours, strict=True)) == theirs
    assert len(hashed) == len(theirs) + sum(mirror.unindexed.counts().values())


@pytest.mark.parametrize("table", TABLES, ids=[table.name for table in TABLES])
def test_every_kind_of_difference_is_found_and_repaired(tables, shared_sidecar, table):
    mirror = shared_sidecar.mirror(table.name)
    index, held = mirror.index, mirror.index.keys()
    assert full(shared_sidecar, table)["differences"] == 0
    # Two rows vanish, two swap their vectors, an unknown and a left-out one are there.
    picked = [held[n] for n in (0, 70, 140, 141)]
    swapped = index.vectors_of(picked[2:])[0]
    index.delete(picked[:2])
    index.upsert(picked[2:], swapped[np.array([1, 0])])
    left_out = next(key for key, reason in mirror.unindexed.reasons.items() if reason == "null")
    unknown = {"v_pair": '["c", 1]'}.get(table.name, "unknown")
    strange = [900_001, int(left_out)] if index.options.key_kind == "int64" else [unknown, left_out]
    index.upsert(strange, swapped)
    checkpoint = mirror.changes_applied
    for repair in (False, True):
        report = full(shared_sidecar, table, repair=repair)
        assert {kind: set(keys) for kind, keys in report["keys"].items()} == {
            "missing": set(map(str, picked[:2])), "stale": set(map(str, picked[2:])), "orphan": set(map(str, strange)),
        }  # fmt: skip
        assert (report["differences"], report["repaired"]) == (6, 6 if repair else 0)
    assert full(shared_sidecar, table)["differences"] == 0
    assert mirror.changes_applied == checkpoint + 6, "the next checkpoint would not hold the repair"
    assert mirror.unindexed.reasons[left_out] == "null"


def test_empty_and_emptied_tables(database, sidecar):
    with database.connect() as connection:
        numbers = VectorTable("numbers", dims=3).create(connection)
        texts = VectorTable("texts", dims=3, columns="id text PRIMARY KEY").create(connection)
        for table in (numbers, texts):
            table.attach(connection)
            sidecar.wait_live(table.name)
            assert full(sidecar, table)["checked"] == 0
        sidecar.mirror("numbers").index.upsert([5, 6], np.ones((2, 3), dtype=np.float32))
        sidecar.mirror("texts").index.upsert(["5", "6"], np.ones((2, 3), dtype=np.float32))
        for table in (numbers, texts):
            assert full(sidecar, table, repair=True)["orphan"] == 2
            assert len(sidecar.mirror(table.name).index) == 0


def test_differences_are_exact_while_the_table_changes(database, sidecar):
    """Writers never stop; what verification reports is what was damaged, and nothing else."""
    ended = threading.Event()

    def write():
        with database.connect() as connection:
            for number in range(1, 100_000):
                if ended.is_set():
                    return
                connection.execute(
                    "INSERT INTO busy VALUES (%s, %s) ON CONFLICT (id) DO UPDATE SET embedding = excluded.embedding",
                    (number * 7919 % 30_000, f"[{number},1]"),
                )
                connection.execute("DELETE FROM busy WHERE id = %s", (number * 104_729 % 30_000,))

    table = VectorTable("busy", dims=2, options={"index_kind": "flat"})
    with database.connect() as connection:
        table.create(connection)
        connection.execute("INSERT INTO busy SELECT n, ARRAY[n, 2]::real[]::vector FROM generate_series(1, 40000) n")
        table.attach(connection)
        sidecar.wait_live(table.name)
    writers = [threading.Thread(target=write) for _ in range(2)]
    for writer in writers:
        writer.start()
    try:
        index = sidecar.mirror(table.name).index
        wait_until(lambda: sidecar.mirror(table.name).changes_applied > 20, "changes")
        for _ in range(3):
            assert full(sidecar, table)["differences"] == 0
        # Rows that no writer touches.
        index.delete([35_001, 39_999])
        index.upsert([35_002, 50_000], np.zeros((2, 2), dtype=np.float32))
        report = full(sidecar, table, repair=True)
        assert report["keys"] == {"missing": ["35001", "39999"], "stale": ["35002"], "orphan": ["50000"]}
        assert report["repaired"] == 4
        assert full(sidecar, table)["differences"] == 0
    finally:
        ended.set()
        for writer in writers:
            writer.join(30)


@pytest.mark.parametrize("columns", ["id bigint PRIMARY KEY", "id text PRIMARY KEY"])
def test_the_verification_that_always_runs_finds_repairs_and_tells(database, tmp_path, rv, columns):
    table = VectorTable("watched", dims=3, columns=columns)
    with (
        running_sidecar(database, tmp_path / "data", scrub_seconds=0.05) as sidecar,
        database.connect() as connection,
    ):
        table.create(connection)
        table.insert(connection, gaussian(150, 3, seed=63))
        table.attach(connection)
        sidecar.wait_live(table.name)
        mirror = sidecar.mirror(table.name)
        wait_until(lambda: mirror.verified.get("cycles", 0) >= 2, "two cycles")
        assert mirror.verified["last"]["differences"] == 0
        key = mirror.index.keys()[7]
        strange = 900_001 if isinstance(mirror.index.keys(), np.ndarray) else "zzz"
        mirror.index.delete([key])
        mirror.index.upsert([strange], np.ones((1, 3), dtype=np.float32))
        wait_until(lambda: mirror.index.contains(key) and not mirror.index.contains(strange), "the repair")

        def events():
            return connection.execute("SELECT kind, detail FROM ruvector.event ORDER BY id").fetchall()

        wait_until(lambda: sum(len(event[1]["keys"]["orphan"]) for event in events()) > 0, "the event")
        assert {event[0] for event in events()} == {"difference"}
        assert str(key) in {found for event in events() for found in event[1]["keys"]["missing"]}
        status = rv.json("status")["collections"][0]
        assert status["verified"]["cycles"] >= 2
        answer = rv("doctor", "--format", "json")
        assert answer.code == 3
        checks = {check["name"]: check for check in answer.document["checks"]}
        assert not checks["collection watched"]["ok"]
        assert "rows differed from the table at" in checks["collection watched"]["found"]
