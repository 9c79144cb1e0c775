"""The files of this repository, and the questions of the tests about them."""

import ast
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]
SERVER = ("domain", "application", "projections", "adapters", "api", "migrations")
SDK = "sdk/src/tidelog"


@cache
def tracked_files() -> tuple[Path, ...]:
    """All files under version control, relative to the root. In a source archive: all files."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, timeout=30, check=False)
    if listed.returncode == 0:
        names = [Path(name) for name in listed.stdout.decode().split("\0") if name]
    else:
        names = [path.relative_to(ROOT) for path in ROOT.rglob("*") if not any(part.startswith(".") for part in path.parts)]
    return tuple(sorted(name for name in names if (ROOT / name).is_file()))


def python_files(*folders: str) -> list[Path]:
    """Tracked modules below the given folders. Without a folder: all tracked modules."""
    chosen = [path for path in tracked_files() if path.suffix == ".py"]
    return [path for path in chosen if not folders or any(path.is_relative_to(folder) for folder in folders)]


def names_in(folder: str) -> set[str]:
    """Names of the modules and packages directly in a folder."""
    return {path.relative_to(folder).parts[0].removesuffix(".py") for path in python_files(folder)} - {"__init__"}


@cache
def parsed(path: Path) -> ast.Module:
    return ast.parse((ROOT / path).read_text("utf-8"), filename=str(path))


def module_names() -> list[str]:
    """Dotted names of all modules of the server and the SDK."""
    names = []
    for path in python_files(*SERVER, SDK):
        parts = path.with_suffix("").parts
        parts = parts[2:] if parts[0] == "sdk" else parts
        names.append(".".join(parts[:-1] if parts[-1] == "__init__" else parts))
    return names


def imported(path: Path) -> set[str]:
    """Top-level names of all imports of a module, also of imports inside functions."""
    found: set[str] = set()
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.add(node.module.partition(".")[0])
    return found


def functions_around(tree: ast.Module) -> Iterator[tuple[str, ast.AST]]:
    """Every node with the dotted name of the classes and functions around it."""

    def visit(node: ast.AST, names: tuple[str, ...]) -> Iterator[tuple[str, ast.AST]]:
        for child in ast.iter_child_nodes(node):
            inner = names
            if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                inner = (*names, child.name)
            yield ".".join(inner), child
            yield from visit(child, inner)

    yield from visit(tree, ())
