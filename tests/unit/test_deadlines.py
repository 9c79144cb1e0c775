"""The deadline of a connection: one timer for many times, on the event loop that processes have."""

import asyncio

from api.http.conventions.deadlines import Deadline
from tests.kit.waiting import until

NEVER_S = 3600.0


async def test_a_time_that_has_nearly_come_can_be_replaced() -> None:
    passed: list[None] = []
    loop = asyncio.get_running_loop()
    deadline = Deadline(loop, lambda: passed.append(None))
    deadline.set(loop.time() + 0.0001)
    deadline.set(loop.time() + NEVER_S)
    await asyncio.sleep(0.01)
    assert not passed
    deadline.close()


async def test_an_earlier_time_replaces_the_timer() -> None:
    passed: list[None] = []
    loop = asyncio.get_running_loop()
    deadline = Deadline(loop, lambda: passed.append(None))
    deadline.set(loop.time() + NEVER_S)
    deadline.set(loop.time() + 0.001)
    await until(lambda: passed == [None])
