"""Write sql/900_functions.sql and sql/FUNCTIONS.md from the declared functions, or check that they are current."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # the checkout's declarations, not those of an installed release

from ruvector import systems  # noqa: E402
from ruvector.surface import registry, render  # noqa: E402


def generated() -> dict[str, str]:
    """Return the text of each generated file by its name under sql/."""
    manifests = systems.load()
    functions = registry.functions()
    return {
        "900_functions.sql": render.render_functions(functions, bodies=ROOT / "sql" / "bodies"),
        "FUNCTIONS.md": render.render_reference(functions, manifests),
    }


def main() -> int:
    """Write the files; with --check only compare and return 1 when one differs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; fail when a file is not current")
    parser.add_argument("--out", type=Path, default=ROOT / "sql", help="folder to write to (default: sql/)")
    options = parser.parse_args()
    stale = 0
    for name, text in generated().items():
        path = options.out / name
        if path.is_file() and path.read_text(encoding="utf-8") == text:
            continue
        if options.check:
            stale += 1
            print(f"{path.relative_to(ROOT) if path.is_relative_to(ROOT) else path} is not current")
        else:
            path.write_text(text, encoding="utf-8")
            print(f"wrote {name}")
    if stale:
        print("run: python tools/build_sql.py")
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main())
