"""Find the folders sql/ and migrations/ in a checkout and in an installed wheel."""

from __future__ import annotations

from pathlib import Path

from ruvector.errors import InternalError

_PACKAGE = Path(__file__).resolve().parent


def root(name: str) -> Path:
    """Return the folder ``sql``, ``migrations`` or ``demo/data``; inside the wheel first, else in the checkout."""
    for candidate in (_PACKAGE / name, _PACKAGE.parent / name):
        if candidate.is_dir():
            return candidate
    raise InternalError(f'the folder "{name}" is missing from this installation of ruvector')
