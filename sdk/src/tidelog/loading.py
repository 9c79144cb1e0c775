"""Imports the files of users, each in a thread of its own, so that a file whose import hangs holds up no other one."""

import importlib
import linecache
import sys
import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType, ModuleType

from tidelog.places import stack_of

PATIENCE_S = 5.0
"""Seconds after which an import counts as hanging. The import goes on, and what it defines is still taken when it ends."""
WAITING_S = 1.0
"""The same for an import that does nothing but wait for another one."""
LOOK_EVERY_S = 0.1
_BOOTSTRAP = "<frozen importlib._bootstrap>"


@dataclass(eq=False)
class Import:
    """The import of one file."""

    path: Path
    name: str
    folder: Path
    module: ModuleType | None = None
    error: BaseException | None = None
    _began: float = field(default_factory=time.monotonic)
    _late: Callable[["Import"], None] | None = None
    _thread: threading.Thread | None = None
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _ended: threading.Event = field(default_factory=threading.Event)

    def run(self, patience_s: float, late: Callable[["Import"], None]) -> bool:
        """Whether the import ended within the seconds. If not, `late` is called when it ends, in the thread of the import."""
        self._thread = threading.Thread(target=self._import, name=f"tidelog-import {self.path.name}", daemon=True)
        self._thread.start()
        while not self._ended.wait(LOOK_EVERY_S):
            if self.seconds >= patience_s or (self.seconds >= WAITING_S and self.waits_for() is not None):
                with self._lock:
                    if self._ended.is_set():
                        return True
                    self._late = late
                    return False
        return True

    @property
    def ended(self) -> bool:
        return self._ended.is_set()

    @property
    def seconds(self) -> float:
        """Seconds since the import began."""
        return time.monotonic() - self._began

    def waits_for(self) -> str | None:
        """The module whose import this import waits for, in another thread."""
        for frame in self._stack():
            if frame.f_code.co_filename != _BOOTSTRAP:
                return None
            if frame.f_code.co_name == "acquire":
                return str(getattr(frame.f_locals.get("self"), "name", "another module"))
        return None

    def place(self) -> str:
        """The line of the folder's own code that is being executed: `slow.py, line 3: time.sleep(3600)`."""
        frames = [frame for frame in self._stack() if Path(frame.f_code.co_filename).is_relative_to(self.folder)]
        return line_of(frames[0].f_code.co_filename, frames[0].f_lineno, self.folder) if frames else ""

    def _stack(self) -> list[FrameType]:
        frame = sys._current_frames().get(self._thread.ident or 0) if self._thread else None
        return [] if frame is None else stack_of(frame)

    def _import(self) -> None:
        try:
            self.module = module_of(self.name)
        except BaseException as error:  # noqa: BLE001  # whatever a file of users raises is a problem of that file
            self.error = error
        with self._lock:
            self._ended.set()
        if self._late is not None:
            self._late(self)


def module_of(name: str) -> ModuleType:
    """Imports a module of a scanned folder."""
    if "." in name:
        return importlib.import_module(name)
    package = sys.modules[name]  # of the folder itself; the scan has made it, and its `__init__.py` is still to be run
    if package.__spec__ is not None and package.__spec__.loader is not None:
        package.__spec__.loader.exec_module(package)
    return package


def users_line(error: BaseException, folder: Path) -> str:
    """The line of the user's own code that failed: `review.py, line 3: import nothing`."""
    if isinstance(error, SyntaxError) and error.filename:
        return f"{relative(error.filename, folder)}, line {error.lineno}: {(error.text or '').strip()}"
    last = users_frame(error, folder)
    return "" if last is None else line_of(last.filename, last.lineno or 0, folder, last.line or "")


def users_frame(error: BaseException, folder: Path) -> traceback.FrameSummary | None:
    """The innermost frame of the error in the folder."""
    frames = [f for f in traceback.extract_tb(error.__traceback__) if Path(f.filename).is_relative_to(folder)]
    return frames[-1] if frames else None


def line_of(filename: str, number: int, folder: Path, line: str = "") -> str:
    text = line or linecache.getline(filename, number)
    return f"{relative(filename, folder)}, line {number}: {text.strip()}"


def relative(filename: str, folder: Path) -> str:
    path = Path(filename)
    return str(path.relative_to(folder)) if path.is_relative_to(folder) else filename
