"""Readers of the live feed when many events come at once, and when their position is older than the stream."""

import asyncio

import orjson
import pytest

from adapters.nats import LogStream, NatsConnection
from adapters.nats.jetstream import call, stream_info
from application.engine.background import end
from application.engine.ports.log import NewEvent, StreamAppend, one_command
from domain.tenants import DEFAULT_TENANT_ID
from tests.chaos.checker import check_snapshot
from tests.chaos.checks.snapshot import read_snapshot
from tests.chaos.faults_kit import Callers
from tests.integration.nats_kit import connected
from tests.integration.system_kit import System, eventually, new_id, position_of, request_of, served, streaming
from tidelog import Client

pytestmark = pytest.mark.chaos

BURST = 10_000


async def test_a_burst_reaches_every_reader_and_read_model(system: System, nats_url: str) -> None:
    """One client reads while events come faster than it can take them. Another client beside it does not read at all."""
    seen: list[int] = []

    async def follow(url: str) -> None:
        async with Client(url, system.key) as client:
            async for event in client.events():
                seen.append(event.position)

    async with served(system.container) as url, streaming(url, system.key, "/v1/events", after="0"):
        following = asyncio.create_task(follow(url))
        try:
            await asyncio.gather(*(append_projects(system, BURST // 50) for _ in range(50)))
            head = await system.container.feed.head()
            await eventually(lambda: at(seen, head), "the end of the burst", timeout_s=30)
        finally:
            await end(following)
        assert seen == list(range(1, head + 1)) and head > BURST
        await system.settled()
    snapshot = await read_snapshot(system.database_url)
    assert await check_snapshot(snapshot, nats_url, settled=False, caught_up=True) == []


async def at(seen: list[int], position: int) -> bool:
    return bool(seen) and seen[-1] >= position


async def append_projects(system: System, count: int) -> None:
    """Appends `count` streams at once: the writer takes these events faster than a command loop could."""
    streams, request = [], request_of()
    for _ in range(count):
        project_id = new_id()
        state = orjson.dumps({"project_id": str(project_id), "name": "p", "metadata": {}})
        streams.append(StreamAppend(project_id, project_id, 0, (NewEvent("project.created", 1, state),)))
    await system.store.append(one_command(DEFAULT_TENANT_ID, request.command_id, tuple(streams), request.metadata()))


async def test_a_client_from_before_the_beginning_of_the_stream_misses_nothing(system: System, nats_url: str) -> None:
    callers = Callers(system)
    for _ in range(12):
        await callers.project()
        await system.copied()  # each event in a message of its own
    await system.settled()
    async with connected(nats_url) as connection:
        assert await shortened(connection, (await read_snapshot(system.database_url)).log_id) > 5
        async with (
            served(system.container) as url,
            streaming(url, system.key, "/v1/events", {"Last-Event-ID": "2"}) as stream,
        ):
            await callers.projects(5)
            head = await system.container.feed.head()
            assert [position_of(await stream.next()) for _ in range(head - 2)] == list(range(3, head + 1))


async def shortened(connection: NatsConnection, log_id: str) -> int:
    """Cuts the stream to its three newest messages, as retention does. Returns the sequence of the first remaining message."""
    state = await LogStream(connection, log_id).current()
    assert state is not None
    info = await stream_info(connection, state.name)
    assert info is not None
    await call(connection, f"STREAM.UPDATE.{state.name}", info["config"] | {"max_msgs": 3})
    info = await stream_info(connection, state.name)
    assert info is not None
    return int(info["state"]["first_seq"])
