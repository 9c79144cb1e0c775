"""The account of the worker if root starts `tidelog up`: agents and tools must not read files of the server.

The worker runs, in this order, as the account of the setting, as the owner of the workspace, as `tidelog-worker` if this machine
has such an account, or under a number that no account has. The number comes from the path of the data folder, so that it stays
the same. An account that owns files of the server is not used. No file of the user gets another owner or other permissions.
"""

import hashlib
import importlib.util
import os
import pwd
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import structlog

from adapters.embedded import EmbeddedError
from adapters.embedded.accounts import Account, allows, blocked_at, owner_account, running_as_root
from adapters.embedded.files import make_private_directory
from adapters.embedded.relocation import make_root_directory
from adapters.embedded.state import SPARE_ROOT
from api.supervisor.config import SupervisorConfig
from api.supervisor.errors import SupervisorError, WrongSettings

log = structlog.get_logger(__name__)

ACCOUNT = "tidelog-worker"
ROOT = "root"
_FREE_IDS = range(61184, 65520)
"""Ids that systemd, too, gives to services without an account: no distribution and no person uses them."""


@dataclass(frozen=True)
class WorkerAccount:
    """Who the worker runs as, its home and the workspace of its tools."""

    account: Account
    home: Path
    workspace: Path

    @property
    def environment(self) -> Mapping[str, str]:
        return {"HOME": str(self.home), "USER": self.account.name, "LOGNAME": self.account.name}


def choose(config: SupervisorConfig, server_files: Iterable[Path], *, spare_root: Path = SPARE_ROOT) -> WorkerAccount | None:
    """None: the worker runs as the account of this process, which is not root, or is root as the setting wants or after a warning.

    The worker gets a folder of its own under `spare_root`: its home, with a workspace unless the settings name one.

    Raises:
        WrongSettings: the account of the setting does not exist, is the account of the servers, or cannot read the agents.
    """
    if not running_as_root() or config.worker_run_as == ROOT:
        return None
    account, fault = _account(config, {path.stat().st_uid for path in server_files} | {0})
    fault = fault or _closed(config, account)
    home = spare_root / f"worker-{account.uid}-{folder_key(config.data_dir)}"
    fault = fault or _made(home, account)
    if fault is not None:
        if config.worker_run_as is not None:
            raise WrongSettings(f"TIDELOG_WORKER_RUN_AS: {fault}")
        log.warning(
            "worker_runs_as_root", reason=fault,
            hint="agents and tools can read the server's passwords; start the server as another account than root, or see "
            "TIDELOG_WORKER_RUN_AS (root: no warning)",
        )  # fmt: skip
        return None
    chosen = WorkerAccount(account, home, Path(config.workspace) if config.workspace else home / "workspace")
    log.info("worker_has_an_account", account=account.name, uid=account.uid, workspace=str(chosen.workspace))
    return chosen


def _account(config: SupervisorConfig, taken: set[int]) -> tuple[Account, str | None]:
    """The account, and why it cannot be used. `taken`: the ids that own files of the server."""
    if config.worker_run_as is not None:
        account = _named(config.worker_run_as)
        if account is None:
            raise WrongSettings(f"TIDELOG_WORKER_RUN_AS: there is no account '{config.worker_run_as}' on this machine")
        return account, "it owns files of the server: name another account" if account.uid in taken else None
    candidates = [owner_account(Path(config.workspace))] if config.workspace else []
    candidates += [account for account in [_named(ACCOUNT)] if account is not None]
    free = next((account for account in candidates if account.uid not in taken), None)
    return free or _numbered(config.data_dir, taken), None


def _named(name: str) -> Account | None:
    try:
        entry = pwd.getpwnam(name)
    except KeyError:
        return None
    return Account(entry.pw_name, entry.pw_uid, entry.pw_gid)


def _numbered(data_dir: str, taken: set[int]) -> Account:
    start = int.from_bytes(hashlib.sha256(data_dir.encode()).digest()[:4]) % len(_FREE_IDS)
    for number in (*_FREE_IDS[start:], *_FREE_IDS[:start]):
        if number not in taken and not _has_entry(number):
            return Account(ACCOUNT, number, number)
    raise SupervisorError(f"no id is free for the worker from {_FREE_IDS[0]} to {_FREE_IDS[-1]}: set TIDELOG_WORKER_RUN_AS")


def _has_entry(uid: int) -> bool:
    try:
        pwd.getpwuid(uid)
    except KeyError:
        return False
    return True


def _closed(config: SupervisorConfig, account: Account) -> str | None:
    """What the account cannot use although the worker needs it. Only mode bits are looked at, see `blocked_at`."""
    for what, path, rights in _needed(config):
        closed = blocked_at(path, account) or (None if allows(path, account, rights) else path)
        if closed is not None:
            right = "write into" if rights & os.W_OK else "read"
            return f"the account '{account.name}' ({account.uid}) cannot {right} {what} {path}: {closed} is closed to it"
    return None


def _needed(config: SupervisorConfig) -> Iterator[tuple[str, Path, int]]:
    yield "Python in", Path(sys.executable).resolve(), os.R_OK | os.X_OK
    yield "Python's library", Path(os.__file__).resolve(), os.R_OK
    for package in ("tidelog", "httpx2"):
        spec = importlib.util.find_spec(package)
        if spec is not None and spec.origin is not None:
            yield "the package", Path(spec.origin).resolve(), os.R_OK
    for folder in map(Path, config.agents):
        yield "the agents in", folder, os.R_OK | os.X_OK
        yield from (("the agents in", file, os.R_OK) for file in sorted(folder.glob("*.py")))
    if config.workspace is not None:
        yield "the workspace", Path(config.workspace), os.R_OK | os.W_OK | os.X_OK


def _made(home: Path, account: Account) -> str | None:
    """Makes the worker's own folder at the first start. Returns why it cannot be made."""
    try:
        make_root_directory(home.parent)
        for folder in (home, home / "workspace"):
            make_private_directory(folder, account)
    except (OSError, EmbeddedError) as error:
        return f"the worker's own folder {home} cannot be made: {error}"
    return None


def folder_key(data_dir: str) -> str:
    """The end of the name of the worker's own folder, from the absolute path of the data folder."""
    return hashlib.sha256(data_dir.encode()).hexdigest()[:8]
