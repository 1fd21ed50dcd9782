"""What happens to a mirror when its table changes: it follows, or says why it cannot; answers stay right."""

import pytest
from fix_cli import CommandLine
from fix_sidecar import running_sidecar, wait_until
from table_kit import SEARCH, VectorTable, gaussian, refused, text_of

DIMS = 4
QUERY = gaussian(1, DIMS, seed=71)[0]
ROWS = 60
ALL_TRIGGERS = ("rows", "update", "truncate")
CLEANUP = """
DROP TABLE IF EXISTS followed, followed_1, other, old CASCADE;
DROP SCHEMA IF EXISTS away CASCADE;
"""


@pytest.fixture
def connection(shared_database, shared_sidecar):
    """A connection to a database that every test leaves without its table; {n} in statements is the mirror."""
    with shared_database.connect() as connection:
        yield connection
        connection.execute("SELECT ruvector_unregister_collection(name) FROM ruvector.collection")
        connection.execute(CLEANUP)


def run(connection, statements):
    number = connection.execute("SELECT id FROM ruvector.collection").fetchone()[0]
    for statement in statements:
        connection.execute(statement.replace("{n}", str(number)))
    return number


def attached(connection, sidecar, *, name="followed", partition_by="", partitions=()):
    table = VectorTable(name, dims=DIMS, columns="id bigint PRIMARY KEY, note text")
    table.create(connection, partition_by=partition_by)
    for partition in partitions:
        connection.execute(partition)
    table.insert(connection, gaussian(ROWS, DIMS, seed=72), note=["n"] * ROWS)
    table.attach(connection)
    sidecar.wait_live(table.name)
    table.check(connection, QUERY)
    return table


def wait_followed(sidecar, connection, table):
    """Wait until a mirror answers for the table as it is now."""

    def is_current():
        row = connection.execute(
            "SELECT c.fingerprint FROM ruvector.collection c WHERE ruvector.is_current(c)"
        ).fetchone()
        mirror = sidecar.mirror(table.name)
        return row is not None and mirror.collection.fingerprint == row[0] and mirror.state == "live"

    wait_until(is_current, f"{table.name} to follow")


def unseen(statement):
    """Return a write that the triggers do not see."""
    return [
        *(f'ALTER TABLE followed DISABLE TRIGGER "00_ruvector_{kind}_{{n}}"' for kind in ALL_TRIGGERS),
        statement,
        *(f'ALTER TABLE followed ENABLE ALWAYS TRIGGER "00_ruvector_{kind}_{{n}}"' for kind in ALL_TRIGGERS),
    ]


FOLLOWED = {
    "table renamed": (["ALTER TABLE followed RENAME TO other"], {"table": "other"}),
    "moved to another schema": (["CREATE SCHEMA away", "ALTER TABLE followed SET SCHEMA away"], {"schema": "away"}),
    "key column renamed": (["ALTER TABLE followed RENAME id TO key"], {"key_sql": "t.key::text"}),
    "vector column renamed": (["ALTER TABLE followed RENAME embedding TO meaning"], {"column": "meaning"}),
    "other columns changed": (["ALTER TABLE followed DROP note", "ALTER TABLE followed ADD more int DEFAULT 5"], {}),
    "triggers switched off for a while": (unseen("INSERT INTO followed VALUES (900, 'n', '[1,1,1,1]')"), {}),
    "rows deleted unseen": (unseen("DELETE FROM followed WHERE id < 10"), {}),
    "emptied unseen": (unseen("TRUNCATE followed"), {}),
    "capture function replaced": (
        ["CREATE OR REPLACE FUNCTION ruvector.capture_{n}() RETURNS trigger LANGUAGE plpgsql AS"
         " 'begin return null; end'", "UPDATE followed SET embedding = '[1,1,1,1]' WHERE id = 5"],
        {},
    ),
    "table rewritten": (["VACUUM FULL followed", "CLUSTER followed USING followed_pkey"], {}),
}  # fmt: skip


@pytest.mark.parametrize("case", FOLLOWED)
def test_mirror_follows_its_table(connection, shared_sidecar, case):
    statements, changed = FOLLOWED[case]
    table = attached(connection, shared_sidecar)
    run(connection, statements)
    now = VectorTable("followed", dims=DIMS, **{"table": "followed", **changed})
    wait_followed(shared_sidecar, connection, now)
    shared_sidecar.wait_applied(table.name)
    now.check(connection, QUERY, k=100)
    # and goes on following
    where = f"{now.schema}.{now.table_name}"
    connection.execute(f"INSERT INTO {where} ({'key' if case.startswith('key') else 'id'}, {now.column})"
                       " VALUES (1000, '[0.5,0,0,0]')")  # fmt: skip
    connection.execute(f"UPDATE {where} SET {now.column} = '[9,9,9,9]' WHERE {now.column} = '[0,0,0,0]'")
    now.check(connection, QUERY, k=100)
    shared_sidecar.wait_applied(table.name)
    now.check(connection, QUERY, k=100)
    report = shared_sidecar.worker(table.name).verify(sample=1, full=True, repair=False)
    assert report["differences"] == 0


