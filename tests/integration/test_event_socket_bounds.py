"""Event streams over a WebSocket: what is wrong, too much, too large or too slow, and the ends of connections and histories."""

import asyncio
import json
import os
import re
import socket as tcp
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx2
import pytest
import pytest_asyncio

from adapters.embedded import EmbeddedServices
from api.http.conventions.door import Limits
from api.http.sockets.endpoint import EventSockets
from api.http.sockets.limits import MAX_FRAME, MAX_SUBSCRIPTIONS
from api.metrics import SOCKETS
from application.engine.background import end
from domain.tenants import DEFAULT_TENANT_ID
from tests.integration.parts_kit import begun_elsewhere, live_feed
from tests.integration.sockets_kit import Message, Reader, head, positions, projects, reader
from tests.integration.system_kit import System, eventually, new_id, served
from tests.kit import forked
from tests.pace import ANSWER_S, in_time, within
from tests.ports import free_port


@pytest_asyncio.fixture
async def url(shared: System) -> str:
    return await shared.url()


@pytest_asyncio.fixture
async def one(shared: System, url: str) -> AsyncIterator[Reader]:
    async with reader(url, shared.key) as found:
        yield found


# --- what a client may not do ---------------------------------------------------------------------------------------------

BOTH = json.dumps({"type": "subscribe", "id": "x", "filter": {"run_id": str(new_id()), "root_id": str(new_id())}})
FRAMES: list[tuple[str | bytes, str, str | None]] = [
    (b"\x00\x01", "malformed-message", None),
    ("", "malformed-message", None),
    ("nonsense", "malformed-message", None),
    ("[]", "malformed-message", None),
    ('"subscribe"', "malformed-message", None),
    ("[" * 30_000, "malformed-message", None),
    ('{"type":"subscribe","id":"x","filter":' + '{"a":' * 10_000 + "1" + "}" * 10_000 + "}", "malformed-message", None),
    ("{}", "invalid-command", "/type"),
    ('{"type":"publish","id":"x"}', "invalid-command", "/type"),
    ('{"type":"subscribe"}', "invalid-request", "/id"),
    ('{"type":"subscribe","id":""}', "invalid-request", "/id"),
    ('{"type":"subscribe","id":7}', "invalid-request", "/id"),
    ('{"type":"subscribe","id":"%s"}' % ("x" * 65), "invalid-request", "/id"),
    ('{"type":"subscribe","id":"x","since":"0"}', "invalid-request", "/since"),
    ('{"type":"subscribe","id":"x","after":"yesterday"}', "invalid-request", "/after"),
    ('{"type":"subscribe","id":"x","window":0}', "invalid-request", "/window"),
    ('{"type":"subscribe","id":"x","window":true}', "invalid-request", "/window"),
    ('{"type":"subscribe","id":"x","filter":{"types":[]}}', "invalid-request", "/filter/types"),
    ('{"type":"subscribe","id":"x","filter":{"types":["run.strated"]}}', "invalid-command", "/filter/types/0"),
    ('{"type":"subscribe","id":"x","filter":{"slices":["run","runs"]}}', "invalid-command", "/filter/slices/1"),
    ('{"type":"subscribe","id":"x","filter":{"run_id":"7"}}', "invalid-request", "/filter/run_id"),
    (f'{{"type":"subscribe","id":"x","filter":{{"tenant_id":"{DEFAULT_TENANT_ID}"}}}}', "invalid-request", "/filter/tenant_id"),
    ('{"type":"subscribe","id":"x","filter":{"actor":"a\\u0000"}}', "invalid-request", "/filter/actor"),
    (BOTH, "invalid-command", "/filter/root_id"),
    ('{"type":"ack","id":"x"}', "invalid-request", "/cursor"),
    ('{"type":"subscribe","id":"x","after":"999999999"}', "position-beyond-head", None),
]  # fmt: skip


async def test_what_is_wrong_is_said_and_the_connection_goes_on(shared: System, one: Reader) -> None:
    await one.subscribe("stays", types=["project.created"])
    for frame, code, pointer in FRAMES:
        await one.connection.send(frame)
        error = await one.next("error")
        problem = error["problem"]
        assert problem["code"] == code, (frame[:200], problem)
        assert pointer is None or [place["pointer"] for place in problem["errors"]] == [pointer], (frame[:200], problem)
        assert error.get("ended", True) is True
    await one.say("subscribe", id="stays")
    again = await one.next("error")
    assert (again["problem"]["code"], again["ended"]) == ("already-subscribed", False)
    last = await projects(shared, 1)
    assert positions(await one.events(1, "stays")) == [last]


