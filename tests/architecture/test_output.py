"""Everything that a process writes to its terminal goes through a file that escapes the text of others."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.architecture.sources import SDK, SERVER, parsed, python_files

DOORS = {
    "api/cli/output.py": "visible",  # the command line
    "api/supervisor/__main__.py": "visible",  # the supervisor
    "sdk/src/tidelog/log_lines.py": "visible",  # lines of logs
    "sdk/src/tidelog/logs.py": "text_line",  # logs of a worker
    "adapters/telemetry/logging.py": "text_line",  # logs of the server
}
"""The file, and its function that escapes."""
ONLY_IN_DOORS = ("rich.console", "rich.markup")
WRITERS = ("print", "echo", "secho", "pprint", "__stdout__", "__stderr__", "print_json")


def test_only_the_doors_write_to_a_terminal() -> None:
    found = [
        f"{path}:{line} {what}" for path in python_files(*SERVER, SDK) if str(path) not in DOORS for line, what in _writes(path)
    ]
    assert found == []


@pytest.mark.parametrize("door", DOORS)
def test_every_door_escapes(door: str) -> None:
    assert DOORS[door] in {node.id for node in ast.walk(parsed(Path(door))) if isinstance(node, ast.Name)}


def _writes(path: Path) -> Iterator[tuple[int, str]]:
    for node in ast.walk(parsed(path)):
        match node:
            case ast.Call(func=ast.Name(id=name) | ast.Attribute(attr=name)) if name in WRITERS and not _on_the_console(node):
                yield node.lineno, name
            case ast.Attribute(
                value=ast.Attribute(value=ast.Name(id="sys"), attr="stdout" | "stderr" as name), attr="write" | "buffer"
            ):
                yield node.lineno, name
            case ast.ImportFrom(module=str(name)) if name in ONLY_IN_DOORS and path != Path("api/cli/screen.py"):
                yield node.lineno, name


def _on_the_console(call: ast.Call) -> bool:
    """Whether it is `console.print(…)` or `output.console().print(…)`: the console of the door."""
    match call.func:
        case ast.Attribute(value=ast.Name(id="console"), attr="print"):
            return True
        case ast.Attribute(value=ast.Call(func=ast.Attribute(value=ast.Name(id="output"), attr="console")), attr="print"):
            return True
    return False