PARTITIONS = (
    "CREATE TABLE followed_1 PARTITION OF followed FOR VALUES FROM (0) TO (100)",
    "CREATE TABLE followed_2 PARTITION OF followed FOR VALUES FROM (100) TO (200) PARTITION BY RANGE (id)",
    "CREATE TABLE followed_21 PARTITION OF followed_2 FOR VALUES FROM (100) TO (150)",
)
PARTITION_STEPS = {
    "attached with rows": [
        "CREATE TABLE followed_3 (LIKE followed INCLUDING ALL)",
        "INSERT INTO followed_3 SELECT 200 + n, 'n', '[1,1,1,1]' FROM generate_series(1, 20) n",
        "ALTER TABLE followed ATTACH PARTITION followed_3 FOR VALUES FROM (200) TO (300)",
    ],
    "attached below a partition": [
        "CREATE TABLE followed_22 (LIKE followed INCLUDING ALL)",
        "INSERT INTO followed_22 SELECT 150 + n, 'n', '[1,1,1,1]' FROM generate_series(1, 20) n",
        "ALTER TABLE followed_2 ATTACH PARTITION followed_22 FOR VALUES FROM (150) TO (200)",
    ],
    "detached": ["ALTER TABLE followed DETACH PARTITION followed_1"],
    "emptied by itself": ["TRUNCATE followed_1"],
    "dropped": ["DROP TABLE followed_1"],
    "written unseen": [
        'ALTER TABLE followed_1 DISABLE TRIGGER "00_ruvector_rows_{n}"',
        "INSERT INTO followed_1 VALUES (90, 'n', '[1,1,1,1]')",
        'ALTER TABLE followed_1 ENABLE ALWAYS TRIGGER "00_ruvector_rows_{n}"',
    ],
}


@pytest.mark.parametrize("case", PARTITION_STEPS)
def test_mirror_follows_partitions(connection, shared_sidecar, case):
    table = attached(connection, shared_sidecar, partition_by="PARTITION BY RANGE (id)", partitions=PARTITIONS)
    connection.execute("INSERT INTO followed VALUES (110, 'n', '[1,1,1,2]')")
    run(connection, PARTITION_STEPS[case])
    wait_followed(shared_sidecar, connection, table)
    shared_sidecar.wait_applied(table.name)
    table.check(connection, QUERY, k=100)
    connection.execute("INSERT INTO followed VALUES (111, 'n', %s)", (text_of(QUERY),))
    assert table.check(connection, QUERY, k=100)[0][0] == "111"
    report = shared_sidecar.worker(table.name).verify(sample=1, full=True, repair=False)
    assert report["differences"] == 0


