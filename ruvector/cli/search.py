"""search."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ruvector.cli import output
from ruvector.cli.options import ConfigOption, DsnOption, FormatOption, read_call
from ruvector.errors import InvalidParameter, InvalidVector
from ruvector.values import ElementType

if TYPE_CHECKING:
    from ruvector.client import Client


def search(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The collection.")],
    *,
    vector: Annotated[
        str | None, typer.Option("--vector", metavar="JSON", help="The query: [0.1, 0.2], bits 0101, sparse {1:0.5}/9")
    ] = None,
    row_id: Annotated[str | None, typer.Option("--id", metavar="KEY", help="The vector of this row.")] = None,
    file: Annotated[
        Path | None, typer.Option("--file", metavar="NPY", help="One vector in a file of numpy.")
    ] = None,
    k: Annotated[int, typer.Option("-k", "--k", help="How many rows.")] = 10,
    filter_text: Annotated[
        str | None, typer.Option("--filter", metavar="JSON", help='For example {"price": {"$lt": 50}}')
    ] = None,
    max_distance: Annotated[
        float | None, typer.Option("--max-distance", metavar="D", help="Leave out rows that are farther.")
    ] = None,
    ef: Annotated[int | None, typer.Option("--ef", help="Width of the search.")] = None,
    explain: Annotated[bool, typer.Option("--explain", help="Tell how it is answered instead.")] = False,
    dsn: DsnOption = None,
    output_format: FormatOption = None,
    config: ConfigOption = None,
) -> None:  # fmt: skip
    """Search once, with the database's own function ruvector_search."""
    if [vector, row_id, file].count(None) != 2:
        raise typer.BadParameter("Give exactly one of --vector, --id and --file.")
    condition = read_json(filter_text, option="--filter", wanted=dict) if filter_text is not None else None
    call = read_call(dsn=dsn, file=config, format=output_format)
    with call.client() as client:
        query = _query(client, name, vector=vector, row_id=row_id, file=file)
        if explain:
            report = client.explain(name, query, k=k, filter=condition, ef=ef, max_distance=max_distance)
            if call.as_json:
                output.write_json({"command": "search", "collection": name, "explain": report})
            else:
                output.write_facts(report.items())
            return
        hits = client.search(name, query, k=k, filter=condition, ef=ef, max_distance=max_distance)
    if call.as_json:
        output.write_json({"command": "search", "collection": name, "k": k, "hits": [asdict(hit) for hit in hits]})
    else:
        rows = ((hit.id, f"{hit.distance:.6f}", f"{hit.score:.6f}", hit.tier) for hit in hits)
        output.write_table(("id", "distance", "score", "tier"), rows, right=("distance", "score"))


def _query(client: Client, name: str, *, vector: str | None, row_id: str | None, file: Path | None) -> Any:
    if row_id is not None:
        return client.vector_of(name, row_id)
    if file is not None:
        return _vector_in(file)
    text = (vector or "").strip()
    if text and set(text) <= {"0", "1"} and client.collection(name).options.metric.is_binary:
        return text
    if text.startswith("{") and client.collection(name).options.element is ElementType.SPARSE:
        return text
    return read_json(text, option="--vector", wanted=list)


def read_array(file: Path, *, name: str) -> Any:
    """Return what a file of numpy holds, or raise InvalidVector; ``name`` stands for it in the hint."""
    import numpy as np

    try:
        return np.load(file, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise InvalidVector(
            f"{file} cannot be read: {error}", hint=f"Write it with numpy.save(path, {name})."
        ) from None


def _vector_in(file: Path) -> Any:
    import numpy as np

    numbers = read_array(file, name="vector")
    if not isinstance(numbers, np.ndarray) or numbers.dtype.kind not in "fiu" or numbers.size != numbers.shape[-1:][0]:
        raise InvalidVector(f"{file} does not hold one vector of numbers", hint="Save an array of shape [dims].")
    return numbers.reshape(-1)


def read_json(text: str, *, option: str, wanted: type) -> Any:
    """Return the JSON value of an option, or raise InvalidParameter when it is not of the wanted type."""
    try:
        value: Any = json.loads(text)
    except ValueError as error:
        raise InvalidParameter(f"{option} is not JSON: {error}", hint="Put it in single quotes in a shell.") from None
    if not isinstance(value, wanted):
        raise InvalidParameter(f"{option} must be a JSON {'object' if wanted is dict else 'array'}")
    if isinstance(value, list) and not all(type(item) in (int, float) for item in value):
        raise InvalidVector(f"{option} must be an array of numbers")
    return value
