"""The state directory: the actual place of the data, its owner, the lock, the passwords and values for the next start.

Layout of the data home (the state directory itself, or the folder that its `location.json` names):

    lock            held for life by this process and by every server that it starts
    secrets.json    passwords, 0600
    state.json      NATS port, socket folder, identities of the running servers
    nats.conf       written at each start and for each new subscriber, 0600; nats.conf.lock is held for that
    postgres/data   the cluster          nats/   JetStream store
    run/            unix socket, ports file         logs/   one log per server

If root starts this process, the home belongs to root, and the account of the servers may only traverse it. That account owns the
folders that it writes to: postgres/, nats/, run/.
"""

import asyncio
import contextlib
import fcntl
import json
import os
import secrets
import signal
import time
from pathlib import Path
from typing import Any

import structlog

from adapters.embedded.accounts import Account, blocked_at, choose_account, owner_account, running_as_root
from adapters.embedded.errors import DataDirectoryBusy, EmbeddedError, StateDirectoryUnusable
from adapters.embedded.files import make_private_directory, network_filesystem, open_owned, write_private
from adapters.embedded.processes import ProcessIdentity
from adapters.embedded.relocation import make_root_directory

log = structlog.get_logger(__name__)

SPARE_ROOT = Path("/var/lib/tidelog")
"""Place of the data if root starts this process in a folder that the account of the servers cannot reach."""

_LOCK_PATIENCE_S = 5.0
_SECRET_NAMES = ("postgres_admin", "postgres_app", "nats_server", "nats_operator", "nats_worker")


