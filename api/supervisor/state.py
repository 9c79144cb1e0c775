"""The state files of a data folder: `server.json`, the lock that proves it valid, and three API keys.

    up.lock       held by `tidelog up` for life; the kernel releases the lock however the process ends
    server.json   the server's address, written when the server is ready, removed when it stops (0600)
    api-key       the development key, for people: one of an owner (0600)
    worker-key    the key of the server's worker, which may do nothing else than work (0600)
    builtin-key   the same for the worker of tools that are data (0600)

Imported by every command: standard library only.
"""

import contextlib
import fcntl
import json
import os
import re
import secrets
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from api.supervisor.errors import AlreadyRunning, SupervisorError
from tidelog.keys import id_of, make_key, new_key_id

_OLD_KEY = re.compile(r"tl_[A-Za-z0-9_-]{43}")
"""Of before the text of a key had the key's id. Such a key stays valid."""
_LOCK_PATIENCE_S = 0.5
"""Seconds. A command that checks whether a server runs takes the lock for an instant."""


@dataclass(frozen=True)
class RunningServer:
    """The content of server.json. Times are RFC 3339 in UTC. `embedded`: the description of the embedded servers."""

    url: str
    pid: int
    started_at: str
    agents: list[str] = field(default_factory=list)
    """Folders of the agents that the server's worker runs. Empty: the server has no worker."""
    workspace: str = ""
    """The folder that the worker's tools are given as theirs."""
    worker_account: str = ""
    """The account of the worker if it has one of its own. Empty: the worker runs as the account of the server."""
    versions: dict[str, str] = field(default_factory=dict)
    processes: dict[str, dict[str, Any]] = field(default_factory=dict)
    embedded: dict[str, Any] | None = None

    @property
    def docs_url(self) -> str:
        return f"{self.url}/docs"


@contextlib.contextmanager
def holding(data_dir: Path) -> Iterator[None]:
    """Holds the lock of the folder as its only server. Raises AlreadyRunning if another server holds it."""
    descriptor = os.open(data_dir / "up.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        deadline = time.monotonic() + _LOCK_PATIENCE_S
        while not _try_lock(descriptor, fcntl.LOCK_EX):
            if time.monotonic() > deadline:
                raise already_running(data_dir)
            time.sleep(0.05)
        forget(data_dir)  # left by a killed server
        try:
            yield
        finally:
            forget(data_dir)
    finally:
        os.close(descriptor)


def held(data_dir: Path) -> bool:
    """Whether a `tidelog up` holds the folder's lock: a server is starting, ready or stopping."""
    try:
        descriptor = os.open(data_dir / "up.lock", os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        return False
    try:
        return not _try_lock(descriptor, fcntl.LOCK_SH)
    finally:
        os.close(descriptor)


def already_running(data_dir: Path) -> AlreadyRunning:
    found = read(data_dir)
    where = f" at {found.url} (process {found.pid})" if found else ""
    return AlreadyRunning(
        f"a Tidelog server already runs on {data_dir}{where}: use it, stop it first, or choose another folder with --data-dir"
    )


def has_data(data_dir: Path) -> bool:
    """Whether embedded servers have kept data for this folder."""
    return any((data_dir / name).is_file() for name in ("secrets.json", "location.json"))


def running(data_dir: Path) -> RunningServer | None:
    """The ready server of the folder. None if no server is ready. Raises SupervisorError if the folder may not be read."""
    try:
        return read(data_dir) if held(data_dir) else None
    except PermissionError as error:
        raise SupervisorError(f"{error.filename} belongs to another account: run the command as that account") from None


def read(data_dir: Path) -> RunningServer | None:
    try:
        content = json.loads((data_dir / "server.json").read_bytes())
        known = {item.name for item in fields(RunningServer)}
        return RunningServer(**{name: value for name, value in content.items() if name in known})
    except FileNotFoundError:
        return None
    except (ValueError, TypeError, AttributeError):
        return None  # of another version, or damaged: the server writes the file again


def publish(data_dir: Path, server: RunningServer) -> None:
    write_private(data_dir / "server.json", json.dumps(asdict(server), indent=2) + "\n")


def forget(data_dir: Path) -> None:
    (data_dir / "server.json").unlink(missing_ok=True)


def key_path(data_dir: Path) -> Path:
    return data_dir / "api-key"


def worker_key_path(data_dir: Path) -> Path:
    return data_dir / "worker-key"


def read_key(data_dir: Path) -> str | None:
    """The development key of the folder. None: the folder has none. Raises SupervisorError if the file is damaged or unreadable."""
    return _read_key(key_path(data_dir))


def read_worker_key(data_dir: Path) -> str | None:
    """The key of the folder's worker. As `read_key`."""
    return _read_key(worker_key_path(data_dir))


def _read_key(path: Path) -> str | None:
    try:
        key = path.read_text("ascii").strip()
    except FileNotFoundError:
        return None
    except PermissionError:
        raise SupervisorError(f"{path} belongs to another account: run the command as that account") from None
    except UnicodeDecodeError:
        key = ""
    if id_of(key) is None and not _OLD_KEY.fullmatch(key):
        raise SupervisorError(f"{path} does not hold a key: remove it, and `tidelog up` makes a new one")
    return key


def create_key(data_dir: Path) -> str:
    """The development key of the folder. A missing key is made from 256 random bits."""
    return _create_key(key_path(data_dir), "owner")


def create_worker_key(data_dir: Path) -> str:
    """The key of the folder's worker. As `create_key`."""
    return _create_key(worker_key_path(data_dir), "worker")


def create_builtin_key(data_dir: Path) -> str:
    """The key of the folder's worker of tools that are data. As `create_key`."""
    return _create_key(data_dir / "builtin-key", "worker")


def _create_key(path: Path, role: str) -> str:
    key = _read_key(path)
    if key is None:
        key = make_key(new_key_id(), role).text
        write_private(path, key + "\n")
    path.chmod(0o600)
    return key


def create_folder(data_dir: Path) -> None:
    """Creates the folder of a server without embedded servers. Embedded servers create the folder themselves. Git ignores it."""
    data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    with contextlib.suppress(FileExistsError), (data_dir / ".gitignore").open("x", encoding="ascii") as file:
        file.write("*\n")


def write_private(path: Path, text: str) -> None:
    draft = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
        draft.replace(path)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise


def _try_lock(descriptor: int, kind: int) -> bool:
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
