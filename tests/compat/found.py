"""The servers of this machine that the suites can run against, beside the embedded servers of Tidelog."""

import glob
import os
import re
from collections.abc import Iterable, Sequence
from itertools import product
from pathlib import Path
from typing import NamedTuple

from adapters.embedded import Binary, BinaryNotFound, find_nats, find_postgres
from adapters.embedded.binaries import _SYSTEM_POSTGRES_DIRECTORIES, _nats_at, _postgres_at

POSTGRES_VARIABLE = "TIDELOG_COMPAT_POSTGRES"
NATS_VARIABLE = "TIDELOG_COMPAT_NATS"
POSTGRES_VERSIONS = range(15, 19)
"""The supported major versions of PostgreSQL."""
NATS_VERSIONS = range(10, 16)
"""The supported minor versions of NATS 2."""


class Pair(NamedTuple):
    postgres: Binary
    nats: Binary


def numbers(binary: Binary) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", binary.version))


def postgres_servers() -> list[Binary]:
    """The newest server of each supported major version. Servers that a variable names come before the system's servers."""
    folders = [*_listed(POSTGRES_VARIABLE), *_on_path("postgres")]
    folders += [Path(folder) for pattern in _SYSTEM_POSTGRES_DIRECTORIES for folder in sorted(glob.glob(pattern))]
    found = (_postgres_at(folder, "system") for folder in folders)
    return _newest((binary for binary in found if binary and binary.major in POSTGRES_VERSIONS), significant=1)


def nats_servers() -> list[Binary]:
    found = (_nats_at(path, "system") for path in (*_listed(NATS_VARIABLE), *_on_path("nats-server")))
    fit = (binary for binary in found if binary and numbers(binary)[0] == 2 and numbers(binary)[1] in NATS_VERSIONS)
    return _newest(fit, significant=2)


def pairs() -> list[Pair]:
    """Every pair in which at least one server is not the embedded one."""
    own_postgres, own_nats = _embedded()
    postgres = [binary for binary in postgres_servers() if own_postgres is None or binary.path != own_postgres.path]
    nats = [binary for binary in nats_servers() if own_nats is None or binary.path != own_nats.path]
    every = product([*postgres, *([own_postgres] if own_postgres else [])], [*nats, *([own_nats] if own_nats else [])])
    return [Pair(*pair) for pair in every if pair != (own_postgres, own_nats)]


def _embedded() -> tuple[Binary | None, Binary | None]:
    try:
        postgres: Binary | None = find_postgres(None, None)
    except BinaryNotFound:
        postgres = None
    try:
        nats: Binary | None = find_nats(None)
    except BinaryNotFound:
        nats = None
    return postgres, nats


def _listed(variable: str) -> Sequence[Path]:
    return [Path(part) for part in os.environ.get(variable, "").split(":") if part]


def _on_path(name: str) -> Sequence[Path]:
    folders = [Path(part) for part in os.environ.get("PATH", "").split(":") if part]
    return [(folder / name).resolve() for folder in folders if (folder / name).is_file()]


def _newest(binaries: Iterable[Binary], *, significant: int) -> list[Binary]:
    best: dict[tuple[int, ...], Binary] = {}
    for binary in binaries:
        version = numbers(binary)
        known = best.get(version[:significant])
        if known is None or numbers(known) < version:
            best[version[:significant]] = binary
    return [best[key] for key in sorted(best)]