class StateDirectory:
    """A located state directory. No file in it may be changed before `lock()`."""

    def __init__(self, state_dir: Path, home: Path, account: Account | None) -> None:
        self.state_dir = state_dir
        self.home = home
        self.account = account
        self._home_owner = owner_account(home) if running_as_root() else None
        self._lock_fd: int | None = None
        self._remembered: dict[str, Any] = {}
        self.secrets: dict[str, str] = {}

    @property
    def home_owner(self) -> Account | None:
        """Owner of the files that only this process uses. None: the account of this process, which is not root."""
        return self._home_owner

    @property
    def server_owner(self) -> Account | None:
        """Owner of the files that the servers read and write. None: the account of this process."""
        return self.account or self._home_owner

    @property
    def postgres_data(self) -> Path:
        return self.home / "postgres" / "data"

    @property
    def lock_fd(self) -> int:
        if self._lock_fd is None:
            raise EmbeddedError(f"the state directory {self.state_dir} is not locked")
        return self._lock_fd

    def recall(self, key: str) -> Any:
        return self._remembered.get(key)

    def remember(self, **values: Any) -> None:
        """Stores values for the next start. The file is not flushed to disk: all values can be found out again."""
        self._remembered.update(values)
        write_private(self.home / "state.json", json.dumps(self._remembered, indent=1), self._home_owner, sync=False)

    async def lock(self) -> None:
        """Locks the directory for the life of this process and prepares it. Raises DataDirectoryBusy, StateDirectoryUnusable.

        The servers inherit the lock. So the lock is free only when the last server has ended, however the parent ended: two brokers
        on one store would destroy each other's messages without an error.
        """
        descriptor = open_owned(self.home / "lock", os.O_RDWR, self._home_owner)
        try:
            await self._acquire(descriptor)
            own = ProcessIdentity.of(os.getpid())
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, json.dumps({"pid": os.getpid(), "started": own.started if own else ""}).encode(), 0)
            self._remembered = _read_json(self.home / "state.json")
            self._refuse_copy()
            self._prepare()
        except BaseException:
            os.close(descriptor)
            raise
        self._lock_fd = descriptor

    def unlock(self) -> None:
        if self._lock_fd is not None:
            # The pid in the lock file is removed first. Grandchildren that a SIGKILL left may hold the lock for a moment longer.
            # The next start should wait for them and not report this process.
            os.ftruncate(self._lock_fd, 0)
            os.close(self._lock_fd)
            self._lock_fd = None

    async def _acquire(self, descriptor: int) -> None:
        deadline = time.monotonic() + _LOCK_PATIENCE_S
        orphans_told = False
        while True:
            with contextlib.suppress(BlockingIOError):
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            holder = _identity(_parse_json(os.pread(descriptor, 4096, 0)))
            if holder is not None and holder.alive():
                raise DataDirectoryBusy(
                    f"the state directory {self.state_dir} is in use by process {holder.pid}: "
                    f"stop that one (kill -INT {holder.pid}) or choose another state directory",
                    holder.pid,
                )
            if time.monotonic() > deadline:
                if orphans_told:
                    raise DataDirectoryBusy(
                        f"the servers of an earlier start still use {self.home} and do not end: see {self.home / 'logs'}"
                    )
                self._end_orphans()
                orphans_told = True
                deadline += _LOCK_PATIENCE_S
            await asyncio.sleep(0.02)

    def _end_orphans(self) -> None:
        """Ends servers whose parent was killed, on systems without a death signal. Servers are identified by pid and start time."""
        if self._home_owner is not None and self._home_owner.uid != 0:
            return  # root must not signal the pids in a file that another account owns
        for name, entry in (_read_json(self.home / "state.json").get("children") or {}).items():
            identity = _identity(entry)
            if identity is not None and identity.alive():
                log.warning("orphan_stopped", server=name, pid=identity.pid)
                identity.send(signal.SIGINT)

    def _refuse_copy(self) -> None:
        original = self._remembered.get("state_dir")
        if self.home == self.state_dir or original == str(self.state_dir):
            return
        if original is not None and _recorded_home(Path(original)) == self.home:
            raise StateDirectoryUnusable(
                f"{self.state_dir} is a copy of {original} and would share its data in {self.home}: "
                f"remove {self.state_dir / 'location.json'} to begin with new data"
            )
        self._remembered["state_dir"] = str(self.state_dir)

    def _prepare(self) -> None:
        for name in ("postgres", "nats", "run"):
            make_private_directory(self.home / name, self.server_owner)
        make_private_directory(self.home / "logs", self._home_owner)
        path = self.home / "secrets.json"
        self.secrets = _read_json(path)
        if set(_SECRET_NAMES) <= self.secrets.keys():
            return
        if (self.postgres_data / "PG_VERSION").exists() and "postgres_admin" not in self.secrets:
            raise StateDirectoryUnusable(f"the passwords of the data in {self.home} are lost: restore {path}")
        self.secrets = {name: secrets.token_hex(24) for name in _SECRET_NAMES} | self.secrets
        write_private(path, json.dumps(self.secrets, indent=1), self._home_owner, sync=True)


def locate(state_dir: Path, account_name: str | None, spare_root: Path = SPARE_ROOT) -> StateDirectory:
    """Finds or creates the directory, and chooses the account of the servers. Raises StateDirectoryUnusable."""
    state_dir = state_dir.expanduser().resolve()
    try:
        home, account = (
            _locate_as_root(state_dir, account_name, spare_root) if running_as_root() else (_locate_as_user(state_dir), None)
        )
        if (kind := network_filesystem(home)) is not None:
            raise StateDirectoryUnusable(
                f"{home} is on a network filesystem ({kind}), where locks and flushes cannot be trusted: use a local disk"
            )
        _keep_out_of_git(state_dir)
        return StateDirectory(state_dir, home, account)
    except OSError as error:
        raise StateDirectoryUnusable(f"cannot use the state directory {state_dir}: {error}") from error


def _locate_as_user(state_dir: Path) -> Path:
    _create(state_dir, None)
    home = _recorded_home(state_dir) or state_dir
    if not os.access(home, os.R_OK | os.W_OK | os.X_OK):
        raise StateDirectoryUnusable(
            f"{home} belongs to another account: start as that account or as root, or choose another state directory"
        )
    return home


