"""Every way a row can change is seen by the triggers: the answer is right before it is applied, and after."""

import contextlib

import psycopg
import pytest
from fix_sidecar import wait_until
from psycopg import sql
from table_kit import VectorTable, gaussian, text_of

DIMS = 4
QUERY = gaussian(1, DIMS, seed=101)[0]
ROWS = 40
TABLE = VectorTable("rows", dims=DIMS, columns="id bigint PRIMARY KEY, owner int, note text")
NEAR = text_of(QUERY)
CLEANUP = "DROP TABLE IF EXISTS rows, owners, source, parted CASCADE; DROP FUNCTION IF EXISTS fill() CASCADE"

# name: statements; {near} is the nearest vector there can be
WAYS = {
    "insert": ["INSERT INTO rows VALUES (100, 1, 'n', {near})"],
    "insert returning": ["INSERT INTO rows VALUES (100, 1, 'n', {near}) RETURNING id"],
    "copy": ["COPY rows FROM STDIN"],
    "update": ["UPDATE rows SET embedding = {near} WHERE id = 7"],
    "update from": ["UPDATE rows r SET embedding = s.embedding FROM source s WHERE r.id = s.id"],
    "update of the key": ["UPDATE rows SET id = id + 1000 WHERE id < 5"],
    "update of key and vector": ["UPDATE rows SET id = 1000, embedding = {near} WHERE id = 5"],
    "keys exchanged": [
        "UPDATE rows SET id = -id WHERE id IN (3, 4)", "UPDATE rows SET id = 7 + id WHERE id IN (-3, -4)",
    ],
    "update to null and back": [
        "UPDATE rows SET embedding = NULL WHERE id < 9", "UPDATE rows SET embedding = {near} WHERE id = 8",
    ],
    "delete": ["DELETE FROM rows WHERE id < 10"],
    "delete using": ["DELETE FROM rows r USING source s WHERE s.id = r.id"],
    "delete and insert again": ["DELETE FROM rows WHERE id = 9", "INSERT INTO rows VALUES (9, 1, 'n', {near})"],
    "upsert": [
        "INSERT INTO rows VALUES (9, 1, 'n', {near}), (101, 1, 'n', {near}) ON CONFLICT (id)"
        " DO UPDATE SET embedding = excluded.embedding",
    ],
    "upsert that does nothing": ["INSERT INTO rows VALUES (9, 1, 'n', {near}) ON CONFLICT DO NOTHING"],
    "merge": [
        "MERGE INTO rows r USING source s ON r.id = s.id WHEN MATCHED AND s.id < 5 THEN DELETE"
        " WHEN MATCHED THEN UPDATE SET embedding = s.embedding"
        " WHEN NOT MATCHED THEN INSERT VALUES (s.id, 1, 'm', s.embedding)",
    ],
    "writable cte": [
        "WITH gone AS (DELETE FROM rows WHERE id < 5 RETURNING *)"
        " INSERT INTO rows SELECT id + 500, owner, note, {near} FROM gone",
    ],
    "truncate": ["TRUNCATE rows", "INSERT INTO rows VALUES (1, 1, 'n', {near})"],
    "truncate cascade": ["TRUNCATE owners CASCADE"],
    "cascade of a delete": ["DELETE FROM owners WHERE id = 1"],
    "cascade of an update": ["UPDATE owners SET id = 10 WHERE id = 1"],
    "trigger of the application": ["INSERT INTO rows (id, owner) VALUES (102, 2)"],
    "session_replication_role": [
        "SET session_replication_role = replica", "INSERT INTO rows VALUES (103, 1, 'n', {near})",
        "DELETE FROM rows WHERE id = 3", "RESET session_replication_role",
    ],
    "savepoints": [
        "BEGIN", "INSERT INTO rows VALUES (104, 1, 'n', {near})", "SAVEPOINT a", "DELETE FROM rows", "ROLLBACK TO a",
        "UPDATE rows SET embedding = {near} WHERE id = 6", "RELEASE a", "COMMIT",
    ],
    "rolled back": ["BEGIN", "DELETE FROM rows", "INSERT INTO rows VALUES (1, 1, 'n', {near})", "ROLLBACK"],
    "two-phase commit": [
        "BEGIN", "INSERT INTO rows VALUES (105, 1, 'n', {near})", "DELETE FROM rows WHERE id = 2",
        "PREPARE TRANSACTION 'rows'", "COMMIT PREPARED 'rows'",
    ],
    "two-phase rollback": ["BEGIN", "DELETE FROM rows", "PREPARE TRANSACTION 'rows'", "ROLLBACK PREPARED 'rows'"],
}  # fmt: skip
SETUP = """
CREATE TABLE owners (id int PRIMARY KEY);
INSERT INTO owners VALUES (1), (2);
CREATE TABLE source (id bigint PRIMARY KEY, embedding vector(4));
INSERT INTO source SELECT n, {near}::vector + ARRAY[n, 0, 0, 1]::real[]::vector FROM generate_series(1, 60, 4) n;
ALTER TABLE rows ADD FOREIGN KEY (owner) REFERENCES owners ON DELETE CASCADE ON UPDATE CASCADE;
CREATE FUNCTION fill() RETURNS trigger LANGUAGE plpgsql AS
  'begin new.embedding := coalesce(new.embedding, ''[0,0,0,0.1]''); return new; end';
CREATE TRIGGER fill BEFORE INSERT ON rows FOR EACH ROW EXECUTE FUNCTION fill();
"""


