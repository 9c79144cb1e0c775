"""docs/reference/guarantees.md: each promise names the tests that prove it, and each named test exists."""

import ast
import re
from pathlib import Path

from tests.architecture.sources import ROOT, parsed

PAGE = Path("docs/reference/guarantees.md")
NAMED = re.compile(r"`(tests/[\w/]+\.py)::(\w+)`")


def promises() -> list[str]:
    """The list items of the sections with promises, each in one line."""
    text = (ROOT / PAGE).read_text().partition("\n## Not promised")[0]
    return [" ".join(item.split()) for item in re.findall(r"^- (.*?)(?=^- |^#|^$|\Z)", text, re.MULTILINE | re.DOTALL)]


def names_of_tests(path: Path) -> set[str]:
    return {
        node.name
        for node in ast.walk(parsed(path))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_")
    }


def test_every_promise_names_a_test() -> None:
    assert len(promises()) > 20
    assert [promise for promise in promises() if not NAMED.search(promise)] == []


def test_named_tests_exist() -> None:
    named = set(NAMED.findall((ROOT / PAGE).read_text()))
    assert named
    missing = [
        f"{path}::{name}" for path, name in sorted(named) if not (ROOT / path).exists() or name not in names_of_tests(Path(path))
    ]
    assert missing == []
