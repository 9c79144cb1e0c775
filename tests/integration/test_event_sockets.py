"""Event streams over a WebSocket: the same events as server-sent events, whatever a client does, and who may see them."""

import asyncio
import json
import random
import socket as tcp
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from typing import Any

import httpx2
import pytest
import pytest_asyncio
from websockets.exceptions import InvalidStatus

from api.http.sockets.endpoint import EventSockets
from api.http.sockets.limits import MAX_FRAME, MAX_SUBSCRIPTIONS
from api.metrics import AUDIT_REFUSALS, SOCKETS
from domain.projects import CreateProject
from domain.registry import REGISTRY
from domain.tenants import DEFAULT_TENANT_ID
from tests.integration.parts_kit import begun_elsewhere, live_feed
from tests.integration.sockets_kit import Message, Reader, positions, reader, socket
from tests.integration.system_kit import System, eventually, new_id, running, served, streaming
from tests.pace import within


@pytest_asyncio.fixture(scope="module", loop_scope="session", autouse=True)
async def agent(shared: System) -> None:
    """An agent that may be asked for, and does nothing."""
    await shared.worker().register("alpha")


@pytest_asyncio.fixture
async def url(shared: System) -> str:
    return await shared.url()


@pytest_asyncio.fixture
async def one(shared: System, url: str) -> AsyncIterator[Reader]:
    async with reader(url, shared.key) as found:
        yield found


async def projects(system: System, count: int, size: int = 10) -> int:
    """Appends events, and returns the position of the last one."""
    position = 0
    for _ in range(count):
        position = await system.command(CreateProject(project_id=new_id(), name="p", metadata={"x": "x" * size}))
    return position


async def head(system: System) -> int:
    return await system.container.feed.head()


# --- the same as server-sent events ---------------------------------------------------------------------------------------


@dataclass
class Follower:
    """A client's copy of a stream, across subscriptions, connections and processes."""

    wanted: dict[str, Any]
    cursor: str = "0"
    had: list[Message] = field(default_factory=list)
    over: bool = False

    def take(self, message: Message) -> None:
        self.had += message.get("events", ())
        self.cursor = message["cursor"] or self.cursor
        self.over = message["type"] == "end"


class Client:
    """One connection with followers, which come and go by chance."""

    def __init__(self, urls: list[str], key: str, chance: random.Random) -> None:
        self._urls, self._key, self._chance = urls, key, chance
        self._stack = AsyncExitStack()
        self._on: dict[str, Follower] = {}
        self._ids = 0
        self.reader: Reader

    async def connect(self) -> None:
        self._stack, self._on = AsyncExitStack(), {}
        self.reader = await self._stack.enter_async_context(reader(self._chance.choice(self._urls), self._key))

    async def drop(self) -> None:
        """The connection is gone, with whatever was on its way."""
        self.reader.connection.transport.abort()
        await self._stack.aclose()

    async def follow(self, follower: Follower) -> None:
        if follower.over or follower in self._on.values():
            return
        self._ids += 1
        id, window = f"s{self._ids}", self._chance.choice([None, 1, 7])
        self._on[id] = follower
        await self.reader.say("subscribe", id=id, filter=follower.wanted, after=follower.cursor, window=window)

    async def leave(self) -> None:
        if self._on:
            await self.reader.say("unsubscribe", id=self._chance.choice(list(self._on)))

    async def take(self) -> None:
        """Takes one message, if one comes soon."""
        try:
            async with asyncio.timeout(0.02):
                message = await self.reader.next()
        except TimeoutError:
            return
        id = message["id"]
        if (follower := self._on.get(id)) is None:
            assert message["type"] == "unsubscribed"
            return
        assert message["type"] in ("subscribed", "events", "live", "end", "unsubscribed"), message
        follower.take(message)
        if message["type"] == "events":
            await self.reader.say("ack", id=id, cursor=message["cursor"])
        if message["type"] in ("end", "unsubscribed"):
            del self._on[id]


@pytest.mark.parametrize("seed", range(2))
async def test_whatever_a_client_does_it_has_the_same_events_as_one_of_server_sent_events(
    shared: System, nats_url: str, seed: int
) -> None:
    chance = random.Random(seed)
    run_id = await shared.start("alpha")
    filters: list[dict[str, Any]] = [
        {}, {"types": ["project.created"]}, {"slices": ["run", "agent_run"]}, {"run_id": run_id}, {"root_id": run_id},
        {"run_id": run_id, "types": ["run.cancelled"]}, {"actor": "test"},
    ]  # fmt: skip
    followers = [Follower(wanted) for wanted in filters]
    async with running(shared.database_url, nats_url, roles=("api",), key=shared.key) as other:
        client = Client([await shared.url(), await other.url()], shared.key, chance)
        await client.connect()
        for turn in range(60):
            await client.follow(chance.choice(followers))
            if turn % 3 == 0:
                await projects(shared, 1)
            if chance.random() < 0.1:
                await client.drop()
                await client.connect()
            elif chance.random() < 0.3:
                await client.leave()
            for _ in range(chance.randrange(3)):
                await client.take()
            if turn == 40:
                await shared.http.post(f"/v1/runs/{run_id}/cancel")
        await shared.settled()
        async with within(30):
            for follower in followers:
                while not (follower.over or await _is_all(shared, follower.wanted, len(follower.had))):
                    await client.follow(follower)
                    await client.take()
        await client.drop()
    for follower in followers:
        assert follower.had == await _sent_by_sse(shared, follower.wanted, len(follower.had)), follower.wanted
    assert followers[3].over and len(followers[0].had) == await head(shared) and all(follower.had for follower in followers)


