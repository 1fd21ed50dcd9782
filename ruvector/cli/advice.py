"""What is wrong with a server, a column or an index, and the statement that helps: pure judgement of catalog rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

Remark = dict[str, str]  # severity, problem, evidence, and fix: a statement or command, or empty

SERVER_VERSION_MIN = 140000
PGVECTOR_MIN = (0, 7)
# Types whose text never changes for one value, so that it can name a row for ever.
KEY_TYPES = {
    "smallint", "integer", "bigint", "uuid", "text", "character varying", "character", "boolean", "numeric", "date",
    "timestamp without time zone", "timestamp with time zone", "name",
}  # fmt: skip
DEAD_ROWS_MIN = 1_000
DEAD_SHARE = 0.2  # of the live rows: autovacuum begins there by default
IVFFLAT_ROWS_PER_LIST = (200, 5_000)  # pgvector advises about 1,000; outside of this a rebuild is worth its time


def server_blockers(
    server: Mapping[str, Any], extensions: Mapping[str, Mapping[str, Any]], *, is_installed: bool
) -> list[Remark]:
    """Return what stops an installation on this server."""
    remarks = []
    if server["version_number"] < SERVER_VERSION_MIN:
        remarks.append(remark(f"PostgreSQL {server['version']} is too old, 14 is needed", hint="Upgrade the server."))
    if server["is_standby"]:
        remarks.append(remark("this server is a standby", hint="Connect to the primary."))
    for name, package in (("vector", "pgvector"), ("dblink", "postgresql-contrib")):
        extension = extensions[name]
        if extension["installed"] is None and extension["available"] is None:
            remarks.append(
                remark(f"extension {name} is not available on this server", hint=f"Install {package} there.")
            )
        elif extension["installed"] is None:
            remarks.append(remark(f"extension {name} is not installed here", hint=f"CREATE EXTENSION {name};"))
    installed = extensions["vector"]["installed"]
    if installed is not None and version_numbers(installed) < PGVECTOR_MIN:
        remarks.append(remark(f"pgvector {installed} is older than 0.7", hint="ALTER EXTENSION vector UPDATE;"))
    if not is_installed and not server["may_install"]:
        remarks.append(
            remark(
                f"role {server['role']} may not create a schema here",
                hint=f'GRANT CREATE ON DATABASE "{server["database"]}" TO "{server["role"]}";',
            )
        )
    return remarks


def column_blockers(column: Mapping[str, Any]) -> list[Remark]:
    """Return what stops an attach of a column."""
    remarks = []
    table = column["table_name"]
    if column["kind"] not in ("table", "partitioned table"):
        remarks.append(remark(f"it belongs to a {column['kind']}", hint="Attach the table behind it."))
        return remarks
    if column["has_children"]:
        remarks.append(
            remark("other tables inherit from its table", hint="Attach those, or use declarative partitions.")
        )
    if column["persistence"] != "permanent":
        remarks.append(remark(f"its table is {column['persistence']}", hint=f"ALTER TABLE {table} SET LOGGED;"))
    if column["key_columns"] is None:
        remarks.append(
            remark(
                "its table has no primary key, nor a unique index over NOT NULL columns",
                hint=f"ALTER TABLE {table} ADD COLUMN id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY;",
            )
        )
    elif unfit := [kind for kind in column["key_types"] if kind not in KEY_TYPES]:
        remarks.append(remark(f"its key has type {', '.join(unfit)}, which cannot name a row for ever"))
    return remarks


def as_errors(remarks: Sequence[Remark]) -> list[Remark]:
    """Return remarks that stop something."""
    return [{**each, "severity": "error"} for each in remarks]


def column_advice(column: Mapping[str, Any], indexes: Sequence[Mapping[str, Any]]) -> list[Remark]:
    """Return what is worth knowing about a column that is not attached."""
    remarks = []
    if column["attached_as"] is None and not column["blockers"] and (column["type"] != "bit" or indexes):
        extra = "" if column["dims"] else " --dims N"
        metrics = sorted({index["operator_class"].removesuffix("_ops").rpartition("_")[2] for index in indexes})
        if len(metrics) > 1:
            extra += f" --metric {'|'.join(metrics)}"
        remarks.append(remark("it can be attached", hint=f"ruvector attach '{column['name']}'{extra}"))
    if not column["dims"] and column["type"] in ("vector", "halfvec", "sparsevec"):
        remarks.append(
            remark(
                "its type does not declare its dimensions, so rows of any length fit in",
                hint=f"ALTER TABLE {column['table_name']} ALTER COLUMN ... TYPE {column['type']}(N);",
            )
        )
    if column["has_row_security"]:
        remarks.append(remark("row-level security is on: searches of roles it applies to are answered by exact SQL"))
    dead, rows = column["dead_rows"] or 0, column["rows"] or 0
    if dead > DEAD_ROWS_MIN and dead > DEAD_SHARE * rows:
        remarks.append(
            remark(
                "many dead rows: scans read them, and an index search that meets them gives fewer rows",
                hint=f"VACUUM (ANALYZE) {column['table_name']};",
                severity="warning",
                evidence=f"{dead} dead beside {rows} live rows",
            )
        )
    return remarks


def index_advice(
    index: Mapping[str, Any], columns: Sequence[Mapping[str, Any]], server: Mapping[str, Any]
) -> list[Remark]:
    """Return what is wrong with a pgvector index."""
    remarks = []
    if not index["is_valid"]:
        remarks.append(
            remark(
                "the index is invalid: a concurrent build failed",
                hint=f"REINDEX INDEX CONCURRENTLY {index['name']};",
                severity="error",
            )
        )
    elif index["scans"] == 0:
        remarks.append(
            remark(
                "no query has used the index",
                hint=f"DROP INDEX CONCURRENTLY {index['name']};  -- if that stays so",
                evidence=f"0 scans since {server['statistics_since'] or 'the statistics began'}",
            )
        )
    if index["method"] == "hnsw" and index["bytes"] > server["maintenance_work_mem"]:
        remarks.append(
            remark(
                "its build does not fit into maintenance_work_mem, and takes many times as long from there on",
                hint=f"SET maintenance_work_mem = '{-(-index['bytes'] // 2**20)}MB';  -- before it is built again",
                evidence=f"{index['bytes']} bytes of index, {server['maintenance_work_mem']} of memory",
            )
        )
    rows = next((c["rows"] for c in columns if c["table_oid"] == index["table_oid"]), None)
    lists = next((int(o.partition("=")[2]) for o in index["options"] if o.startswith("lists=")), None)
    if index["method"] == "ivfflat" and lists and rows:
        low, high = IVFFLAT_ROWS_PER_LIST
        if not low <= rows / lists <= high:
            better = max(10, rows // 1000)
            remarks.append(
                remark(
                    f"{lists} lists for {rows} rows are {rows / lists:.0f} rows a list; about 1000 are advised",
                    hint=f"ALTER INDEX {index['name']} SET (lists = {better}); "
                    f"REINDEX INDEX CONCURRENTLY {index['name']};",
                )
            )
    return remarks


def version_numbers(version: str) -> tuple[int, ...]:
    """Return the numbers of a version, for comparison."""
    return tuple(int(part) for part in version.split(".") if part.isdigit())


def remark(problem: str, *, hint: str = "", severity: str = "info", evidence: str = "") -> Remark:
    """Return one finding; severity is info, warning or error."""
    return {"severity": severity, "problem": problem, "evidence": evidence, "fix": hint}
