"""Slots of a worker: an execution that only waits holds none, comes back in turn, and nothing waits for itself."""

import asyncio
import logging
import random
from collections.abc import Callable

import pytest

from tests.pace import in_time
from tidelog.worker import slots as module
from tidelog.worker.slots import Slot, Slots


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A wait gives the slot back in the next turns of the event loop."""
    monkeypatch.setattr(module, "GIVE_BACK_AFTER_S", 0.0)


async def taken(slots: Slots) -> Slot:
    await in_time(slots.acquire(), 10)
    return Slot(slots)


async def until(condition: Callable[[], bool]) -> None:
    async def true() -> None:
        while not condition():  # noqa: ASYNC110  # timers of the event loop
            await asyncio.sleep(0)

    await in_time(true(), 10)


async def free(slots: Slots) -> int:
    """Takes all slots that are free, counts them and gives them back."""
    count = 0
    try:
        while True:
            async with asyncio.timeout(0.01):
                await slots.acquire()
            count += 1
    except TimeoutError:
        for _ in range(count):
            slots.release()
        return count


async def wait_for(slot: Slot, event: asyncio.Event) -> None:
    async with slot.waiting():
        await event.wait()


async def test_an_execution_that_waits_lets_another_one_run_and_comes_back_before_new_ones() -> None:
    slots, answered = Slots(1, 5), asyncio.Event()
    first = await taken(slots)
    wait = asyncio.create_task(wait_for(first, answered))
    second = await taken(slots)
    assert (first.held, slots.waiting) == (False, 1)
    newcomer = asyncio.create_task(slots.acquire())
    answered.set()
    await asyncio.sleep(0.01)
    assert not wait.done() and not newcomer.done(), "the slot is in use"
    second.end()
    await in_time(wait, 10)
    assert (first.held, newcomer.done(), slots.waiting) == (True, False, 0)
    first.end()
    await in_time(newcomer, 10)


async def test_a_short_wait_keeps_the_slot(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "GIVE_BACK_AFTER_S", 600.0)
    slots, answered = Slots(1, 5), asyncio.Event()
    slot = await taken(slots)
    answered.set()
    await wait_for(slot, answered)
    assert slot.held
    slot.end()
    assert await free(slots) == 1


async def test_a_step_that_runs_beside_the_wait_keeps_the_slot_or_waits_for_it() -> None:
    slots, answered, done = Slots(1, 5), asyncio.Event(), asyncio.Event()
    slot = await taken(slots)

    async def step() -> None:
        async with slot.working():
            await done.wait()

    working = asyncio.create_task(step())
    await asyncio.sleep(0)
    waiting = asyncio.create_task(wait_for(slot, answered))
    await asyncio.sleep(0.01)
    assert slot.held, "the step runs"
    done.set()
    await in_time(working, 10)
    await until(lambda: not slot.held)
    other = await taken(slots)
    again = asyncio.create_task(step())
    await asyncio.sleep(0.01)
    assert not again.done(), "the step waits for the slot"
    other.end()
    await in_time(again, 10)
    answered.set()
    await in_time(waiting, 10)
    slot.end()
    assert await free(slots) == 1


async def test_the_number_of_those_that_wait_without_a_slot_is_bounded(caplog: pytest.LogCaptureFixture) -> None:
    slots, answered = Slots(3, 2), asyncio.Event()
    held = [await taken(slots) for _ in range(3)]
    with caplog.at_level(logging.WARNING):
        waits = [asyncio.create_task(wait_for(slot, answered)) for slot in held]
        await until(lambda: slots.waiting == 2)
        await asyncio.sleep(0.01)
    assert sorted(slot.held for slot in held) == [False, False, True]
    assert await free(slots) == 2
    assert caplog.messages == ["too_many_wait"]
    next(slot for slot in held if not slot.held).end()
    await until(lambda: not any(slot.held for slot in held[:2]) and not held[2].held)
    answered.set()
    await in_time(asyncio.gather(*waits), 10)


async def test_code_that_gives_up_a_wait_goes_on_at_once() -> None:
    """It may have been cancelled: it must be able to end while all slots are in use."""
    slots = Slots(1, 5)
    first = await taken(slots)
    wait = asyncio.create_task(wait_for(first, asyncio.Event()))
    second = await taken(slots)
    wait.cancel()
    await in_time(asyncio.wait({wait}), 10)
    assert wait.cancelled() and first.held and second.held
    first.end()
    assert await free(slots) == 0
    second.end()
    assert await free(slots) == 1


async def test_an_execution_that_ends_while_it_waits_leaves_nothing_behind() -> None:
    slots = Slots(1, 1)
    for _ in range(3):
        slot = await taken(slots)
        wait = asyncio.create_task(wait_for(slot, asyncio.Event()))
        await until(lambda slot=slot: not slot.held)  # type: ignore[misc]
        slot.end()
        wait.cancel()
        await asyncio.wait({wait})
    assert (await free(slots), slots.waiting) == (1, 0)


@pytest.mark.parametrize("seed", range(5))
async def test_whatever_happens_all_slots_come_back(seed: int) -> None:
    rng, slots, running = random.Random(seed), Slots(3, 4), 0

    async def call(slot: Slot) -> None:
        async with rng.choice([slot.waiting, slot.working])():
            await asyncio.sleep(rng.choice([0, 0.001, 0.003]))

    async def execute() -> None:
        nonlocal running
        await slots.acquire()
        slot = Slot(slots)
        running += 1
        try:
            for _ in range(rng.randrange(4)):
                calls = [asyncio.create_task(call(slot)) for _ in range(rng.randrange(1, 4))]
                if rng.random() < 0.3:
                    await asyncio.sleep(0)
                    rng.choice(calls).cancel()
                await asyncio.gather(*calls, return_exceptions=True)
        finally:
            running -= 1
            slot.end()

    executions = [asyncio.create_task(execute()) for _ in range(40)]
    for execution in rng.sample(executions, 10):
        await asyncio.sleep(0.001)
        execution.cancel()
    await in_time(asyncio.wait(executions), 10)
    assert (running, slots.waiting, await free(slots)) == (0, 0, 3)
