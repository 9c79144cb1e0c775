"""For tests that break one part at a time around a whole server in this process: wires, load, checks of the final state.

TIDELOG_CHAOS_SEED     the order and the moments of the faults (default: a new one each time, printed)
TIDELOG_CHAOS_KILLS    set: the long form with more rounds of everything (`make chaos` sets the variable)
"""

import asyncio
import os
import random
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

import httpx2
import psycopg

from application.engine.background import end
from domain.errors import Unavailable
from domain.projects import CreateProject
from tests.chaos.checker import check_snapshot
from tests.chaos.checks.snapshot import Violation, read_snapshot
from tests.integration.nats_kit import eventually, new_id
from tests.integration.system_kit import PATIENCE_S, System, issue_key, request_of
from tests.integration.system_kit import running as running_system
from tests.integration.wire_kit import NatsWire, Wire, nats_wired, wired
from tests.pace import Deadline, within

__all__ = ["Callers", "Rig", "eventually", "rigged", "rounds", "running", "seeded"]

LONG = bool(os.environ.get("TIDELOG_CHAOS_KILLS"))
RECOVERY_S = 20.0


def rounds(short: int, long: int) -> int:
    """The number of rounds: `short` in `make test`, `long` in `make chaos`."""
    return long if LONG else short


def seeded() -> random.Random:
    """The random numbers of one test. The seed is printed, and can be set."""
    seed = int(os.environ.get("TIDELOG_CHAOS_SEED") or random.SystemRandom().randrange(10**6))
    print(f"TIDELOG_CHAOS_SEED={seed}")
    return random.Random(seed)


@dataclass
class Callers:
    """Callers that create projects and start runs, each again under the same id until it is answered."""

    system: System
    asked: set[UUID] = field(default_factory=set)
    told: dict[UUID, int] = field(default_factory=dict)
    runs: set[str] = field(default_factory=set)

    async def projects(self, count: int, at_once: int = 8) -> None:
        gate = asyncio.Semaphore(at_once)

        async def one() -> None:
            async with gate:
                await self.project()

        await asyncio.gather(*(one() for _ in range(count)))

    async def project(self) -> None:
        command_id, command = new_id(), CreateProject(project_id=new_id(), name="p")
        self.asked.add(command_id)
        async with within(RECOVERY_S):
            while True:
                try:
                    outcome = await self.system.container.commands.execute(request_of(command_id=command_id), command)
                except Unavailable:
                    await asyncio.sleep(0.05)
                    continue
                self.told[command_id] = outcome.position
                return

    async def run(self) -> None:
        """Starts a run of an agent that no worker plays: the sagas request the run's work once.

        The caller chooses the run's id. An idempotency key would work as well.
        """
        run_id = str(new_id())
        async with within(RECOVERY_S):
            while True:
                try:
                    answer = await self.system.http.post("/v1/runs", json={"agent": "alpha", "run_id": run_id})
                except httpx2.TransportError:
                    continue
                if answer.status_code == 201:
                    self.runs.add(run_id)
                    return
                assert answer.json().get("retryable"), answer.text
                await asyncio.sleep(0.05)

    async def until(self, stop: asyncio.Event, pause_s: float = 0.01) -> None:
        """Runs load of both kinds until `stop`."""
        while not stop.is_set():
            await asyncio.gather(self.project(), self.project(), self.project(), self.run())
            await asyncio.sleep(pause_s)


@dataclass
class Rig:
    """A whole server behind wires."""

    system: System
    callers: Callers
    database: Wire
    nats: NatsWire
    database_url: str
    nats_url: str

    async def violations(self) -> list[Violation]:
        """The violations of the final state, read past the wires."""
        snapshot = await read_snapshot(self.database_url)
        found = await check_snapshot(snapshot, self.nats_url, settled=False, caught_up=True, told=self.callers.told)
        for run_id in self.callers.runs:
            requested = [e for e in snapshot.events if e.topic == "agent_run.requested" and e.root_id == UUID(run_id)]
            if len(requested) != 1:
                found.append(Violation("work-requested-once", f"run {run_id}", f"{len(requested)} times"))
        return found

    async def whole(self, timeout_s: float = RECOVERY_S) -> None:
        """Waits until the final state is right. Fails with the violations if the state does not become right."""
        deadline = Deadline(timeout_s)
        await self._at_head(deadline)
        while found := await self.violations():
            for task in self.system.tasks.values():
                assert not task.done(), f"{task.get_name()} ended: {task}"
            assert not await deadline.over(), "\n".join(map(str, found[:30]))
            await asyncio.sleep(0.1)

    async def _at_head(self, deadline: Deadline) -> None:
        """Waits until all consumers are at the head of the log. This cheap check takes most of the whole wait."""
        query = "SELECT min(position) = (SELECT position FROM log_head) FROM checkpoint"
        async with await psycopg.AsyncConnection.connect(self.database_url, autocommit=True) as connection:
            while not await deadline.over():
                if await (await connection.execute(query)).fetchone() == (True,):
                    return
                await asyncio.sleep(0.02)

    async def through(self, *faults: Callable[[], Any], pause: Callable[[], float]) -> None:
        """Makes one fault after the other under load. Afterwards the final state must become right without help."""
        stop = asyncio.Event()
        loading = asyncio.create_task(self.callers.until(stop), name="load")
        try:
            for fault in faults:
                await asyncio.sleep(pause())
                await fault()
            await asyncio.sleep(pause())
        finally:
            stop.set()
            await loading
        await self.whole()
        before = len(self.callers.told)
        await self.callers.projects(4)  # the server goes on working
        assert len(self.callers.told) == before + 4
        await self.whole()


@asynccontextmanager
async def running(*loops: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    """Runs loops beside the test. A loop that ends by itself fails the test."""
    tasks = [asyncio.create_task(loop) for loop in loops]
    try:
        yield
        for task in tasks:
            assert not task.done(), f"a loop ended: {task}"
    finally:
        async with within(PATIENCE_S):
            await end(*tasks)


@asynccontextmanager
async def rigged(database_url: str, nats_url: str) -> AsyncIterator[Rig]:
    """A server with all roles, set up, behind a wire to each of its servers."""
    async with (
        wired(database_url) as (database, wired_database),
        nats_wired(nats_url) as (nats, wired_nats),
        running_system(wired_database, wired_nats, read_timeout_s=PATIENCE_S) as system,
    ):
        await issue_key(system)
        await system.worker().register("alpha")
        yield Rig(system, Callers(system), database, nats, database_url, nats_url)
        await database.unmute()
        await nats.unmute()
