"""Finds agents and tools in folders of Python files. Broken files and definitions are reported; all others work."""

import hashlib
import importlib
import importlib.util
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any, Literal, TypeVar, get_args

from tidelog.agent import Agent, AgentDefinition, describe_agent
from tidelog.errors import DefinitionError
from tidelog.loading import PATIENCE_S, Import, module_of, users_line
from tidelog.siblings import PREFIX, hint, know
from tidelog.texts import text_of, type_of
from tidelog.tool_classes import AnyTool, BaseTool, tool_of
from tidelog.tools import Tool, ToolDefinition

ProblemKind = Literal[
    "no-folder",
    "import-failed",
    "import-hangs",
    "no-execute",
    "invalid-signature",
    "invalid-name",
    "invalid-metadata",
    "duplicate-agent",
    "duplicate-tool",
    "definition-refused",
    "isolation-incomplete",
]


T = TypeVar("T")

MAX_TEXT_BYTES = 2048
"""Of the text of an exception in a problem."""


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
        definition = self._described(path, cls.__name__, partial(describe_agent, cls))
        if definition is None:
            return
        other = self.agents.get(definition.name)
        if other is not None and other.cls is cls:
            return
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

    def add_tool(self, path: Path, given: AnyTool) -> None:
        """Add a tool, or note why it cannot be used. Of two tools with one name the first is kept."""
        what = given.__name__ if isinstance(given, type) else repr(given)
        definition = self._described(path, what, lambda: tool_of(given).describe())
        if definition is None:
            return
        tool = tool_of(given)
        other = self.tools.get(definition.name)
        if other is not None and other.tool is tool:
            return
        if other is not None:
            self.problems.append(
                Problem(
                    path,
                    "duplicate-tool",
                    f"the tool name {definition.name!r} is taken already in {other.path}; the latter is used",
                )
            )
            return
        if tool.undo is not None:  # before it: a tool is called only when what takes its effect back is there
            self.add_tool(path, tool.undo)
        self.tools[definition.name] = FoundTool(path, tool, definition)

    def _described(self, path: Path, what: str, describe: Callable[[], T]) -> T | None:
        """The definition; None, and a problem more, if there is none. Code of users may be asked, as in types of parameters."""
        try:
            return describe()
        except DefinitionError as error:
            kind = next(kind for kind in get_args(ProblemKind) if kind == error.kind)
            self.problems.append(Problem(path, kind, str(error)))
        except BaseException as error:  # noqa: BLE001  # of code of users, even SystemExit
            message = f"{what} cannot be described: {_told(error)}"
            self.problems.append(Problem(path, "invalid-metadata", message))
        return None


def discover(folders: Path | str | Sequence[Path | str]) -> Discovery:
    """Import every `*.py` and package of the folders whose name does not start with `_`, and collect their agents and tools.

    Each folder becomes a package under a name of its own, so files of two folders never collide. Files import one another
    relatively, or by plain names as in a script. Importing runs the files' code in threads of this process: an exception or
    `sys.exit` there is a problem of that file alone, and so is an import that takes longer than five seconds.
    """
    return Scan(folders).run()


class Scan:
    """One scan of folders, and the imports that it does not wait for any more.

    `changed` is called, in another thread, when an import hangs and when a hanging import has ended.
    """

    def __init__(
        self,
        folders: Path | str | Sequence[Path | str],
        changed: Callable[[], None] = lambda: None,
        patience_s: float = PATIENCE_S,
    ) -> None:
        self._folders = [Path(folder).resolve() for folder in ([folders] if isinstance(folders, Path | str) else folders)]
        self._changed = changed
        self._patience_s = patience_s
        self._lock = threading.Lock()
        self._hanging: dict[Import, Problem] = {}
        self._scanned: set[str] = set()
        self.found = Discovery()

    def run(self) -> Discovery:
        """Blocks until each file has been imported, has failed, or hangs."""
        packages = {_package_name(folder): folder for folder in self._folders if folder.is_dir()}
        know(packages)
        importlib.invalidate_caches()
        for folder in self._folders:
            if _package_name(folder) not in packages:
                self.found.problems.append(Problem(folder, "no-folder", "there is no such folder"))
        for package, folder in packages.items():
            self._scan(package, folder)
        return self.found

    def present(self) -> Discovery:
        """A copy of what has been found so far."""
        with self._lock:
            return Discovery(dict(self.found.agents), dict(self.found.tools), list(self.found.problems))

    def hanging(self) -> list[Problem]:
        """The imports that hang now, with the line where each one is now."""
        with self._lock:
            return [_hang(still) for still in self._hanging]

    def _scan(self, package: str, folder: Path) -> None:
        init, files = _make_package(package, folder), list(_module_files(folder, package))
        files = [*([] if init is None else [(init, package)]), *files]
        self._scanned.update(name for _, name in files)
        modules = [(path, module) for path, name in files if (module := self._import(path, name, folder)) is not None]
        self._collect(modules)

    def _collect(self, modules: Sequence[tuple[Path, ModuleType]]) -> None:
        offers = [(path, value, meant) for path, module in modules for value, meant in _offers(module, self._scanned)]
        classes = [(path, value, meant) for path, value, meant in offers if isinstance(value, type) and issubclass(value, Agent)]
        tool_classes = [value for _, value, _ in offers if isinstance(value, type) and issubclass(value, BaseTool)]
        with self._lock:
            for path, cls, meant in classes:
                is_base = any(other is not cls and issubclass(other, cls) for _, other, _ in classes)
                if not is_base or (meant and cls.execute is not Agent.execute):  # a common base class is no mistake
                    self.found.add_agent(path, cls)
            for path, tool, _ in offers:
                if isinstance(tool, Tool) or (tool in tool_classes and not _has_heirs(tool, tool_classes)):
                    self.found.add_tool(path, tool)

    def _import(self, path: Path, name: str, folder: Path) -> ModuleType | None:
        one = Import(path, name, folder)
        if one.run(self._patience_s, self._late):
            with self._lock:
                self._note_failure(one)
            return one.module
        with self._lock:
            if not one.ended:  # else `_late` has it
                self._hanging[one] = _hang(one)
                self.found.problems.append(self._hanging[one])
        self._changed()
        return None

    def _late(self, one: Import) -> None:
        with self._lock:
            problem = self._hanging.pop(one, None)
            if problem is not None:
                self.found.problems.remove(problem)
            self._note_failure(one)
        if one.module is not None:
            self._collect([(one.path, one.module)])
        self._changed()

    def _note_failure(self, one: Import) -> None:
        if one.error is not None:
            self.found.problems.append(Problem(one.path, "import-failed", _reason(one.error, one.folder)))


