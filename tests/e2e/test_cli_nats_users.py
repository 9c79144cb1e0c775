"""`tidelog nats grant|revoke|config` with a real server that works meanwhile: on the embedded NATS, and on one's own."""

import asyncio
import contextlib
import json
import signal
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import httpx2
import pytest
from nats.aio.client import Client

from adapters.embedded.nats_rights import SERVER_USER, passwords_in
from adapters.nats import NatsSecurity
from adapters.nats.connection import NatsRefused, probe
from tests.chaos.server import Server, running_server
from tests.e2e.cli_kit import command
from tests.integration.nats_kit import running_nats
from tests.integration.system_kit import eventually, nats_client_of
from tests.pace import ANSWER_S, within

AGENT = """
from tidelog import Agent, tool

@tool("double", idempotent=True)
async def double(number: int) -> int:
    return 2 * number

class Doubler(Agent):
    name = "doubler"
    async def execute(self, ctx):
        return await ctx.tool("double", number=ctx.input)
"""
NOBODY = "0198c0de-0000-7000-8000-00000000000f"


@pytest.fixture
def agents(tmp_path: Path) -> Path:
    folder = tmp_path / "agents"
    folder.mkdir()
    (folder / "doubler.py").write_text(AGENT)
    return folder


Tidelog = Callable[..., Any]


def tidelog_at(server: Server, environment: dict[str, str]) -> Tidelog:
    async def run(*arguments: str, exit_code: int = 0) -> Any:
        """The document of a command with --json, else its text."""
        where = (*arguments, "--data-dir", str(server.folder / "data"))
        done = await asyncio.to_thread(command, *where, cwd=server.folder, **environment)
        assert done.returncode == exit_code, done.stdout + done.stderr
        assert "Traceback" not in done.stderr and "Task was destroyed" not in done.stderr, done.stderr
        return json.loads(done.stdout) if "--json" in arguments and not exit_code else done.stdout + done.stderr

    return run


async def work(server: Server) -> None:
    """Runs of all classes, with calls of a tool, each to its end."""
    async with httpx2.AsyncClient(base_url=server.url, timeout=ANSWER_S, headers={"Authorization": f"Bearer {server.key}"}) as http:
        for priority in ("normal", "high", "low"):
            body = {"agent": "doubler", "input": 21, "priority": priority}

            async def ended(body: dict[str, Any] = body) -> dict[str, Any] | None:
                started = await http.post("/v1/runs", json=body, headers={"Prefer": "wait=20"})
                return None if started.status_code == 404 else started.json()["run"]  # the agent is not registered yet

            run = await eventually(ended, "a run", 60)
            assert run["status"] == "completed", run


async def tenant_of(tidelog: Tidelog, name: str) -> tuple[str, str]:
    """Another tenant, and its key."""
    made = await tidelog("tenants", "create", name, "--json")

    async def known() -> bool:
        listed = await tidelog("tenants", "list", "--json")
        return made["tenant_id"] in {one["tenant_id"] for one in listed}

    await eventually(known, "the tenant")
    return made["tenant_id"], made["key"]


async def add_project(server: Server, key: str, name: str) -> None:
    async with httpx2.AsyncClient(base_url=server.url, timeout=ANSWER_S, headers={"Authorization": f"Bearer {key}"}) as http:

        async def made() -> bool:  # the key may be younger than what the api knows
            return (await http.post("/v1/projects", json={"name": name})).status_code == 201

        await eventually(made, "a project")


@contextlib.asynccontextmanager
async def subscribed(url: str, granted: dict[str, Any]) -> AsyncIterator[tuple[Client, Any]]:
    client = await nats_client_of(url)
    try:
        yield client, await client.jetstream(timeout=ANSWER_S).pull_subscribe_bind(granted["consumer"], granted["stream"])
    finally:
        await client.close()


async def next_of(subscription: Any, topic: str, name: str) -> dict[str, Any]:
    """Takes events until one of a topic and a name comes, all of which are acknowledged."""
    async with within(30):
        while True:
            with contextlib.suppress(TimeoutError):
                for message in await subscription.fetch(1, timeout=5):
                    await message.ack()
                    event: dict[str, Any] = json.loads(message.data)
                    if event["type"].endswith(topic) and event["data"].get("name") == name:
                        return event


def violations(log: Path) -> list[str]:
    """What NATS has refused, except to the doctor, who tries."""
    return [line for line in log.read_text().splitlines() if "iolation" in line and "tidelog-doctor" not in line]


