"""NATS or PostgreSQL is killed and stays away for 1, 25 and 90 seconds. Five seconds after its return all roles are back.

Each role and each worker is a process of its own that nobody starts again, so a role that is back has waited. One worker runs on
the standard event loop, the default, and one on uvloop. An outage is a long wait, so there are two houses: one loses NATS while the
other loses PostgreSQL.
"""

import asyncio
import contextlib
import hashlib
import os
import shutil
import signal
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Literal

import httpx2
import pytest
import pytest_asyncio
from uuid_utils.compat import uuid7

from adapters.embedded import EmbeddedServices
from adapters.postgres.migrate import migrate
from application.engine.background import end
from tests.chaos.faults_kit import LONG
from tests.chaos.fleet import Machine, WorkerMachine
from tests.chaos.server import COMMAND
from tests.chaos.test_fleet import check_outputs
from tests.conftest import reachable_folder
from tests.integration.outage_kit import all_read, caught_up, head
from tests.pace import until
from tests.ports import free_port
from tidelog import Client

pytestmark = pytest.mark.chaos

KEY = "tl_key_of_the_outage_tests"
BACK_S = 5.0
APART_S = 2 * BACK_S
"""Seconds between the outages of the houses, which share the machine: each house comes back while the other one is at rest."""
SETTLE_S = 30.0
PATIENCE_S = 300.0
RUNS = 8
"""The number of runs for each worker during an outage. So little work is left before a new run afterwards."""
LOOPS = ("asyncio", "uvloop")
AGENT = """
from tidelog import Agent, tool

class Echo(Agent):
    name = "{loop}"
    async def execute(self, ctx):
        return await ctx.tool("{loop}.add", number=ctx.input)

@tool("{loop}.add", idempotent=True)
def add(number: int) -> int:
    return number + 1
"""
WORKER_ON_UVLOOP = """
import asyncio, sys, uvloop
from tidelog.worker.__main__ import main
asyncio.set_event_loop_policy(uvloop.EventLoopPolicy())
sys.exit(main())
"""
ON_LOOP = {"asyncio": ("-m", "tidelog.worker"), "uvloop": ("-c", WORKER_ON_UVLOOP)}
CASES = [(seconds, busy) for seconds in (1, 25, 90) for busy in (True, False)] if LONG else [(25, True)]

Name = Literal["nats", "postgres"]


class House:
    """A house: servers of its own, and a process for each role and worker."""

    def __init__(self, services: EmbeddedServices, folder: Path) -> None:
        self.services = services
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        servers = {
            "TIDELOG_DATABASE_URL": services.database_url,
            "TIDELOG_NATS_URL": services.nats_url,
            "TIDELOG_BOOTSTRAP_KEY_SHA256": hashlib.sha256(KEY.encode()).hexdigest(),
            "TIDELOG_PORT": str(port),
            "TIDELOG_FANOUT": "true",
        }
        roles = ("api", "relay", "projector", "saga")
        self.roles = [Machine(role, folder, (str(COMMAND), "serve", "--roles", role), servers) for role in roles]
        self.workers = [self._worker(loop, folder) for loop in LOOPS]

    def _worker(self, loop: str, folder: Path) -> Machine:
        agents = folder / f"agents-{loop}"
        agents.mkdir()
        (agents / "echo.py").write_text(AGENT.format(loop=loop))
        command = (sys.executable, "-P", *ON_LOOP[loop], "--agents", str(agents), "--log-format", "json")
        return WorkerMachine(f"worker-{loop}", folder, command, {"TIDELOG_API_KEY": KEY, "TIDELOG_URL": self.url})

    async def start(self) -> None:
        await asyncio.gather(*(machine.start() for machine in self.roles))
        await asyncio.gather(*(worker.start() for worker in self.workers))

    async def kill(self) -> None:
        for machine in [*self.roles, *self.workers]:
            await machine.kill()

    async def away(self, name: Name, seconds: float) -> None:
        """Kills a server, and starts it again after the seconds. Returns when the server is ready."""
        os.kill(self.services.describe()[name]["pid"], signal.SIGKILL)
        await self.services.wait_exit(name)
        await asyncio.sleep(seconds)
        await self.services.restart(name)


