"""`python -m tidelog.isolation.template FD`: imports the module of a tool once, and is copied for each call, in advance.

The template runs no tool itself. It has one thread, the environment that the tool may see, and its namespaces: what the module does
while it is imported is kept in the same way as the calls.
"""

import gc
import importlib
import json
import os
import select
import signal
import socket
import sys
import threading
import time
from functools import partial
from pathlib import Path
from typing import Any

from tidelog.discovery import load_module
from tidelog.isolation import kernel as k
from tidelog.isolation.call import MAX_MESSAGE, Find, keep
from tidelog.texts import text_of, type_of
from tidelog.tools import Tool

SPARE = 2
"""Calls that are prepared. Those of a burst wait for one another's preparation, some milliseconds each."""
PAUSE_S = 0.1


def main() -> None:
    line = socket.socket(fileno=int(sys.argv[1]))
    set_up = json.loads(line.recv(MAX_MESSAGE))
    k.die_with_parent(set_up["worker"])
    kernel = k.Kernel(**set_up["kernel"])
    try:
        k.enter(kernel, network=set_up["network"])
        sys.path[:] = set_up["path"]
        module = _load(set_up)
    except BaseException as error:  # noqa: BLE001  # of the module, even SystemExit
        line.send(json.dumps({"error": f"{type_of(error)}: {text_of(error, 2_000)}"}).encode())
        return
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # keepers are not waited for
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    gc.collect()
    gc.freeze()
    line.send(json.dumps({"threads": threading.active_count()}).encode())
    _prepare(line, kernel, partial(_find, module))


def _prepare(line: socket.socket, kernel: k.Kernel, find: Find) -> None:
    """Has calls prepared, until the worker closes the line. Nobody but them reads it."""
    own, spare = os.getpid(), set[int]()
    events = select.poll()
    events.register(line, 0)  # its end is told in any case
    while True:
        while len(spare) < SPARE:
            told, tells = os.pipe()
            if os.fork() == 0:
                keep(line, tells, kernel, find, own)
            os.close(tells)
            events.register(told, select.POLLIN)
            spare.add(told)
        for fd, _ in events.poll():
            if fd == line.fileno():
                return
            if not os.read(fd, 1):  # it ended before a call came: the system has no place for it now
                time.sleep(PAUSE_S)
            events.unregister(fd)
            os.close(fd)
            spare.discard(fd)


def _load(set_up: dict[str, Any]) -> Any:
    folders = {package: Path(folder) for package, folder in set_up["folders"].items()}
    name = set_up["module"]
    module = load_module(folders, name) if name.partition(".")[0] in folders else importlib.import_module(name)
    _find(module, set_up["tool"]).describe()  # reads its signature, which the copies then have
    return module


def _find(module: Any, qualname: str) -> Tool[..., Any]:
    found = module
    for part in qualname.split("."):
        found = getattr(found, part)
    if not isinstance(found, Tool):
        raise TypeError(f"{module.__name__}.{qualname} is no tool: an isolated tool keeps the name of its function")
    return found


if __name__ == "__main__":
    main()