async def test_subscriptions_have_a_bound(shared: System, one: Reader) -> None:
    for number in range(MAX_SUBSCRIPTIONS):
        assert (await one.subscribe(str(number), types=["project.created"]))["type"] == "subscribed"
    refused = await one.subscribe("more")
    assert (refused["problem"]["code"], refused["problem"]["status"]) == ("too-many-subscriptions", 429)
    await one.say("unsubscribe", id="7")
    await one.next("unsubscribed", id="7")
    assert (await one.subscribe("more", types=["project.created"]))["type"] == "subscribed"
    last = await projects(shared, 1)
    for id in ("0", "63", "more"):
        assert positions(await one.events(1, id)) == [last]
    await one.say("ping")
    await one.next("pong")
    assert not [m for m in one.came if m.get("id") == "7" and m["type"] == "events"]


async def test_a_frame_that_is_too_large_ends_the_connection(shared: System, one: Reader) -> None:
    await one.connection.send(json.dumps({"type": "subscribe", "id": "x" * (MAX_FRAME + 1)}))
    assert await one.until_closed() == 1009


async def test_coming_and_going_leaves_nothing_behind(shared: System, url: str) -> None:
    live = shared.container.live
    before = live.listeners
    async with reader(url, shared.key) as one:
        for number in range(200):
            await one.say("subscribe", id="a", after="0", filter={"actor": f"nobody-{number}"})
            await one.say("unsubscribe", id="a")
        await one.say("ping")
        await one.next("pong")

        async def nobody() -> bool:
            return live.listeners == before

        await eventually(nobody)
        for number in range(8):
            await one.subscribe(str(number))
        assert live.listeners == before + 8
    await eventually(nobody)


# --- large events, and the end of a process -------------------------------------------------------------------------------


async def test_large_events_come_in_frames_of_some_hundred_kilobytes(shared: System, one: Reader) -> None:
    before = await head(shared)
    last = await projects(shared, 10, size=60_000)
    await one.subscribe(after=str(before))
    had: list[Message] = []
    while not had or had[-1]["position"] < last:
        frame = await one.next("events")
        assert len(frame["events"]) <= 4
        had += frame["events"]
    assert positions(had) == list(range(before + 1, last + 1))


async def test_before_a_process_stops_clients_are_told_to_come_again(shared: System) -> None:
    async with AsyncExitStack() as stack:
        async with served(shared.container) as url:
            one = await stack.enter_async_context(reader(url, shared.key))
            await one.subscribe()
            last = await projects(shared, 1)
            assert positions(await one.events(1)) == [last]
        assert 0 <= (await one.next("reconnect"))["after_ms"] < 2_000
        assert await one.until_closed() == 1001


SERVE = """
from api.roles import run
from api.settings import load_settings
run(load_settings(), {"api"})
"""


async def test_when_a_process_is_killed_its_clients_go_on_at_another_one(
    shared: System, url: str, services: EmbeddedServices, tmp_path: Path
) -> None:
    port, before = free_port(), await head(shared)
    environment = {
        **os.environ, "TIDELOG_DATABASE_URL": shared.database_url, "TIDELOG_NATS_URL": services.nats_url,
        "TIDELOG_PORT": str(port),
    }  # fmt: skip
    with (tmp_path / "log").open("wb") as log:
        process = await forked.python("-c", SERVE, env=environment, stdout=log, stderr=log)
    try:
        async with httpx2.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=ANSWER_S) as http:
            await eventually(lambda: _is_ready(http), "the other process", timeout_s=30)
        async with reader(f"http://127.0.0.1:{port}", shared.key) as one:
            await one.subscribe(after=str(before))
            await projects(shared, 3)
            frame = await one.next("events")
            process.kill()
            await projects(shared, 3)
            had, cursor = frame["events"], frame["cursor"]
            assert await one.until_closed() == 1006
            for message in (message for message in one.came if message["type"] == "events"):
                had, cursor = had + message["events"], message["cursor"]
    finally:
        process.kill()
        await process.wait()
    async with reader(url, shared.key) as again:
        await again.subscribe(after=cursor)
        had += await again.events(6 - len(had))
    assert positions(had) == list(range(before + 1, before + 7))


async def _is_ready(http: httpx2.AsyncClient) -> bool:
    try:
        return bool((await http.get("/health/ready")).status_code == 200)
    except httpx2.TransportError:
        return False


# --- slow and silent clients, histories -----------------------------------------------------------------------------------


