"""The server that the tests in a browser look at, with a worker, and runs that show all that a page can show.

The server is a process with all roles on real PostgreSQL and NATS, as `tests/integration/sdk_kit.py` starts it: it keeps its port
when it is killed and started again. Its worker is another process, with the agents of `tests/browser/agents`.
"""

import asyncio
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import UUID

from adapters.embedded import EmbeddedServices
from api.assembly import platform
from tests.integration.sdk_kit import KEY, Server, end_of, event_of, serving, worker_process
from tests.integration.system_kit import eventually, fresh_database
from tidelog import Client
from tidelog.errors import TidelogAPIError
from tidelog.keys import make_key, new_key_id

AGENTS = Path(__file__).parent / "agents"
LONG_STEPS = 1_000
"""Steps of the run `long`: together some 1,000 entries of one journal."""


@dataclass
class Site:
    """The server, and the ways in which a test makes runs for its pages."""

    server: Server
    database_url: str
    client: Client
    """As the owner of the site: the default tenant."""
    key: str = KEY
    _made: dict[str, Any] = field(default_factory=dict)

    @property
    def url(self) -> str:
        return self.server.url

    async def run(self, kind: str) -> str:
        """The id of the run of a kind, a name in `KINDS`. It is made when the first test asks for it, and is for looking only."""
        if kind not in self._made:
            self._made[kind] = asyncio.ensure_future(KINDS[kind](self))
        return str(await self._made[kind])

    async def fresh(self, kind: str) -> str:
        """The same, a new run for this test, which may change it."""
        return await KINDS[kind](self)

    async def start(self, **body: Any) -> str:
        return str((await self.client.start_run(**body)).run_id)

    async def ended(self, **body: Any) -> str:
        """Starts a run, and waits for its end."""
        run_id = (await self.client.start_run(**body)).run_id
        await end_of(self.client, run_id)
        return str(run_id)

    async def until_event(self, type: str, **body: Any) -> str:
        """Starts a run, and waits until an event of this type says that it has come so far."""
        run_id = (await self.client.start_run(**body)).run_id
        await event_of(self.client, run_id, type)
        return str(run_id)

    async def tenant(self, name: str = "another tenant") -> str:
        """Makes another tenant. Returns the key of its owner. The tenant has no worker."""
        made = make_key(new_key_id())
        await platform.create_tenant(self.database_url, new_key_id(), name, made.key_id, made.sha256)
        await self._until_known(made.text)
        return made.text

    async def role(self, role: str) -> str:
        """The key of somebody else in the tenant of the site."""
        issued = await self.client.issue_key(role, role=role)
        await self._until_known(issued.key)
        return issued.key

    async def approval_of(self, run_id: str) -> str:
        """The id of the newest approval that a run waits for, once it is in the list."""

        async def known() -> str:
            async for one in self.client.approvals.list(run_id=UUID(run_id)):
                return str(one.approval_id)
            return ""

        return str(await eventually(known, "the approval in the list"))

    async def _until_known(self, key: str) -> None:
        async with Client(self.url, key, patience_s=0) as client:

            async def known() -> bool:
                try:
                    await client.agents()
                except TidelogAPIError:  # the server does not know the key yet
                    return False
                return True

            await eventually(known, "the new key")


Make = Callable[[Site], Awaitable[str]]


def _ended(**body: Any) -> Make:
    return lambda site: site.ended(**body)


def _until(type: str, **body: Any) -> Make:
    return lambda site: site.until_event(type, **body)


async def _cancelled(site: Site) -> str:
    run_id = await site.until_event("agent_run.wait_started", agent="waiter")
    await site.client.cancel_run(run_id, "nobody needs it any more")
    return run_id


async def _paused(site: Site) -> str:
    run_id = await site.until_event("agent_run.wait_started", agent="waiter")
    await site.client.pause_run(run_id, "the prices look wrong")
    return run_id


async def _fork(site: Site) -> str:
    failed = await site.run("failed")
    fork = await site.client.fork_run(failed, step="breaker", reason="once more")
    await end_of(site.client, fork.run_id)
    return str(fork.run_id)


def step(key: str, agent: str, **more: Any) -> dict[str, Any]:
    return {"key": key, "agent": agent, **more}


GRAPH = {
    "kind": "graph",
    "steps": [
        step("read", "greeter"),
        step("draft", "greeter", after=["read"]),
        step("check", "greeter", after=["read"]),
        step("second-opinion", "rival", after=["read"], on_failure="continue"),
        step("skipped", "greeter", after=["draft"], when="size(input.topic) > 100"),
        step("publish", "greeter", after=["draft", "check", "second-opinion"]),
    ],
}
TALK = {"kind": "graph", "steps": [step("speaker", "speaker"), step("listener", "listener")]}

KINDS: dict[str, Make] = {
    "completed": _ended(agent="greeter", input={"name": "Ada"}, metadata={"customer": "acme"}),
    "failed": _ended(agent="breaker", metadata={"customer": "acme"}),
    "degraded": _ended(plan=GRAPH, input={"topic": "tides"}),
    "approval": _until("approval.requested", agent="secretary", input={"to": "ada@example.org", "page": "news"}),
    "ambiguous": _until("invocation.became_ambiguous", agent="cashier"),
    "family": _ended(agent="parent"),
    "messages": _ended(plan=TALK),
    "waiting": _until("agent_run.wait_started", agent="waiter"),
    "paused": _paused,
    "cancelled": _cancelled,
    "fork": _fork,
    "long": _ended(agent="counter", input={"steps": LONG_STEPS}),
}
"""failed: with a traceback, after a tool that was tried twice. degraded: a plan of six steps, one failed, one skipped. approval: a
call waits for a person. ambiguous: a call of which nobody knows whether it happened. family: two child runs. messages: two agents
that talk. waiting: for the signal `go`. fork: of `failed`. long: a thousand steps."""


@asynccontextmanager
async def running_site(services: EmbeddedServices, folder: Path) -> AsyncIterator[Site]:
    """Runs a server and a worker during the block, on a database of their own. `folder`: for their logs."""
    async with fresh_database(services) as database_url, site_on(database_url, services.nats_url, folder) as site:
        yield site


@asynccontextmanager
async def site_on(database_url: str, nats_url: str, folder: Path) -> AsyncIterator[Site]:
    """The same, on a database that is there."""
    agents = folder / "agents"
    shutil.copytree(AGENTS, agents / "gallery", ignore=shutil.ignore_patterns("__pycache__"))
    async with (
        serving(database_url, nats_url, folder) as server,
        Client(server.url, KEY) as client,
        worker_process(server.url, agents),
    ):
        yield Site(server, database_url, client)
