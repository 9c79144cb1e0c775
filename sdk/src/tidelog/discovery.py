"""Finds agents and tools in folders of Python files. Broken files and definitions are reported; all others work."""

import hashlib
import importlib
import importlib.util
import inspect
import linecache
import sys
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType, TracebackType
from typing import Any, Literal, get_args

from tidelog.agent import Agent, AgentDefinition, describe_agent
from tidelog.errors import DefinitionError
from tidelog.tools import Tool, ToolDefinition

ProblemKind = Literal[
    "no-folder",
    "import-failed",
    "no-execute",
    "invalid-signature",
    "invalid-name",
    "invalid-metadata",
    "duplicate-agent",
    "duplicate-tool",
]


@dataclass(frozen=True, slots=True)
class Problem:
    """A part of a user's file that cannot be used. `message` names the part, the place and the reason, for people."""

    path: Path
    kind: ProblemKind
    message: str

    def __str__(self) -> str:
        return f"{self.path}: {self.kind}: {self.message}"


@dataclass(frozen=True, slots=True)
class FoundAgent:
    """A usable agent class and its place."""

    path: Path
    cls: type[Agent]
    definition: AgentDefinition


@dataclass(frozen=True, slots=True)
class FoundTool:
    """A usable tool and its place."""

    path: Path
    tool: Tool[..., Any]
    definition: ToolDefinition


@dataclass(slots=True)
class Discovery:
    """The outcome of a scan: usable agents and tools by name, and the problems."""

    agents: dict[str, FoundAgent] = field(default_factory=dict)
    tools: dict[str, FoundTool] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)

    def add_agent(self, path: Path, cls: type[Agent]) -> None:
        """Add an agent class, or note why it cannot be used. Of two classes with one name the first is kept."""
        try:
            definition = describe_agent(cls)
        except DefinitionError as error:
            self._add_problem(path, error)
            return
        other = self.agents.get(definition.name)
        if other is not None:
            self.problems.append(
                Problem(
                    path,
                    "duplicate-agent",
                    f"class {cls.__name__} has the name {definition.name!r}, which {other.cls.__name__} "
                    f"in {other.path} has already; the latter is used",
                )
            )
            return
        self.agents[definition.name] = FoundAgent(path, cls, definition)

    def add_tool(self, path: Path, tool: Tool[..., Any]) -> None:
        """Add a tool, or note why it cannot be used. Of two tools with one name the first is kept."""
        try:
            definition = tool.describe()
        except DefinitionError as error:
            self._add_problem(path, error)
            return
        other = self.tools.get(definition.name)
        if other is not None:
            self.problems.append(
                Problem(
                    path,
                    "duplicate-tool",
                    f"the tool name {definition.name!r} is taken already in {other.path}; the latter is used",
                )
            )
            return
        self.tools[definition.name] = FoundTool(path, tool, definition)

    def _add_problem(self, path: Path, error: DefinitionError) -> None:
        kind = next(kind for kind in get_args(ProblemKind) if kind == error.kind)
        self.problems.append(Problem(path, kind, str(error)))


def discover(folders: Path | str | Sequence[Path | str]) -> Discovery:
    """Import every `*.py` and package of the folders whose name does not start with `_`, and collect their agents and tools.

    Each folder becomes a package under a name of its own, so relative imports between its files work, and files of two folders
    never collide. Importing runs the files' code in this process: an exception or `sys.exit` there is a problem of that file alone.
    """
    found = Discovery()
    for folder in [folders] if isinstance(folders, Path | str) else folders:
        _scan(Path(folder).resolve(), found)
    return found


def _scan(folder: Path, found: Discovery) -> None:
    if not folder.is_dir():
        found.problems.append(Problem(folder, "no-folder", "there is no such folder"))
        return
    importlib.invalidate_caches()
    package = _make_package(folder, found)
    modules = [(path, module) for path, name in _module_files(folder, package) if (module := _import(name, path, folder, found))]
    classes = [(path, cls) for path, module in modules for cls in _agents_of(module)]
    for path, cls in classes:
        is_base = any(other is not cls and issubclass(other, cls) for _, other in classes)
        if not (is_base and cls.execute is Agent.execute):  # a common base class without execute is no mistake
            found.add_agent(path, cls)
    for path, module in modules:
        for tool in _tools_of(module):
            found.add_tool(path, tool)


