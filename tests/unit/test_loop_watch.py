"""The worker's watch tells code that blocks the event loop from a process that did not run, with one line for each stand-still."""

import asyncio
import logging
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from typing import Any

import pytest

from application.engine.background import end
from tests.pace import ANSWER_S, Deadline, within
from tidelog.worker import watch
from tidelog.worker.watch import LoopWatch

CHILD = textwrap.dedent(
    """
    import asyncio, logging, sys
    from tidelog.worker import watch
    watch.TICK_S, watch.BLOCKED_S = 0.05, 0.6

    class Names(logging.Handler):
        def emit(self, record):
            print(record.getMessage(), flush=True)

    logging.getLogger("tidelog").addHandler(Names())
    logging.getLogger("tidelog").setLevel(logging.INFO)

    async def main():
        watching = asyncio.create_task(watch.LoopWatch(lambda: ["idle"]).run())
        await asyncio.sleep(0.2)
        print("ready", flush=True)
        await asyncio.sleep(600)

    asyncio.run(main())
    """
)


async def test_code_that_blocks_is_one_line_with_its_place_and_the_work_in_hand(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(watch, "TICK_S", 0.1)
    monkeypatch.setattr(watch, "BLOCKED_S", 0.5)
    observers: list[watch._Observer] = []

    class Observer(watch._Observer):
        def start(self) -> None:
            observers.append(self)
            super().start()

    monkeypatch.setattr(watch, "_Observer", Observer)
    caplog.set_level(logging.INFO, "tidelog")
    in_hand = {"spy"}
    watching = asyncio.create_task(LoopWatch(lambda: set(in_hand)).run())
    try:
        await asyncio.sleep(0.2)
        block_the_loop(observers[0])
        in_hand.clear()  # the blocking agent ends in the same turn
        async with within(10):
            while not blocked_lines(caplog):  # noqa: ASYNC110  # a line of a log sets no event
                await asyncio.sleep(0.02)
        await asyncio.sleep(0.3)  # a second line would come now
    finally:
        watching.cancel()
    (fields,) = blocked_lines(caplog)
    assert fields["seconds"] >= 0.5 and fields["in_hand"] == ["spy"] and "ctx.step" in fields["hint"]
    assert fields["where"].startswith(__file__)


def block_the_loop(observer: watch._Observer) -> None:
    """Until the observer has seen it. On a busy machine that takes more than the 0.7 s."""
    time.sleep(0.7)
    deadline = Deadline(30)
    while not (observer.place or "").endswith("in block_the_loop") and not deadline.over_here():
        time.sleep(0.02)


def blocked_lines(caplog: pytest.LogCaptureFixture) -> list[dict[str, Any]]:
    """The lines of this test's own blocking: a machine that is busy may stop any loop."""
    found = [record.__dict__["fields"] for record in caplog.records if record.getMessage() == "event_loop_blocked"]
    return [fields for fields in found if fields["where"] and fields["where"].endswith("in block_the_loop")]


def test_a_process_that_was_stopped_is_not_said_to_block() -> None:
    with subprocess.Popen([sys.executable, "-c", CHILD], stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        try:
            assert "ready\n" in iter(child.stdout.readline, "")  # a busy machine may make the start stand still, too
            os.kill(child.pid, signal.SIGSTOP)
            time.sleep(1)
            os.kill(child.pid, signal.SIGCONT)
            assert child.stdout.readline() == "worker_stood_still\n"
        finally:
            child.kill()


async def test_the_line_waits_for_the_thread_that_tells_the_reason(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """After a stop the loop may get the processor long before the observer does."""
    monkeypatch.setattr(watch, "TICK_S", 0.05)
    monkeypatch.setattr(watch, "BLOCKED_S", 0.5)
    awake = threading.Event()

    class Sleeper(watch._Observer):
        def run(self) -> None:
            awake.wait(ANSWER_S)
            self._delays = [(time.monotonic(), 0.7)]
            self._stopped.wait(ANSWER_S)

    monkeypatch.setattr(watch, "_Observer", Sleeper)
    caplog.set_level(logging.INFO, "tidelog")
    watching = asyncio.create_task(LoopWatch(lambda: ["idle"]).run())
    try:
        await asyncio.sleep(0)
        time.sleep(0.7)  # noqa: ASYNC251  the process stands still
        await asyncio.sleep(0.3)
        assert not caplog.records
        awake.set()
        async with within(10):
            while not caplog.records:  # noqa: ASYNC110  a line of a log sets no event
                await asyncio.sleep(0.02)
    finally:
        awake.set()
        await end(watching)
    assert caplog.records[0].getMessage() == "worker_stood_still"


@pytest.mark.parametrize(
    ("waits", "sees"),
    [([0.5] * 2, False), ([0.5] * 3, True), ([0.5, 3.5, 0.5, 0.5], False), ([0.5, 3.5, 0.5, 0.5, 0.5], True)],
    ids=["quiet for a moment", "quiet for long", "just back", "back for long"],
)
def test_the_loop_has_its_time_after_a_stop_of_the_process(monkeypatch: pytest.MonkeyPatch, waits: list[float], sees: bool) -> None:
    """The observer may run several times before the loop does."""
    clock = Clock(waits)
    monkeypatch.setattr(watch, "time", clock)
    observer = watch._Observer(threading.get_ident())
    observer._stopped = clock  # type: ignore[assignment]
    observer.run()
    assert (observer.place is not None) == sees


class Clock:
    """The clock of an observer, and the waits of its thread: it takes as many seconds for each as the test says."""

    def __init__(self, waits: list[float]) -> None:
        self.waits, self.now = iter(waits), 1_000.0

    def monotonic(self) -> float:
        return self.now

    def wait(self, seconds: float) -> bool:
        taken = next(self.waits, None)
        self.now += taken or 0.0
        return taken is None
