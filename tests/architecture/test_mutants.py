"""The list of mutants that need not be killed is about code that is there."""

import ast
from pathlib import Path

import pytest

from tests.architecture.sources import ROOT, parsed
from tests.mutation import listed

LISTED = listed.read()


def function_lines(name: str) -> list[str]:
    """The lines of a function, without indentation. `name`: module, class where there is one, function. Raises LookupError."""
    parts = name.split(".")
    for end in range(len(parts), 0, -1):
        path = Path(*parts[:end]).with_suffix(".py")
        if (ROOT / path).is_file():
            break
    else:
        raise LookupError(f"no module of {name}")
    node: ast.AST = parsed(path)
    for part in parts[end:]:
        node = next(
            (child for child in ast.iter_child_nodes(node) if getattr(child, "name", None) == part),
            None,
        ) or _absent(name)
    assert isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.end_lineno is not None
    lines = (ROOT / path).read_text("utf-8").splitlines()[node.lineno - 1 : node.end_lineno]
    return [line.strip() for line in lines]


def _absent(name: str) -> ast.AST:
    raise LookupError(f"no function {name}")


@pytest.mark.parametrize("entry", LISTED.accepted, ids=lambda entry: entry.function)
def test_an_accepted_mutant_is_of_code_that_is_there(entry: listed.Accepted) -> None:
    """The code was changed: `make mutants SAMPLE=all ONLY=<its file>` says what the entry has to be now, if anything."""
    lines, was = function_lines(entry.function), entry.was.splitlines()
    assert any(lines[i : i + len(was)] == was for i in range(len(lines)))
    assert entry.why


def test_the_floors_are_of_the_rooms_that_are_broken() -> None:
    for room in LISTED.floors:
        assert (ROOT / room).is_dir()


def test_what_the_parts_of_the_list_hold() -> None:
    change = listed.Change("domain.runs.decide", 'raise NotFound(f"there is no run {command.run_id}")', "raise NotFound(None)")
    assert LISTED.ruled_out(change)
    assert not LISTED.ruled_out(listed.Change(change.function, "raise NotFound(what)", "raise NotFound(None)"))
    entry = listed.Accepted("f", "a = 1", ("a = 2", ""), "why")
    assert entry.holds(listed.Change("f", "a = 1", "")) and not entry.holds(listed.Change("g", "a = 1", ""))
