"""run: the sidecar as a process, seen from the outside."""

import os
import re
import signal
import stat
import subprocess
import sys

import psycopg
import pytest
from fix_cli import HOME

QUERY = "[1,0,0,0,0,0,0,0]"


@pytest.fixture
def live(rv, items, sidecar_process, wait_live):
    """A running sidecar whose collection answers."""
    rv.json("attach", items, "--columns", "category")
    sidecar_process.start()
    wait_live("items_embedding")
    return sidecar_process


def test_running_sidecar(rv, live):
    status = rv.json("status", "items_embedding")
    assert status["sidecar"]["reachable"]
    assert status["collections"][0]["state"] == "live"
    assert status["collections"][0]["rows_indexed"] == 300
    answer = rv("search", "items_embedding", "--vector", QUERY, "--format", "json")
    assert answer.err == ""
    assert {hit["tier"] for hit in answer.document["hits"]} == {"hot"}
    doctor = rv("doctor")
    assert doctor.code == 0, doctor.out
    report = rv.json("verify", "items_embedding", "--full")
    assert (report["checked"], report["differences"]) == (300, 0)
    assert rv("verify", "items_embedding", "--sample", "10").code == 0
    assert live.terminate() == 0
    assert rv.json("status")["collections"][0]["state"] == "stopped"


def test_verify_finds_and_repairs_a_difference(rv, database, live):
    with database.connect() as connection, connection.transaction():
        connection.execute("UPDATE items SET embedding = '[9,9,9,9,9,9,9,9]' WHERE id = 5")
        connection.execute("DELETE FROM ruvector.changelog_1")  # as if the change had never been captured
    answer = rv("verify", "items_embedding", "--full", "--format", "json")
    assert answer.code == 3
    assert (answer.document["stale"], answer.document["keys"]["stale"]) == (1, ["5"])
    assert "--repair" in answer.err
    assert rv.json("verify", "items_embedding", "--full", "--repair")["repaired"] == 1
    assert rv("verify", "items_embedding", "--full").code == 0


def test_direct_clients(live, database):
    text = live.output()
    host, port = re.search(r"^listening on ([\d.]+):(\d+)$", text, re.MULTILINE).groups()
    password_file = live.data_dir / "client-password"
    assert stat.S_IMODE(password_file.stat().st_mode) == 0o600
    assert password_file.read_text() not in text
    direct = f"host={host} port={port} user=ruvector dbname=ruvector"
    with psycopg.connect(f"{direct} password={password_file.read_text()}", autocommit=True) as connection:
        rows = connection.execute(f"SELECT * FROM ruvector_search('items_embedding', '{QUERY}', 5);").fetchall()
    assert len(rows) == 5
    with pytest.raises(psycopg.OperationalError, match="authentication"):
        psycopg.connect(f"{direct} password=wrong")


def test_log_holds_no_secret(live, database):
    assert "password=" not in live.output()


def test_killed_sidecar_is_noticed(rv, live):
    live.kill()
    status = rv.json("status")
    assert (status["sidecar"]["reachable"], status["collections"][0]["state"]) == (False, "unreachable")
    assert rv("doctor").code == 3
    answer = rv("search", "items_embedding", "--vector", QUERY)
    assert (answer.code, "notice:" in answer.err) == (0, True)


def test_run_once(rv, items):
    rv.json("attach", items)
    document = rv.process("run", "--once", "--data-dir", "files", "--format", "json").document
    assert [(row["collection"], row["rows_indexed"]) for row in document["collections"]] == [("items_embedding", 300)]
    assert list((rv.folder / "files").glob("collection-*/gen-*"))
    assert rv.process("run", "--once", "--data-dir", "files").code == 0


def test_interrupt_ends_in_order(rv, database, short_path):
    process = subprocess.Popen(
        [sys.executable, "-m", "ruvector", "run", "--data-dir", str(rv.folder / "files"),
         "--listen", "127.0.0.1:0", "--listen", f"unix:{short_path}/socket"],
        env={**os.environ, "RUVECTOR_DSN": database.dsn, "PYTHONPATH": HOME}, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    lines = []
    while len(lines) < 20 and sum("listening on" in line for line in lines) < 2:
        lines.append(process.stderr.readline())
    process.send_signal(signal.SIGINT)
    _, rest = process.communicate(timeout=60)
    assert process.returncode == 0, [*lines, rest]
    assert "last checkpoints are written" in rest
    assert any("unix:" in line for line in lines)


@pytest.mark.parametrize("address", ["127.0.0.1:99999", "nonsense host", "unix:"])
def test_wrong_address(rv, address):
    answer = rv.process("run", "--listen", address)
    assert answer.code == 1
    assert answer.err.splitlines()[-2].startswith("error: ")


def test_address_in_use(rv, live):
    port = re.search(r"^listening on [\d.]+:(\d+)$", live.output(), re.MULTILINE)[1]
    answer = rv.process("run", "--listen", f"127.0.0.1:{port}", "--data-dir", "other", "--name", "second")
    assert (answer.code, "cannot listen" in answer.err) == (1, True)


def test_data_folder_that_cannot_be_used(rv):
    (rv.folder / "file").touch()
    for name in ("file", "file/inner"):
        answer = rv.process("run", "--data-dir", name)
        assert answer.code == 1
        assert answer.err.splitlines()[-1].startswith("error: "), answer.err