@asynccontextmanager
async def running_house(folder: Path) -> AsyncIterator[House]:
    state = reachable_folder()
    services = EmbeddedServices(state / "state", durable=False)
    await services.start()
    try:
        await migrate(services.database_url)
        house = House(services, folder)
        try:
            await house.start()
            yield house
        finally:
            await house.kill()
    finally:
        await services.stop()
        shutil.rmtree(state)


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def houses(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[dict[Name, House]]:
    """The houses, by the server that each of them loses."""
    async with (
        running_house(tmp_path_factory.mktemp("nats")) as without_nats,
        running_house(tmp_path_factory.mktemp("postgres")) as without_postgres,
    ):
        yield {"nats": without_nats, "postgres": without_postgres}


class Run:
    """A run of one agent. The request to start it is repeated until the server accepts the run."""

    def __init__(self, http: httpx2.AsyncClient, agent: str) -> None:
        self._http = http
        self._id = str(uuid7())
        self._body = {"run_id": self._id, "agent": agent, "input": 1}
        self._acknowledged = False

    async def acknowledged(self) -> bool:
        if not self._acknowledged:
            with contextlib.suppress(httpx2.TransportError):
                answer = await self._http.post("/v1/runs", json=self._body)
                self._acknowledged = answer.status_code == 201
                assert self._acknowledged or answer.json()["retryable"], answer.text
        return self._acknowledged

    async def completed(self) -> bool:
        if await self.acknowledged():
            with contextlib.suppress(httpx2.TransportError):
                answer = await self._http.get(f"/v1/runs/{self._id}")
                if answer.status_code == 200:  # otherwise the read model lacks the run, or cannot be read
                    assert answer.json()["status"] in ("running", "completed"), answer.text
                    return bool(answer.json()["status"] == "completed")
        return False


async def works(http: httpx2.AsyncClient, seconds: float) -> None:
    """Lets each worker do a new run from its start to its end."""
    await asyncio.gather(*(until(Run(http, loop).completed, seconds) for loop in LOOPS))


class Busy:
    """A client that follows all events, and for each worker a run now and then."""

    def __init__(self, house: House, http: httpx2.AsyncClient, *, busy: bool, every_s: float) -> None:
        self._http, self._url, self._every_s = http, house.url, every_s
        self.runs: list[Run] = []
        self._tasks = [asyncio.create_task(self._follow(), name="follower")]
        if busy:
            self._tasks += [asyncio.create_task(self._start(loop), name="load") for loop in LOOPS]

    async def _start(self, agent: str) -> None:
        while True:
            self.runs.append(run := Run(self._http, agent))
            await until(run.acknowledged, PATIENCE_S)
            await asyncio.sleep(self._every_s)

    async def _follow(self) -> None:
        async with Client(self._url, KEY, patience_s=600) as client:
            async for _ in client.events():
                pass

    async def __aenter__(self) -> "Busy":
        return self

    async def __aexit__(self, *_: object) -> None:
        ended = [task for task in self._tasks if task.done()]
        await end(*self._tasks)
        assert not ended, ended

    async def all_completed(self) -> bool:
        return all([await run.completed() for run in self.runs])


@pytest.mark.parametrize(("seconds", "busy"), CASES)
async def test_five_seconds_after_an_outage_everything_is_back(houses: dict[Name, House], seconds: float, busy: bool) -> None:
    async with asyncio.TaskGroup() as outages:
        for number, (away, house) in enumerate(houses.items()):
            outage = back_after_an_outage(house, away, seconds, busy=busy, later_s=number * APART_S)
            outages.create_task(outage, name=f"{away} away")


async def back_after_an_outage(house: House, away: Name, seconds: float, *, busy: bool, later_s: float) -> None:
    headers = {"Authorization": f"Bearer {KEY}"}
    async with httpx2.AsyncClient(base_url=house.url, headers=headers, timeout=15) as http:

        async def each_reads() -> bool:
            return await all_read(house.services.nats_url, len(house.roles))

        async def all_caught_up() -> bool:
            return await caught_up(http, position)

        async with Busy(house, http, busy=busy, every_s=max(seconds / RUNS, 0.5)) as load:
            await works(http, SETTLE_S)
            await until(each_reads, SETTLE_S)
            position = await head(http)
            await asyncio.sleep(later_s)
            await house.away(away, seconds)
            back = time.monotonic()
            await asyncio.gather(works(http, BACK_S), until(all_caught_up, BACK_S), until(each_reads, BACK_S))
            took = time.monotonic() - back
            print(f"{away} away for {seconds} s, {'busy' if busy else 'idle'}: back after {took:.1f} s")
        await until(load.all_completed, SETTLE_S)
    violations = list(check_outputs([*house.roles, *house.workers]))
    assert violations == [], "\n".join(map(str, violations[:20]))
