"""Server-sent events over a real HTTP server: replay and live without a gap or a double, resuming, endings, slow clients."""

import asyncio
import hashlib
import json
import os
import signal
import socket
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from uuid import UUID

import httpx2
import orjson
import pytest
import pytest_asyncio

from application.engine.reading.channels import Filter, TooSlow
from application.engine.reading.histories import History
from application.engine.reading.live import LiveFeed
from domain.kernel import RecordedEvent
from domain.projects import CreateProject
from domain.tenants import DEFAULT_TENANT_ID
from tests.integration.parts_kit import live_feed
from tests.integration.played_worker import PlayedWorker
from tests.integration.system_kit import (
    System,
    empty_work_queue,
    eventually,
    new_id,
    position_of,
    request_of,
    served,
    stopped,
    streaming,
)
from tests.kit import forked
from tests.pace import ANSWER_S, in_time, within
from tests.ports import free_port
from tidelog.sse import ServerSentEvent, parse_sse


@pytest_asyncio.fixture
async def url(system: System) -> AsyncIterator[str]:
    async with served(system.container) as url:
        yield url


def positions(events: list[ServerSentEvent]) -> list[int]:
    return [position_of(event) for event in events if event.event not in ("end", "resync")]


async def current(system: System) -> History:
    return (await system.container.histories.fresh()).histories.current


async def create_projects(system: System, count: int, size: int = 10) -> None:
    for _ in range(count):
        command = CreateProject(project_id=new_id(), name="p", metadata={"x": "x" * size})
        await system.container.commands.execute(request_of(), command)


async def test_replay_and_live_have_no_seam_under_concurrent_appends(system: System, url: str) -> None:
    """Clients connect at any moment of a growing log. Each client sees the whole log, once, in order."""
    await create_projects(system, 30)
    expected = 150

    async def client(after: int) -> list[ServerSentEvent]:
        events: list[ServerSentEvent] = []
        async with streaming(url, system.key, "/v1/events", after=str(after)) as stream:
            while not events or position_of(events[-1]) < expected:
                events.append(await stream.next())
        return events

    async def crowd() -> list[tuple[int, list[ServerSentEvent]]]:
        tasks = []
        for i in range(12):
            tasks.append((i * 2, asyncio.create_task(client(i * 2))))
            await asyncio.sleep(0.01)
        return [(after, await task) for after, task in tasks]

    seen = asyncio.create_task(crowd())
    while (head := await system.container.feed.head()) < expected:
        await asyncio.gather(*(create_projects(system, 1) for _ in range(min(4, expected - head))))
    log = {e.position: e for e in await system.container.feed.read_tenant(DEFAULT_TENANT_ID, after=0, limit=1000)}
    for after, events in await seen:
        assert positions(events) == list(range(after + 1, expected + 1))
        for event in events:
            document = json.loads(event.data)
            assert event.event == document["type"] == log[position_of(event)].topic
            assert document["data"] == orjson.loads(log[position_of(event)].state) and document["position"] == position_of(event)


async def test_from_now_on_means_from_now_on(system: System, url: str) -> None:
    await create_projects(system, 3)
    await system.settled()
    async with streaming(url, system.key, "/v1/events") as stream:
        await listening(system)
        await create_projects(system, 1)
        assert position_of(await stream.next()) == await system.container.feed.head()


async def listening(system: System, count: int = 1) -> None:
    async def joined() -> bool:
        return system.container.live.listeners >= count

    await eventually(joined, "a listener")


async def test_a_client_that_comes_again_goes_on_where_it_was(system: System, url: str) -> None:
    await create_projects(system, 20)
    seen: list[int] = []
    while len(seen) < 23:  # three events at a time, and always the last id given back
        headers = {"Last-Event-ID": str(seen[-1])} if seen else {}
        async with streaming(url, system.key, "/v1/events", headers, after="0") as stream:
            seen += [position_of(await stream.next()) for _ in range(min(3, 23 - len(seen)))]
    assert seen == list(range(1, 24))