def _has_heirs(cls: type, others: Sequence[type]) -> bool:
    """Whether others go on with a class. A common base is no tool of its own."""
    return any(other is not cls and issubclass(other, cls) for other in others)


def load_module(folders: dict[str, Path], name: str) -> ModuleType:
    """A module of scanned folders by its full name, in a process that has not scanned them. Raises what its code raises."""
    know(folders)
    for package, folder in folders.items():
        _make_package(package, folder)
    return module_of(name)


def _told(error: BaseException) -> str:
    """Class and text, whatever the exception's own methods do."""
    return f"{type_of(error)}: {text_of(error, MAX_TEXT_BYTES)}"


def _reason(error: BaseException, folder: Path) -> str:
    text = _told(error).replace(f"{_package_name(folder)}.", ".")
    where, what = users_line(error, folder), hint(error, folder)
    text = f"{where}: {text}" if where else text
    return f"{text}; {what}" if what else text


def _hang(one: Import) -> Problem:
    place, other = one.place(), one.waits_for()
    where = f", at {place}" if place else ""
    waits = f". It waits for the import of {other.rpartition('.')[2]!r}" if other else ""
    return Problem(one.path, "import-hangs", f"the import has not ended after {one.seconds:.0f} s{where}{waits}")


def _package_name(folder: Path) -> str:
    return f"{PREFIX}{hashlib.sha256(str(folder).encode()).hexdigest()[:12]}"


def _make_package(name: str, folder: Path) -> Path | None:
    """Make the package that stands for the folder. Returns its `__init__.py`, if there is one, which has not run yet."""
    init = folder / "__init__.py"
    spec = importlib.util.spec_from_file_location(name, init, submodule_search_locations=[str(folder)]) if init.is_file() else None
    package = ModuleType(name) if spec is None else importlib.util.module_from_spec(spec)
    package.__path__ = [str(folder)]
    sys.modules[name] = package
    return None if spec is None else init


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


def _offers(module: ModuleType, scanned: set[str]) -> Iterator[tuple[type[Agent] | AnyTool, bool]]:
    """The agent classes and tools that a module offers, in order.

    A module offers those that it defines, private classes excepted, and those of its `__all__`. A package also offers those that it
    imports from a private module of the folder, which no scan sees; for these the second value is False, because the import may
    have another purpose. A scanned module offers its definitions itself.
    """
    listed = vars(module).get("__all__")
    listed = listed if isinstance(listed, list | tuple) else ()
    folder, seen = module.__name__.partition(".")[0], list[Any]()
    for name, value in list(vars(module).items()):
        home = _home_of(value)
        if home is None or any(value is other for other in seen):
            continue
        seen.append(value)
        private = isinstance(value, type) and value.__name__.startswith("_")
        imported = "__path__" in vars(module) and home.startswith(f"{folder}.") and not private and not name.startswith("_")
        if (home == module.__name__ and not private) or (home not in scanned and name in listed):
            yield value, True
        elif home not in scanned and imported:
            yield value, False


def _home_of(value: Any) -> str | None:
    """The name of the module that defines an agent class or tool; None for any other value, whose attributes are not touched."""
    kind = type(value)
    if issubclass(kind, Tool) or (
        issubclass(kind, type) and issubclass(value, Agent | BaseTool) and value not in (Agent, BaseTool)
    ):
        return str(value.__module__)
    return None