async def test_a_client_that_does_not_read_is_told_and_misses_nothing(shared: System, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each of its subscriptions has what it has got without a gap, and a cursor with which the rest comes."""
    monkeypatch.setattr(EventSockets.__init__, "__kwdefaults__", {"heartbeat_s": 600.0})
    container, patient = shared.container, Limits(send_s=600.0)
    async with live_feed(shared, queue_events=20) as feed, served(replace(container, live=feed), patient) as url:
        before = await head(shared)
        async with reader(url, shared.key, sock=await small_buffers(url), max_queue=1) as one:
            for id in ("a", "b"):
                await one.subscribe(id, types=["project.created"])
                await one.next("live", id=id)

            async def both_gone() -> bool:
                await asyncio.gather(*(projects(shared, 1, size=200_000) for _ in range(4)))
                await projects(shared, 20)
                assert feed.most_queued <= 20
                return feed.listeners == 0

            await eventually(both_gone, "the end of both subscriptions", timeout_s=60)
            last = await projects(shared, 1)
            for id in ("a", "b"):
                over = await one.next("resync", id=id)
                had = [event for m in one.came if m["type"] == "events" and m["id"] == id for event in m["events"]]
                reached = before + len(had)
                assert positions(had) == list(range(before + 1, reached + 1)) and reached < last
                one.came = [message for message in one.came if message["id"] != id]
                await one.subscribe(id, types=["project.created"], after=over["cursor"])
                assert positions(await one.events(last - reached, id)) == list(range(reached + 1, last + 1))


async def test_the_end_of_a_history_is_told_to_those_it_concerns(system: System) -> None:
    """Of three subscriptions two have events that are void. The third goes on, and does not notice."""
    url, common = await system.url(), await projects(system, 5)
    async with reader(url, system.key) as one, reader(url, system.key) as again:
        await one.subscribe("behind", after=str(common - 2), types=["tenant.created"])
        await one.subscribe("a", after="0")
        await one.next("live", id="a")
        last = await projects(system, 3)
        await one.events(3, "a")
        await again.subscribe("narrow", after=str(last))
        history = await begun_elsewhere(system, common)
        reset = await one.next("reset", id="a")
        assert (reset["history"], reset["last_common_position"], reset["reason"]) == (history, common, "a test")
        assert (await again.next("reset"))["last_common_position"] == common
        one.came.clear()
        await one.subscribe("a", after=reset["cursor"])
        assert positions(await one.events(3, "a")) == list(range(common + 1, last + 1))
        assert (await one.next("live", id="a"))["cursor"].split("-")[1] == history
        new = await projects(system, 1)
        assert positions(await one.events(1, "a")) == [new]
        await one.say("unsubscribe", id="behind")
        assert (await one.next("unsubscribed", id="behind"))["cursor"].split("-")[1] == history


async def test_a_client_without_a_sign_of_life_is_cut_off_and_others_hear_of_the_server(
    shared: System, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(EventSockets.__init__, "__kwdefaults__", {"heartbeat_s": 1.0})
    async with served(shared.container) as url, reader(url, shared.key) as alive, reader(url, shared.key) as gone:
        transport = gone.connection.transport
        transport.pause_reading()  # so nothing answers to a ping
        async with within(20):
            while json.loads(await alive.connection.recv())["type"] != "heartbeat":
                pass
        await eventually(lambda: _is_cut(shared), "the end of the silent one")
        transport.resume_reading()
        assert await gone.until_closed() == 4408
        await alive.subscribe()
        assert (await alive.next("live"))["id"] == "a"


async def _is_cut(system: System) -> bool:
    return SOCKETS._value.get() == 1


# --- the how-to -----------------------------------------------------------------------------------------------------------


async def test_the_program_of_the_how_to_misses_nothing(shared: System, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its connection is lost once, and the run that it follows ends."""
    text = (Path(__file__).parents[2] / "docs/how-to/follow-events-over-a-websocket.md").read_text("utf-8")
    [program] = re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    await shared.worker().register("alpha")
    run_id = await shared.start("alpha")
    came: list[int] = []
    async with AsyncExitStack() as stack:
        async with served(shared.container) as url:
            monkeypatch.setenv("TIDELOG_URL", url)
            monkeypatch.setenv("TIDELOG_API_KEY", shared.key)
            names: dict[str, Any] = {"__name__": "follow"}
            exec(compile(program, "follow.py", "exec"), names)
            following = asyncio.create_task(names["follow"]({"run": {"run_id": run_id}}, lambda _, e: came.append(e["position"])))
            stack.push_async_callback(end, following)
            await eventually(lambda: _any(came), "the first events")
            names["URL"] = (await shared.url()).replace("http", "ws", 1) + "/v1/ws"
        await shared.http.post(f"/v1/runs/{run_id}/cancel")
        await in_time(following, 30)
    assert came == [event.position for event in await shared.events(run_id)]


async def _any(found: list[int]) -> bool:
    return bool(found)


async def test_a_client_that_pauses_goes_on_where_it_was(shared: System, url: str) -> None:
    """What did not fit into its buffers comes when it reads again, without a word."""
    before = await head(shared)
    async with reader(url, shared.key, sock=await small_buffers(url), max_queue=1) as one:
        for id in ("a", "b"):
            await one.subscribe(id, after=str(before), types=["project.created"])
            await one.next("live", id=id)
        last = await projects(shared, 30, size=200_000)
        for id in ("a", "b"):
            assert positions(await one.events(last - before, id)) == list(range(before + 1, last + 1))
        assert not [message for message in one.came if message["type"] == "resync"]


async def small_buffers(url: str) -> tcp.socket:
    """A connection that takes little before it is read."""
    connection = tcp.socket()
    connection.setsockopt(tcp.SOL_SOCKET, tcp.SO_RCVBUF, 4096)
    connection.setblocking(False)
    await asyncio.get_running_loop().sock_connect(connection, (httpx2.URL(url).host, httpx2.URL(url).port))
    return connection
