"""Breakers against PostgreSQL and NATS: over HTTP, in two api processes, and with a process that dies while it tries calls."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

import httpx2
import pytest_asyncio

from tests.integration.session_kit import Message, SocketWorker, offer, worker_at
from tests.integration.system_kit import System, eventually, new_id, running
from tests.integration.test_removed_projects import is_refused
from tidelog.client import Client

DOWN = {"type": "ConnectionError", "message": "the service is down", "kind": "transient"}


def name() -> str:
    return f"t{new_id().hex}"


def declared(tool: str, **policy: Any) -> Message:
    return {"name": tool, "max_attempts": 1, **({"policy": policy} if policy else {})}


async def force(http: httpx2.AsyncClient, tool: str, state: str, **headers: str) -> httpx2.Response:
    return await http.post(f"/v1/tools/{tool}/breaker", json={"state": state, "reason": "planned"}, headers=headers)


async def state_of(http: httpx2.AsyncClient, tool: str) -> str:
    return str((await http.get(f"/v1/tools/{tool}/breaker")).json()["state"])


# --- over HTTP ----------------------------------------------------------------------------------------------------------------


async def test_a_breaker_is_held_and_shown(shared: System) -> None:
    tool = name()
    await offer(await shared.url(), shared.key, tools=[declared(tool, breaker={"failures": 2, "open_s": 7})])
    path = f"/v1/tools/{tool}/breaker"
    fresh = await shared.http.get(path)
    assert (fresh.status_code, fresh.headers["etag"]) == (200, '"v0"')
    assert (fresh.json()["state"], fresh.json()["since"], fresh.json()["policy"]["open_s"]) == ("closed", None, 7)
    held = await force(shared.http, tool, "open", **{"Tidelog-On-Behalf-Of": "ada"})
    assert (held.status_code, held.json()["version"], held.json()["tool"]) == (200, 1, tool), held.text
    again = await force(shared.http, tool, "open")
    assert again.json()["version"] == 1, "nothing has changed"
    shown = (await shared.http.get(path)).json()
    assert (shown["state"], shown["forced"], shown["reason"], shown["on_behalf_of"]) == ("open", "open", "planned", "ada")
    assert shown["by"].startswith("key:") and shown["tried_at"] is None
    position = {"Tidelog-Position": held.headers["tidelog-position"]}
    listed = (await shared.http.get("/v1/breakers", params={"state": "open", "limit": 1000}, headers=position)).json()["data"]
    assert [one for one in listed if one["tool"] == tool] == [{k: v for k, v in shown.items() if k not in ("policy", "counts")}]
    await force(shared.http, tool, "auto")
    assert await state_of(shared.http, tool) == "closed"
    async with Client(await shared.url(), shared.key) as client:
        await client.force_breaker(tool, "closed", reason="they say so")
        found = await client.breaker(tool)
        assert (found.state, found.forced, found.reason) == ("closed", "closed", "they say so")
        assert tool in {one.tool for one in await client.breakers()}


async def test_what_is_not_there_or_not_said_is_refused(shared: System) -> None:
    tool = name()
    is_refused(await shared.http.get(f"/v1/tools/{tool}/breaker"), 404, "not-found")
    is_refused(await force(shared.http, tool, "open"), 404, "not-found")
    is_refused(await force(shared.http, tool, "ajar"), 422, "invalid-request")
    is_refused(await shared.http.post(f"/v1/tools/{tool}/breaker", json={"state": "open"}), 422, "invalid-request")
    _, foreign = await shared.tenant(name())
    await offer(await shared.url(), shared.key, tools=[declared(tool)])
    await force(shared.http, tool, "open")
    await shared.settled()
    async with shared.client(foreign) as stranger:
        is_refused(await stranger.get(f"/v1/tools/{tool}/breaker"), 404, "not-found")
        is_refused(await force(stranger, tool, "auto"), 404, "not-found")
        assert (await stranger.get("/v1/breakers")).json()["data"] == []


# --- two processes ------------------------------------------------------------------------------------------------------------


class Pair:
    """Two api processes, each with a worker that offers the agent and the tools."""

    def __init__(self, systems: list[System], workers: list[SocketWorker], tool: str, spare: str) -> None:
        self.systems, self.workers, self.tool, self.spare = systems, workers, tool, spare

    async def call(self, tool: str, key: str = "k") -> tuple[str, Message]:
        """An agent calls a tool. Returns the invocation, and the agent's work."""
        await self.systems[0].start("caller")
        await self.workers[0].credit(agent=1)
        work = await self.workers[0].work()
        called = await self.workers[0].done(work, "call", key=key, tool=tool, arguments={})
        return str(called["invocation_id"]), work

    async def fails(self, number: int) -> None:
        await self.call(self.tool)
        await self.workers[number].credit(tool=1)
        work = await self.workers[number].work("tool")
        assert work["tool"] == self.tool, work
        await self.workers[number].done(work, "fail", error=DOWN)
        await self.workers[number].credit(tool=1)
        instead = await self.workers[number].work("tool")
        assert (instead["work"], instead["tool"]) == (work["work"], self.spare)
        await self.workers[number].done(instead, "complete", result="spare")

    async def both_are(self, state: str) -> None:
        async def obeyed() -> bool:
            states = [system.container.hosting.breakers.states() for system in self.systems]
            return all(one[state] == 1 for one in states)

        await eventually(obeyed, f"both processes at {state}")

    async def invocation(self, invocation_id: str) -> dict[str, Any]:
        return dict((await self.systems[0].http.get(f"/v1/invocations/{invocation_id}")).json())