async def _sent_by_sse(system: System, wanted: dict[str, Any], count: int) -> list[Message]:
    """The first events of the stream that is described in the same way."""
    path = f"/v1/runs/{wanted['run_id']}/events" if "run_id" in wanted else "/v1/events"
    query = {name: wanted[name] for name in ("root_id", "actor") if name in wanted}
    types = wanted.get("types") or [name for name in REGISTRY.events if name.split(".")[0] in wanted.get("slices", ())]
    if types:
        query["types"] = ",".join(types)
    async with streaming(await system.url(), system.key, path, after="0", **query) as stream:
        return [json.loads((await stream.next()).data) for _ in range(count)]


async def _is_all(system: System, wanted: dict[str, Any], count: int) -> bool:
    """Whether a filter lets so many events through."""
    events = await system.events(wanted.get("run_id") or wanted.get("root_id"))
    types, slices = wanted.get("types"), wanted.get("slices")
    found = [
        event for event in events
        if (types is None or event.topic in types) and (slices is None or event.topic.split(".")[0] in slices)
        and ("actor" not in wanted or json.loads(event.metadata)["actor"] == wanted["actor"])
    ]  # fmt: skip
    return len(found) == count


async def test_from_now_on_means_from_now_on(shared: System, one: Reader) -> None:
    await shared.settled()
    at = await head(shared)
    answer = await one.subscribe()
    assert int(answer["cursor"].split("-")[0]) == at
    assert (await one.next("live"))["cursor"] == answer["cursor"]
    last = await projects(shared, 1)
    [event] = await one.events(1)
    assert (event["position"], event["type"]) == (last, "project.created")


async def test_a_rare_filter_goes_on_from_where_it_has_looked(shared: System, one: Reader) -> None:
    """Its cursor is not that of its last event, which may be far back."""
    await projects(shared, 3)
    at = await shared.settled()
    await one.subscribe(after="0", types=["tenant.created"])
    assert positions(await one.events(1)) == [1]
    assert int((await one.next("live"))["cursor"].split("-")[0]) == at


async def test_a_subscription_of_a_run_ends_with_the_run(shared: System, one: Reader) -> None:
    run_id = await shared.start("alpha")
    await one.subscribe("a", after="0", run_id=run_id)
    await one.next("live", id="a")
    await shared.http.post(f"/v1/runs/{run_id}/cancel")
    end = await one.next("end", id="a")
    had = [event for message in one.came if message["type"] == "events" for event in message["events"]]
    assert positions(had) == [event.position for event in await shared.events(run_id)]
    assert int(end["cursor"].split("-")[0]) >= had[-1]["position"]
    one.came.clear()
    await one.subscribe("a", run_id=run_id, after=end["cursor"])
    assert (await one.next(id="a"))["type"] == "end", "the id is free, and nothing follows"


async def test_a_client_says_how_much_may_be_on_its_way(shared: System, one: Reader) -> None:
    """So a page of a browser that is slow has not more than that in its memory."""
    await projects(shared, 20)
    await one.subscribe(after="0", types=["project.created"], window=5)
    first = await one.next()
    assert len(first["events"]) == 5
    await one.say("ping")
    assert (await one.next())["type"] == "pong", "no event came before"
    await one.say("ack", id="a", cursor=first["cursor"])
    second = await one.next("events")
    assert len(second["events"]) == 5 and second["events"][0]["position"] > first["events"][-1]["position"]
    await one.say("ack", id="a", cursor=first["cursor"])
    await one.say("ping")
    assert (await one.next())["type"] == "pong", "the same again gives no room"
    await one.say("unsubscribe", id="a")
    assert (await one.next("unsubscribed"))["cursor"] == second["cursor"]


# --- who sees what --------------------------------------------------------------------------------------------------------


async def made(system: System, path: str, **body: Any) -> dict[str, Any]:
    answer = await system.http.post(path, json=body)
    assert answer.status_code == 201, answer.text
    await system.settled()
    return dict(answer.json())