async def test_a_tenant_subscribes_at_the_embedded_nats_while_the_server_works(agents: Path) -> None:
    environment = {"TIDELOG_FANOUT": "true"}
    async with running_server(agents, environment=environment) as server:
        tidelog = tidelog_at(server, environment)
        await work(server)
        tenant, key = await tenant_of(tidelog, "acme")
        assert "TENANT: give the id" in await tidelog("nats", "grant", "acme", exit_code=2)
        assert f"there is no tenant {NOBODY}" in await tidelog("nats", "grant", NOBODY, exit_code=1)
        assert f"{NOBODY} has no user" in await tidelog("nats", "revoke", NOBODY, exit_code=1)
        assert "--url-file" in await tidelog("nats", "grant", tenant, "--url-file", "/nowhere/url", exit_code=2)

        url_file = server.folder / "url"
        granted = await tidelog("nats", "grant", tenant, "--url-file", str(url_file), "--json")
        url = url_file.read_text().strip()
        assert url_file.stat().st_mode & 0o777 == 0o600 and granted["new"] and not {"url", "password"} & granted.keys()
        async with subscribed(url, granted) as (client, subscription):
            await add_project(server, key, "first")
            event = await next_of(subscription, "project.created", "first")
            assert event["tenantid"] == tenant
            again = await tidelog("nats", "grant", tenant, "--json")
            assert not again["new"] and "password" not in again, "shown once"
            other, _ = await tenant_of(tidelog, "other")
            shown = await tidelog("nats", "grant", other)
            assert f"nats://tenant-{other}:" in shown and "only time" in shown
            await add_project(server, key, "second")
            await next_of(subscription, "project.created", "second")
            assert client.stats["reconnects"] == 0, "a reload cuts nobody who stays"
        server.kill("nats")
        async with within(60):
            while True:
                with contextlib.suppress(Exception):
                    async with subscribed(url, granted) as (_, subscription):
                        await add_project(server, key, "third")
                        await next_of(subscription, "project.created", "third")
                        break
                await asyncio.sleep(0.1)
        renewed = await tidelog("nats", "grant", tenant, "--renew", "--json")
        with pytest.raises(NatsRefused):
            await probe(url, security=NatsSecurity(), timeout=ANSWER_S)
        async with subscribed(renewed["url"], renewed) as (client, _):
            assert "no user on NATS any more" in await tidelog("nats", "revoke", tenant)

            async def cut() -> bool:
                return not client.is_connected

            await eventually(cut, "the end of the connection")
        with pytest.raises(NatsRefused):
            await probe(renewed["url"], security=NatsSecurity(), timeout=ANSWER_S)
        await work(server)
        assert "fan-out" in await tidelog("nats", "list")
        embedded = json.loads((server.folder / "data" / "server.json").read_text())["embedded"]
        assert violations(Path(embedded["home"]) / "logs" / "nats.log") == [], "the server keeps within its rights"
        for secret in (url, renewed["url"]):
            assert secret.split(":")[2].partition("@")[0] not in server.output()


async def test_without_the_fan_out_the_command_says_so(agents: Path) -> None:
    async with running_server(agents) as server:
        tidelog = tidelog_at(server, {})
        [tenant, *_] = await tidelog("tenants", "list", "--json")
        refused = await tidelog("nats", "grant", tenant["tenant_id"], exit_code=1)
        assert "start the server with TIDELOG_FANOUT=true" in refused
        assert await server.stop() == 0
        assert "start it (tidelog up)" in await tidelog("nats", "grant", tenant["tenant_id"], exit_code=2)


async def test_a_nats_of_ones_own_with_the_file_of_accounts(agents: Path, tmp_path: Path, database_url: str) -> None:
    """The file as the command writes it gives a server that works all that it needs."""
    file, configuration = tmp_path / "tidelog.conf", tmp_path / "nats.conf"
    database = {"TIDELOG_DATABASE_URL": database_url}
    made = await asyncio.to_thread(command, "nats", "config", file, cwd=tmp_path, **database)
    assert made.returncode == 0 and file.stat().st_mode & 0o777 == 0o600, made.stderr
    configuration.write_text('include "tidelog.conf"\n')
    password = passwords_in(json.loads(file.read_text()))[SERVER_USER]
    async with running_nats(tmp_path, configuration) as nats:
        own = {**database, "TIDELOG_FANOUT": "true"}
        own["TIDELOG_NATS_URL"] = nats.url.replace("nats://", f"nats://{SERVER_USER}:{password}@")
        async with running_server(agents, environment=own) as server:
            tidelog = tidelog_at(server, own)
            await work(server)
            [tenant] = [one["tenant_id"] for one in await tidelog("tenants", "list", "--json")]
            assert "--file" in await tidelog("nats", "grant", tenant, exit_code=2)
            granted = await tidelog("nats", "grant", tenant, "--file", str(file), "--json")
            assert granted["new"] and granted["consumer_missing"] is None
            await add_project(server, server.key, "first")

            async def let_in() -> dict[str, Any] | None:
                nats.send(signal.SIGHUP)
                await asyncio.sleep(0.05)
                with contextlib.suppress(Exception):
                    async with subscribed(granted["url"], granted) as (_, subscription):
                        return await next_of(subscription, "project.created", "first")
                return None

            await eventually(let_in, "the event", 60)
            await work(server)
            doctor = await tidelog("doctor", "--json")
            looked_at = {finding["subject"]: finding["status"] for finding in doctor["findings"]}
            assert (looked_at["streams"], looked_at["NATS users"]) == ("ok", "ok"), doctor["findings"]
            assert "has no user on NATS any more" in await tidelog("nats", "revoke", tenant, "--file", str(file))
        assert violations(tmp_path / "log") == [], "the server keeps within its rights"
    assert f"tenant-{tenant}" not in file.read_text()
