"""The folder for the temporary files of the tests: in memory if there is enough room.

Each test has a database of its own, a copy of several hundred files. On a disk the file system alone needs a quarter of a second of
processor time for a copy. In memory a copy takes a fiftieth of that.
"""

import os
import shutil
import tempfile
from pathlib import Path

MEMORY = Path("/dev/shm")
ROOM_BYTES = 4 * 1024**3
"""Bytes that must be free in memory. Two processes that run the tests need less than a gigabyte together."""


def keep_temporary_files_in_memory() -> None:
    """Sets the folder for this process and its child processes. A TMPDIR that is set already is kept."""
    if "TMPDIR" not in os.environ and _has_room():
        os.environ["TMPDIR"] = str(MEMORY)
        tempfile.tempdir = None  # tempfile reads TMPDIR again


def short_folder() -> Path:
    """Makes a folder that every account can reach and whose path is short enough for sockets. The caller removes the folder."""
    parent = MEMORY if Path(tempfile.gettempdir()) == MEMORY else Path("/tmp")
    folder = Path(tempfile.mkdtemp(prefix="tidelog-test-", dir=parent))
    folder.chmod(0o711)
    return folder


def _has_room() -> bool:
    """Programs are run from the folder as well. So Docker's default of 64 MiB and a mount without execution are not enough."""
    try:
        flags = os.statvfs(MEMORY).f_flag
        return shutil.disk_usage(MEMORY).free >= ROOM_BYTES and os.access(MEMORY, os.W_OK) and not flags & os.ST_NOEXEC
    except (OSError, AttributeError):  # no such folder, or not Linux
        return False
