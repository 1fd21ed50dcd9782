"""The checkout as the tidy tests see it: every module of ruvector/, parsed once."""

import ast
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "ruvector"


@dataclass(frozen=True)
class Module:
    name: str  # dotted
    path: Path
    tree: ast.Module

    @property
    def label(self):
        return str(self.path.relative_to(ROOT))

    def at(self, node):
        return f"{self.label}:{node.lineno}"


@cache
def modules(folder="ruvector"):
    found = []
    for path in sorted((ROOT / folder).rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        found.append(Module(name, path, ast.parse(path.read_text(encoding="utf-8"), filename=str(path))))
    return tuple(found)


def docstring_nodes(tree):
    """Return the string nodes that are docstrings."""
    nodes = set()
    for node in ast.walk(tree):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)) and ast.get_docstring(
            node
        ):
            nodes.add(node.body[0].value)
    return nodes


def import_edges(module):
    """Yield (dotted name, node) of everything a module imports; `from a import b` gives a.b when that is a module."""
    known = {other.name for other in modules()}
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, node
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parents = module.name.split(".") if module.path.name == "__init__.py" else module.name.split(".")[:-1]
                base = ".".join([*parents[: len(parents) - node.level + 1], *base.split(".")]).strip(".")
            for alias in node.names:
                yield (f"{base}.{alias.name}" if f"{base}.{alias.name}" in known else base), node