@pytest.fixture(scope="module")
def rows(shared_database, shared_sidecar):
    with shared_database.connect() as connection:
        TABLE.create(connection)
        connection.execute(sql.SQL(SETUP).format(near=sql.Literal(NEAR)))
        TABLE.attach(connection)
        shared_sidecar.wait_live(TABLE.name)
        yield connection


@pytest.mark.parametrize("way", WAYS)
def test_every_way_to_write_is_captured(rows, shared_sidecar, way):
    if way == "merge" and rows.info.server_version < 150000:
        pytest.skip("MERGE came with PostgreSQL 15")
    rows.execute("TRUNCATE rows; DELETE FROM owners WHERE id > 2; INSERT INTO owners VALUES (1) ON CONFLICT DO NOTHING")
    rows.execute("INSERT INTO owners VALUES (2) ON CONFLICT DO NOTHING")
    owners = [1 + number % 2 for number in range(ROWS)]
    TABLE.insert(rows, gaussian(ROWS, DIMS, seed=102), owner=owners, note=["n"] * ROWS)
    shared_sidecar.wait_applied(TABLE.name)
    for statement in WAYS[way]:
        if statement.startswith("COPY"):
            with rows.cursor().copy(statement) as copy:
                copy.write(f"110\t1\tn\t{NEAR}\n111\t2\tn\t[9,9,9,9]\n")
        else:
            rows.execute(sql.SQL(statement).format(near=sql.Literal(NEAR)))
    TABLE.check(rows, QUERY, k=100)
    shared_sidecar.wait_applied(TABLE.name)
    TABLE.check(rows, QUERY, k=100)
    report = shared_sidecar.worker(TABLE.name).verify(sample=1, full=True, repair=False)
    assert report["differences"] == 0


def test_change_of_another_column_writes_nothing(rows):
    number = rows.execute("SELECT id FROM ruvector.collection WHERE name = 'rows'").fetchone()[0]
    written = f"SELECT count(*) FROM ruvector.changelog_{number} WHERE xid = pg_current_xact_id()"
    TABLE.insert(rows, gaussian(5, DIMS, seed=104), first=300, owner=[1] * 5, note=["n"] * 5)
    with rows.transaction():
        rows.execute("UPDATE rows SET note = note || 'x', owner = 3 - owner, embedding = embedding")
        assert rows.execute(written).fetchone() == (0,)
        rows.execute("UPDATE rows SET embedding = '[1,1,1,1]' WHERE id = 300")
        assert rows.execute(written).fetchone() == (1,)


