"""The unprivileged account of the servers if this process runs as root.

PostgreSQL refuses to run as root, and a broker does not need root. The launcher uses an existing account (never `useradd`) and
never changes the permissions of a folder for it: callers put files that the account cannot reach elsewhere.
"""

import os
import pwd
import stat
from dataclasses import dataclass
from pathlib import Path

from adapters.embedded.errors import StateDirectoryUnusable

FALLBACK_ACCOUNTS = ("postgres", "nobody")


@dataclass(frozen=True)
class Account:
    """An account of the operating system; `gid` is its primary group, the only group its processes get."""

    name: str
    uid: int
    gid: int


def running_as_root() -> bool:
    return os.geteuid() == 0


def choose_account(configured: str | None, state_dir: Path) -> Account:
    """The configured account, or the owner of the state directory, or `postgres`, or `nobody`. Raises StateDirectoryUnusable."""
    if configured is not None:
        return _by_name(configured)
    try:
        # initdb looks up its user, so an owner without an entry (a uid of another container) cannot be used.
        owner = pwd.getpwuid(state_dir.stat().st_uid)
    except (KeyError, FileNotFoundError):
        pass
    else:
        if owner.pw_uid != 0:
            return Account(owner.pw_name, owner.pw_uid, owner.pw_gid)
    for name in FALLBACK_ACCOUNTS:
        try:
            return _by_name(name)
        except StateDirectoryUnusable:
            continue
    raise StateDirectoryUnusable(
        "running as root, and none of the accounts 'postgres' and 'nobody' exists to run the servers: "
        "name an unprivileged account in the settings, or start as an ordinary user"
    )


def owner_account(path: Path) -> Account:
    """The account that owns existing data. PostgreSQL only starts as the owner of its data directory."""
    status = path.stat()
    try:
        entry = pwd.getpwuid(status.st_uid)
    except KeyError:
        return Account(str(status.st_uid), status.st_uid, status.st_gid)
    return Account(entry.pw_name, entry.pw_uid, entry.pw_gid)


def blocked_at(path: Path, account: Account) -> Path | None:
    """The first folder on the way to `path` that `account` cannot traverse, or None. A folder `path` itself is included.

    Only the mode bits are checked. An access list with further rights leads to a needless move, never to a wrong start.
    """
    resolved = path.resolve()
    for folder in (*reversed(resolved.parents), resolved):
        try:
            status = folder.stat()
        except FileNotFoundError:
            return None
        if stat.S_ISDIR(status.st_mode) and not _may_execute(status, account):
            return folder
    return None


def may_run(binary: Path, account: Account) -> bool:
    return blocked_at(binary, account) is None and _may_execute(binary.stat(), account)


def allows(path: Path, account: Account, rights: int) -> bool:
    """Whether the mode bits of `path` itself give `account` all `rights`: a sum of os.R_OK, os.W_OK and os.X_OK."""
    return _allows(path.stat(), account, rights)


def _may_execute(status: os.stat_result, account: Account) -> bool:
    return _allows(status, account, os.X_OK)


def _allows(status: os.stat_result, account: Account, rights: int) -> bool:
    shift = 6 if status.st_uid == account.uid else 3 if status.st_gid == account.gid else 0
    return (stat.S_IMODE(status.st_mode) >> shift) & rights == rights


def _by_name(name: str) -> Account:
    try:
        entry = pwd.getpwnam(name)
    except KeyError:
        raise StateDirectoryUnusable(f"there is no account '{name}' on this machine to run the servers as") from None
    if entry.pw_uid == 0:
        raise StateDirectoryUnusable(f"the account '{name}' is root: name an unprivileged one to run the servers as")
    return Account(entry.pw_name, entry.pw_uid, entry.pw_gid)
