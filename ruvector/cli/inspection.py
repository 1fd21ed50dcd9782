"""inspect: what a database holds that could be attached, and what is wrong with it; changes nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from ruvector.cli import output
from ruvector.cli.advice import as_errors, column_advice, column_blockers, index_advice, server_blockers
from ruvector.cli.options import ConfigOption, DsnOption, FormatOption, read_call

if TYPE_CHECKING:
    from ruvector import db


QueriesOption = Annotated[
    int,
    typer.Option("--queries", min=0, max=10_000, metavar="N", help="To measure each index's recall; 0: none."),
]
SecondsOption = Annotated[
    float, typer.Option("--seconds", min=0.1, max=3600, metavar="S", help="That this may take for each index.")
]


def inspect(
    *,
    queries: QueriesOption = 20,
    seconds: SecondsOption = 5.0,
    dsn: DsnOption = None,
    output_format: FormatOption = None,
    config: ConfigOption = None,
) -> None:
    """Say what a database holds for vector search, what is wrong with it, and what to do. Reads only.

    Columns and what stops an attach; pgvector's indexes, how often they are used, the recall they have; the queries of
    pg_stat_statements that cannot use an index, and why.
    """
    call = read_call(dsn=dsn, file=config, format=output_format)
    with call.connection() as connection:
        connection.read_only = True
        report = _report(connection)
        _probe(connection, report, queries=queries, seconds=seconds)
    if call.as_json:
        output.write_json({"command": "inspect", **report})
    else:
        _show(report)


def _report(connection: db.Connection) -> dict[str, Any]:
    server = _rows(connection, "server")[0]
    extensions = {row.pop("name"): row for row in _rows(connection, "extensions")}
    presence = _rows(connection, "is_installed")[0]
    version, attached = None, {}
    if presence["exists"] and presence["readable"]:
        version = _rows(connection, "installed_version")[0]["installed_version"]
        attached = {(row["table_oid"], row["column"]): row["name"] for row in _rows(connection, "attached")}
    indexes = _rows(connection, "indexes")
    columns = _rows(connection, "columns")
    for column in columns:
        column["attached_as"] = attached.get((column["table_oid"], column["column"]))
        own = [
            index
            for index in indexes
            if (index["table_oid"], index["column"]) == (column["table_oid"], column["column"])
        ]
        column["indexes"] = [index["index"] for index in own]
        column["blockers"] = as_errors(column_blockers(column))
        column["advice"] = column_advice(column, own)
    for index in indexes:
        index["advice"] = index_advice(index, columns, server)
    return {
        "server": server,
        "extensions": extensions,
        "ruvector": {"installed": presence["exists"], "version": version},
        "blockers": as_errors(server_blockers(server, extensions, is_installed=presence["exists"])),
        "columns": columns,
        "indexes": indexes,
    }


def _probe(connection: db.Connection, report: dict[str, Any], *, queries: int, seconds: float) -> None:
    """Add the recall of each index, and the queries that use none."""
    from ruvector.cli import probe

    rows = {column["table_oid"]: column["rows"] or 0 for column in report["columns"]}
    for index in report["indexes"]:
        index["recall"] = None
        if queries:
            index["recall"], remarks = probe.sampled_recall(
                connection, index, rows=rows.get(index["table_oid"], 0), queries=queries, seconds=seconds
            )
            index["advice"] += remarks
    version = report["server"]["version_number"]
    report["queries"], report["remarks"] = probe.query_findings(connection, report["indexes"], version=version)


def _rows(connection: db.Connection, name: str) -> list[dict[str, Any]]:
    from psycopg.rows import dict_row

    from ruvector import db

    with connection.cursor(row_factory=dict_row) as cursor:
        return cursor.execute(db.query("inspect", name).encode(), {}).fetchall()


def _show(report: dict[str, Any]) -> None:
    server, installed = report["server"], report["ruvector"]
    facts: list[tuple[str, object]] = [
        ("server", f"PostgreSQL {server['version']}, database {server['database']}, role {server['role']}"),
    ]
    for name, extension in report["extensions"].items():
        where = (
            f"{extension['installed']} in schema {extension['schema']}" if extension["installed"] else "not installed"
        )
        facts.append((f"extension {name}", f"{where} (available: {extension['available'] or 'none'})"))
    facts.append(("ruvector", installed["version"] or ("installed" if installed["installed"] else "not installed")))
    output.write_facts(facts)
    _show_remarks("", report["blockers"])
    typer.echo("")
    if report["columns"]:
        output.write_table(
            ("column", "type", "dims", "rows", "size", "key", "pgvector indexes", "attached as"),
            (
                (c["name"], c["type"], c["dims"], c["rows"], output.size(c["bytes"]), c["key_columns"], c["indexes"],
                 c["attached_as"])
                for c in report["columns"]
            ),
            right=("dims", "rows", "size"),
        )  # fmt: skip
    else:
        typer.echo("no column of type vector, halfvec, sparsevec or bit")
    if report["indexes"]:
        typer.echo("")
        output.write_table(
            ("index", "method", "operator class", "options", "size", "valid", "scans", "recall@10"),
            (
                (i["name"], i["method"], i["operator_class"], i["options"], output.size(i["bytes"]), i["is_valid"],
                 i["scans"], i["recall"] and f"{i['recall']['mean']:.3f}")
                for i in report["indexes"]
            ),
            right=("size", "scans", "recall@10"),
        )  # fmt: skip
    for kind in ("columns", "indexes"):
        for entry in report[kind]:
            _show_remarks(entry["name"], [*entry.get("blockers", ()), *entry["advice"]])

    _show_remarks("", report["remarks"])
    for query in report["queries"]:
        typer.echo(f"\n{query['calls']} calls, {query['mean_ms']:.1f} ms each: {' '.join(query['query'].split())}")
        for remark in query["advice"]:
            typer.echo(f"  {remark['problem']}\n    {remark['fix']}")


def _show_remarks(name: str, remarks: list[dict[str, str]]) -> None:
    for remark in remarks:
        evidence = f" ({remark['evidence']})" if remark["evidence"] else ""
        typer.echo(f"\n{remark['severity']}: {name + ': ' if name else ''}{remark['problem']}{evidence}")
        if remark["fix"]:
            typer.echo(f"  {remark['fix']}")
