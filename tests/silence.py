"""Ends a run of the tests that would wait for ever, and names the test that hangs.

`faulthandler` ends a process of the tests that cannot even be interrupted. xdist hears of the end only when nobody holds the pipe
to the process any more. A child that the process forked may hold the pipe as long as it lives.
"""

import os
import threading
import time

import pytest

LONGEST_S = 480.0
"""Longer than any test may take, and longer than `faulthandler_timeout`."""
LOOK_S = 5.0


class Silence:
    """A plugin for the process that hands out the tests to others."""

    def __init__(self, began: float) -> None:
        self._heard = began
        self._running: dict[str, None] = {}
        self._over = threading.Event()

    def watch(self, config: pytest.Config) -> None:
        threading.Thread(target=self._look, args=(config,), name="silence", daemon=True).start()

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        self.heard(time.monotonic())
        self._running[nodeid] = None

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

    def _look(self, config: pytest.Config) -> None:
        while not self._over.wait(LOOK_S):
            if text := self.said(time.monotonic()):
                writer = config.get_terminal_writer()
                writer.line(f"\n{text}")
                writer.flush()
                os._exit(1)