async def test_only_wanted_types_and_runs(system: System, url: str, worker: PlayedWorker) -> None:
    first, second = await system.start("alpha"), await system.start("beta")
    async with (
        streaming(url, system.key, "/v1/events", types="run.started,run.completed", after="0") as typed,
        streaming(url, system.key, "/v1/events", root_id=second, after="0") as rooted,
    ):
        for name in ("alpha", "beta"):
            await (await worker.next(name)).complete()
        seen = [await typed.next() for _ in range(4)]
        assert [event.event for event in seen] == ["run.started"] * 2 + ["run.completed"] * 2
        await system.ended(first)
        expected = await system.events(second)
        assert [position_of(await rooted.next()) for _ in expected] == [event.position for event in expected]


@pytest.mark.parametrize("outcome", ["completed", "failed", "cancelled"])
async def test_a_runs_stream_ends_with_the_run(system: System, url: str, worker: PlayedWorker, outcome: str) -> None:
    run_id = await system.start("alpha", "beta")
    path = f"/v1/runs/{run_id}/events"
    async with streaming(url, system.key, path) as stream:
        first = await stream.next()
        assert first.event == "run.started"
        alpha = await worker.next("alpha")
        if outcome == "completed":
            await alpha.complete()
            await (await worker.next("beta")).complete()
        elif outcome == "failed":
            await alpha.fail()
        else:
            await system.http.post(f"/v1/runs/{run_id}/cancel")
        events = [first, *await stream.rest()]
    await system.settled()
    recorded = [event.position for event in await system.events(run_id)]
    assert events[-1].event == "end" and position_of(events[-1]) == recorded[-1]
    assert positions(events) == recorded, "all of it, also what followed the outcome"

    for last, expected in ((None, recorded), (str(recorded[3]), recorded[4:]), (str(recorded[-2]), recorded[-1:])):
        async with streaming(url, system.key, path, {"Last-Event-ID": last} if last else {}) as again:
            over = await again.rest(timeout_s=3)
        assert positions(over) == expected and over[-1].event == "end"
    for last in (events[-1].id, str(recorded[-1])):  # a browser asks again with the id of `end`, until it gets 204
        answer = await system.http.get(path, headers={"Accept": "text/event-stream", "Last-Event-ID": last})
        assert (answer.status_code, answer.content) == (204, b"")
    async with streaming(url, system.key, path, types="run.started") as filtered:
        assert [event.event for event in await filtered.rest(timeout_s=3)] == ["run.started", "end"]


async def test_a_stream_of_a_run_that_goes_on_does_not_end(system: System, url: str, worker: PlayedWorker) -> None:
    run_id = await system.start("alpha")
    async with streaming(url, system.key, f"/v1/runs/{run_id}/events") as stream:
        for _ in range(3):
            assert (await stream.next()).event != "end"
        alpha = await worker.next("alpha")
        assert (await stream.next()).event == "agent_run.claimed", "nothing was said before it"
        for number in range(3):
            await system.settled()
            await alpha.ok("record", key=f"step{number}", result=number)
            assert (await stream.next()).event == "agent_run.step_recorded"


async def test_a_client_that_does_not_read_is_told_to_come_again(system: System) -> None:
    """The client's queue has a bound. The received events have no gap, and with the last id the client gets the rest."""
    async with live_feed(system, queue_events=20) as feed, served(replace(system.container, live=feed)) as url:
        await one_that_does_not_read(system, feed, url)


