"""Sessions of many workers that come at once, and beats while the database is silent. Over the ports in memory."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any
from uuid import UUID, uuid4

import pytest
import pytest_asyncio

from application.engine.background import end
from application.engine.ports.sessions import Seen
from application.workers.hosting import host
from application.workers.hosting.messages import Hello, LifeSign
from tests.kit.engine import Engine
from tests.kit.hosting import Hosting, hosting, with_key
from tests.kit.waiting import turns


@pytest_asyncio.fixture
async def engine() -> AsyncIterator[Engine]:
    async with with_key(Engine()) as engine:
        yield engine


@pytest_asyncio.fixture
async def process(engine: Engine) -> AsyncIterator[Hosting]:
    async with hosting(engine) as found:
        yield found


async def test_a_hello_asks_the_queue_for_nothing(engine: Engine, process: Hosting) -> None:
    """However many agents a worker offers: what they need at the queue is made once they have work."""
    engine.queue.away = True
    names = [f"agent-{number}" for number in range(100)]
    welcome = await process.connect().hello(names)
    assert [verdict.error for verdict in welcome.agents] == [None] * 100
    assert {pool.queue.pool for pool in process.host.dispatcher.pools} == set(names)


async def test_workers_that_come_at_once_are_taken_in_turns(
    engine: Engine, process: Hosting, monkeypatch: pytest.MonkeyPatch
) -> None:
    open_now, most, opened = 0, 0, engine.sessions.open

    async def counted(*given: Any, **bounds: Any) -> bool:
        nonlocal open_now, most
        open_now += 1
        most = max(most, open_now)
        try:
            await turns(3)
        finally:
            open_now -= 1
        return await opened(*given, **bounds)

    monkeypatch.setattr(engine.sessions, "open", counted)
    crowd = [process.connect() for _ in range(2 * host.GREETED_AT_ONCE)]
    for lost in crowd[:3]:
        lost.say(Hello(t="hello", versions=(1,), worker="w", incarnation=uuid4()))
        await turns(1)
        await process.lose(lost)
    await asyncio.gather(*(worker.hello() for worker in crowd[3:]))
    assert most == host.GREETED_AT_ONCE


async def test_beats_do_not_wait_for_the_database(engine: Engine, process: Hosting, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host, "TICK_S", 0.001)
    silent = asyncio.Event()

    async def seen(session_ids: Sequence[UUID]) -> Seen:
        silent.set()
        await asyncio.Event().wait()
        raise AssertionError

    monkeypatch.setattr(engine.sessions, "seen", seen)
    worker = process.connect()
    await worker.hello()
    running = asyncio.create_task(process.host.run())
    try:
        await silent.wait()
        process.clock.now += 3
        await worker.hears(LifeSign)
    finally:
        await end(running)
