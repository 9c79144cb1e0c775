"""`python -m tests.kit.forking SOCKET`: forks the processes that `tests/kit/forked.py` asks for."""

import atexit
import contextlib
import faulthandler
import gc
import importlib
import json
import os
import runpy
import selectors
import signal
import socket
import struct
import sys
import threading
import time
import traceback
import types
from typing import Any, NoReturn

from api.lean import leave_out_unused

IMPORTED = (
    "api.roles", "api.http.server", "api.assembly.roles.api", "projections.registry", "api.cli.main", "api.settings", "tidelog",
    "tidelog.client", "tidelog.worker.__main__", "uvloop",
)  # fmt: skip
NUMBER = struct.Struct("!i")
MOST_BYTES = 180_000


class Source:
    """Forks, and tells the exit codes."""

    def __init__(self, asked: socket.socket) -> None:
        self._asked = asked
        self._told: dict[int, socket.socket] = {}

    def run(self) -> None:
        """Ends when nobody can ask any more, and ends what was forked."""
        woken, wake = socket.socketpair()
        for one in (woken, wake):
            one.setblocking(False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(wake.fileno(), warn_on_full_buffer=False)
        with selectors.DefaultSelector() as selector:
            selector.register(self._asked, selectors.EVENT_READ)
            selector.register(woken, selectors.EVENT_READ)
            while True:
                ready = {key.fileobj for key, _ in selector.select()}
                if woken in ready:
                    with contextlib.suppress(BlockingIOError):
                        woken.recv(4096)
                    self._tell_the_ends()
                if self._asked in ready:
                    text, descriptors, *_ = socket.recv_fds(self._asked, MOST_BYTES, 4)
                    if not text:
                        break
                    self._fork(json.loads(text), descriptors, (woken, wake, selector))
        for pid in self._told:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def _tell_the_ends(self) -> None:
        while self._told:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if not pid:
                return
            with self._told.pop(pid) as told, contextlib.suppress(BrokenPipeError):
                told.send(NUMBER.pack(os.waitstatus_to_exitcode(status)))

    def _fork(self, asked: dict[str, Any], descriptors: list[int], own: tuple[Any, ...]) -> None:
        told = socket.socket(fileno=descriptors.pop())
        pid = os.fork()
        if not pid:
            try:
                signal.set_wakeup_fd(-1)
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                for one in (*own, self._asked, told, *self._told.values()):
                    one.close()
                _become(asked, descriptors)
            finally:
                os._exit(70)  # not reached
        for descriptor in descriptors:
            os.close(descriptor)
        self._told[pid] = told
        with contextlib.suppress(BrokenPipeError):
            told.send(NUMBER.pack(pid))


def _become(asked: dict[str, Any], descriptors: list[int]) -> NoReturn:
    """What Python does between its start and its end."""
    for number, descriptor in enumerate(descriptors):
        os.dup2(descriptor, number)
    for descriptor in set(descriptors) - {0, 1, 2}:
        os.close(descriptor)
    os.chdir(asked["cwd"])
    os.environ.clear()
    os.environ.update(asked["env"])
    time.tzset()
    if os.environ.get("PYTHONFAULTHANDLER"):
        faulthandler.enable(os.dup(2))  # a worker puts a pipe of its own in the place of 2
    code = 0
    try:
        _run(asked["arguments"])
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
        if code and not isinstance(ended.code, int):
            print(ended.code, file=sys.stderr)
    except KeyboardInterrupt:
        traceback.print_exc()
        code = 130
    except BaseException:  # noqa: BLE001  # whatever Python would print
        traceback.print_exc()
        code = 1
    threading._shutdown()  # type: ignore[attr-defined]  # joins threads, as the end of the interpreter does
    atexit._run_exitfuncs()
    with contextlib.suppress(OSError, ValueError):
        sys.stdout.flush()
    with contextlib.suppress(OSError, ValueError):
        sys.stderr.flush()
    os._exit(code & 0xFF)


def _run(arguments: list[str]) -> None:
    if arguments[0] == "tidelog":
        from api.cli.main import main as command

        sys.argv = arguments
        sys.path[0] = os.path.dirname(sys.executable)
        command()
        return
    safe = arguments[0] == "-P"
    how, what, *rest = arguments[safe:]
    sys.path[:1] = [] if safe else [os.getcwd() if how == "-m" else ""]
    sys.argv = [how, *rest]
    if how == "-m":
        runpy.run_module(what, run_name="__main__", alter_sys=True)
    else:
        sys.modules["__main__"] = main = types.ModuleType("__main__")
        exec(compile(what, "<string>", "exec"), main.__dict__)


def main() -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)
    gc.disable()
    leave_out_unused()
    for name in IMPORTED:
        importlib.import_module(name)
    del sys.modules["tidelog.worker.__main__"]  # it is run, not imported
    gc.enable()
    gc.collect()
    gc.freeze()
    with socket.socket(fileno=int(sys.argv[1])) as asked:
        Source(asked).run()


if __name__ == "__main__":
    main()
