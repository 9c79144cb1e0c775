"""The place of PostgreSQL's unix socket: private, stable over restarts, and short enough for the system."""

import os
import tempfile
from pathlib import Path

import structlog

from adapters.embedded.files import make_private_directory
from adapters.embedded.state import StateDirectory

log = structlog.get_logger(__name__)

PORT = 5432
"""Only a part of the socket's name: PostgreSQL has no TCP listener."""

_PATH_LIMIT = 103
"""Bytes. Linux allows 107, macOS 103."""

_PREFIX = "tidelog-"
_TEMPORARY = Path("/tmp")


def choose_socket_dir(state: StateDirectory, preferred: Path) -> Path:
    """`preferred`, or a short private folder if the path of `preferred` is unusable.

    The folder is remembered for the next start.
    """
    if _fits(preferred) and _is_private(preferred, state):
        return preferred
    parents = [_TEMPORARY]
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    if runtime and state.account is None and Path(runtime).is_dir() and _fits(Path(runtime) / f"{_PREFIX}12345678"):
        parents.insert(0, Path(runtime))
    recalled = Path(state.recall("socket_dir") or "")
    if recalled.parent in parents and recalled.name.startswith(_PREFIX) and _is_private(recalled, state):
        return recalled
    chosen = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=parents[0]))
    if state.server_owner is not None:
        os.chown(chosen, state.server_owner.uid, state.server_owner.gid)
    state.remember(socket_dir=str(chosen))
    log.info("socket_directory_chosen", path=str(chosen), reason="that of the state directory is too long or open to others")
    return chosen


def _fits(socket_dir: Path) -> bool:
    """Whether a path is short enough and has no comma, at which libpq would split it."""
    path = os.fsencode(socket_dir / f".s.PGSQL.{PORT}.lock")
    return len(path) <= _PATH_LIMIT and b"," not in path


def _is_private(path: Path, state: StateDirectory) -> bool:
    """Whether a path is a folder of the server's account, not a link that another account planted.

    A missing folder is made again.
    """
    make_private_directory(path, state.server_owner)
    status = path.lstat()
    owner = state.server_owner.uid if state.server_owner else os.geteuid()
    return (status.st_mode & 0o170777) == 0o040700 and status.st_uid == owner
