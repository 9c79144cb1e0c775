"""Waits of tests on in-memory ports: a wait lasts until a condition holds, never for a fixed time."""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any, TypeVar
from uuid import UUID

from uuid_utils.compat import uuid7

from application.engine.background import end
from application.engine.commands.request import CommandRequest
from tests.pace import Deadline

T = TypeVar("T")
PATIENCE_S = 15.0
"""Seconds of an idle machine."""
QUICK_TURNS = 2_000
"""Turns of the event loop after which a wait lets other processes use the processor."""

TENANT = UUID("018f0000-0000-7000-8000-00000000aaaa")


def new_id() -> UUID:
    return uuid7()


def request_of(tenant_id: UUID = TENANT, command_id: UUID | None = None, *, repeatable: bool = False) -> CommandRequest:
    """Metadata for a command that the test itself gives."""
    command_id = command_id or new_id()
    return CommandRequest(tenant_id, "test", command_id, command_id, "test", repeatable=repeatable)


async def until(condition: Callable[[], T], what: str = "the condition") -> T:
    """Returns the first truthy answer of a condition. All other tasks have their turns meanwhile."""
    turns, deadline = 0, Deadline(PATIENCE_S)
    while not (answer := condition()):
        turns += 1
        if turns < QUICK_TURNS:
            await asyncio.sleep(0)
        elif await deadline.over():
            raise AssertionError(f"{what} did not come true within {PATIENCE_S:g} s of an idle machine; last: {answer!r}")
        else:
            await asyncio.sleep(0.002)
    return answer


async def turns(number: int = 50) -> None:
    """Lets all other tasks go on as far as they can. A step that has not happened by then waits for something."""
    for _ in range(number):
        await asyncio.sleep(0)


@asynccontextmanager
async def running(*loops: Coroutine[Any, Any, Any]) -> AsyncIterator[list[asyncio.Task[Any]]]:
    """Runs loops beside the test, and ends them. A loop that ends by itself fails the test."""
    tasks = [asyncio.create_task(loop) for loop in loops]
    try:
        yield tasks
        for task in tasks:
            assert not task.done(), f"a loop ended: {task}"
    finally:
        await end(*tasks)
