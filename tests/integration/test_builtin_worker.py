"""A worker process with the built-in tools and with HTTP tools of a file: an agent calls them through the whole system."""

import json
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from uuid import uuid4

import pytest

from tests.integration.sdk_kit import KEY, Server, events_of, outcome, running, serving, until
from tests.kit import forked
from tests.kit.played_service import Service, answer, played_service
from tests.pace import in_time
from tests.pages import block
from tidelog import Agent, Client, Context

SECRET = "s3cret-of-the-service-0815"


class Caller(Agent):
    """Calls the tool of its input."""

    async def execute(self, ctx: Context) -> object:
        return await ctx.tool(ctx.input["tool"], **ctx.input["arguments"])


@asynccontextmanager
async def builtin_worker(url: str, folder: Path, *arguments: str, **environment: str) -> AsyncIterator[Path]:
    """The log of a worker process that is registered."""
    log = folder / f"builtin-{uuid4()}.log"
    with log.open("wb") as written:
        process = await forked.tidelog(
            *("worker", "--url", url, *arguments),
            env={**os.environ, "TIDELOG_API_KEY": KEY, "TIDELOG_LOG_FORMAT": "json", **environment},
            stdout=written,
            stderr=written,
        )

    def registered() -> bool:
        assert process.returncode is None, log.read_text()
        return "worker_registered" in log.read_text()

    try:
        await until(registered, 30)
        yield log
    finally:
        if process.returncode is None:
            process.terminate()
        assert await in_time(process.wait(), 20) == 0
        print(log.read_text()[-4000:])


@pytest.fixture
async def server(database_url: str, nats_url: str, tmp_path: Path) -> AsyncIterator[Server]:
    async with serving(database_url, nats_url, tmp_path) as server:
        yield server


@pytest.fixture
async def service() -> AsyncIterator[Service]:
    async with played_service(
        issues=lambda asked: answer(
            201, {"issue": {"number": 7, "sent": json.loads(asked.body), "by": asked.headers["authorization"]}}
        )
    ) as service:
        yield service


async def test_an_agent_gets_a_page_of_an_allowed_network_and_of_no_other(server: Server, service: Service, tmp_path: Path) -> None:
    input = {"tool": "http.get", "arguments": {"url": service.url("/page")}}
    async with Client(server.url, KEY) as client, running(server.url, Caller):
        async with builtin_worker(server.url, tmp_path, "--builtin", "--allow-network", "127.0.0.0/8"):
            run = await outcome(client, agent="caller", input=input)
            assert run.status == "completed", run.error
            assert run.result["status"] == 200 and run.result["body"]["target"] == "/page"
            now = await outcome(client, agent="caller", input={"tool": "time.now", "arguments": {}})
            assert now.result["zone"] == "UTC"
        before = len(service.asked)
        async with builtin_worker(server.url, tmp_path, "--builtin"):
            refused = await outcome(client, agent="caller", input=input)
        assert refused.status == "failed" and "--allow-network" in str(refused.error)
        [call] = await client.calls(refused.run_id)
        assert (call.attempts, call.error["type"], call.error["kind"]) == (1, "AddressRefusedError", "permanent")
        assert len(service.asked) == before, "nothing was sent"


async def test_a_tool_of_a_file_calls_with_a_secret_that_is_nowhere_else(server: Server, service: Service, tmp_path: Path) -> None:
    definition = {
        "name": "issues.open",
        "description": "Open an issue.",
        "method": "POST",
        "url": service.url("/issues"),
        "body": {"title": "{{title}}", "labels": "{{labels}}"},
        "parameters": {
            "type": "object",
            "properties": {"title": {"type": "string"}, "labels": {"type": "array", "items": {"type": "string"}}},
            "required": ["title"],
            "additionalProperties": False,
        },
        "auth": {"secret": "tracker"},
        "pick": "/issue",
    }
    file = tmp_path / "tools.json"
    file.write_text(json.dumps({"tools": [definition]}))
    given = ("--tools", str(file), "--allow-network", "127.0.0.1")
    async with Client(server.url, KEY) as client, running(server.url, Caller):
        async with builtin_worker(server.url, tmp_path, *given, TIDELOG_SECRET_TRACKER=SECRET) as log:
            run = await outcome(client, agent="caller", input={"tool": "issues.open", "arguments": {"title": "x", "labels": ["a"]}})
            wrong = await outcome(client, agent="caller", input={"tool": "issues.open", "arguments": {"titel": "x"}})
            assert run.status == "completed", run.error
            assert run.result == {"number": 7, "sent": {"title": "x", "labels": ["a"]}, "by": "[secret tracker]"}
            assert service.asked[-1].headers["authorization"] == f"Bearer {SECRET}"
            assert wrong.status == "failed" and "titel" in str(wrong.error) and len(service.asked) == 1
            assert SECRET not in log.read_text()
        events = [event async for event in client.events(follow=False)]
        assert not any(SECRET in str(event.data) for event in events)


async def test_a_service_with_too_many_calls_is_called_when_it_says(server: Server, service: Service, tmp_path: Path) -> None:
    told = [answer(429, {"why": "a rate"}, retry_after="1"), answer(body={"found": 1})]
    service.routes["/busy"] = lambda asked: told.pop(0)
    input = {"tool": "http.get", "arguments": {"url": service.url("/busy")}}
    async with Client(server.url, KEY) as client, running(server.url, Caller):
        async with builtin_worker(server.url, tmp_path, "--builtin", "--allow-network", "127.0.0.1"):
            run = await outcome(client, agent="caller", input=input)
        assert run.status == "completed" and run.result["body"] == {"found": 1}, run.error
        [event] = await events_of(client, run.run_id, "invocation.retry_scheduled")
    assert event.data["error"]["kind"] == "rate_limited" and event.data["delay_s"] >= 1


async def test_the_page_that_says_how(server: Server, service: Service, tmp_path: Path) -> None:
    """`docs/how-to/call-a-service.md`: its definition, its agent and its isolated tool, with the tracker on this machine."""
    page = "docs/how-to/call-a-service.md"
    host = "https://tracker.example.com/projects/{{project}}"
    text = block(page, "definition")
    assert host in text
    (tmp_path / "tools.json").write_text(text.replace(f"{host}/issues", service.url("/issues?of={{project}}")))
    (tmp_path / "agent.py").write_text(block(page, "agent"))
    (tmp_path / "isolated.py").write_text(block(page, "isolated"))
    files = ("--agents", str(tmp_path), "--tools", str(tmp_path / "tools.json"))
    given = (*files, "--allow-network", "127.0.0.1", "--only-host", "127.0.0.1")
    async with (
        Client(server.url, KEY) as client,
        running(server.url, Caller),
        builtin_worker(server.url, tmp_path, *given, TIDELOG_SECRET_TRACKER=SECRET, TIDELOG_SECRET_TRACKER_HOSTS="127.0.0.1"),
    ):
        run = await outcome(client, agent="reporter", input="broken link")
        assert (run.status, run.result) == ("completed", 7), run.error
        [asked] = service.asked
        assert asked.target == "/issues?of=docs" and json.loads(asked.body) == {"title": "broken link", "labels": ["from-agents"]}
        [call] = await client.calls(run.run_id)
        assert asked.headers["idempotency-key"] == str(call.invocation_id)
        counted = await outcome(client, agent="caller", input={"tool": "text.count", "arguments": {"text": "a b\nc"}})
        assert counted.result == {"words": 3, "lines": 2}
