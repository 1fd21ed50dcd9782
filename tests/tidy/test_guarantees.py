"""docs/guarantees.md names a test, or the reason why there is none, for every promise and every fault."""

import ast
import re

import pytest
from tidy import source_tree

TEXT = (source_tree.ROOT / "docs" / "guarantees.md").read_text(encoding="utf-8")
NAMED = sorted(set(re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", TEXT)))


@pytest.mark.parametrize(("file", "test"), NAMED)
def test_named_test_exists(file, test):
    tree = ast.parse((source_tree.ROOT / file).read_text(encoding="utf-8"))
    assert test in {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}


@pytest.mark.parametrize(("start", "numbers"), [("| P", range(1, 13)), ("| ", range(1, 73))])
def test_every_row_has_a_test_or_a_reason(start, numbers):
    for number in numbers:
        rows = [line for line in TEXT.splitlines() if line.startswith(f"{start}{number} |")]
        assert len(rows) == 1, f"{start}{number}"
        assert "::test_" in rows[0] or re.search(r"not tested[ \w]*: \w+", rows[0]), rows[0]
