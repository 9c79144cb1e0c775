"""Time-outs that grow with the slowness of the machine, and still end."""

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import Callable

import pytest

from tests import pace
from tests.pace import Deadline, finished, in_time, slowness_lately, within


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Sets how slow the machine seems to be."""

    def seems(times: float) -> None:
        monkeypatch.setattr(pace, "_slowness", lambda: times)

    seems(1.0)
    return seems


async def test_what_does_not_end_is_ended(slow: Callable[[float], None]) -> None:
    with pytest.raises(TimeoutError):
        await in_time(asyncio.Event().wait(), 0.01)


async def test_a_slow_machine_gets_more_time_and_not_for_ever(slow: Callable[[float], None]) -> None:
    slow(10.0)
    began = time.monotonic()
    with pytest.raises(TimeoutError):
        await in_time(asyncio.Event().wait(), 0.02)
    assert time.monotonic() - began >= 0.19  # exact to a millisecond, the unit of uvloop's clock
    deadline = Deadline(0.0)
    assert await deadline.over() and deadline.over_here()


async def test_a_machine_that_was_busy_until_just_now_gets_more_time(
    slow: Callable[[float], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A burst of load ends at the end of the plain seconds: the measurement then finds a quick machine."""
    monkeypatch.setattr(os, "getloadavg", lambda: (10.0 * (os.cpu_count() or 1), 0.0, 0.0))
    began = time.monotonic()
    with pytest.raises(TimeoutError):
        await in_time(asyncio.Event().wait(), 0.02)
    assert time.monotonic() - began >= 0.19
    assert await slowness_lately() == 10.0
    monkeypatch.setattr(os, "getloadavg", lambda: (1_000.0 * (os.cpu_count() or 1), 0.0, 0.0))
    assert await slowness_lately() == pace.LONGEST


async def test_what_ends_in_time_is_left_alone(slow: Callable[[float], None]) -> None:
    assert await in_time(asyncio.sleep(0, "answer"), 5) == "answer"
    slow(1_000.0)
    with pytest.raises(ZeroDivisionError):
        async with within(0.01):
            await asyncio.sleep(0.05)
            raise ZeroDivisionError


async def test_a_cancellation_from_outside_stays_one() -> None:
    waiting = asyncio.create_task(in_time(asyncio.Event().wait(), 60))
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting


def test_a_command_that_hangs_is_ended(slow: Callable[[float], None]) -> None:
    with pytest.raises(subprocess.TimeoutExpired):
        finished([sys.executable, "-c", "import time; time.sleep(600)"], 0.01)


def test_a_command_gets_its_input_and_the_time_of_a_slow_machine(slow: Callable[[float], None]) -> None:
    slow(1_000.0)
    done = finished(
        [sys.executable, "-c", "import sys, time; time.sleep(0.3); print(sys.stdin.read()); sys.exit(3)"], 0.05, given="input"
    )
    assert (done.returncode, done.stdout, done.stderr) == (3, "input\n", "")