def _make_package(folder: Path, found: Discovery) -> str:
    """The package that stands for the folder; its `__init__.py` is run if there is one."""
    name = f"_tidelog_{hashlib.sha256(str(folder).encode()).hexdigest()[:12]}"
    for loaded in [module for module in sys.modules if module == name or module.startswith(f"{name}.")]:
        del sys.modules[loaded]  # scanned before in this process: read the present files
    init = folder / "__init__.py"
    if init.is_file():
        spec = importlib.util.spec_from_file_location(name, init, submodule_search_locations=[str(folder)])
        if spec is not None and spec.loader is not None:
            module = importlib.util.module_from_spec(spec)
            sys.modules[name] = module
            with _note_failure(init, folder, found):
                spec.loader.exec_module(module)
            return name
    package = ModuleType(name)
    package.__path__ = [str(folder)]
    sys.modules[name] = package
    return name


def _module_files(folder: Path, package: str) -> Iterator[tuple[Path, str]]:
    """Files to import with their full module names, in a stable order; packages before their modules."""
    for path in sorted(folder.iterdir()):
        if path.name.startswith(("_", ".")):
            continue
        if path.is_dir() and (path / "__init__.py").is_file() and "." not in path.name:
            yield path / "__init__.py", f"{package}.{path.name}"
            yield from _module_files(path, f"{package}.{path.name}")
        elif path.suffix == ".py" and path.is_file():
            yield path, f"{package}.{path.stem}"


def _import(name: str, path: Path, folder: Path, found: Discovery) -> ModuleType | None:
    with _note_failure(path, folder, found):
        return importlib.import_module(name)
    return None


class _note_failure:
    """Every exception that a user's module raises during its import, even SystemExit, becomes a `Problem`. A real Ctrl-C passes."""

    def __init__(self, path: Path, folder: Path, found: Discovery) -> None:
        self._path = path
        self._folder = folder
        self._found = found

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> bool:
        if error is None or isinstance(error, KeyboardInterrupt):
            return False
        where = _users_line(error, self._folder)
        message = f"{where}: {type(error).__name__}: {error}" if where else f"{type(error).__name__}: {error}"
        self._found.problems.append(Problem(self._path, "import-failed", message))
        return True


def _users_line(error: BaseException, folder: Path) -> str:
    """The line of the user's own code that failed: `review.py, line 3: import nothing`."""
    if isinstance(error, SyntaxError) and error.filename:
        return f"{_relative(error.filename, folder)}, line {error.lineno}: {(error.text or '').strip()}"
    frames = [f for f in traceback.extract_tb(error.__traceback__) if Path(f.filename).is_relative_to(folder)]
    if not frames:
        return ""
    last = frames[-1]
    line = last.line or linecache.getline(last.filename, last.lineno or 0)
    return f"{_relative(last.filename, folder)}, line {last.lineno}: {line.strip()}"


def _relative(filename: str, folder: Path) -> str:
    path = Path(filename)
    return str(path.relative_to(folder)) if path.is_relative_to(folder) else filename


def _agents_of(module: ModuleType) -> Iterator[type[Agent]]:
    """Agent classes that are defined in this module (not imported into it), private ones excepted, in order of definition."""
    seen: set[type[Agent]] = set()
    for value in vars(module).values():
        if not (inspect.isclass(value) and issubclass(value, Agent)) or value in seen:
            continue
        if value.__module__ == module.__name__ and not value.__name__.startswith("_"):
            seen.add(value)
            yield value


def _tools_of(module: ModuleType) -> Iterator[Tool[..., Any]]:
    """Tools that are defined in this module, in order of definition."""
    seen: list[Tool[..., Any]] = []
    for value in vars(module).values():
        if isinstance(value, Tool) and value.__module__ == module.__name__ and not any(value is tool for tool in seen):
            seen.append(value)
            yield value
