"""Many listeners of one process: the cost of one listener, and the waits that many listeners cause."""

import asyncio
import gc
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, aclosing, asynccontextmanager

from application.engine.reading import live
from application.engine.reading.channels import Batch, Filter
from domain.kernel import RecordedEvent
from domain.projects import CreateProject
from domain.tenants import DEFAULT_TENANT_ID
from tests.integration.system_kit import System, eventually, new_id, request_of

LISTENERS = live.WOKEN_AT_ONCE * 6


async def append(system: System, count: int) -> None:
    """Appends each event as a batch of its own: the live feed has read an event before the next is appended."""
    for _ in range(count):
        command = CreateProject(project_id=new_id(), name="p", metadata={})
        position = (await system.container.commands.execute(request_of(), command)).position
        await eventually(lambda position=position: _reached(system, position))


async def _reached(system: System, position: int) -> bool:
    return system.container.live.position >= position


class Crowd:
    """Listeners with the same filter, each a task of its own."""

    def __init__(self, system: System) -> None:
        self.batches: list[list[Batch]] = [[] for _ in range(LISTENERS)]
        self.may_take = asyncio.Event()
        """Unset: listeners that have a batch are busy with it."""
        self.may_take.set()
        self._live = system.container.live
        self._histories = system.container.histories

    async def listen(self, number: int) -> None:
        history = (await self._histories.fresh()).histories.current
        async with aclosing(self._live.events(Filter(DEFAULT_TENANT_ID), after=None, history=history)) as events:
            async for batch in events:
                if batch:
                    self.batches[number].append(batch)
                    self.taken(number)
                    await self.may_take.wait()

    def taken(self, number: int) -> None:
        pass

    async def all_have(self, events: int) -> None:
        await eventually(lambda: self._have(events), f"{events} events at each of {LISTENERS}")

    async def _have(self, events: int) -> bool:
        return all(sum(len(batch) for batch in mine) == events for mine in self.batches)


@asynccontextmanager
async def listening(system: System, crowd: Crowd) -> AsyncIterator[None]:
    async with AsyncExitStack() as stack:
        for number in range(LISTENERS):
            task = asyncio.create_task(crowd.listen(number))
            stack.push_async_callback(ended, task)
        await eventually(lambda: _joined(system), f"{LISTENERS} listeners")
        yield


async def ended(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def _joined(system: System) -> bool:
    return system.container.live.listeners == LISTENERS


async def test_what_all_want_is_encoded_once(system: System) -> None:
    """This holds also for listeners that were busy while several batches came: all of them get the waiting events as the same
    single batch."""
    made: list[RecordedEvent] = []

    def make(events: Sequence[RecordedEvent]) -> bytes:
        made.extend(events)
        return b"".join(event.state for event in events)

    crowd = Crowd(system)
    async with listening(system, crowd):
        crowd.may_take.clear()
        await append(system, 1)
        await crowd.all_have(1)
        await append(system, 5)
        crowd.may_take.set()
        await crowd.all_have(6)
    for mine in crowd.batches:
        assert [len(batch) for batch in mine] == [1, 5]
        assert b"".join(batch.once(make) for batch in mine) == b"".join(event.state for batch in mine for event in batch)
    assert len({id(mine[1]) for mine in crowd.batches}) == 1, "those at the same place have the same batch"
    assert len(made) == 6, "each event encoded once, whoever asks"


async def test_a_crowd_is_woken_in_turns(system: System) -> None:
    """In one turn of the event loop only some listeners are served, so that other due work has its turn in between."""
    loop, turn, served = asyncio.get_running_loop(), 0, Counter[int]()

    class Counting(Crowd):
        def taken(self, number: int) -> None:
            served[turn] += 1

    def tick() -> None:
        nonlocal turn, ticking
        turn += 1
        ticking = loop.call_soon(tick)

    ticking = loop.call_soon(tick)
    crowd = Counting(system)
    try:
        async with listening(system, crowd):
            await append(system, 1)
            await crowd.all_have(1)
    finally:
        ticking.cancel()
    assert sum(served.values()) == LISTENERS
    assert max(served.values()) <= live.WOKEN_AT_ONCE


async def test_what_all_have_passed_is_held_by_nobody(system: System) -> None:
    crowd = Crowd(system)
    async with listening(system, crowd):
        for events in range(10, 60, 10):
            await append(system, 10)
            await crowd.all_have(events)
        for mine in crowd.batches:
            mine.clear()
        gc.collect()
        kept = [one for one in gc.get_objects() if type(one) is Batch and one]  # `isinstance` asks the objects, and some raise
        assert len(kept) < 10, f"{len(kept)} batches of 50"
