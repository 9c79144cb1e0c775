"""Tools that are data, through the whole system: whoever defines one finds it carried out by the workers that serve such tools."""

import asyncio
import json
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from api.assembly import platform
from tests.integration.sdk_kit import KEY, Server, end_of, event_of, events_of, outcome, running, serving, until
from tests.integration.system_kit import eventually
from tests.kit import forked
from tests.kit.forked import Forked
from tests.kit.played_service import Asked, Service, answer, played_service
from tests.pace import in_time
from tests.pages import block
from tidelog import Agent, Client, Context
from tidelog.errors import AuthenticationError
from tidelog.keys import make_key, new_key_id

SECRET = "s3cret-of-the-service-0815"
PARAMETERS = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"], "additionalProperties": False}


class Caller(Agent):
    """Calls the tool of its input."""

    async def execute(self, ctx: Context) -> object:
        return await ctx.tool(ctx.input["tool"], **ctx.input["arguments"])


@asynccontextmanager
async def builtin_worker(url: str, folder: Path, key: str = KEY, **environment: str) -> AsyncIterator[Forked]:
    """A worker process that is registered, and that may call this machine."""
    log = folder / f"builtin-{uuid4()}.log"
    with log.open("wb") as written:
        process = await forked.python(
            *("-m", "tidelog.worker", "--defined", "--allow-network", "127.0.0.1", "--log-format", "json"),
            env={**os.environ, "TIDELOG_URL": url, "TIDELOG_API_KEY": key, **environment},
            stdout=written,
            stderr=written,
        )

    def registered() -> bool:
        assert process.returncode is None, log.read_text()
        return "worker_registered" in log.read_text()

    try:
        await until(registered, 30)
        yield process
    finally:
        if process.returncode is None:
            process.terminate()
        await in_time(process.wait(), 20)
        print(log.read_text()[-4000:])
        assert SECRET not in log.read_text()


@pytest.fixture
async def server(database_url: str, nats_url: str, tmp_path: Path) -> AsyncIterator[Server]:
    async with serving(database_url, nats_url, tmp_path) as server:
        yield server


@pytest.fixture
async def service() -> AsyncIterator[Service]:
    async with played_service() as service:
        yield service


def declared(service: Service, version: str = "1", path: str = "weather", **fields: Any) -> dict[str, Any]:
    request = {"url": service.url(f"/{path}/{{{{city}}}}"), "query": {"of": version}, **fields.pop("request", {})}
    return {"version": version, "kind": "http", "parameters": PARAMETERS, "request": request, **fields}


async def ask(client: Client, tool: str, **arguments: Any) -> Any:
    run = await outcome(client, agent="caller", input={"tool": tool, "arguments": arguments})
    assert run.status == "completed", run.error
    return run.result


async def test_a_tool_is_called_from_its_definition_on_in_each_version_until_it_is_removed(
    server: Server, service: Service, tmp_path: Path
) -> None:
    async with Client(server.url, KEY) as client, running(server.url, Caller):
        await client.define_tool("weather.get", declared(service))
        waiting = await client.start_run(agent="caller", input={"tool": "weather.get", "arguments": {"city": "Oslo"}})
        await event_of(client, waiting.run_id, "invocation.requested")
        await client.add_tool_version("weather.get", declared(service, "2"))
        async with builtin_worker(server.url, tmp_path, TIDELOG_SECRET_WEATHER=SECRET):
            assert (await end_of(client, waiting.run_id)).result["target"] == "/weather/Oslo?of=1", "the version that was called"
            assert (await ask(client, "weather.get", city="Bergen"))["target"] == "/weather/Bergen?of=2"
            [listed] = [tool for tool in await client.tools() if tool.name == "weather.get"]
            assert listed.workers == 1
            # defined while the worker runs
            clock = {"version": "1", "kind": "builtin", "builtin": "time.now", "parameters": {"type": "object"}}
            await client.define_tool("clock", clock)
            assert (await ask(client, "clock"))["zone"] == "UTC"
            auth = {"request": {"auth": {"secret": "weather"}}}
            await client.define_tool("secret", declared(service, **auth))
            assert (await ask(client, "secret", city="x"))["headers"]["authorization"] == "[secret weather]"
            assert service.asked[-1].headers["authorization"] == f"Bearer {SECRET}"
            # docs/how-to/call-a-service.md
            page = block("docs/how-to/call-a-service.md", "weather").replace("https://api.example.com", service.url().rstrip("/"))
            await client.define_tool("weather.of_page", json.loads(page))
            assert (await ask(client, "weather.of_page", city="Bergen"))["target"] == "/weather/Bergen"
            await client.define_tool("without", declared(service, request={"auth": {"secret": "of_nobody"}}))
            failed = await outcome(client, agent="caller", input={"tool": "without", "arguments": {"city": "x"}})
            assert failed.status == "failed" and "TIDELOG_SECRET_OF_NOBODY" in str(failed.error)
            await client.remove_tool("weather.get")
            gone = await outcome(client, agent="caller", input={"tool": "weather.get", "arguments": {"city": "x"}})
            assert gone.status == "failed" and "no tool 'weather.get'" in str(gone.error)
        events = [event async for event in client.events(follow=False)]
        assert not any(SECRET in str(event.data) for event in events)