async def test_a_narrowed_key_sees_its_projects_and_no_other(shared: System, url: str) -> None:
    mine, theirs = [(await made(shared, "/v1/projects", name=name))["project_id"] for name in ("mine", "theirs")]
    key = (await made(shared, "/v1/keys", label="k", role="auditor", projects=[mine]))["key"]
    foreign = await shared.start("alpha", project_id=theirs)
    async with reader(url, key) as one:
        await one.subscribe("all", after="0")
        refused = await one.subscribe("run", run_id=foreign, after="0")
        unknown = await one.subscribe("run", run_id=str(new_id()), after="0")
        assert (refused["problem"]["code"], refused["ended"]) == ("not-found", True)
        assert refused["problem"]["detail"].replace(foreign, "") == unknown["problem"]["detail"].partition("run ")[0] + "run "
        await one.next("live", id="all")
        own = await shared.start("alpha", project_id=mine)
        await one.subscribe("own", run_id=own, after="0")
        last = await shared.start("alpha", project_id=theirs)
        await shared.http.post(f"/v1/runs/{own}/cancel")
        await one.next("end", id="own")
        await shared.settled()
        seen = [event.position for root in (mine, own) for event in await shared.events(root)]

        async def all_came() -> bool:
            await one.say("ping")
            await one.next("pong")
            came = [event for m in one.came if m["type"] == "events" and m["id"] == "all" for event in m["events"]]
            assert not {event["rootid"] for event in came} - {mine, own}
            return sorted(positions(came)) == positions(came) == sorted(seen)

        await eventually(all_came, f"events of the own projects alone, also after {last}")


async def test_another_tenant_sees_its_own(shared: System, url: str) -> None:
    run_id = await shared.start("alpha")
    tenant_id, key = await shared.tenant("other")
    async with reader(url, key) as one:
        await one.subscribe("all", after="0")
        await one.subscribe("root", after="0", root_id=run_id)
        refused = await one.subscribe("run", after="0", run_id=run_id)
        assert refused["problem"]["code"] == "not-found"
        events = await one.events(1, "all")
        await projects(shared, 1)
        assert {event["tenantid"] for event in events} == {str(tenant_id)} and str(DEFAULT_TENANT_ID) not in json.dumps(events)
        await one.say("ping")
        await one.next("pong")
        assert not [m for m in one.came if m["type"] == "events"]


@pytest.mark.parametrize(
    ("options", "status", "code"),
    [
        ({"key": None}, 401, "unauthenticated"),
        ({"key": "nonsense"}, 401, "unauthenticated"),
        ({"origin": "https://elsewhere.example"}, 403, "forbidden"),
        ({"subprotocols": None}, 422, "invalid-command"),
        ({"path": "/v1/ws?after=0"}, 422, "invalid-command"),
    ],
    ids=["no-key", "wrong-key", "other-site", "no-protocol", "parameters"],
)
async def test_a_refused_request_gets_a_problem(shared: System, url: str, options: dict[str, Any], status: int, code: str) -> None:
    key = options.pop("key", shared.key)
    with pytest.raises(InvalidStatus) as refused:
        async with socket(url, key, **options):
            pass
    response = refused.value.response
    assert response.status_code == status and response.headers["content-type"] == "application/problem+json"
    problem = json.loads(response.body)
    assert (problem["code"], problem["instance"]) == (code, "/v1/ws")


async def test_a_key_of_a_worker_may_not_read_events(shared: System, url: str) -> None:
    key = (await made(shared, "/v1/keys", label="w", role="worker"))["key"]
    before = refusals()
    with pytest.raises(InvalidStatus) as refused:
        async with socket(url, key):
            pass
    assert refused.value.response.status_code == 403
    assert "events.read" in refused.value.response.body.decode()
    assert refusals() == before + 1, "counted for the audit trail"


def refusals() -> float:
    return float(AUDIT_REFUSALS.labels("known")._value.get())


async def test_without_an_upgrade_the_answer_says_so(shared: System) -> None:
    answer = await shared.http.get("/v1/ws")
    assert (answer.status_code, answer.json()["code"]) == (426, "upgrade-required") and "tidelog.events.v1" in answer.text


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


# --- slow clients, histories ----------------------------------------------------------------------------------------------


async def test_a_client_that_does_not_read_is_told_and_misses_nothing(shared: System) -> None:
    """Each of its subscriptions has what it has got without a gap, and a cursor with which the rest comes."""
    async with live_feed(shared, queue_events=20) as feed, served(replace(shared.container, live=feed)) as url:
        before = await head(shared)
        connection = tcp.socket()
        connection.setsockopt(tcp.SOL_SOCKET, tcp.SO_RCVBUF, 4096)
        connection.setblocking(False)
        await asyncio.get_running_loop().sock_connect(connection, (httpx2.URL(url).host, httpx2.URL(url).port))
        async with reader(url, shared.key, sock=connection, max_queue=1) as one:
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
                assert positions(had) == list(range(before + 1, before + 1 + len(had))) and had[-1]["position"] < last
                one.came = [message for message in one.came if message["id"] != id]
                await one.subscribe(id, types=["project.created"], after=over["cursor"])
                assert positions(await one.events(last - had[-1]["position"], id)) == list(range(had[-1]["position"] + 1, last + 1))


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