DROP_UPDATE_TRIGGER = 'DROP TRIGGER "00_ruvector_update_{n}" ON followed'
REFUSED = {
    "trigger disabled": (
        ['ALTER TABLE followed DISABLE TRIGGER "00_ruvector_rows_{n}"'],
        'trigger "00_ruvector_rows_{n}" is disabled, or not enabled always', "pgvector",
    ),
    "trigger not always": (
        ['ALTER TABLE followed ENABLE TRIGGER "00_ruvector_update_{n}"'],
        'trigger "00_ruvector_update_{n}" is disabled, or not enabled always', "pgvector",
    ),
    "trigger dropped": ([DROP_UPDATE_TRIGGER], 'trigger "00_ruvector_update_{n}" is missing', "pgvector"),
    "primary key dropped": (
        ["ALTER TABLE followed DROP CONSTRAINT followed_pkey"],
        "the unique index over the key (id) is gone", "pgvector",
    ),
    "primary key moved": (
        ["ALTER TABLE followed DROP CONSTRAINT followed_pkey", "ALTER TABLE followed ADD k int",
         "UPDATE followed SET k = id", "ALTER TABLE followed ADD PRIMARY KEY (k)"],
        "the unique index over the key (id) is gone", "pgvector",
    ),
    "dimension changed": (
        [DROP_UPDATE_TRIGGER, "ALTER TABLE followed ALTER embedding TYPE vector(3) USING '[1,2,3]'"],
        "column embedding is vector(3) now, not vector(4)", None,
    ),
    "type changed": (
        [DROP_UPDATE_TRIGGER, "ALTER TABLE followed ALTER embedding TYPE halfvec(4)"],
        "column embedding is halfvec(4) now, not vector(4)", None,
    ),
    "key type changed": (
        [DROP_UPDATE_TRIGGER, "ALTER TABLE followed ALTER id TYPE text"],
        "key column id is text now, not bigint", "pgvector",
    ),
    "column dropped": (["ALTER TABLE followed DROP embedding CASCADE"], "column embedding was dropped", None),
    "table dropped": (["DROP TABLE followed"], "table public.followed was dropped", None),
    "table replaced": (
        ["ALTER TABLE followed RENAME TO old", "CREATE TABLE followed (id bigint PRIMARY KEY, embedding vector(4))"],
        "public.followed is another table now; the mirrored one is public.old", "pgvector",
    ),
    "unlogged": (["ALTER TABLE followed SET UNLOGGED"], "the table is unlogged now", "pgvector"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_mirror_that_cannot_follow_says_why(connection, shared_database, shared_sidecar, tmp_path, case):
    statements, reason, tier = REFUSED[case]
    table = attached(connection, shared_sidecar)
    with connection.transaction():
        reason = reason.replace("{n}", str(run(connection, statements)))
    wait_until(
        lambda: connection.execute("SELECT reason FROM ruvector_consistency_status()").fetchone()[0] == reason,
        f"the reason of {case}",
    )
    assert shared_sidecar.mirror(table.name).state == "stale"
    answer = CommandLine(tmp_path, shared_database.dsn)("doctor", "--format", "json")
    check = next(each for each in answer.document["checks"] if each["name"] == "collection followed")
    assert answer.code == 3
    assert not check["ok"]
    assert check["found"].startswith(reason) or "changed" in check["found"]
    assert check["fix"]
    if tier is not None:
        table.check(connection, QUERY, tier=tier)
    else:
        problem = refused(connection, SEARCH, (table.name, text_of(QUERY), 5, None, None))
        assert problem.code in ("55000", "42P01", "42703")
    assert connection.execute("SELECT ruvector_unregister_collection('followed')").fetchone() == (True,)


def test_types_of_mirrored_columns_cannot_change_under_the_triggers(connection, shared_sidecar):
    attached(connection, shared_sidecar)
    for statement in (
        "ALTER TABLE followed ALTER embedding TYPE vector(3) USING '[1,2,3]'",
        "ALTER TABLE followed ALTER id TYPE text",
        "ALTER TABLE followed DROP embedding",
        "ALTER TABLE followed DROP id",
    ):
        assert refused(connection, statement).code in ("0A000", "2BP01")


@pytest.mark.parametrize("damage", [DROP_UPDATE_TRIGGER, 'ALTER TABLE followed DISABLE TRIGGER "00_ruvector_rows_{n}"'])
def test_recapture_brings_triggers_back(connection, shared_sidecar, damage):
    table = attached(connection, shared_sidecar)
    number = run(connection, [damage])
    connection.execute("INSERT INTO followed VALUES (500, 'n', %s)", (text_of(QUERY),))
    connection.execute("UPDATE followed SET embedding = '[1,1,1,1]' WHERE id = 5")
    shared_sidecar.wait_state(table.name, "stale")
    table.check(connection, QUERY, tier="pgvector")
    assert connection.execute("SELECT ruvector.recapture(%s)", (number,)).fetchone() == (None,)
    wait_followed(shared_sidecar, connection, table)
    assert table.check(connection, QUERY, k=100)[0][0] == "500"
    events = connection.execute("SELECT kind FROM ruvector.event").fetchall()
    assert ("reconciled",) in events


def test_renamed_database_goes_on_from_its_files(new_database, tmp_path):
    database = new_database("installed")
    with database.connect() as connection, running_sidecar(database, tmp_path / "data") as sidecar:
        attached(connection, sidecar)
        sidecar.stop()
        before = connection.execute("SELECT epoch, checkpoint_id FROM ruvector.consumer").fetchone()
    server, renamed = database.server, f"{database.name}_renamed"
    with server.connect() as admin:
        admin.execute(f"ALTER DATABASE {database.name} RENAME TO {renamed}")
    moved = type(database)(server, renamed)
    table = VectorTable("followed", dims=DIMS, columns="id bigint PRIMARY KEY, note text")
    with running_sidecar(moved, tmp_path / "data") as sidecar, moved.connect() as connection:
        sidecar.wait_live("followed")
        table.check(connection, QUERY)
        after = connection.execute("SELECT epoch, checkpoint_id FROM ruvector.consumer").fetchone()
        assert after == (before[0] + 1, before[1]), "the files were not taken up"
    server.drop_database(renamed)


def test_clone_is_compared_instead_of_copied(new_database, tmp_path):
    """CREATE DATABASE ... TEMPLATE: another identity, the same rows; files of the original serve as a start."""
    database = new_database("installed")
    with database.connect() as connection, running_sidecar(database, tmp_path / "data") as sidecar:
        attached(connection, sidecar)
    server, name = database.server, f"{database.name}_clone"
    server.create_database(name, template=database.name)
    clone = type(database)(server, name)
    table = VectorTable("followed", dims=DIMS, columns="id bigint PRIMARY KEY, note text")
    with clone.connect() as connection:
        connection.execute("DELETE FROM followed WHERE id < 10")
        connection.execute("INSERT INTO followed VALUES (700, 'n', %s)", (text_of(QUERY),))
        with running_sidecar(clone, tmp_path / "data") as sidecar:
            sidecar.wait_live("followed")
            assert table.check(connection, QUERY, k=100)[0][0] == "700"
            kind, detail = connection.execute("SELECT kind, detail FROM ruvector.event").fetchone()
            assert (kind, detail["missing"], detail["orphan"], detail["repaired"]) == ("reconciled", 1, 9, 10)
    for each in (database.name, name):
        server.drop_database(each)
