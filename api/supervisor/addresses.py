"""Addresses to listen on: whether one is free, and who has it."""

import errno
import http.client
import json
import os
import socket
from collections.abc import Iterator
from pathlib import Path

from api.supervisor.errors import SupervisorError

NOT_OUR_ADDRESS = (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)
ANSWER_S = 2.0
_LISTENS = "0A"
"""The state of a listening socket in /proc/net/tcp."""


def bindable(host: str, port: int) -> int | None:
    """The port that a server can bind now; `port` 0: any free port. None if the port is taken."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except socket.gaierror:
            raise SupervisorError(f"'{host}' is no address of this machine: choose another with --host") from None
        except PermissionError:
            raise SupervisorError(f"this account may not use port {port}: choose one above 1023 with --port") from None
        except OSError as error:
            if error.errno in NOT_OUR_ADDRESS:
                raise SupervisorError(f"'{host}' is no address of this machine: choose another with --host") from None
            return None
        return int(probe.getsockname()[1])


def user_of(host: str, port: int) -> str:
    """Who listens on a port of this machine, as words in a sentence. Blocks for up to `ANSWER_S` seconds."""
    process = _process_on(port)
    if (version := _tidelog_on(host, port)) is not None:
        return f"another Tidelog server, {version}" + (f" ({process})" if process else "")
    return process or "another process"


def _tidelog_on(host: str, port: int) -> str | None:
    """The version of the Tidelog server that answers on the port. None: another program, or none that answers."""
    connection = http.client.HTTPConnection({"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host), port, timeout=ANSWER_S)
    try:
        connection.request("GET", "/health/live")
        answer = json.loads(connection.getresponse().read(4096))
        return str(answer["version"])[:40] if set(answer) == {"status", "version"} else None
    except (OSError, http.client.HTTPException, ValueError, KeyError, TypeError):
        return None
    finally:
        connection.close()


def _process_on(port: int) -> str:
    """The process that listens on the port. Empty if the system does not tell: on other systems, or of another account."""
    sockets = {f"socket:[{inode}]" for inode in _listening(port)}
    if not sockets:
        return ""
    for process in Path("/proc").glob("[0-9]*"):
        try:
            with os.scandir(process / "fd") as entries:
                holds = any(os.readlink(entry.path) in sockets for entry in entries)
            if holds:
                words = (process / "cmdline").read_bytes().decode("utf-8", "replace").split("\0")
                return f"process {process.name}: {' '.join(words).strip()[:80]}"
        except OSError:  # the process has ended, or is of another account
            continue
    return ""


def _listening(port: int) -> Iterator[str]:
    """The inodes of sockets that listen on the port."""
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        try:
            lines = Path(table).read_text("ascii").splitlines()[1:]
        except OSError:
            continue
        for fields in map(str.split, lines):
            if fields[3] == _LISTENS and int(fields[1].rpartition(":")[2], 16) == port:
                yield fields[9]
