"""Settings of the command line and the sidecar: option, else RUVECTOR_* variable, else ruvector.toml, else default."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from ruvector import limits
from ruvector.errors import InvalidParameter

DEFAULT_FILE = Path("ruvector.toml")
SECTION = "ruvector"  # the one section of the file
PREFIX = "RUVECTOR_"


class Settings(BaseSettings):
    """What every command and the sidecar are told; read once at start, never changed."""

    model_config = SettingsConfigDict(frozen=True, extra="forbid", env_prefix=PREFIX, hide_input_in_errors=True)

    dsn: SecretStr | None = Field(None, description="connection string; without one libpq reads its PG* variables")
    api_schema: str = Field("public", description="schema of the callable functions ruvector_*")
    data_dir: Path = Field(Path("ruvector-data"), description="folder of the sidecar's files: a cache that is rebuilt")
    listen: Annotated[tuple[str, ...], NoDecode] = Field(
        ("127.0.0.1:7411",), description="where the sidecar listens: HOST:PORT or unix:DIRECTORY, separated by commas"
    )
    advertise: str | None = Field(
        None, description="HOST:PORT where the database reaches the sidecar, if not at the first address of listen"
    )
    tls_certificate: Path | None = Field(None, description="PEM file with the certificate of the endpoint")
    tls_key: Path | None = Field(None, description="PEM file with its key, readable by its owner alone")
    name: str = Field("main", min_length=1, max_length=63, description="name of this sidecar and of its checkpoints")
    threads: int = Field(0, ge=0, le=limits.THREADS_MAX, description="threads that build an index; 0 takes all cores")
    checkpoint_seconds: float = Field(
        limits.CHECKPOINT_SECONDS, gt=0, description="seconds after which changes are written to a generation"
    )
    copy_save_seconds: float = Field(
        limits.COPY_SAVE_SECONDS, gt=0, description="seconds of a first copy that a kill may cost"
    )
    scrub_seconds: float = Field(
        limits.SCRUB_CYCLE_SECONDS, gt=0, description="seconds in which every row is compared with the table once"
    )
    hnsw_m: int = Field(16, ge=limits.M_MIN, le=limits.M_MAX, description="links per node of newly attached columns")
    hnsw_ef_construction: int = Field(
        200, ge=4, le=limits.EF_CONSTRUCTION_MAX, description="candidates per insertion of newly attached columns"
    )
    format: Literal["table", "json"] = Field("table", description="how commands print data")
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="what the sidecar logs")

    @field_validator("listen", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        return tuple(part.strip() for part in value.split(",")) if isinstance(value, str) else value

    @property
    def dsn_text(self) -> str | None:
        """Return the connection string with its password, to connect with; it is never printed."""
        return self.dsn.get_secret_value() if self.dsn is not None else None


@dataclass(frozen=True, slots=True)
class Loaded:
    """The settings in force, and for each where it came from."""

    settings: Settings
    sources: Mapping[str, str]


def load_settings(options: Mapping[str, object], *, file: Path | None = None) -> Loaded:
    """Read the settings.

    Args:
        options: values of the command line; those that are None were not given.
        file: the settings file; when left out RUVECTOR_CONFIG, else ruvector.toml where the current folder has one.

    Raises:
        InvalidParameter: a value, a key or the file itself cannot be used; the message names it and its source.
    """
    path = config_file(file)
    values = read_file(path) if path is not None else {}
    chosen: dict[str, Any] = {}
    sources: dict[str, str] = {}
    for name in Settings.model_fields:
        variable = PREFIX + name.upper()
        if options.get(name) is not None:
            chosen[name], sources[name] = options[name], "option"
        elif variable in os.environ:
            sources[name] = variable  # pydantic-settings reads it
        elif name in values:
            chosen[name], sources[name] = values[name], str(path)
        else:
            sources[name] = "default"
    try:
        return Loaded(Settings(**chosen), sources)
    except ValidationError as error:
        problem = error.errors(include_input=False, include_url=False)[0]
        name = str(problem["loc"][0])
        raise InvalidParameter(
            f'setting "{name}" cannot be used: {problem["msg"]}',
            detail=f"It comes from: {sources[name]}.",
            hint="ruvector config show --source lists every setting with its source.",
        ) from None


def config_file(given: Path | None = None) -> Path | None:
    """Return the settings file in use: the given one, RUVECTOR_CONFIG, or ruvector.toml where it exists."""
    named = given if given is not None else os.environ.get(f"{PREFIX}CONFIG")
    if named:
        if not Path(named).is_file():
            raise InvalidParameter(f"the settings file {named} does not exist", hint="Check --config, RUVECTOR_CONFIG.")
        return Path(named)
    return DEFAULT_FILE if DEFAULT_FILE.is_file() else None


def read_file(path: Path) -> dict[str, Any]:
    """Return the values of section [ruvector]; a section or key this version does not know is an error."""
    known = f"Settings stand in section [{SECTION}]: {', '.join(sorted(Settings.model_fields))}."
    try:
        sections = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InvalidParameter(f"{path} cannot be read: {error}", hint="It must be a TOML file in UTF-8.") from None
    values = sections.pop(SECTION, {})
    if sections or not isinstance(values, dict):
        names = ", ".join(sorted(sections)) or SECTION
        raise InvalidParameter(f"{path}: this version has no section {names}", hint=known)
    if unknown := sorted(set(values) - set(Settings.model_fields)):
        raise InvalidParameter(f"{path}: this version has no setting {', '.join(unknown)}", hint=known)
    return values