@pytest_asyncio.fixture
async def pair(system: System, nats_url: str) -> AsyncIterator[Pair]:
    tool, spare = name(), name()
    async with AsyncExitStack() as stack:
        other = await stack.enter_async_context(running(system.database_url, nats_url, roles=("api",), key=system.key))
        workers = []
        for number, process in enumerate((system, other)):
            worker = await stack.enter_async_context(worker_at(await process.url(), system.key, name=f"w{number}"))
            policy = {"breaker": {"failures": 3, "open_s": 4}, "fallbacks": [spare]}
            await worker.hello(["caller"], [declared(spare), declared(tool, **policy)])
            workers.append(worker)
        yield Pair([system, other], workers, tool, spare)


async def test_two_processes_count_together_obey_and_try_again(pair: Pair) -> None:
    await pair.fails(0)
    await pair.fails(1)
    await pair.fails(1)
    await pair.both_are("open")
    called, _ = await pair.call(pair.tool)
    await pair.workers[1].credit(tool=1)
    work = await pair.workers[1].work("tool")
    assert work["tool"] == pair.spare, "the call goes on with the next tool"
    await pair.workers[1].done(work, "complete", result="spare")
    answered = await pair.invocation(called)
    assert (answered["status"], answered["tool"], answered["fallback"], answered["result"]) == (
        "succeeded", pair.tool, pair.spare, "spare",
    )  # fmt: skip
    run = await pair.systems[0].run(answered["run_id"])
    [shown] = [call for step in run["steps"] for call in step["calls"]]
    assert (shown["tool"], shown["fallback"]) == (pair.tool, pair.spare)

    async def tried() -> Message:
        """Calls that come too early go on with the next tool."""
        await pair.call(pair.tool)
        await pair.workers[1].credit(tool=1)
        work = await pair.workers[1].work("tool")
        if work["tool"] == pair.spare:
            await pair.workers[1].done(work, "complete", result="spare")
            return {}
        return work

    work = await eventually(tried, "a call that is tried")
    await pair.both_are("half_open")
    await pair.workers[1].done(work, "complete", result="back")
    await pair.both_are("closed")


async def test_a_process_that_dies_while_it_tries_does_not_block_the_tool(system: System, nats_url: str) -> None:
    tool, url = name(), await system.url()
    policy = {"breaker": {"failures": 1, "open_s": 1}}
    async with worker_at(url, system.key, name="w0") as worker:
        await worker.hello(["caller"], [declared(tool, **policy) | {"max_attempts": 20}])
        pair = Pair([system], [worker], tool, tool)
        async with (
            running(system.database_url, nats_url, roles=("api",), key=system.key) as other,
            worker_at(await other.url(), system.key, name="w1") as prober,
        ):
            await prober.hello([], [declared(tool, **policy) | {"max_attempts": 20}])
            await pair.call(tool)
            await prober.credit(tool=1)
            await prober.done(await prober.work("tool"), "fail", error=DOWN)
            await prober.credit(tool=1)
            await prober.work("tool")  # the retry is tried
            assert await state_of(system.http, tool) == "half_open"
        await pair.call(tool)
        await worker.credit(tool=1)
        work = await worker.work("tool")
        await worker.done(work, "complete", result=1)

        async def closed() -> bool:
            return await state_of(system.http, tool) == "closed"

        await eventually(closed, "the breaker closed")
