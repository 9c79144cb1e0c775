"""Where the temporary files of the tests are: in memory where there is room for them.

Each test has a database of its own, a copy of several hundred files. On a disk the file system alone needs a quarter of a second
of processor time for one; in memory a copy takes a fiftieth.
"""

import os
import shutil
import tempfile
from pathlib import Path

MEMORY = Path("/dev/shm")
ROOM_BYTES = 4 * 1024**3
"""What is free there at least. Two processes that run the tests need less than a gigabyte at once."""


def keep_temporary_files_in_memory() -> None:
    """For this process and for those that it starts. Whoever sets TMPDIR has chosen another place."""
    if "TMPDIR" not in os.environ and _has_room():
        os.environ["TMPDIR"] = str(MEMORY)
        tempfile.tempdir = None  # it is asked for again


def short_folder() -> Path:
    """A new folder that every account can reach, with a path that is short enough for sockets. The caller removes it."""
    parent = MEMORY if Path(tempfile.gettempdir()) == MEMORY else Path("/tmp")
    folder = Path(tempfile.mkdtemp(prefix="tidelog-test-", dir=parent))
    folder.chmod(0o711)
    return folder


def _has_room() -> bool:
    """Programs are run from there as well: Docker's default of 64 MiB, or a mount without execution, will not do."""
    try:
        flags = os.statvfs(MEMORY).f_flag
        return shutil.disk_usage(MEMORY).free >= ROOM_BYTES and os.access(MEMORY, os.W_OK) and not flags & os.ST_NOEXEC
    except (OSError, AttributeError):  # no such folder, or not Linux
        return False
