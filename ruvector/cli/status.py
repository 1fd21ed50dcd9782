"""status."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from ruvector.cli import output
from ruvector.cli.options import ConfigOption, DsnOption, FormatOption, read_call
from ruvector.errors import SidecarUnreachable

if TYPE_CHECKING:
    from ruvector.client import Client

_COLUMNS = ("collection", "column", "state", "rows", "lag ms", "pending", "changelog", "left out", "verified", "reason")


def status(
    name: Annotated[str | None, typer.Argument(metavar="NAME", help="One collection; all when left out.")] = None,
    *,
    dsn: DsnOption = None,
    output_format: FormatOption = None,
    config: ConfigOption = None,
) -> None:
    """Show state, freshness and size of every collection; works while the sidecar is down."""
    call = read_call(dsn=dsn, file=config, format=output_format)
    with call.client() as client:
        mirrors = client.status(name)
        problem = _sidecar_problem(client)
    # A killed sidecar could not take back what it said last.
    for mirror in mirrors:
        if problem and mirror["state"] == "live":
            mirror["state"], mirror["reason"] = "unreachable", problem
    if call.as_json:
        sidecar = {"reachable": not problem, "reason": problem or None}
        output.write_json({"command": "status", "sidecar": sidecar, "collections": mirrors})
    elif mirrors:
        output.write_table(_COLUMNS, map(_row, mirrors), right=("rows", "lag ms", "pending", "changelog"))
    else:
        typer.echo("nothing is attached; ruvector inspect lists the columns that can be")


def _sidecar_problem(client: Client) -> str:
    """Say why the sidecar does not answer; empty when it does."""
    try:
        client.simd_info()
    except SidecarUnreachable as error:
        return error.detail or error.message
    return ""


def _row(mirror: dict[str, Any]) -> tuple[object, ...]:
    from ruvector.client import progress_text

    rows = mirror["rows_indexed"]
    if mirror["state"] == "copying" and mirror["rows_copied"]:
        rows = progress_text(
            mirror["rows_copied"], mirror["rows_total"], mirror["rows_per_second"], mirror["eta_seconds"]
        )
    return (
        mirror["collection"], mirror["column"], mirror["state"], rows, mirror["lag_ms"], mirror["pending_changes"],
        output.size(mirror["changelog_bytes"]), mirror["unindexed"] or None,
        _verified(mirror["verified"] or {}), mirror["reason"],
    )  # fmt: skip


def _verified(verified: dict[str, Any]) -> str | None:
    """Return what the verification that always runs says of its last cycle, or of the first one so far."""
    report = verified.get("last") or verified
    return f"{report['rows']:,} rows, {report['differences']} differed" if report else None
