"""The capabilities of the product, one folder each, always with the same four files.

Takes: calls bound by surface, and a Context.  Gives: rows; importing a folder's ``functions`` declares its functions.
"""

from __future__ import annotations

import importlib
import pkgutil

from ruvector.surface import System


def load() -> tuple[System, ...]:
    """Declare the functions of every system and return the manifests by name; loading twice declares once."""
    names = sorted(module.name for module in pkgutil.iter_modules(__path__) if module.ispkg)
    for name in names:
        importlib.import_module(f"{__name__}.{name}.functions")
    return tuple(importlib.import_module(f"{__name__}.{name}").SYSTEM for name in names)