async def test_a_call_whose_worker_is_killed_is_made_again_by_another_one_only_if_it_may_be(
    server: Server, service: Service, tmp_path: Path
) -> None:
    asked: asyncio.Queue[Asked] = asyncio.Queue()
    free = asyncio.Event()
    async with played_service(slow=lambda request: answer(body={"target": request.target})) as slow:

        async def held(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            head = (await reader.readuntil(b"\r\n\r\n")).decode().splitlines()
            headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:])}
            asked.put_nowait(Asked(*head[0].split(" ")[:2], headers, b""))
            await free.wait()
            writer.write(answer(body={"asked": asked.qsize()}))
            writer.close()

        holding = await asyncio.start_server(held, "127.0.0.1", 0)
        there = f"http://127.0.0.1:{holding.sockets[0].getsockname()[1]}/pay/{{{{city}}}}"
        once = declared(slow, request={"url": there, "method": "POST"})
        again = declared(
            slow, request={"url": there, "method": "POST", "idempotency_header": "Idempotency-Key"}, idempotent=True
        )  # fmt: skip
        async with Client(server.url, KEY) as client, running(server.url, Caller):
            await client.define_tool("pay.once", once)
            await client.define_tool("pay.again", again)
            async with builtin_worker(server.url, tmp_path) as first:
                runs = [
                    await client.start_run(agent="caller", input={"tool": tool, "arguments": {"city": tool}})
                    for tool in ("pay.once", "pay.again")
                ]
                begun = [await in_time(asked.get(), 20), await in_time(asked.get(), 20)]
                async with builtin_worker(server.url, tmp_path):
                    first.kill()
                    repeated = await in_time(asked.get(), 60)
                    free.set()
                    assert (await end_of(client, runs[1].run_id)).status == "completed"
                    [before] = [one for one in begun if one.target == repeated.target]
                    assert repeated.target == "/pay/pay.again?of=1"
                    assert repeated.headers["idempotency-key"] == before.headers["idempotency-key"]
                    await event_of(client, runs[0].run_id, "invocation.became_ambiguous")
                    assert asked.empty() and len(await events_of(client, runs[0].run_id, "invocation.attempt_started")) == 1
        holding.close()


async def test_tools_of_one_name_of_two_tenants_are_never_mixed(
    server: Server, service: Service, database_url: str, tmp_path: Path
) -> None:
    made = make_key(new_key_id())
    await platform.create_tenant(database_url, new_key_id(), "acme", made.key_id, made.sha256)
    async with Client(server.url, KEY) as mine, Client(server.url, made.text) as theirs:

        async def known() -> bool:
            try:
                return await theirs.agents() is not None
            except AuthenticationError:  # the server has not read of the key yet
                return False

        await eventually(known, "the key of the other tenant")
        async with (
            running(server.url, Caller),
            running(server.url, Caller, key=made.text),
            builtin_worker(server.url, tmp_path),
            builtin_worker(server.url, tmp_path, made.text),
        ):
            for client, path in ((mine, "mine"), (theirs, "theirs")):
                await client.define_tool("weather.get", declared(service, path=path))
            found = await asyncio.gather(*(ask(client, "weather.get", city=str(n)) for n in range(10) for client in (mine, theirs)))
            assert [one["target"] for one in found] == [f"/{whose}/{n}?of=1" for n in range(10) for whose in ("mine", "theirs")]
