"""Ends a run of the tests that would wait for ever, and names the test that hangs.

`faulthandler` ends a process of the tests that cannot even be interrupted. xdist hears of the end only when nobody holds the pipe
to the process any more. A child that the process forked may hold the pipe as long as it lives.
"""

import contextlib
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

LONGEST_S = 480.0
"""Longer than any test may take, and longer than `faulthandler_timeout`."""
STUCK_S = 360.0
"""Longer than the time-out of a test: one that still runs cannot be interrupted. `faulthandler` then shows its Python code, the
kernel the call in which it stands."""
LOOK_S = 5.0


class Silence:
    """A plugin for the process that hands out the tests to others."""

    def __init__(self, began: float) -> None:
        self._heard = began
        self._running: dict[str, float] = {}
        self._shown: set[str] = set()
        self._over = threading.Event()

    def watch(self, config: pytest.Config) -> None:
        threading.Thread(target=self._look, args=(config,), name="silence", daemon=True).start()

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        self.heard(time.monotonic())
        self._running[nodeid] = time.monotonic()

    def pytest_runtest_logfinish(self, nodeid: str) -> None:
        self.heard(time.monotonic())
        self._running.pop(nodeid, None)

    def pytest_sessionfinish(self) -> None:
        self._over.set()

    def heard(self, now: float) -> None:
        self._heard = now

    def said(self, now: float) -> str | None:
        """What is wrong, if nothing was heard for too long."""
        if now - self._heard < LONGEST_S:
            return None
        running = " ".join(self._running) or "none"
        return f"FAILED: no test has begun or ended for {LONGEST_S:g} s. Not ended: {running}"

    def stuck(self, now: float) -> list[str]:
        """Tests that have run for too long, each told once."""
        found = [name for name, began in list(self._running.items()) if now - began >= STUCK_S and name not in self._shown]
        self._shown.update(found)
        return found

    def _look(self, config: pytest.Config) -> None:
        writer = config.get_terminal_writer()
        while not self._over.wait(LOOK_S):
            now = time.monotonic()
            if stuck := self.stuck(now):
                writer.line(f"\n{' '.join(stuck)}: stuck. The processes of the tests:")
                for pid in children_of(os.getpid()):
                    writer.line("\n".join(kernel_calls(pid)))
            if text := self.said(now):
                writer.line(f"\n{text}")
                writer.flush()
                os._exit(1)


def children_of(pid: int) -> list[int]:
    with contextlib.suppress(OSError):
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return []


def kernel_calls(pid: int) -> Iterator[str]:
    """A line for each thread: its name, where it waits in the kernel, and its call with the arguments. Linux alone tells."""
    for thread in sorted(Path(f"/proc/{pid}/task").glob("*")):
        with contextlib.suppress(OSError):
            yield f"{pid} {' '.join((thread / name).read_text().strip() for name in ('comm', 'wchan', 'syscall'))}"
