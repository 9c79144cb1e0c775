"""Private files and folders, written so that a crash or a planted symbolic link does no harm."""

import os
import secrets
import shutil
import sys
from pathlib import Path

from adapters.embedded.accounts import Account

NETWORK_FILESYSTEMS = frozenset(
    {"nfs", "nfs4", "cifs", "smb2", "smb3", "smbfs", "afs", "ceph", "glusterfs", "fuse.glusterfs", "fuse.sshfs", "lustre"}
)


def write_private(path: Path, text: str, owner: Account | None, *, sync: bool) -> None:
    """Replaces `path` atomically by a file of mode 0600 that belongs to `owner` (None: the account of this process)."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            if owner is not None:
                os.fchown(file.fileno(), owner.uid, owner.gid)
            file.write(text)
            file.flush()
            if sync:
                os.fsync(file.fileno())
        temporary.rename(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    if sync:
        sync_directory(path.parent)


def sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def make_private_directory(path: Path, owner: Account | None) -> None:
    """Creates a folder of mode 0700. An existing folder is not changed.

    `owner`: None for the account of this process.
    """
    try:
        path.mkdir(mode=0o700)
    except FileExistsError:
        return
    if owner is not None:
        os.chown(path, owner.uid, owner.gid)


def open_owned(path: Path, flags: int, owner: Account | None) -> int:
    """Opens `path`. A new file gets mode 0600 and `owner`. Never follows a link, never changes the owner of an existing file."""
    try:
        descriptor = os.open(path, flags | os.O_NOFOLLOW | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return os.open(path, flags | os.O_NOFOLLOW)
    if owner is not None:
        os.fchown(descriptor, owner.uid, owner.gid)
    return descriptor


def read_from(path: Path, offset: int, limit_bytes: int = 65536) -> str:
    """The text of a log from `offset` on, at most its last `limit_bytes`."""
    try:
        with path.open("rb") as file:
            end = file.seek(0, os.SEEK_END)
            file.seek(max(offset, end - limit_bytes) if end >= offset else 0)
            return file.read(limit_bytes).decode("utf-8", "replace")
    except FileNotFoundError:
        return ""


def remove_tree(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def network_filesystem(path: Path) -> str | None:
    """The type of the network filesystem under `path`, or None. Always None on systems other than Linux."""
    if sys.platform != "linux":
        return None
    resolved = path.resolve()
    best, kind = -1, ""
    for line in Path("/proc/self/mountinfo").read_text(encoding="utf-8", errors="replace").splitlines():
        left, _, right = line.partition(" - ")
        mount_point = left.split()[4].replace("\\040", " ")
        # `>=`: of two mounts on one point the later one is visible.
        if resolved.is_relative_to(mount_point) and len(mount_point) >= best:
            best, kind = len(mount_point), right.split()[0]
    return kind if kind in NETWORK_FILESYSTEMS else None
