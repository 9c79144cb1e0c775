"""Who listens on a port of this machine. Linux says so in /proc; elsewhere nobody is known."""

import os
from pathlib import Path
from typing import Final

LISTENS: Final = "0A"
PROC: Final = Path("/proc")
WORDS: Final = 3
"""Words of a command that are shown. Later words may be secrets."""


def holder_of(port: int) -> str | None:
    """The process that listens on a TCP port, as `process 123 (python -m http.server 8700)`.

    None: nobody listens, or the process belongs to another account.
    """
    sockets = _sockets(port)
    if not sockets:
        return None
    for process in PROC.iterdir():
        if process.name.isdigit() and _holds(process, sockets):
            return f"process {process.name} ({_command(process)})"
    return None


def _sockets(port: int) -> set[str]:
    """The sockets that listen on the port, as the links in /proc/<pid>/fd name them."""
    found = set()
    for table in ("tcp", "tcp6"):
        try:
            lines = (PROC / "net" / table).read_text().splitlines()[1:]
        except OSError:
            continue
        for line in lines:
            fields = line.split()
            if fields[3] == LISTENS and int(fields[1].rpartition(":")[2], 16) == port:
                found.add(f"socket:[{fields[9]}]")
    return found


def _holds(process: Path, sockets: set[str]) -> bool:
    try:
        with os.scandir(process / "fd") as entries:
            return any(_link(entry.path) in sockets for entry in entries)
    except OSError:  # it has ended, or belongs to somebody else
        return False


def _link(path: str) -> str:
    try:
        return os.readlink(path)
    except OSError:
        return ""


def _command(process: Path) -> str:
    try:
        words = (process / "cmdline").read_bytes().decode(errors="replace").split("\0")
    except OSError:
        return "?"
    return " ".join(words[:WORDS]).strip()[:100]