def test_long_transaction_holds_up_the_trim_and_nothing_else(rows, shared_database, shared_sidecar):
    with shared_database.connect(autocommit=False) as old:
        old.execute("INSERT INTO rows VALUES (200, 1, 'n', %s)", (NEAR,))
        for number in range(5):
            rows.execute("UPDATE rows SET embedding = %s WHERE id = 20", (f"[{number},1,1,1]",))
            shared_sidecar.wait_applied(TABLE.name)
            TABLE.check(rows, QUERY, k=100)
        assert TABLE.check(old, QUERY, k=100)[0][0] == "200"
        old.commit()
    TABLE.check(rows, QUERY, k=100)
    shared_sidecar.wait_applied(TABLE.name)
    TABLE.check(rows, QUERY, k=100)


def test_generated_column_is_mirrored(database, sidecar):
    with database.connect() as connection:
        connection.execute(
            "CREATE TABLE made (id bigint PRIMARY KEY, x real NOT NULL, embedding vector(2)"
            " GENERATED ALWAYS AS (ARRAY[x, x * x]::real[]::vector(2)) STORED)"
        )
        connection.execute("INSERT INTO made (id, x) SELECT n, n FROM generate_series(1, 20) n")
        made = VectorTable("made", dims=2)
        made.attach(connection)
        sidecar.wait_live("made")
        made.check(connection, [3.0, 9.0])
        connection.execute("UPDATE made SET x = 100 WHERE id = 3")
        made.check(connection, [100.0, 9000.0])
        sidecar.wait_applied("made")
        assert made.check(connection, [100.0, 10_000.0])[0][0] == "3"


def test_rows_applied_by_logical_replication_are_captured(database, sidecar, new_database):
    """The table is a subscriber's: rows come from another database of the server, through a slot made beforehand."""
    source = new_database("extensions")
    slot = f"{source.name}_slot"
    create = "CREATE TABLE rows (id bigint PRIMARY KEY, owner int, note text, embedding vector(4))"
    with source.connect() as upstream, database.connect() as connection:
        if upstream.execute("SHOW wal_level").fetchone()[0] != "logical":
            pytest.skip("wal_level is not logical")
        upstream.execute(create)
        upstream.execute("CREATE PUBLICATION out FOR TABLE rows")
        upstream.execute("SELECT pg_create_logical_replication_slot(%s, 'pgoutput')", (slot,))
        connection.execute(create)
        TABLE.attach(connection)
        sidecar.wait_live(TABLE.name)
        connection.execute(
            sql.SQL(
                "CREATE SUBSCRIPTION into_here CONNECTION {} PUBLICATION out"
                " WITH (create_slot = false, slot_name = {}, copy_data = false)"
            ).format(sql.Literal(source.dsn), sql.Literal(slot))
        )
        try:
            TABLE.insert(upstream, gaussian(30, DIMS, seed=103), owner=[1] * 30, note=["n"] * 30)
            upstream.execute("UPDATE rows SET embedding = %s WHERE id = 3", (NEAR,))
            upstream.execute("DELETE FROM rows WHERE id = 4")
            wait_for_count(connection, "SELECT count(*) FROM rows WHERE id <> 4", 29)
            TABLE.check(connection, QUERY, k=100)
            sidecar.wait_applied(TABLE.name)
            assert TABLE.check(connection, QUERY, k=100)[0][0] == "3"
            assert sidecar.worker(TABLE.name).verify(sample=1, full=True, repair=False)["differences"] == 0
        finally:
            connection.execute("ALTER SUBSCRIPTION into_here DISABLE")
            connection.execute("ALTER SUBSCRIPTION into_here SET (slot_name = NONE)")
            connection.execute("DROP SUBSCRIPTION into_here")
            with contextlib.suppress(psycopg.Error):
                upstream.execute("SELECT pg_drop_replication_slot(%s)", (slot,))


def wait_for_count(connection, statement, wanted):
    wait_until(
        lambda: (
            connection.execute(statement).fetchone()[0] == wanted
            and connection.execute("SELECT count(*) FROM rows WHERE id = 4").fetchone()[0] == 0
        ),
        "the rows to be replicated",
    )
