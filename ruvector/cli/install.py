"""install and uninstall."""

from __future__ import annotations

from typing import Annotated

import typer

from ruvector.cli import output
from ruvector.cli.options import ConfigOption, DryRunOption, DsnOption, FormatOption, YesOption, confirm, read_call


def install(
    *,
    print_sql: Annotated[
        bool, typer.Option("--print-sql", help="Print the script for psql instead of running it.")
    ] = False,
    api_schema: Annotated[
        str | None,
        typer.Option("--api-schema", metavar="SCHEMA", help="Schema of the functions ruvector_*.  [default: public]"),
    ] = None,
    dry_run: DryRunOption = False,
    yes: YesOption = False,
    dsn: DsnOption = None,
    output_format: FormatOption = None,
    config: ConfigOption = None,
) -> None:
    """Create or upgrade schema ruvector and the SQL functions; twice equals once.

    Needs CREATE on the database and on the API schema, and CREATEROLE unless the roles ruvector_user and
    ruvector_sidecar exist. No superuser, unless the extensions vector and dblink still have to be created.
    """
    from ruvector.alembic import install as installer

    del yes  # nothing is removed, so nothing is asked; accepted so that scripts may pass it everywhere
    call = read_call(dsn=dsn, file=config, api_schema=api_schema, format=output_format)
    schema = call.settings.api_schema
    if print_sql:
        typer.echo(installer.print_sql(call.settings.dsn_text, api_schema=schema))
        return
    if dry_run:
        with call.connection() as connection:
            steps = [
                f"would {'upgrade' if installer.is_installed(connection) else 'create'} schema ruvector",
                *(f"would apply {name}" for name, _ in installer.repeatable_scripts(connection, schema)),
            ]
    else:
        steps = installer.install(call.settings.dsn_text, api_schema=schema)
    if call.as_json:
        output.write_json({"command": "install", "dry_run": dry_run, "api_schema": schema, "steps": steps})
        return
    for step in steps:
        typer.echo(step)
    if not dry_run:
        typer.echo("installed. Next: ruvector attach SCHEMA.TABLE.COLUMN, then ruvector run")


def uninstall(
    *,
    yes: YesOption = False,
    dry_run: DryRunOption = False,
    dsn: DsnOption = None,
    output_format: FormatOption = None,
    config: ConfigOption = None,
) -> None:
    """Detach every collection and remove schema ruvector; your tables stay as they are."""
    from ruvector.alembic import install as installer
    from ruvector.capture.collections import load_collections

    call = read_call(dsn=dsn, file=config, format=output_format)
    with call.connection() as connection:
        installed = installer.is_installed(connection)
        names = [collection.name for collection in load_collections(connection)] if installed else []
        database = connection.info.dbname
    if installed and not dry_run:
        confirm(f'Remove schema ruvector and {len(names)} collections from database "{database}"?', yes=yes)
        installer.uninstall(call.settings.dsn_text)
    if call.as_json:
        output.write_json({"command": "uninstall", "dry_run": dry_run, "was_installed": installed, "detached": names})
    elif not installed:
        typer.echo("nothing to remove: schema ruvector does not exist")
    else:
        verb = "would remove" if dry_run else "removed"
        typer.echo(f"{verb} schema ruvector; detached: {', '.join(names) or 'none'}")