async def one_that_does_not_read(system: System, feed: LiveFeed, url: str) -> None:
    host, port = httpx2.URL(url).host, httpx2.URL(url).port
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    connection.setblocking(False)
    await asyncio.get_running_loop().sock_connect(connection, (host, port))
    reader, writer = await asyncio.open_connection(sock=connection, limit=1024)
    try:
        headers = {"Host": host, "Authorization": f"Bearer {system.key}", "Accept": "text/event-stream"}
        lines = ["GET /v1/events?after=0 HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items()), "", ""]
        writer.write("\r\n".join(lines).encode())
        await writer.drain()
        await eventually(lambda: _listens(feed))

        async def stuck() -> bool:
            """Whether the client takes no more waiting events, so that each further event waits as well."""
            await asyncio.gather(*(create_projects(system, 1, size=200_000) for _ in range(4)))
            await eventually(lambda: _at_head(system, feed))
            return feed.most_queued > 4

        async def given_up() -> bool:
            """Whether the client's queue has reached its bound. A client that was only slow, and took more, gets more."""
            await eventually(stuck, "a queue that grows")
            await create_projects(system, 30)
            await eventually(lambda: _at_head(system, feed))
            assert feed.most_queued <= 20
            return any(listener.overflowed for channel in feed._channels.values() for listener in channel.listeners)

        await eventually(given_up, "a queue at its bound")
        events = await in_time(read_all(reader), 20)
    finally:
        writer.close()
    head = await system.container.feed.head()
    got = positions(events)
    assert events[-1].event == "resync" and got == list(range(1, len(got) + 1)) and len(got) < head
    async with streaming(url, system.key, "/v1/events", {"Last-Event-ID": str(got[-1])}) as again:
        assert [position_of(await again.next()) for _ in range(head - len(got))] == list(range(len(got) + 1, head + 1))


async def read_all(reader: asyncio.StreamReader) -> list[ServerSentEvent]:
    """The events of a chunked response that is read by hand, up to its end."""
    while await reader.readuntil(b"\r\n") != b"\r\n":
        pass

    async def chunks() -> AsyncIterator[bytes]:
        while size := int(await reader.readuntil(b"\r\n"), 16):
            yield await reader.readexactly(size)
            await reader.readexactly(2)

    return [event async for event in parse_sse(chunks())]


async def test_the_queue_of_a_listener_is_bounded_while_it_replays(system: System) -> None:
    await create_projects(system, 3)
    async with live_feed(system, queue_events=5) as feed:
        events = feed.events(Filter(DEFAULT_TENANT_ID), after=0, history=await current(system))
        assert await anext(events)  # a page of the replay; then the caller is busy for a long time
        await create_projects(system, 30)
        await eventually(lambda: _at_head(system, feed))
        with pytest.raises(TooSlow):
            async with within(20):
                async for _ in events:
                    pass
        assert feed.listeners == 0


async def _at_head(system: System, feed: LiveFeed) -> bool:
    return feed.position == await system.container.feed.head()


async def test_a_listener_before_the_start_waits_for_it_and_not_for_the_past(system: System) -> None:
    """As long as the database cannot be reached at the start, the position of `from now on` is unknown."""
    await create_projects(system, 5)
    late = LiveFeed(system.container.feed, system.subscription, system.container.histories)

    async def next_events() -> list[RecordedEvent]:
        return await anext(late.events(Filter(DEFAULT_TENANT_ID), after=None, history=await current(system)))

    first = asyncio.create_task(next_events())
    await asyncio.sleep(0)
    loop = asyncio.create_task(late.run())
    try:
        await eventually(lambda: _listens(late))
        await create_projects(system, 1)
        assert [event.position for event in await in_time(first, 10)] == [await system.container.feed.head()]
    finally:
        await stopped(loop)


async def test_the_log_is_read_only_while_somebody_needs_it(system: System) -> None:
    async with live_feed(system, linger_s=0.0) as feed:
        await somebody_now_and_then(system, feed)


async def somebody_now_and_then(system: System, feed: LiveFeed) -> None:
    await create_projects(system, 3)
    await system.settled()  # other listeners have read these events
    assert not feed.reading and feed.position == 0, "nobody has asked yet"

    async def next_position() -> int:
        async for events in feed.events(Filter(DEFAULT_TENANT_ID), after=None, history=await current(system)):
            return events[0].position
        raise AssertionError

    async def at_rest() -> bool:
        await create_projects(system, 1)  # the feed stops after events that it reads for no listener
        return not feed.reading

    for _ in range(2):
        listener = asyncio.create_task(next_position())
        await eventually(lambda: _listens(feed))
        await create_projects(system, 1)
        assert await in_time(listener, 10) == await system.container.feed.head()
        await eventually(at_rest)
    with feed.watch(new_id()) as watch:
        assert await watch.next(10), "whoever comes while nobody reads may have missed something until somebody does"
        await create_projects(system, 1)
        await eventually(lambda: _at_head(system, feed))
        assert not await watch.next(0), "it is no matter of this one"


async def _listens(feed: LiveFeed) -> bool:
    return feed.listeners > 0


async def test_a_listener_that_waits_for_a_log_out_of_reach_ends_with_the_process(system: System) -> None:
    unread = LiveFeed(system.container.feed, system.subscription, system.container.histories)  # has not reached the database yet

    async def everything() -> list[RecordedEvent]:
        return [
            event
            async for events in unread.events(Filter(DEFAULT_TENANT_ID), after=0, history=await current(system))
            for event in events
        ]

    waiting = asyncio.create_task(everything())
    await create_projects(system, 1)
    await system.settled()
    assert not waiting.done()
    unread.close()
    assert await in_time(waiting, 5) == []


async def test_all_streams_end_when_the_process_is_about_to(system: System, url: str, worker: PlayedWorker) -> None:
    run_id = await system.start("alpha")
    async with (
        streaming(url, system.key, "/v1/events", after="0") as feed,
        streaming(url, system.key, f"/v1/runs/{run_id}/events") as run,
    ):
        assert (await feed.next()).event == "tenant.created" and (await run.next()).event == "run.started"
        await listening(system)
        system.container.live.close()
        for stream in (feed, run):
            assert "end" not in [event.event for event in await stream.rest(timeout_s=5)], "the run goes on, elsewhere"


async def test_a_listener_that_goes_is_forgotten(system: System, url: str, worker: PlayedWorker) -> None:
    run_id = await system.start("alpha")
    kept = system.container.live.watched(UUID(run_id))  # the worker's session watches too
    async with (
        streaming(url, system.key, "/v1/events", after="0") as stream,
        streaming(url, system.key, f"/v1/runs/{run_id}/events") as other,
    ):
        await stream.next()
        await other.next()
    feed = system.container.live

    async def nobody() -> bool:
        return not feed.listeners and feed.watched(UUID(run_id)) == kept

    await eventually(nobody)


SERVE = """
from api.roles import run
from api.settings import ROLES, load_settings
run(load_settings(), set(ROLES))
"""


async def test_sigterm_ends_streams_and_the_process(database_url: str, nats_url: str, tmp_path: Path) -> None:
    await empty_work_queue(nats_url)
    port = free_port()
    key, url = "shutdown-key", f"http://127.0.0.1:{port}"
    environment = {
        **os.environ, "TIDELOG_DATABASE_URL": database_url, "TIDELOG_NATS_URL": nats_url, "TIDELOG_PORT": str(port),
        "TIDELOG_LOG_FORMAT": "json", "TIDELOG_BOOTSTRAP_KEY_SHA256": hashlib.sha256(key.encode()).hexdigest(),
    }  # fmt: skip
    with (tmp_path / "log").open("wb") as log:
        process = await forked.python("-c", SERVE, env=environment, stdout=log, stderr=log)
    try:
        async with httpx2.AsyncClient(base_url=url, timeout=ANSWER_S) as client:

            async def ready() -> bool:
                assert process.returncode is None, (tmp_path / "log").read_text()
                try:
                    return (await client.get("/health/ready")).status_code == 200
                except httpx2.TransportError:
                    return False

            await eventually(ready, "the server", timeout_s=30)
        async with streaming(url, key, "/v1/events", after="0") as stream:
            assert (await stream.next()).event == "tenant.created"
            process.send_signal(signal.SIGTERM)
            await stream.rest(timeout_s=5)
        assert await in_time(process.wait(), 10) == 0, (tmp_path / "log").read_text()
        assert "Traceback" not in (tmp_path / "log").read_text()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
