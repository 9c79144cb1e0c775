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

from tests.pace import within
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
    monkeypatch.setattr(watch, "TICK_S", 0.05)
    monkeypatch.setattr(watch, "BLOCKED_S", 0.5)
    looked, place_of = threading.Event(), watch.place_of_thread

    def place(thread: int) -> str:
        found = place_of(thread)
        looked.set()
        return found

    monkeypatch.setattr(watch, "place_of_thread", place)
    caplog.set_level(logging.INFO, "tidelog")
    in_hand = {"spy"}
    watching = asyncio.create_task(LoopWatch(lambda: set(in_hand)).run())
    try:
        await asyncio.sleep(0.2)
        looked.clear()
        block_the_loop(looked)
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


def block_the_loop(looked: threading.Event) -> None:
    time.sleep(0.7)
    looked.wait(30)


def blocked_lines(caplog: pytest.LogCaptureFixture) -> list[dict[str, Any]]:
    """The lines of this test's own blocking: a machine that is busy may stop any loop."""
    found = [record.__dict__["fields"] for record in caplog.records if record.getMessage() == "event_loop_blocked"]
    return [fields for fields in found if fields["where"] and fields["where"].endswith("in block_the_loop")]


def test_a_process_that_was_stopped_is_not_said_to_block() -> None:
    with subprocess.Popen([sys.executable, "-c", CHILD], stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        try:
            assert child.stdout.readline() == "ready\n"
            os.kill(child.pid, signal.SIGSTOP)
            time.sleep(1)
            os.kill(child.pid, signal.SIGCONT)
            assert child.stdout.readline() == "worker_stood_still\n"
        finally:
            child.kill()
