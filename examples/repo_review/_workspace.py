"""The only folder that a tool may touch."""

import os
import stat
from pathlib import Path
from typing import BinaryIO

from tidelog import PermanentError


class Workspace:
    """Opens files below one folder. Symbolic links are never followed out of the folder, nor into git's own files."""

    def __init__(self, root: Path) -> None:
        try:
            self.root = root.resolve(strict=True)
        except OSError as error:
            raise PermanentError(f"the workspace cannot be opened: {error.strerror}") from error
        if not self.root.is_dir():
            raise PermanentError("the workspace is not a folder")
        self._folders: dict[str, bool] = {}

    def locate(self, path: str) -> Path:
        """The absolute place of a relative path. Raises PermanentError for a path that leaves the workspace."""
        if not path or "\0" in path or path.startswith(("/", "\\")) or Path(path).is_absolute():
            raise PermanentError(f"not a relative path: {path!r}")
        parts = path.split("/")
        if ".." in parts:
            raise PermanentError(f"the path leads out of the workspace: {path!r}")
        if any(part.lower() == ".git" for part in parts):
            raise PermanentError("git's own files are not read")
        folder = os.path.dirname(path)
        if not self._inside(folder):
            raise PermanentError(f"the path leads out of the workspace: {path!r}")
        return self.root / path

    def _inside(self, folder: str) -> bool:
        """Whether the folder, with its links followed, is in the workspace.

        Answers are kept: a tree has many files in few folders.
        """
        if folder not in self._folders:
            real = Path(os.path.realpath(self.root / folder))
            inside = real == self.root or real.is_relative_to(self.root)
            self._folders[folder] = inside and ".git" not in real.relative_to(self.root).parts
        return self._folders[folder]

    def open(self, path: str) -> BinaryIO:
        """Opens a plain file for reading. The last part may not be a link, and a pipe or a device is refused.

        Raises FileNotFoundError if the file does not exist, PermanentError if the file may not be read.
        """
        place = self.locate(path)
        try:
            handle = os.open(place, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except (FileNotFoundError, NotADirectoryError) as error:
            raise FileNotFoundError(path) from error
        except (OSError, UnicodeEncodeError) as error:
            raise PermanentError(f"cannot be opened as a plain file: {path!r}") from error
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            os.close(handle)
            raise PermanentError(f"not a plain file: {path!r}")
        return os.fdopen(handle, "rb")
