"""Imports between files of one folder, as in a script: `from _util import f` and `from agents._util import f`.

The files of a folder are modules of a package with a name of its own, so that files of two folders never meet. The plain names are
further names of the same modules. They count for imports from files of the folders only, and behind all installed packages.
"""

import importlib
import importlib.util
import sys
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import FrameType, ModuleType

from tidelog.loading import users_frame

PREFIX = "_tidelog_"
_FOLDERS: dict[str, Path] = {}
"""The scanned folders by the name of their package."""


def know(folders: dict[str, Path]) -> None:
    """Let files of these folders, by the name of their package, import one another by plain names.

    Modules of an earlier scan are forgotten, so that a scan reads the present files.
    """
    # A thread may import a file of an earlier scan meanwhile. To copy a dict is atomic, to list its items is not.
    for name, module in sys.modules.copy().items():
        real = module.__name__ if type(module) is ModuleType else name
        if real.startswith(PREFIX) and (real != name or real.partition(".")[0] in folders):
            sys.modules.pop(name, None)
    _FOLDERS.clear()
    _FOLDERS.update(folders)
    if _LAST not in sys.meta_path:
        sys.meta_path.insert(0, _OF_ALIASES)
        sys.meta_path.append(_LAST)


def known_folders() -> dict[str, Path]:
    """The folders by the name of their package."""
    return dict(_FOLDERS)


def hint(error: BaseException, folder: Path) -> str:
    """What to write instead of an import that failed; empty if there is nothing to say."""
    if not isinstance(error, ImportError) or not error.name or "." in error.name:
        return ""
    frame = users_frame(error, folder)
    name, file = error.name, Path(frame.filename) if frame else folder / "?.py"
    beside = next((up for up in (file.parent, *file.parent.parents) if up.is_relative_to(folder) and _holds(up, name)), None)
    if beside is not None:
        dots = "." * (1 + len(file.parent.relative_to(beside).parts))
        taken = "" if isinstance(error, ModuleNotFoundError) else f"`{name}` is {error.path}, not the file beside; "
        return f"{taken}write `from {dots}{name} import …`"
    if not isinstance(error, ModuleNotFoundError):
        return ""
    for root in folder.parents[:3]:
        for place in (root / "src", root):
            if _holds(place, name):
                return f"`{name}` is in {place}: install that project (pip install -e), or start the worker with PYTHONPATH={place}"
    return ""


class _Last(MetaPathFinder):
    """Finds a plain name that is found nowhere else, for files of the folders."""

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        if path is not None or "." in name or not _asked_by_a_file_of_ours():
            return None
        known = [f"{package}.{name}" for package, folder in _FOLDERS.items() if _holds(folder, name)]
        known = known or [package for package, folder in _FOLDERS.items() if folder.name == name]
        return importlib.util.spec_from_loader(name, _Alias(known[0])) if len(known) == 1 else None


class _OfAliases(MetaPathFinder):
    """Finds modules below a plain name: `agents._util`, once `agents` is a further name of a module."""

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        parent, _, last = name.rpartition(".")
        real = getattr(sys.modules.get(parent), "__name__", "")
        if not parent or real == parent or not real.startswith(PREFIX):
            return None
        found = importlib.util.find_spec(f"{real}.{last}")
        return None if found is None else importlib.util.spec_from_loader(name, _Alias(f"{real}.{last}"))


class _Alias(Loader):
    """Loads a module under its real name."""

    def __init__(self, real: str) -> None:
        self._real = real
        self._spec: ModuleSpec | None = None

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        module = importlib.import_module(self._real)
        self._spec = module.__spec__  # the import system is about to replace it
        return module

    def exec_module(self, module: ModuleType) -> None:
        module.__spec__ = self._spec


_LAST, _OF_ALIASES = _Last(), _OfAliases()


def _asked_by_a_file_of_ours() -> bool:
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and (
        frame.f_code.co_filename.startswith("<frozen importlib") or frame.f_globals.get("__name__") in ("importlib", __name__)
    ):
        frame = frame.f_back
    return frame is not None and str(frame.f_globals.get("__name__", "")).startswith(PREFIX)


def _holds(folder: Path, name: str) -> bool:
    return (folder / f"{name}.py").is_file() or (folder / name / "__init__.py").is_file()
