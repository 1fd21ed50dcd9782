"""config show."""

from __future__ import annotations

from typing import Annotated

import typer

from ruvector.cli import output
from ruvector.cli.options import ConfigOption, DsnOption, FormatOption

app = typer.Typer(help="Settings of the command line and the sidecar.", no_args_is_help=True, rich_markup_mode=None)
_SHOWN = ("service", "host", "hostaddr", "port", "dbname", "user", "password", "sslmode", "sslpassword", "options")
_SECRET = ("password", "sslpassword")
_STARS = "***"


@app.callback()
def _group() -> None:
    """Keep `show` a command of its own: with one command typer would leave its name out."""


@app.command()
def show(
    *,
    source: Annotated[bool, typer.Option("--source", help="Say where each value came from.")] = False,
    dsn: DsnOption = None,
    output_format: FormatOption = None,
    config: ConfigOption = None,
) -> None:
    """Print the effective settings; passwords are replaced by stars."""
    from ruvector.config import Settings, load_settings

    given = {"dsn": dsn, "format": output_format.value if output_format is not None else None}
    loaded = load_settings(given, file=config)
    values = {name: getattr(loaded.settings, name) for name in Settings.model_fields}
    values |= {
        "dsn": shown_dsn(loaded.settings.dsn_text),
        "data_dir": str(loaded.settings.data_dir),
        "listen": list(loaded.settings.listen),
    }
    if loaded.settings.format == "json":
        document: dict[str, object] = {"command": "config show", "settings": values}
        if source:
            document["sources"] = dict(loaded.sources)
        output.write_json(document)
    elif source:
        output.write_table(
            ("setting", "value", "source"),
            ((name, _plain(value), loaded.sources[name]) for name, value in values.items()),
        )
    else:
        output.write_facts((name, _plain(value)) for name, value in values.items())


def shown_dsn(dsn: str | None) -> str | None:
    """Return a connection string without its secrets; one that cannot be read is not shown at all."""
    from psycopg.conninfo import conninfo_to_dict, make_conninfo

    from ruvector import db
    from ruvector.errors import InvalidParameter

    if dsn is None:
        return None
    try:
        parts = conninfo_to_dict(db.conninfo(dsn, application_name="ruvector"))
    except InvalidParameter:
        return _STARS
    return make_conninfo("", **{name: _STARS if name in _SECRET else parts[name] for name in _SHOWN if parts.get(name)})


def _plain(value: object) -> object:
    return str(value) if isinstance(value, int) else value
