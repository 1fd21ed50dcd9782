"""doctor: one line per check, with the fix beside a failure."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from ruvector import __version__, limits
from ruvector.cli import output
from ruvector.cli.advice import PGVECTOR_MIN, SERVER_VERSION_MIN, version_numbers
from ruvector.cli.options import ConfigOption, DsnOption, FormatOption, read_call
from ruvector.errors import NotInstalled, RuvectorError

if TYPE_CHECKING:
    from ruvector import db
    from ruvector.client import Client

PROBLEMS_FOUND = 3


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was looked at; ``fix`` says what to do when it is not ok."""

    name: str
    ok: bool
    found: str
    fix: str = ""


def _passed(name: str, found: str) -> Check:
    return Check(name, ok=True, found=found)


def _failed(name: str, found: str, fix: str) -> Check:
    return Check(name, ok=False, found=found, fix=fix)


def doctor(*, dsn: DsnOption = None, output_format: FormatOption = None, config: ConfigOption = None) -> None:
    """Check server, installation, sidecar and every collection. Ends with 3 when something is wrong."""
    call = read_call(dsn=dsn, file=config, format=output_format)
    with call.connection() as connection:
        checks = [*_server_checks(connection)]
        try:
            with call.client() as client:
                checks += _installation_checks(client)
                checks += _sidecar_checks(client)
                checks += _collection_checks(client)
        except NotInstalled as error:
            checks.append(_failed("installation", error.message, error.hint))
    failed = [check for check in checks if not check.ok]
    if call.as_json:
        output.write_json({"command": "doctor", "ok": not failed, "checks": [asdict(check) for check in checks]})
    else:
        for check in checks:
            typer.echo(f"{'ok  ' if check.ok else 'FAIL'}  {check.name}: {check.found}")
            if not check.ok and check.fix:
                typer.echo(f"      fix: {check.fix}")
    if failed:
        raise typer.Exit(PROBLEMS_FOUND)


def _server_checks(connection: db.Connection) -> Iterator[Check]:
    server = _rows(connection, "inspect", "server")[0]
    yield Check(
        "server", server["version_number"] >= SERVER_VERSION_MIN, f"PostgreSQL {server['version']}",
        "PostgreSQL 14 or newer is needed.",
    )  # fmt: skip
    yield Check(
        "role of the server", not server["is_standby"], "standby" if server["is_standby"] else "primary",
        "Connect to the primary; a standby answers searches by itself.",
    )  # fmt: skip
    for extension in _rows(connection, "inspect", "extensions"):
        found = extension["installed"]
        recent = extension["name"] != "vector" or found is None or version_numbers(found) >= PGVECTOR_MIN
        hint = f"ALTER EXTENSION {extension['name']} UPDATE;" if found else f"CREATE EXTENSION {extension['name']};"
        yield Check(f"extension {extension['name']}", found is not None and recent, found or "not installed", hint)


def _installation_checks(client: Client) -> Iterator[Check]:
    version = _rows(client.connection, "inspect", "installed_version")[0]["installed_version"]
    yield Check("installation", version == __version__, f"schema {version}, program {__version__}", "ruvector install")
    seconds = _rows(client.connection, "doctor", "oldest_transaction")[0]["seconds"]
    yield Check(
        "open transactions", seconds <= limits.OLD_TRANSACTION_SECONDS, f"oldest {seconds:.0f} s",
        "End it: searches must overlay every change since it began. See pg_stat_activity.",
    )  # fmt: skip


def _sidecar_checks(client: Client) -> Iterator[Check]:
    try:
        found = client.simd_info()
    except RuvectorError as error:
        # Beside SidecarUnreachable: a sidecar of another version, or one that was given another password.
        yield _failed("sidecar", error.message, error.hint or "ruvector run")
    else:
        yield _passed("sidecar", f"answers ({found})")


def _collection_checks(client: Client) -> Iterator[Check]:
    found = client.health()
    if not found:
        yield _passed("collections", "none attached")
    for row in found:
        yield _collection_check(row)


def _collection_check(row: dict[str, Any]) -> Check:
    name = f"collection {row['name']}"
    again = f"ruvector detach {row['name']}, then attach it again"
    if row["table_problem"] and "was dropped" in row["table_problem"]:
        return _failed(name, row["table_problem"], f"ruvector detach {row['name']}")
    if row["table_problem"]:
        return _failed(name, row["table_problem"], again)
    if row["trigger_problem"]:
        found = f"{row['trigger_problem']}: what is written now is not captured"
        return _failed(name, found, f"SELECT ruvector.recapture({row['id']}); then all rows are compared")
    if not row["is_current"]:
        found = "the definition of its table or triggers changed; a running sidecar follows by itself"
        return _failed(name, found, f"ruvector run; or: {again}")
    if row["state"] != "live":
        found = f"{row['state']}: {row['reason'] or 'wait for it'}{_disk_lasts(row)}"
        return _failed(name, found, _state_fix(row["state"]))
    if row["changelog_bytes"] > limits.CHANGELOG_BYTES_MAX:
        found = f"its changelog takes {output.size(row['changelog_bytes'])}"
        return _failed(name, found, "Let every sidecar run, or: SELECT ruvector.empty_changelogs();")
    if row["differed_at"]:
        found = f"{row['differences']} rows differed from the table at {row['differed_at']}, and were read again"
        return _failed(name, found, f"Find out what changed them unseen: ruvector verify {row['name']} --full")
    if row["rolled_back_at"]:
        found = f"its guard rolled the cutover back at {row['rolled_back_at']}: {'; '.join(row['breaches'])}"
        return _failed(name, found, f"See what was compared: ruvector cutover {row['name']} report")
    if row["indexes_dropped"] and row["cutover_state"] != "complete":
        found = f"{row['indexes_dropped']} of pgvector's indexes is not built again yet: searches scan the table"
        return _failed(name, found, f"Wait for the sidecar, or as the owner: ruvector cutover {row['name']} rebuild")
    cutover = {"complete": "", "ramp": f", ramp {row['cutover_percent']} %"}.get(
        row["cutover_state"], f", {row['cutover_state']}: pgvector answers"
    )
    left_out = f", left out: {output.cell(row['unindexed'])}" if row["unindexed"] else ""
    return _passed(name, f"live, {row['rows_indexed']:,} rows, {row['pending_changes']} pending{cutover}{left_out}")


def _disk_lasts(row: dict[str, Any]) -> str:
    """Say how long the disk of the server has room for the changelog; nothing when it does not grow or is elsewhere."""
    if not row["bytes_a_day"] or not row["pending_changes"] or not Path(row["data_directory"] or "/nowhere").is_dir():
        return ""
    days = shutil.disk_usage(row["data_directory"]).free / row["bytes_a_day"]
    return f"; the disk has room for {days:,.1f} days of it"


def _state_fix(state: str) -> str:
    if state in ("copying", "catching_up", "reconciling"):
        return "Wait: ruvector status shows the progress. Searches are answered by the database meanwhile."
    return "Start the sidecar: ruvector run; its log says more."


def _rows(connection: db.Connection, group: str, name: str) -> list[dict[str, Any]]:
    from psycopg.rows import dict_row

    from ruvector import db

    with db.translated(), connection.cursor(row_factory=dict_row) as cursor:
        return cursor.execute(db.query(group, name).encode(), {}).fetchall()
