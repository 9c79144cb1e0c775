"""Calls that come with the definition of their tool: what a worker carries out, and what it says of what it cannot."""

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.kit.played_service import Service, played_service
from tests.kit.scripted_work import answer, running, tool_work
from tests.kit.session_server import scripted
from tidelog.builtin import defined as module
from tidelog.builtin.defined import DefinedTools, UnusableDefinitionError
from tidelog.builtin.tools import built_in_tools
from tidelog.guard import Allowed, GuardedClient
from tidelog.guard.secrets import SecretMissingError, Secrets
from tidelog.tools import ToolContext

SECRET = "s3cret-of-the-service-0815"
CONTEXT = ToolContext(Path(), "key-of-the-call", 1)
PARAMETERS = {"type": "object", "properties": {"city": {"type": "string"}, "days": {"type": "integer", "default": 3}}}


@pytest.fixture
async def service() -> AsyncIterator[Service]:
    async with played_service() as service:
        yield service


@pytest.fixture
async def client() -> AsyncIterator[GuardedClient]:
    client = GuardedClient(Allowed.of(["127.0.0.1"]))
    yield client
    await client.aclose()


@pytest.fixture
def tools(client: GuardedClient) -> DefinedTools:
    return DefinedTools(client, Secrets({"TIDELOG_SECRET_WEATHER": SECRET}), built_in_tools(client, Secrets()))


def http(service: Service, version: str = "1", **request: Any) -> dict[str, Any]:
    url = service.url(f"/v{version}/{{{{city}}}}")
    return {"kind": "http", "version": version, "request": {"url": url, **request}, "parameters": PARAMETERS}


async def carried_out(tools: DefinedTools, definition: dict[str, Any], idempotent: bool = True, **arguments: Any) -> Any:
    tool = tools.tool("weather.get", definition, idempotent=idempotent, timeout_s=5)
    return await tool.invoke(arguments, CONTEXT)


async def test_each_version_is_carried_out_by_its_own_definition(tools: DefinedTools, service: Service) -> None:
    for version in ("1", "2", "1"):
        found = await carried_out(tools, http(service, version, query={"days": "{{days}}"}), city="Bergen")
        assert found["target"] == f"/v{version}/Bergen?days=3"


async def test_the_definition_counts_and_not_the_name_of_the_version(tools: DefinedTools, service: Service) -> None:
    first = await carried_out(tools, http(service), city="x")
    other = await carried_out(tools, http(service, query={"of": "another tenant"}), city="x")
    assert (first["target"], other["target"]) == ("/v1/x", "/v1/x?of=another+tenant")


async def test_what_the_server_leaves_open_has_the_values_of_a_file(tools: DefinedTools, service: Service) -> None:
    definition = http(
        service, headers={}, body=None, auth=None, pick="/headers", max_bytes=10 * 1024 * 1024, idempotency_header="Once"
    )
    assert (await carried_out(tools, {**definition, "parameters": {"type": "object"}} | {
        "request": {**definition["request"], "url": service.url("/plain")}
    }))["once"] == "key-of-the-call"  # fmt: skip


async def test_a_missing_secret_is_named_and_the_request_is_not_sent(tools: DefinedTools, service: Service) -> None:
    with pytest.raises(SecretMissingError, match="no secret 'tracker': set TIDELOG_SECRET_TRACKER in its environment"):
        await carried_out(tools, http(service, auth={"secret": "tracker"}), city="x")
    assert not service.asked
    found = await carried_out(tools, http(service, auth={"secret": "weather"}), city="x")
    assert found["headers"]["authorization"] == "[secret weather]"
    assert service.asked[0].headers["authorization"] == f"Bearer {SECRET}"


async def test_a_built_in_is_found_by_its_name(tools: DefinedTools) -> None:
    found = await carried_out(tools, {"kind": "builtin", "version": "1", "builtin": "time.now"}, zone="UTC")
    assert found["zone"] == "UTC"


@pytest.mark.parametrize(
    ("definition", "told"),
    [
        (
            {"kind": "builtin", "version": "1", "builtin": "time.then"},
            "there is no built-in 'time.then'; there are http.get, http",
        ),
        ({"kind": "python", "version": "1"}, "version '1' of the tool 'weather.get' is of the kind 'python', which this worker"),
        ({"kind": "unknown", "version": "7"}, "version '7' of the tool"),
        ({"kind": "http", "version": "1"}, "of the kind 'http'"),
        ({"kind": "http", "version": "1", "request": {"url": "https://x/", "of_later": 1}}, "of_later: Extra inputs"),
        ({"kind": "http", "version": "1", "request": {"url": "ftp://x/"}}, "url: http://HOST"),
    ],
)
async def test_what_cannot_be_carried_out_is_said(tools: DefinedTools, definition: dict[str, Any], told: str) -> None:
    with pytest.raises(UnusableDefinitionError) as caught:
        await carried_out(tools, definition)
    assert told in str(caught.value)


async def test_whether_a_request_may_be_sent_twice_is_said_by_the_call_and_else_by_its_method(
    tools: DefinedTools, service: Service
) -> None:
    def repeatable(method: str, idempotent: bool) -> bool:
        definition = http(service, method=method)
        tool: Any = tools.tool("weather.get", definition, idempotent=idempotent, timeout_s=5)
        return bool(tool.idempotent)

    assert [repeatable("POST", True), repeatable("POST", False), repeatable("GET", False)] == [True, False, True]


async def test_a_bounded_number_of_tools_is_kept(tools: DefinedTools, service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_KEPT", 2)
    made = [tools.tool("t", http(service, version), idempotent=True, timeout_s=None) for version in "123"]
    assert tools.tool("t", http(service, "3"), idempotent=True, timeout_s=None) is made[2]
    assert tools.tool("t", http(service, "1"), idempotent=True, timeout_s=None) is not made[0]


async def test_a_worker_says_what_it_serves_and_carries_out_what_comes(tools: DefinedTools, service: Service) -> None:
    async with scripted() as server, running(server, defined=tools):
        peer = await server.welcomed()
        assert peer.hello["serves"] == ["http", "builtin"]
        await peer.say(tool_work(1, "weather.get", arguments={"city": "Bergen"}, definition=http(service), idempotent=True))
        done = await answer(peer, "complete")
        assert done["result"]["target"] == "/v1/Bergen"
        await peer.say(tool_work(2, "weather.get", definition={"kind": "python", "version": "1"}))
        failed = await answer(peer, "fail")
        assert failed["error"]["type"] == "UnusableDefinitionError" and failed["error"]["kind"] == "permanent"
        await peer.say(tool_work(3, "weather.get", arguments={"city": "x"}, definition=http(service, auth={"secret": "tracker"})))
        failed = await answer(peer, "fail")
        assert "TIDELOG_SECRET_TRACKER" in failed["error"]["message"] and "effect" not in failed
    assert json.dumps(peer.frames, default=str).count(SECRET) == 0


async def test_a_worker_that_serves_nothing_says_nothing_of_it() -> None:
    async with scripted() as server, running(server):
        assert "serves" not in (await server.welcomed()).hello