def _locate_as_root(state_dir: Path, account_name: str | None, spare_root: Path) -> tuple[Path, Account]:
    account = choose_account(account_name, state_dir)
    _create(state_dir, account)
    recorded = _recorded_home(state_dir)
    home = recorded or state_dir
    if recorded is not None and (state_dir / "location.json").lstat().st_uid not in (0, home.stat().st_uid):
        raise StateDirectoryUnusable(f"{state_dir / 'location.json'} must belong to root to send root to {home}")
    data = next((path for path in (home / "postgres" / "data", home / "nats") if path.exists()), None)
    if data is not None:
        owner = owner_account(data)
        if owner.uid == 0:
            raise StateDirectoryUnusable(f"{data} belongs to root, as whom no server runs: chown -R {account.name} {data}")
        if account_name is not None and owner.uid != account.uid:
            raise StateDirectoryUnusable(
                f"{data} belongs to '{owner.name}' but the configured account is '{account.name}': change one of the two"
            )
        account = owner
    blocked = blocked_at(home, account)
    if blocked is None:
        return home, account
    if recorded is not None or data is not None:
        raise StateDirectoryUnusable(f"the account '{account.name}' cannot reach the data in {home}: {blocked} is closed to it")
    return _new_spare_home(state_dir, account, spare_root, blocked), account


def _new_spare_home(state_dir: Path, account: Account, spare_root: Path, blocked: Path) -> Path:
    make_root_directory(spare_root)
    if (spare_blocked := blocked_at(spare_root, account)) is not None:
        raise StateDirectoryUnusable(f"the account '{account.name}' can reach neither {state_dir} nor {spare_blocked}")
    home = spare_root / f"{state_dir.parent.name or 'root'}-{secrets.token_hex(4)}"
    _create(home, account)
    # Linked, not renamed: of two simultaneous first starts only one can create the record, and both then use that record.
    draft = state_dir / f".location.{secrets.token_hex(4)}"
    write_private(draft, json.dumps({"home": str(home)}), None, sync=True)
    try:
        os.link(draft, state_dir / "location.json")
    except FileExistsError:
        home.rmdir()
        home = _recorded_home(state_dir) or state_dir
    finally:
        draft.unlink()
    log.warning("state_moved", state_dir=str(state_dir), data=str(home), account=account.name, closed_folder=str(blocked))
    return home


def _create(path: Path, account: Account | None) -> None:
    """Creates a folder: 0700, or for root 0710 with the account's group, so that the servers can traverse it."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.mkdir(mode=0o700)
    except FileExistsError:
        return
    if account is not None:
        os.chown(path, 0, account.gid)
        path.chmod(0o710)


def _keep_out_of_git(state_dir: Path) -> None:
    """Writes a .gitignore, because passwords and data must not get into a repository."""
    with contextlib.suppress(FileExistsError):
        descriptor = os.open(state_dir / ".gitignore", os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o644)
        os.write(descriptor, b"*\n")
        os.close(descriptor)


def _recorded_home(state_dir: Path) -> Path | None:
    try:
        home = Path(json.loads((state_dir / "location.json").read_text(encoding="utf-8"))["home"])
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError) as error:
        raise StateDirectoryUnusable(f"{state_dir / 'location.json'} is damaged: it should name the data folder") from error
    if not home.is_dir():
        raise StateDirectoryUnusable(
            f"the data of {state_dir} should be in {home}, which is missing: restore it, or remove "
            f"{state_dir / 'location.json'} to begin with new data"
        )
    return home


def _identity(entry: Any) -> ProcessIdentity | None:
    try:
        return ProcessIdentity(int(entry["pid"]), str(entry["started"]))
    except (KeyError, TypeError, ValueError):
        return None


def _read_json(path: Path) -> dict[str, Any]:
    try:
        return _parse_json(path.read_bytes())
    except FileNotFoundError:
        return {}


def _parse_json(data: bytes) -> dict[str, Any]:
    try:
        value = json.loads(data)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}
