"""Event streams over a WebSocket: the same events as server-sent events, whatever a client does, and who may see them."""

import asyncio
import json
import random
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Any

import httpx2
import pytest
import pytest_asyncio
from websockets.exceptions import InvalidStatus

from api.metrics import AUDIT_REFUSALS
from domain.registry import REGISTRY
from domain.tenants import DEFAULT_TENANT_ID
from tests.integration.sockets_kit import Message, Reader, head, positions, projects, reader, socket
from tests.integration.system_kit import System, eventually, new_id, running, streaming
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
                while not (follower.over if "run_id" in follower.wanted else await _is_all(shared, follower)):
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


async def _is_all(system: System, follower: Follower) -> bool:
    """Whether it has all that its filter lets through."""
    wanted = follower.wanted
    events = await system.events(wanted.get("run_id") or wanted.get("root_id"))
    types, slices = wanted.get("types"), wanted.get("slices")
    found = [
        event for event in events
        if (types is None or event.topic in types) and (slices is None or event.topic.split(".")[0] in slices)
        and ("actor" not in wanted or json.loads(event.metadata)["actor"] == wanted["actor"])
    ]  # fmt: skip
    return len(found) == len(follower.had)


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
    last, had, frames = await projects(shared, 20), list[int](), 0
    await one.subscribe(after="0", types=["project.created"], window=5)
    frame = await one.next("events")
    while had[-1:] != [last]:
        await one.say("ack", id="a", cursor="0")
        await one.say("ping")
        await one.next("pong")
        came = [frame, *(message for message in one.came if message["type"] == "events")]
        one.came.clear()
        assert sum(len(message["events"]) for message in came) <= 5, "no more are under way, whatever is acknowledged twice"
        had += [position for message in came for position in positions(message["events"])]
        frames += len(came)
        if had[-1] != last:
            await one.say("ack", id="a", cursor=came[-1]["cursor"])
            frame = await one.next("events")
    assert had == sorted(set(had)) and len(had) > 20 and frames >= len(had) / 5
    await one.say("unsubscribe", id="a")
    assert (await one.next("unsubscribed"))["cursor"].split("-")[0] == str(last)


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
        ({"origin": "https://elsewhere.example"}, 403, "foreign-origin"),
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


async def test_a_browser_that_is_signed_in_needs_no_key_until_it_is_signed_out(shared: System, url: str) -> None:
    async with httpx2.AsyncClient(base_url=url, headers={"Origin": url}) as browser:
        assert (await browser.post("/v1/sessions", json={"key": shared.key})).status_code == 201
        cookie = {"Cookie": "; ".join(f"{name}={value}" for name, value in browser.cookies.items())}
        for origin in (None, "https://elsewhere.example"):
            with pytest.raises(InvalidStatus) as refused:
                async with socket(url, None, additional_headers=cookie, origin=origin):
                    pass
            assert refused.value.response.status_code == 403
        async with reader(url, None, additional_headers=cookie, origin=url) as one:
            await one.subscribe()
            last = await projects(shared, 1)
            assert positions(await one.events(1)) == [last]
            assert (await browser.delete("/v1/sessions/self")).status_code == 204
            assert (await one.next("error"))["problem"]["code"] == "unauthenticated"
            assert await one.until_closed() == 4401


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
